"""Inputs of the batches (weights of a small network, small CTs) and the journal of a campaign."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

__all__ = ["Journal", "body", "write_ct", "write_ct_series", "write_weights"]

SHAPES = ((32, 40, 4), (64, 64, 10), (48, 40, 6), (40, 56, 8))
_AFFINE = np.diag([-2.0, -2.0, 4.0, 1.0])


class Journal:
    """Journal of a campaign: lines of JSON in FOLDER/soak.jsonl, to which later runs append."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "soak.jsonl"
        self._lock = threading.Lock()

    def add(self, kind: str, **fields: Any) -> None:
        """Append a line."""
        line = (json.dumps({"kind": kind, **fields}, default=str) + "\n").encode()
        with self._lock, self.path.open("ab", buffering=0) as file:
            file.write(line)

    def lines(self, kind: str) -> Iterator[dict[str, Any]]:
        """Yield the lines of a kind."""
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                if entry["kind"] == kind:
                    yield entry

    def of_complete_rounds(self, kind: str) -> list[dict[str, Any]]:
        """Return the kills of rounds that ended and were checked; other rounds were interrupted."""
        complete = {line["name"] for line in self.lines("round")}
        return [line for line in self.lines(kind) if line["round"] in complete]


def body(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return HU of an ellipse of soft tissue with blobs, in air: int16 of (column, row, slice)."""
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*(np.linspace(-1, 1, length) for length in shape), indexing="ij")
    hu = np.full(shape, -1000.0)
    inside = (grid[0] / 0.9) ** 2 + (grid[1] / 0.8) ** 2 < 1
    hu[inside] = 60
    for _ in range(6):
        centre, radius = rng.uniform(-0.6, 0.6, 3), rng.uniform(0.1, 0.4)
        squared_distance = sum((axis - middle) ** 2 for axis, middle in zip(grid, centre, strict=True))
        hu[inside & (squared_distance < radius**2)] = rng.uniform(-80, 250)
    return (hu + rng.normal(0, 15, shape)).round().clip(-1024, 3000).astype(np.int16)


def write_ct(path: Path, seed: int, affine: np.ndarray | None = None, shape: tuple[int, ...] | None = None) -> Path:
    """Write a small CT as NIfTI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hu = body(seed, shape or SHAPES[seed % len(SHAPES)])
    nib.save(nib.Nifti1Image(hu, _AFFINE if affine is None else affine), os.fspath(path))
    return path


def write_ct_series(folder: Path, seed: int, slices: int = 5, **tags: Any) -> Path:
    """Write a small CT as a folder of DICOM slices; `tags` replace or add attributes by keyword."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    folder.mkdir(parents=True, exist_ok=True)
    hu = body(seed, (40, 32, slices))
    for number in range(slices):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = f"1.2.3.{seed}.{number + 1}"
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        pixels = (hu[:, :, number].T.astype(np.int32) + 1024).clip(0, 4095).astype(np.uint16)
        values = {
            "SOPClassUID": CTImageStorage,
            "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
            "Modality": "CT",
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
            "PatientID": f"P{seed}",
            "PatientName": "Doe^Jane",
            "StudyInstanceUID": f"1.2.3.{seed}.0",
            "SeriesInstanceUID": f"1.2.3.{seed}",
            "SeriesDescription": "portal",
            "FrameOfReferenceUID": f"1.2.3.{seed}.9",
            "InstanceNumber": number + 1,
            "ImagePositionPatient": [0.0, 0.0, 2.5 * number],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "PixelSpacing": [0.8, 0.7],
            "SliceThickness": 2.5,
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "Rows": pixels.shape[0],
            "Columns": pixels.shape[1],
            "BitsAllocated": 16,
            "BitsStored": 16,
            "HighBit": 15,
            "PixelRepresentation": 0,
            "RescaleIntercept": -1024,
            "RescaleSlope": 1,
            **tags,
        }
        with pydicom.config.disable_value_validation():
            for name, value in values.items():
                if value is not None:
                    setattr(dataset, name, value)
            dataset.PixelData = pixels.tobytes()
            dataset.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return folder


def write_weights(path: Path) -> Path:
    """Write random weights of the small joint network, the same each time."""
    if path.exists():
        return path
    import torch

    from liverseg.labels import JOINT_LABELS, label_names
    from liverseg.networks import SEResUNet, SlabInput, WeightsRecord, export_weights, package_versions

    torch.manual_seed(2)
    network = SEResUNet("small", out_channels=5)
    labels, window = label_names(JOINT_LABELS), SlabInput((-200.0, 250.0))
    fields = ("SEResUNet", network.arguments(), window, labels, "none", "ab" * 32, 0, {}, package_versions())
    path.parent.mkdir(parents=True, exist_ok=True)
    export_weights(path, network.state_dict(), WeightsRecord(*fields))
    return path
