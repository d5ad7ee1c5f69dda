"""The smallest box around what is not 0: most of a label map is, and costs nothing further on."""

from __future__ import annotations

import numpy as np

__all__ = ["bounding_box"]


def bounding_box(array: np.ndarray) -> tuple[slice, slice, slice] | None:
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
    plane = np.any(slices[_extent(filled)], axis=0)
    sides = (_extent(filled), _extent(np.any(plane, axis=1)), _extent(np.any(plane, axis=0)))
    first, second, third = (sides[place] for place in np.argsort(order))
    return first, second, third


def _extent(filled: np.ndarray) -> slice:
    found = np.flatnonzero(filled)
    return slice(int(found[0]), int(found[-1]) + 1)
