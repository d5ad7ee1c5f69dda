"""Longest axial diameter and its perpendicular, as radiologists measure them (RECIST 1.1, Eisenhauer et al. 2009)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["AxialDiameters", "axial_diameters"]

_TOLERANCE = 1e-9
"""Relative difference of two lengths below which they are equal, rounding aside."""


@dataclass(frozen=True, eq=False)
class AxialDiameters:
    """Two diameters of a lesion, on the slice where it is longest.

    Attributes:
        slice: index of that slice in the mask.
        longest_mm: longest diameter in the slice.
        perpendicular_mm: longest diameter at a right angle to it, in the same slice.
        longest_ends: (row, column) in the mask of the two ends of the longest diameter, shape (2, 2); integers are
            centres of voxels.
        perpendicular_ends: those of the perpendicular one.
    """

    slice: int
    longest_mm: float
    perpendicular_mm: float
    longest_ends: np.ndarray
    perpendicular_ends: np.ndarray


def axial_diameters(mask: np.ndarray, row_step: np.ndarray, column_step: np.ndarray) -> AxialDiameters:
    """Measure a lesion's mask slice by slice.

    The outline runs half a voxel beyond the outermost voxel centres along rows and columns, as an isoline between
    lesion and background does: a single voxel measures its edge, and a digitised disc its diameter. Diameters are those
    of the outline's convex hull, so they may cross a notch of the lesion, as calipers do.

    Args:
        mask: true in the lesion, shape (slice, row, column), at least one voxel.
        row_step: mm (x, y, z) from one row to the next.
        column_step: mm (x, y, z) from one column to the next; not necessarily at a right angle to `row_step`.

    Raises:
        ValueError: if the mask has no voxel.
    """
    to_mm = _in_plane(row_step, column_step)
    slices = np.flatnonzero(mask.any(axis=(1, 2)))
    outlines = [_outline(mask[index]) @ to_mm for index in slices]
    # no diameter exceeds the diagonal of its box, so most slices need no hull
    bounds = np.array([np.linalg.norm(np.ptp(outline, axis=0)) for outline in outlines])
    longest, best = 0.0, None
    for number in np.argsort(-bounds, kind="stable"):
        if bounds[number] <= longest:
            break
        found = _hull_diameters(outlines[number])
        if found[0] > longest:
            longest, best = found[0], (int(slices[number]), *found)
    if best is None:
        raise ValueError("a mask without voxels has no diameters")
    index, longest, perpendicular, longest_ends, perpendicular_ends = best
    from_mm = np.linalg.inv(to_mm)
    return AxialDiameters(index, longest, perpendicular, longest_ends @ from_mm, perpendicular_ends @ from_mm)


def _in_plane(row_step: np.ndarray, column_step: np.ndarray) -> np.ndarray:
    """Return a matrix from (row, column) to 2-D mm; QR's triangular factor keeps lengths and the angle of the steps."""
    steps = np.stack([row_step, column_step], axis=1).astype(np.float64)
    return np.asarray(np.linalg.qr(steps, mode="r")).T


def _outline(pixels: np.ndarray) -> np.ndarray:
    """Return points (row, column) with the convex hull of the outline; only the ends of each row can be on it."""
    rows = np.flatnonzero(pixels.any(axis=1))
    filled = pixels[rows]
    first = filled.argmax(axis=1)
    last = filled.shape[1] - 1 - filled[:, ::-1].argmax(axis=1)
    half = 0.5
    across = [(rows, first - half), (rows, last + half)]
    down = [(rows + step, columns) for step in (-half, half) for columns in (first, last)]
    return np.concatenate([np.stack([row, column], axis=1, dtype=np.float64) for row, column in [*across, *down]])


def _hull_diameters(points: np.ndarray) -> tuple[float, float, np.ndarray, np.ndarray]:
    """Return the longest diameter, its perpendicular and the ends of both, 2-D mm.

    Of equal diameters, it is that with the longer perpendicular.
    """
    from scipy.spatial import ConvexHull  # a tenth of a second

    hull = points[ConvexHull(points).vertices]
    distances = np.linalg.norm(hull[:, None] - hull[None], axis=2)
    longest = float(distances.max())
    pairs = np.argwhere(np.triu(distances) > longest * (1 - _TOLERANCE))
    chords = [_perpendicular(hull, int(first), int(second)) for first, second in pairs]
    best = max(range(len(chords)), key=lambda number: chords[number][0])
    perpendicular, ends = chords[best]
    return longest, perpendicular, hull[pairs[best]], ends


def _perpendicular(hull: np.ndarray, first: int, second: int) -> tuple[float, np.ndarray]:
    """Return length and ends of the longest chord of a convex outline, at a right angle to the line of two corners."""
    along = (hull[first] - hull[second]) / np.linalg.norm(hull[first] - hull[second])
    across = np.array([-along[1], along[0]])
    position, side = (hull - hull[second]) @ along, (hull - hull[second]) @ across
    side[[first, second]] = 0.0  # by rounding, an end could be missing in one of the halves
    # the hull above and below the long axis, both from end to end of it; the width between them is concave with corners
    # at the vertices, so its maximum is at one of them
    upper, lower = side >= 0, side <= 0
    above = _interpolate(position, position[upper], side[upper])
    below = _interpolate(position, position[lower], side[lower])
    at = int((above - below).argmax())
    foot = hull[second] + position[at] * along
    return float(above[at] - below[at]), np.stack([foot + below[at] * across, foot + above[at] * across])


def _interpolate(at: np.ndarray, position: np.ndarray, side: np.ndarray) -> np.ndarray:
    order = np.argsort(position, kind="stable")
    return np.interp(at, position[order], side[order])
