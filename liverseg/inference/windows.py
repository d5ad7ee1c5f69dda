"""Where the fine pass looks: a window for every few slices, as the liver's cross-section changes from top to bottom.

One box around the whole liver is mostly not liver: its dome and its tip are much smaller than its middle. Windows are
boxes that follow each other along the slices without a gap, in the order of `Volume.axial`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from liverseg.imageio.boxes import Box, bounding_box, extent, pad_box, to_local
from liverseg.inference.prediction import SlabPrediction
from liverseg.labels import LIVER

__all__ = ["STRIDE", "Margin", "Stride", "grow_window", "windows_around", "windows_beyond"]

Margin = tuple[int, int, int]
"""Voxels along slices, rows and columns."""

STRIDE: Final = 32
"""Pixels the network halves five times: windows of other sizes would be padded."""

Stride = tuple[float, float]
"""`STRIDE` in the volume's pixels along rows and columns: not a whole number where the network sees pixels of another
size, so that windows are of the whole numbers next to its multiples."""


def windows_around(
    seen: np.ndarray,
    slices: np.ndarray,
    reduction: int,
    height: int,
    margin: Margin,
    shape: Sequence[int],
    stride: Stride = (STRIDE, STRIDE),
) -> list[Box]:
    """Windows around a liver known on all slices or on some; none where it is on none of them.

    A window holds the liver as it is on its own slices; between those that were looked at, as it is on both of the next
    ones.

    Args:
        seen: true in the liver, shape (slices looked at, rows / reduction, columns / reduction).
        slices: numbers of the slices looked at, rising.
        reduction: so many pixels along rows and columns are one of `seen`.
        height: slices of a window; the last one may have fewer.
        margin: around the liver; along the slices below the first and above the last one with liver.
        shape: of the volume.
        stride: rows and columns of a window are multiples of, as far as the volume goes.
    """
    known = np.flatnonzero(seen.any(axis=(1, 2)))
    if not len(known):
        return []
    numbers = slices[known]
    first = max(0, int(numbers[0]) - margin[0])
    end = min(int(shape[0]), int(numbers[-1]) + 1 + margin[0])
    windows: list[Box] = []
    for start in range(first, end, height):
        stop = min(start + height, end)
        below = max(0, int(np.searchsorted(numbers, start, "right")) - 1)
        above = min(len(numbers) - 1, int(np.searchsorted(numbers, stop - 1, "left")))
        liver = np.any(seen[known[below : above + 1]], axis=0)
        rows, columns = (_times(extent(np.any(liver, axis=axis)), reduction) for axis in (1, 0))
        _, *plane = pad_box((slice(start, stop), rows, columns), margin, shape)
        rows, columns = (_to_stride(*along) for along in zip(plane, shape[1:], stride, strict=True))
        windows.append((slice(start, stop), rows, columns))
    return windows


def grow_window(found: SlabPrediction, window: Box, margin: Margin, stride: Stride = (STRIDE, STRIDE)) -> Box | None:
    """A window with a margin more, for those slices of another one whose liver reaches a side; None where none does.

    The liver on the slices before and behind counts as well: where it goes on beside the window, in rows and columns
    that only the neighbour looks at, the window would cut it off.

    Args:
        found: what was found in all windows.
        window: one of them.
        margin: how much more, as far as the volume goes.
        stride: as for `windows_around`.
    """
    slices, whole = window[0], found.box
    near = slice(max(whole[0].start, slices.start - 1), min(whole[0].stop, slices.stop + 1))
    liver = found.inside[to_local((near, *whole[1:]), whole)] >= LIVER
    reached = np.zeros(len(liver), bool)
    for axis in (1, 2):
        own, first = window[axis], whole[axis].start
        ends = np.zeros(liver.shape[axis], bool)  # the window's outermost rows or columns, and what is beyond them
        ends[: own.start + 1 - first] = own.start > 0
        ends[own.stop - 1 - first :] |= own.stop < found.shape[axis]
        reached |= (liver.any(axis=3 - axis) & ends).any(axis=1)
    numbers = np.flatnonzero(reached) + near.start
    if not len(numbers):
        return None
    some = slice(max(slices.start, int(numbers[0]) - 1), min(slices.stop, int(numbers[-1]) + 2))
    near_some = slice(max(near.start, some.start - 1) - near.start, min(near.stop, some.stop + 1) - near.start)
    seen = np.any(liver[near_some], axis=0)
    plane = []
    for axis in (1, 2):
        own, at = window[axis], extent(seen.any(axis=2 - axis))
        start, stop = at.start + whole[axis].start, at.stop + whole[axis].start
        start = max(0, start - margin[axis]) if start <= own.start else own.start
        stop = min(found.shape[axis], stop + margin[axis]) if stop >= own.stop else own.stop
        plane.append(_to_stride(slice(start, stop), found.shape[axis], stride[axis - 1]))
    rows, columns = plane
    return some, rows, columns


def windows_beyond(found: SlabPrediction, first: Box, last: Box, margin: Margin) -> tuple[Box | None, Box | None]:
    """Windows for the slices before the first and behind the last one, where the liver reaches those.

    Args:
        found: what was found in all windows.
        first: the first of them.
        last: the last of them.
        margin: how many slices more, as far as the volume goes.
    """
    liver = bounding_box(found.inside >= LIVER)
    own, depth = found.box[0], found.shape[0]
    before = after = None
    if liver is not None and liver[0].start == 0 and own.start > 0:
        before = (slice(max(0, own.start - margin[0]), own.start), first[1], first[2])
    if liver is not None and liver[0].stop == own.stop - own.start and own.stop < depth:
        after = (slice(own.stop, min(depth, own.stop + margin[0])), last[1], last[2])
    return before, after


def _times(side: slice, factor: int) -> slice:
    return slice(side.start * factor, side.stop * factor)


def _to_stride(side: slice, length: int, stride: float) -> slice:
    """A side made longer, to both ends alike, until it is next to a multiple of the stride or the volume ends."""
    multiple = math.ceil((side.stop - side.start - 0.5) / stride)  # a side that was rounded up is one already
    wanted = min(length, math.floor(multiple * stride + 0.5))
    start = min(max(0, (side.start + side.stop - wanted) // 2), length - wanted)
    return slice(start, start + wanted)
