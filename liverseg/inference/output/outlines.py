"""Polygons of a mask on a slice, for DICOM objects that hold outlines."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import numpy as np
from contourpy import FillType, contour_generator

__all__ = ["join_holes", "trace_polygons"]

_ROUNDING = 1e-9
"""Limit, in square pixels, of the area that three points on a straight line span."""


def trace_polygons(mask: np.ndarray, outward: float = 0.5) -> list[list[np.ndarray]]:
    """Trace the outlines of a slice's mask (row, column). They run around its pixels and cut corners off.

    Args:
        mask: of booleans.
        outward: distance of the outlines from the centres of the mask's pixels, in pixels, above 0 and below 1. At 0.5
            they run halfway to the next pixels.

    Returns:
        For each connected part, its rings: the outer outline, then its holes. A ring is (points, 2), column and row in
        pixels, 0 at the centre of the first pixel, without the first point at the end and without points on straight
        lines. No two rings have a point in common.
    """
    padded = np.pad(mask.astype(np.float64), 1)
    generator = contour_generator(z=padded, name="serial", fill_type=FillType.OuterOffset)
    polygons, offsets = cast(tuple[list[np.ndarray], list[np.ndarray]], generator.filled(1 - outward, 2.0))
    return [
        [_corners(points[start:stop] - 1) for start, stop in pairwise(ends)]
        for points, ends in zip(polygons, offsets, strict=True)
    ]


def _corners(ring: np.ndarray) -> np.ndarray:
    """Return the points of a closed ring, whose last point is its first, that are not on straight lines."""
    outgoing = np.diff(ring, axis=0)
    incoming = np.roll(outgoing, 1, axis=0)
    turns = np.abs(incoming[:, 0] * outgoing[:, 1] - incoming[:, 1] * outgoing[:, 0]) > _ROUNDING
    return ring[:-1][turns]


def join_holes(rings: Sequence[np.ndarray]) -> np.ndarray:
    """Join an outline and its holes to one ring by channels without width: the keyhole technique of DICOM.

    The channel of a hole leads from its point of the highest column along its row to the next ring. Holes are joined
    from the highest columns to the lowest, so that this ring is already a part of the outline.

    Args:
        rings: of a polygon, as from `trace_polygons`.

    Returns:
        (points, 2), column and row; the first point is not repeated at the end. Filled by the even-odd rule, it is the
        polygon.
    """
    outline, *holes = rings
    for hole in sorted(holes, key=lambda ring: float(ring[:, 0].max()), reverse=True):
        hole = np.roll(hole, -int(hole[:, 0].argmax()), axis=0)
        column, row = hole[0]
        after = np.roll(outline, -1, axis=0)
        crosses = (outline[:, 1] <= row) != (after[:, 1] <= row)
        rise = np.where(crosses, after[:, 1] - outline[:, 1], 1)
        meets = outline[:, 0] + (row - outline[:, 1]) / rise * (after[:, 0] - outline[:, 0])
        edge = int(np.where(crosses & (meets > column), meets, np.inf).argmin())
        entry = np.array([[meets[edge], row]])
        outline = np.concatenate([outline[: edge + 1], entry, hole, hole[:1], entry, outline[edge + 1 :]])
    return outline
