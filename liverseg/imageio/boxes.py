"""Boxes in a volume: most of a label map is 0, and what is outside the box around the rest costs nothing further on."""

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
"""One slice with start and stop, both within the volume, for each axis."""


def bounding_box(array: np.ndarray) -> Box | None:
    """The smallest box that holds every voxel that is not 0; None if all are.

    Args:
        array: 3-D, of any type; it is as quick for every order of axes in memory.
    """
    # slices as they lie in memory first: those that are 0 throughout are read once, in one go
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
    """The box that holds all of a volume."""
    first, second, third = (slice(0, int(length)) for length in shape)
    return first, second, third


def box_shape(box: Box) -> tuple[int, int, int]:
    """Voxels along each axis of a box."""
    first, second, third = (side.stop - side.start for side in box)
    return first, second, third


def pad_box(box: Box, by: Sequence[int], shape: Sequence[int]) -> Box:
    """A box with so many voxels more at either side of each axis, as far as the volume goes."""
    first, second, third = (
        slice(max(0, side.start - more), min(int(length), side.stop + more))
        for side, more, length in zip(box, by, shape, strict=True)
    )
    return first, second, third


def pad_box_evenly(box: Box, margin: int, shape: Sequence[int]) -> Box:
    """A box with a margin of so many voxels on every side, within a volume of a shape."""
    first, second, third = (
        slice(max(0, side.start - margin), min(length, side.stop + margin))
        for side, length in zip(box, shape, strict=True)
    )
    return first, second, third


def embed(inside: np.ndarray, box: Box, shape: Sequence[int]) -> np.ndarray:
    """A volume of a shape that holds an array in its box, and 0 elsewhere."""
    return crop_to_box(inside, box, full_box(shape))


def crop_to_box(inside: np.ndarray, box: Box, wanted: Box) -> np.ndarray:
    """What an array in its box has of another box of the volume, a new array; 0 where it does not reach."""
    part = np.zeros(box_shape(wanted), inside.dtype)
    first, second, third = (
        slice(max(own.start, other.start), max(own.start, other.start, min(own.stop, other.stop)))
        for own, other in zip(box, wanted, strict=True)
    )
    common = (first, second, third)
    part[to_local(common, wanted)] = inside[to_local(common, box)]
    return part


def to_global(inner: Box, box: Box) -> Box:
    """A box given by its place in another one, by its place in the volume."""
    return _shifted(inner, [side.start for side in box])


def to_local(inner: Box, box: Box) -> Box:
    """A box given by its place in the volume, by its place in another one around it."""
    return _shifted(inner, [-side.start for side in box])


def _shifted(box: Box, by: Sequence[int]) -> Box:
    first, second, third = (slice(side.start + more, side.stop + more) for side, more in zip(box, by, strict=True))
    return first, second, third


def extent(filled: np.ndarray) -> slice:
    """From the first to the last true of a row, of which at least one is."""
    found = np.flatnonzero(filled)
    return slice(int(found[0]), int(found[-1]) + 1)
