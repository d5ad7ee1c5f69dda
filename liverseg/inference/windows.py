"""Windows of the fine pass: one for every few slices, because the liver's cross-section changes from top to bottom.

A single box around the liver is mostly not liver: its dome and its tip are much smaller than its middle. Windows are
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
"""The network halves pixels five times; it would pad windows of other sizes."""

Stride = tuple[float, float]
"""`STRIDE` in the volume's pixels along rows and columns. It is not an integer if the network's pixels have another
size; windows then have the nearest integers to its multiples."""


def windows_around(
    mask: np.ndarray,
    slices: np.ndarray,
    reduction: int,
    height: int,
    margin: Margin,
    shape: Sequence[int],
    stride: Stride = (STRIDE, STRIDE),
) -> list[Box]:
    """Return windows around a liver that is known on all slices or on some; none without a liver.

    A window holds the liver of its own slices. For slices between two that are known, it holds the liver of both.

    Args:
        mask: true in the liver, shape (known slices, rows / reduction, columns / reduction).
        slices: indices of the known slices, increasing.
        reduction: edge of a pixel of `mask` in the volume's pixels.
        height: slices of a window; the last one may have fewer.
        margin: around the liver; along the slices, below the first and above the last one with liver.
        shape: of the volume.
        stride: rows and columns of a window are multiples of it, if the volume is large enough.
    """
    known = np.flatnonzero(mask.any(axis=(1, 2)))
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
        liver = np.any(mask[known[below : above + 1]], axis=0)
        rows, columns = (_scale(extent(np.any(liver, axis=axis)), reduction) for axis in (1, 0))
        _, *plane = pad_box((slice(start, stop), rows, columns), margin, shape)
        rows, columns = (_extend_to_stride(*along) for along in zip(plane, shape[1:], stride, strict=True))
        windows.append((slice(start, stop), rows, columns))
    return windows


def grow_window(found: SlabPrediction, window: Box, margin: Margin, stride: Stride = (STRIDE, STRIDE)) -> Box | None:
    """Return a larger window for those slices of a window whose liver reaches a side; None if no liver does.

    The liver on the slices before and after counts as well: if it extends beside the window, in rows and columns that
    only the neighbouring window covers, this window would cut it off.

    Args:
        found: the prediction in all windows.
        window: one of them.
        margin: growth, within the volume.
        stride: as for `windows_around`.
    """
    slices, outer = window[0], found.box
    near = slice(max(outer[0].start, slices.start - 1), min(outer[0].stop, slices.stop + 1))
    liver = found.inside[to_local((near, *outer[1:]), outer)] >= LIVER
    reached = np.zeros(len(liver), bool)
    for axis in (1, 2):
        own, first = window[axis], outer[axis].start
        ends = np.zeros(liver.shape[axis], bool)  # the window's outermost rows or columns, and those beyond them
        ends[: own.start + 1 - first] = own.start > 0
        ends[own.stop - 1 - first :] |= own.stop < found.shape[axis]
        reached |= (liver.any(axis=3 - axis) & ends).any(axis=1)
    numbers = np.flatnonzero(reached) + near.start
    if not len(numbers):
        return None
    grown = slice(max(slices.start, int(numbers[0]) - 1), min(slices.stop, int(numbers[-1]) + 2))
    around = slice(max(near.start, grown.start - 1) - near.start, min(near.stop, grown.stop + 1) - near.start)
    mask = np.any(liver[around], axis=0)
    plane = []
    for axis in (1, 2):
        own, side = window[axis], extent(mask.any(axis=2 - axis))
        start, stop = side.start + outer[axis].start, side.stop + outer[axis].start
        start = max(0, start - margin[axis]) if start <= own.start else own.start
        stop = min(found.shape[axis], stop + margin[axis]) if stop >= own.stop else own.stop
        plane.append(_extend_to_stride(slice(start, stop), found.shape[axis], stride[axis - 1]))
    rows, columns = plane
    return grown, rows, columns


def windows_beyond(found: SlabPrediction, first: Box, last: Box, margin: Margin) -> tuple[Box | None, Box | None]:
    """Return windows before the first and after the last slice of all windows, if the liver reaches those slices.

    Args:
        found: the prediction in all windows.
        first: the first window.
        last: the last window.
        margin: number of further slices, within the volume.
    """
    liver = bounding_box(found.inside >= LIVER)
    own, depth = found.box[0], found.shape[0]
    before = after = None
    if liver is not None and liver[0].start == 0 and own.start > 0:
        before = (slice(max(0, own.start - margin[0]), own.start), first[1], first[2])
    if liver is not None and liver[0].stop == own.stop - own.start and own.stop < depth:
        after = (slice(own.stop, min(depth, own.stop + margin[0])), last[1], last[2])
    return before, after


def _scale(side: slice, factor: int) -> slice:
    return slice(side.start * factor, side.stop * factor)


def _extend_to_stride(side: slice, length: int, stride: float) -> slice:
    """Extend a side to both ends, until its length is the nearest integer to a multiple of the stride, or all."""
    multiple = math.ceil((side.stop - side.start - 0.5) / stride)  # a length that was rounded up is a multiple already
    extended = min(length, math.floor(multiple * stride + 0.5))
    start = min(max(0, (side.start + side.stop - extended) // 2), length - extended)
    return slice(start, start + extended)
