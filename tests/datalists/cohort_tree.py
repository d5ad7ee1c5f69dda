"""Cohorts for tests: images, masks and tables in all formats that the importer reads."""

import nibabel as nib
import numpy as np
from dicom_files import write_slice
from PIL import Image

AFFINE = np.array([[-0.7, 0, 0, 90], [0, -0.8, 0, 60], [0, 0, 2.5, -40], [0, 0, 0, 1.0]])
"""Affine of `series`: 0.7 mm columns to the left, 0.8 mm rows to the back, 2.5 mm slices upwards."""
SHAPE = (11, 9, 5)
"""Columns, rows, slices."""


def nifti(path, array, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(array), affine), path)


def image(root, name="ct.nii.gz", shape=SHAPE, affine=AFFINE):
    nifti(root / name, np.arange(np.prod(shape), dtype=np.int16).reshape(shape), affine)


def mask(values=(1,), shape=SHAPE, slices=(2,)):
    """Return a uint8 array with an asymmetric block of each value in each of the slices."""
    array = np.zeros(shape, np.uint8)
    for number, value in enumerate(values):
        array[2 + 2 * number : 4 + 2 * number, 1 + number : 5, list(slices)] = value
    return array


def series(folder, numbers=range(SHAPE[2])):
    """Write a CT series on the grid of `AFFINE`, one file per slice."""
    for number in numbers:
        pixels = np.arange(SHAPE[0] * SHAPE[1], dtype=np.int16).reshape(SHAPE[1], SHAPE[0]) + number
        write_slice(folder / f"{number:02d}.dcm", pixels, (-90, -60, -40 + 2.5 * number))


def png(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels)).save(path)


def table(root, *rows, header="patient,image,mask,slice,lesion_type", name="slices.csv"):
    (root / name).write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return root


def label(root, item):
    """Return an item's label map and its affine."""
    loaded = nib.load(root / item.label)
    return np.asarray(loaded.dataobj), loaded.affine


def segmentation(path, folder, segments, kind="BINARY", numbers=None, fractional="PROBABILITY"):
    """Write a DICOM SEG of a series with a label and an array, (column, row, slice) as `SHAPE`, for each segment.

    The arrays are boolean, or shares from 0 to 1 for the kind FRACTIONAL. Numbers other than 1, 2, 3, ... are only for
    the kind LABELMAP.
    """
    import highdicom
    import pydicom
    from pydicom.sr.codedict import codes

    sources = [pydicom.dcmread(dataset) for dataset in sorted(folder.iterdir())]
    for dataset in sources:
        dataset.FrameOfReferenceUID = dataset.StudyInstanceUID = "1.2.4"
        dataset.PatientID = dataset.StudyID = dataset.AccessionNumber = "1"
        dataset.PatientName = dataset.PatientBirthDate = dataset.PatientSex = dataset.StudyDate = dataset.StudyTime = ""
    numbers = numbers or [*range(1, len(segments) + 1)]
    descriptions = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Lesion,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, (name, _) in zip(numbers, segments, strict=True)
    ]
    pixels = np.stack([array.transpose(2, 1, 0) for _, array in segments], axis=-1)
    if kind == "LABELMAP":
        pixels = (pixels * np.array(numbers)).max(axis=-1)
    highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=pixels.astype(float if kind == "FRACTIONAL" else np.uint16),
        segmentation_type=kind,
        fractional_type=fractional,
        segment_descriptions=descriptions,
        series_instance_uid="1.2.5",
        series_number=2,
        sop_instance_uid="1.2.6",
        instance_number=1,
        manufacturer="none",
        manufacturer_model_name="none",
        software_versions="1",
        device_serial_number="1",
    ).save_as(path)
