"""The part of a CT that a report holds: the box around the liver, in 8 bits, downsampled if it is too large."""

from __future__ import annotations

import gzip
import math
from dataclasses import dataclass
from itertools import product

import nibabel as nib
import numpy as np

from liverseg.imageio.boxes import Box, bounding_box, crop_to_box, full_box, pad_box, to_global
from liverseg.imageio.volume import Volume
from liverseg.inference.lesions import LesionMap
from liverseg.inference.output.preview import WINDOW_HU

__all__ = ["MARGIN_MM", "MOST_VOXELS", "ViewerVolume", "ct_nifti", "labels_nifti", "viewer_volume"]

MARGIN_MM = 20.0
"""Our choice: neighbouring organs show which part of the body it is."""

MOST_VOXELS = 10_000_000
"""Our choice: a voxel of a noisy CT takes about 0.9 bytes compressed and in base64, so a page stays below 12 MB."""

_LEVELS = 255


@dataclass(frozen=True)
class ViewerVolume:
    """A part of a CT and its labels on one grid.

    Attributes:
        levels: uint8, shape (slice, row, column); 0 is the window's lower end and 255 its upper end.
        labels: label map, uint8, same shape.
        affine: 4×4, (slice, row, column) index to RAS+ mm.
        factors: how many of the CT's (slices, rows, columns) were averaged to one of these.
        is_full: whether it is all of the CT instead of the part around the liver.
    """

    levels: np.ndarray
    labels: np.ndarray
    affine: np.ndarray
    factors: tuple[int, int, int]
    is_full: bool


def viewer_volume(volume: Volume, lesions: LesionMap, most_voxels: int = MOST_VOXELS) -> ViewerVolume:
    """Crop a CT to its liver and `MARGIN_MM` around it, and window it. Without a liver, all of the CT is kept.

    If it has more than `most_voxels`, blocks of voxels become one voxel with their mean HU and their most frequent
    label, the higher of two that are equally frequent.

    Args:
        volume: the CT, HU.
        lesions: of the volume.
        most_voxels: to keep.
    """
    crop = everything = full_box(lesions.shape)
    box = bounding_box(lesions.inside)
    if box is not None:
        margin = [math.ceil(MARGIN_MM / length) for length in volume.axial_spacing]
        crop = pad_box(to_global(box, lesions.box), margin, lesions.shape)
    hu, labels, is_full = volume.axial[crop], crop_to_box(lesions.inside, lesions.box, crop), crop == everything
    factors = _factors(hu.shape, volume.axial_spacing, most_voxels)
    affine = volume.axial_affine @ _to_voxels(crop, factors)
    if factors == (1, 1, 1):
        return ViewerVolume(_windowed(hu), labels, affine, factors, is_full)
    # slice by slice: a volume that is too large should not be copied as floating point
    count = hu.shape[0] // factors[0]
    levels = [_windowed(_mean(_blocks(hu, index, factors))) for index in range(count)]
    voted = [_most_frequent(_blocks(labels, index, factors)) for index in range(count)]
    return ViewerVolume(np.stack(levels), np.stack(voted), affine, factors, is_full)


def ct_nifti(shown: ViewerVolume) -> bytes:
    """Return the CT as gzipped NIfTI in RAS+ order; its scaling turns the 8 bits back to HU within the window."""
    low, high = WINDOW_HU
    image = _image(shown.levels, shown.affine)
    image.header.set_slope_inter((high - low) / _LEVELS, low)
    image.header["cal_min"], image.header["cal_max"] = low, high
    return _compress(image)


def labels_nifti(shown: ViewerVolume) -> bytes:
    """Return the label map as gzipped NIfTI in RAS+ order."""
    image = _image(shown.labels, shown.affine)
    image.header.set_slope_inter(1, 0)
    image.header.set_intent("label")
    return _compress(image)


def _factors(shape: tuple[int, ...], spacing: tuple[float, float, float], most_voxels: int) -> tuple[int, int, int]:
    """Return integer factors that reduce a shape to at most `most_voxels`: in-plane, or along finer slices first."""
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
    """Return a 4×4 matrix from an index of the downsampled crop to the CT index at the middle of its block."""
    matrix = np.diag([*map(float, factors), 1.0])
    matrix[:3, 3] = [side.start + (factor - 1) / 2 for side, factor in zip(crop, factors, strict=True)]
    return matrix


def _blocks(array: np.ndarray, index: int, factors: tuple[int, int, int]) -> np.ndarray:
    """Return the blocks of a downsampled slice: (slices, rows, rows of a block, columns, columns of a block)."""
    slices, row, column = factors
    rows, columns = array.shape[1] // row, array.shape[2] // column
    part = array[index * slices : (index + 1) * slices, : rows * row, : columns * column]
    return part.reshape(slices, rows, row, columns, column)


def _mean(blocks: np.ndarray) -> np.ndarray:
    return blocks.mean(axis=(0, 2, 4), dtype=np.float32)


def _most_frequent(blocks: np.ndarray) -> np.ndarray:
    slices, rows, row, columns, column = blocks.shape
    most, winner = np.zeros((rows, columns), np.intp), np.zeros((rows, columns), np.uint8)
    for label in np.unique(blocks):
        votes = np.zeros_like(most)
        for z, y, x in product(range(slices), range(row), range(column)):
            votes += blocks[z, :, y, :, x] == label
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


def _compress(image: nib.Nifti1Image) -> bytes:
    # without a time, so that the same case gives the same page
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)
