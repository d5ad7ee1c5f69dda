"""What of a CT goes into a page: the box around the liver, in 8 bits, coarser where it is still too large."""

from __future__ import annotations

import gzip
import math
from dataclasses import dataclass

import nibabel as nib
import numpy as np

from liverseg.imageio.boxes import Box, bounding_box, crop_to_box, full_box, pad_box, to_global
from liverseg.imageio.volume import Volume
from liverseg.inference.lesions import LesionMap
from liverseg.inference.output.preview import WINDOW_HU

__all__ = ["MARGIN_MM", "MOST_VOXELS", "ViewerVolume", "ct_nifti", "labels_nifti", "viewer_volume"]

MARGIN_MM = 20.0
"""Our choice: what lies next to the liver tells where one is."""

MOST_VOXELS = 10_000_000
"""Our choice: packed and in base64 a voxel of a noisy CT takes about 0.9 bytes, which keeps a page below 12 MB."""

_LEVELS = 255


@dataclass(frozen=True)
class ViewerVolume:
    """A part of a CT with its labels, on one grid.

    Attributes:
        levels: uint8, shape (slice, row, column), the window's lower end 0 and its upper end 255.
        labels: label map, uint8, same shape.
        affine: 4×4, (slice, row, column) index to RAS+ mm.
        factors: how many of the CT's (slices, rows, columns) are one of these.
        whole: it is all of the CT, not the part around the liver.
    """

    levels: np.ndarray
    labels: np.ndarray
    affine: np.ndarray
    factors: tuple[int, int, int]
    whole: bool


def viewer_volume(volume: Volume, lesions: LesionMap, most_voxels: int = MOST_VOXELS) -> ViewerVolume:
    """Crop a CT to its liver and `MARGIN_MM` around it, all of it where no liver was found, and window it.

    Above `most_voxels` whole blocks of voxels become one: the mean of their HU, and the label most of them have, the
    higher one where two are as many.

    Args:
        volume: the CT, HU.
        lesions: of the volume.
        most_voxels: that are kept.
    """
    crop = everything = full_box(lesions.shape)
    box = bounding_box(lesions.inside)
    if box is not None:
        margin = [math.ceil(MARGIN_MM / length) for length in volume.axial_spacing]
        crop = pad_box(to_global(box, lesions.box), margin, lesions.shape)
    hu, labels, whole = volume.axial[crop], crop_to_box(lesions.inside, lesions.box, crop), crop == everything
    factors = _factors(hu.shape, volume.axial_spacing, most_voxels)
    affine = volume.axial_affine @ _to_voxels(crop, factors)
    if factors == (1, 1, 1):
        return ViewerVolume(_windowed(hu), labels, affine, factors, whole)
    # slice by slice: a volume that has to be made smaller is one that should not be copied as floating point
    count = hu.shape[0] // factors[0]
    levels = [_windowed(_mean(_blocks(hu, index, factors))) for index in range(count)]
    voted = [_most_frequent(_blocks(labels, index, factors)) for index in range(count)]
    return ViewerVolume(np.stack(levels), np.stack(voted), affine, factors, whole)


def ct_nifti(shown: ViewerVolume) -> bytes:
    """The CT as gzipped NIfTI in RAS+ order; its scaling turns the 8 bits back to HU within the window."""
    low, high = WINDOW_HU
    image = _image(shown.levels, shown.affine)
    image.header.set_slope_inter((high - low) / _LEVELS, low)
    image.header["cal_min"], image.header["cal_max"] = low, high
    return _packed(image)


def labels_nifti(shown: ViewerVolume) -> bytes:
    """The label map as gzipped NIfTI in RAS+ order."""
    image = _image(shown.labels, shown.affine)
    image.header.set_slope_inter(1, 0)
    image.header.set_intent("label")
    return _packed(image)


def _factors(shape: tuple[int, ...], spacing: tuple[float, float, float], most_voxels: int) -> tuple[int, int, int]:
    """Whole factors that bring a shape down to so many voxels: in-plane, or along the slices where those are finer."""
    across, in_plane = 1, 1
    while True:
        factors = (min(across, shape[0]), min(in_plane, shape[1]), min(in_plane, shape[2]))
        smaller = math.prod(size // factor for size, factor in zip(shape, factors, strict=True))
        if smaller <= max(1, most_voxels):
            return factors
        exhausted = in_plane >= max(shape[1:])
        if exhausted or (across < shape[0] and spacing[0] * across < min(spacing[1:]) * in_plane):
            across += 1
        else:
            in_plane += 1


def _to_voxels(crop: Box, factors: tuple[int, int, int]) -> np.ndarray:
    """4×4, from an index of the crop made smaller to the index of the CT at the middle of its block."""
    matrix = np.diag([*map(float, factors), 1.0])
    matrix[:3, 3] = [side.start + (factor - 1) / 2 for side, factor in zip(crop, factors, strict=True)]
    return matrix


def _blocks(array: np.ndarray, index: int, factors: tuple[int, int, int]) -> np.ndarray:
    """The blocks of one slice to be, shape (slices, rows, rows of a block, columns, columns of a block)."""
    slices, row, column = factors
    rows, columns = array.shape[1] // row, array.shape[2] // column
    part = array[index * slices : (index + 1) * slices, : rows * row, : columns * column]
    return part.reshape(slices, rows, row, columns, column)


def _mean(blocks: np.ndarray) -> np.ndarray:
    return blocks.mean(axis=(0, 2, 4), dtype=np.float32)


def _most_frequent(blocks: np.ndarray) -> np.ndarray:
    shape = (blocks.shape[1], blocks.shape[3])
    most, winner = np.zeros(shape, np.intp), np.zeros(shape, np.uint8)
    for label in np.unique(blocks):
        votes = np.count_nonzero(blocks == label, axis=(0, 2, 4))
        winner[votes >= most] = label
        most = np.maximum(most, votes)
    return winner


def _windowed(hu: np.ndarray) -> np.ndarray:
    low, high = WINDOW_HU
    levels = np.clip(hu, low, high).astype(np.float32)
    return np.rint((levels - low) * (_LEVELS / (high - low))).astype(np.uint8)


def _image(array: np.ndarray, affine: np.ndarray) -> nib.Nifti1Image:
    # RAS+ order, so that no viewer has to turn it
    image = nib.as_closest_canonical(nib.Nifti1Image(array, affine))
    image.header.set_xyzt_units("mm")
    return image


def _packed(image: nib.Nifti1Image) -> bytes:
    # no time in it: the same case gives the same page
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)
