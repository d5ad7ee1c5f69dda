"""Small patients in the layout of 3D-IRCADb-01."""

import numpy as np
from dicom_files import write_slice

SHAPE = (4, 6, 5)
"""Slices, rows and columns."""

TUMOUR, CYST = np.s_[1:2, 2:4, 2:3], np.s_[2:3, 1:2, 1:2]
WHERE = {"livert": TUMOUR, "liverc": CYST, "liverk": CYST, "liver": np.s_[1:3, 1:5, 1:4]}
"""Voxels of a structure by the start of its name, as (slice, row, column)."""


def image(number):
    """(slice, row, column) HU."""
    return np.random.default_rng(number).integers(-1000, 1000, SHAPE).astype(np.int16)


def write_volume(folder, volume, shift=0.0, **settings):
    """Write slices with names as in 3D-IRCADb: no ending, here numbered from the head down."""
    for number, plane in enumerate(volume):
        write_slice(folder / f"image_{len(volume) - 1 - number}", plane, (shift, 0, 1.6 * number), **settings)


def structure(name, where=None):
    """Return a 0/255 mask of a structure, empty for structures outside the liver."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[where or next((WHERE[start] for start in WHERE if name.lower().startswith(start)), np.s_[:0])] = 255
    return mask


def patient(root, number, *structures, modality="CT"):
    """Write a patient with a liver and other structures."""
    folder = root / f"3Dircadb1.{number}"
    write_volume(folder / "PATIENT_DICOM", image(number))
    for name in ("liver", "skin", *structures):
        write_volume(folder / "MASKS_DICOM" / name, structure(name), modality=modality)
    (folder / "MESHES_VTK").mkdir()
    return folder
