"""Seconds to write DICOM SEG, DICOM SR and the report page of a CT with 100 lesions: medians of five.

python benchmarks/report_speed.py [CHECKOUT ...]

The CT is a phantom of 512 x 512 x 195 as a DICOM series, whose liver has 100 balls of three types on a lattice. With
checkouts, each round runs in a process with the code of each of them in turn, so that they share the machine's noise.
Imports, the search for the lesions and the pictures on the page are not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

ROUNDS = 5
LESIONS = 100
RADIUS_MM = 4.5
SPACING_MM = 14.0
WEIGHTS = "ab" * 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkouts", type=Path, nargs="*", default=[Path()])
    parser.add_argument("--once", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        print(json.dumps(_write(options.once)))
        return
    seconds: dict[tuple[str, Path], list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        _make(Path(scratch))
        for _ in range(ROUNDS):
            for checkout in options.checkouts:
                environment = {**os.environ, "PYTHONPATH": str(checkout.resolve())}
                words = [sys.executable, str(Path(__file__).resolve()), "--once", scratch]
                done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, check=True)
                for name, took in json.loads(done.stdout.splitlines()[-1]).items():
                    seconds.setdefault((name, checkout), []).append(took)
    for (name, checkout), values in seconds.items():
        print(f"{name} {checkout}: {median(values):.2f} s ({min(values):.2f} to {max(values):.2f})")


def _make(folder: Path) -> None:
    """Write a series of a phantom, `ct/`, and its labels with the balls, (slice, row, column)."""
    from liverseg.phantom.patient import Coverage, make_phantom

    phantom = make_phantom(np.random.SeedSequence(0), matrix=512, coverage=Coverage.ABDOMEN, main_type="cyst")
    hu, liver = (array.transpose(2, 1, 0) for array in (phantom.image, phantom.label > 0))
    column, row, thickness = np.abs(np.diag(phantom.affine)[:3])
    corner = -phantom.affine[0, 3], -phantom.affine[1, 3], phantom.affine[2, 3]
    labels = liver.astype(np.uint8)
    axes = [np.arange(n) * mm for n, mm in zip(labels.shape, (thickness, row, column), strict=True)]
    lattice = np.stack(np.meshgrid(*(np.arange(0, axis[-1], SPACING_MM) for axis in axes), indexing="ij"), -1)
    count = 0
    for centre in lattice.reshape(-1, 3):
        near = [np.flatnonzero(np.abs(axis - c) < RADIUS_MM + 1) for axis, c in zip(axes, centre, strict=True)]
        box = tuple(slice(index[0], index[-1] + 1) for index in near)
        offsets = [(axis[side] - c) ** 2 for axis, side, c in zip(axes, box, centre, strict=True)]
        ball = offsets[0][:, None, None] + offsets[1][:, None] + offsets[2] < RADIUS_MM**2
        if count < LESIONS and liver[box].all():
            labels[box][ball] = 2 + count % 3
            count += 1
    if count < LESIONS:
        raise SystemExit(f"the liver has space for {count} lesions, {LESIONS} are needed")
    np.save(folder / "labels.npy", labels)
    (folder / "ct").mkdir()
    for number, plane in enumerate(hu):
        position = [round(float(mm), 4) for mm in (corner[0], corner[1], corner[2] + number * thickness)]
        spacing = [round(float(mm), 6) for mm in (row, column)]
        _write_slice(folder / "ct" / f"{number:03d}.dcm", plane, number, position, spacing, float(thickness))


def _write_slice(
    path: Path, hu: np.ndarray, number: int, position: list[float], spacing: list[float], thickness: float
) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    slice_ = Dataset()
    slice_.SOPClassUID, slice_.SOPInstanceUID = CTImageStorage, f"1.2.8.{number + 1}"
    slice_.StudyInstanceUID, slice_.SeriesInstanceUID, slice_.FrameOfReferenceUID = "1.2.5", "1.2.7", "1.2.6"
    slice_.Modality, slice_.PatientID, slice_.PatientName = "CT", "4711", "Doe^Jane"
    slice_.StudyDate, slice_.StudyTime, slice_.StudyID, slice_.AccessionNumber = "20200405", "101112", "7", "A1"
    slice_.PatientBirthDate, slice_.PatientSex, slice_.ReferringPhysicianName = "19610203", "F", ""
    slice_.SeriesDescription, slice_.SeriesNumber, slice_.InstanceNumber = "portal", 1, number + 1
    slice_.ImageOrientationPatient, slice_.ImagePositionPatient = [1, 0, 0, 0, 1, 0], position
    slice_.PixelSpacing, slice_.SliceThickness = spacing, thickness
    slice_.Rows, slice_.Columns, slice_.SamplesPerPixel = *hu.shape, 1
    slice_.PhotometricInterpretation, slice_.PixelRepresentation = "MONOCHROME2", 1
    slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit = 16, 16, 15
    slice_.RescaleIntercept, slice_.RescaleSlope, slice_.RescaleType = 0, 1, "HU"
    slice_.PixelData = np.ascontiguousarray(hu, dtype="<i2").tobytes()
    slice_.file_meta = FileMetaDataset()
    slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    slice_.save_as(path, enforce_file_format=True)


def _write(folder: Path) -> dict[str, float]:
    """Write each file; return the seconds that each took."""
    from liverseg.imageio.dicom_select import choose_series, read_dicom_volume
    from liverseg.inference import SlabPrediction
    from liverseg.inference.lesions import find_lesions
    from liverseg.inference.measurements import lesion_table
    from liverseg.inference.output.dicom_common import series_reference
    from liverseg.inference.output.dicom_seg import write_dicom_seg
    from liverseg.inference.output.dicom_sr import write_measurement_report
    from liverseg.inference.output.preview import draw_preview
    from liverseg.inference.output.report import write_report
    from liverseg.labels import result_labels

    names = result_labels(5)
    series = choose_series(folder / "ct")
    volume = read_dicom_volume(series)
    reference = series_reference(series, volume, False)
    labels = np.load(folder / "labels.npy")
    types = labels[labels >= 2] - 2
    probabilities = np.full((len(types), 3), 0.1, np.float32)
    probabilities[np.arange(len(types)), types] = 0.8
    lesions = find_lesions(SlabPrediction(labels, probabilities), volume.voxel_ml)
    table = lesion_table(lesions, volume, names)
    if len(table) != LESIONS:
        raise SystemExit(f"{len(table)} lesions were found, {LESIONS} are expected")
    picture = draw_preview("ct", volume, lesions, table, names)
    steps: dict[str, Callable[[], object]] = {
        "SEG": lambda: write_dicom_seg(folder / "seg.dcm", reference, volume, lesions, names, WEIGHTS),
        "SR": lambda: write_measurement_report(folder / "sr.dcm", reference, volume, lesions, table, names, WEIGHTS),
        "page": lambda: write_report(folder / "page.html", "ct", volume, lesions, table, names, picture, {}, []),
    }
    seconds = {}
    for name, step in steps.items():
        start = time.monotonic()
        step()
        seconds[name] = time.monotonic() - start
    return seconds


if __name__ == "__main__":
    main()
