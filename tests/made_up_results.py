"""Results with liver and lesions at known voxels, on grids of any orientation, for tests of what is written of them."""

import numpy as np
import pydicom
from dicom_files import write_slice

from liverseg.inference import SlabPrediction
from liverseg.inference.lesions import find_lesions

SHAPE = (9, 34, 38)
"""Slices, rows, columns."""
UIDS = {"StudyInstanceUID": "1.2.5", "FrameOfReferenceUID": "1.2.6", "SeriesInstanceUID": "1.2.7"}


def write_series(folder, shape=SHAPE, orientation="1\\0\\0\\0\\1\\0", spacing=(2, 2), step=(0, 0, 3.0), **patient):
    """Write a series of noise with UIDs of its own, 1.2.8.1 and so on for the slices."""
    hu = np.random.default_rng(3).integers(-100, 200, shape).astype(np.int16)
    for number, plane in enumerate(hu):
        path = folder / f"{number}.dcm"
        position = np.round(np.array((-10.25, -20.5, 7.0)) + number * np.array(step), 6)
        write_slice(path, plane, position, orientation=orientation, spacing=spacing)
        header = pydicom.dcmread(path)
        for keyword, value in {**UIDS, "SOPInstanceUID": f"1.2.8.{number + 1}", **patient}.items():
            setattr(header, keyword, value)
        header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
        header.save_as(path)
    return folder


def lesions_of(labels, voxel_ml, **settings):
    """Return the lesion map of a label map in axial order."""
    rows = np.full((np.count_nonzero(labels >= 2), 3), 0.1, np.float32)
    rows[np.arange(len(rows)), labels[labels >= 2] - 2] = 0.8
    return find_lesions(SlabPrediction(labels, rows), voxel_ml, **settings)


def small_result(volume, lesions=True, liver=True, **settings):
    """Return a liver with three lesions, some in parts or with holes, in a volume of `SHAPE`."""
    labels = np.zeros(volume.axial.shape, np.uint8)
    if liver:
        labels[1:8, 3:30, 0:30] = 1
    if lesions:
        labels[2:5, 5:12, 5:14] = 2
        labels[3, 5:12, 8:10] = 1  # in two parts on this slice
        labels[5, 16:26, 12:26] = 3
        labels[5, 18:20, 15:17] = 1  # holes, two in the same rows
        labels[5, 18:21, 20:22] = 1
        labels[5, 22:24, 14:18] = 0
        labels[1:4, 20:24, 0:5] = 4
    return lesions_of(labels, volume.voxel_ml, **settings)
