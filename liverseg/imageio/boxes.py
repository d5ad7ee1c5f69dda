"""Boxes in a volume. Most of a label map is 0, and work on the box around the rest is cheaper."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = [
    "Box",
    "bounding_box",
    "box_shape",
    "crop_to_box",
    "embed",
    "extent",
    "full_box",
    "pad_box",
    "to_global",
    "to_local",
]

Box = tuple[slice, slice, slice]
"""A slice for each axis, with start and stop within the volume."""


def bounding_box(array: np.ndarray) -> Box | None:
    """Return the smallest box that holds every voxel that is not 0, or None if all are 0.

    Args:
        array: 3-D, of any type; every order of axes in memory is equally fast.
    """
    # contiguous slices first: those that are 0 throughout are read once
    order = np.argsort(np.abs(array.strides))[::-1]
    slices = array.transpose(order)
    filled = np.any(slices, axis=(1, 2))
    if not filled.any():
        return None
    plane = np.any(slices[extent(filled)], axis=0)
    sides = (extent(filled), extent(np.any(plane, axis=1)), extent(np.any(plane, axis=0)))
    first, second, third = (sides[place] for place in np.argsort(order))
    return first, second, third


def full_box(shape: Sequence[int]) -> Box:
    """Return the box that holds a complete volume."""
    first, second, third = (slice(0, int(length)) for length in shape)
    return first, second, third


def box_shape(box: Box) -> tuple[int, int, int]:
    """Return the number of voxels along each axis of a box."""
    first, second, third = (side.stop - side.start for side in box)
    return first, second, third


def pad_box(box: Box, margin: int | Sequence[int], shape: Sequence[int]) -> Box:
    """Return a box enlarged by a margin at both ends of each axis, clipped to the volume.

    Args:
        box: the box.
        margin: number of voxels, for all axes or for each.
        shape: of the volume.
    """
    margins = [margin] * 3 if isinstance(margin, int) else margin
    first, second, third = (
        slice(max(0, side.start - more), min(int(length), side.stop + more))
        for side, more, length in zip(box, margins, shape, strict=True)
    )
    return first, second, third


def embed(inside: np.ndarray, box: Box, shape: Sequence[int]) -> np.ndarray:
    """Return a volume that holds an array in its box and 0 elsewhere."""
    return crop_to_box(inside, box, full_box(shape))


def crop_to_box(inside: np.ndarray, box: Box, target: Box) -> np.ndarray:
    """Return the part of an array that is in a box of the volume, as a new array; 0 outside the array.

    Args:
        inside: the array.
        box: of the array in the volume.
        target: box of the result in the volume.
    """
    part = np.zeros(box_shape(target), inside.dtype)
    first, second, third = (
        slice(max(own.start, other.start), max(own.start, other.start, min(own.stop, other.stop)))
        for own, other in zip(box, target, strict=True)
    )
    common = (first, second, third)
    part[to_local(common, target)] = inside[to_local(common, box)]
    return part


def to_global(inner: Box, box: Box) -> Box:
    """Return the box in the volume of a box given relative to another one."""
    return _shift(inner, [side.start for side in box])


def to_local(inner: Box, box: Box) -> Box:
    """Return a box of the volume relative to another one around it."""
    return _shift(inner, [-side.start for side in box])


def _shift(box: Box, offsets: Sequence[int]) -> Box:
    first, second, third = (
        slice(side.start + offset, side.stop + offset) for side, offset in zip(box, offsets, strict=True)
    )
    return first, second, third


def extent(filled: np.ndarray) -> slice:
    """Return the range from the first to the last true value of a 1-D array with at least one."""
    found = np.flatnonzero(filled)
    return slice(int(found[0]), int(found[-1]) + 1)
