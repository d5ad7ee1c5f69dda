"""Voxels of thin tapered capsules, and how much of each voxel they fill."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from liverseg.phantom.scene import Tubes

__all__ = ["CapsuleVoxels", "capsule_voxels"]

_BATCH = 500
"""Cross-sections of capsules evaluated at a time, few enough for the processor's cache."""
_MARGIN_MM = 0.01
"""Added to the reach of a capsule, much larger than rounding errors of positions."""


@dataclass(frozen=True)
class CapsuleVoxels:
    """Voxels that capsules fill at least in part, sorted by slice; a voxel of several capsules is listed repeatedly.

    Attributes:
        index: flat (z, y, x) index of each voxel.
        share: share of the voxel that a capsule fills, above 0 and up to 1, float32.
        starts: position of each slice's first voxel in `index`, and the number of voxels at the end.
    """

    index: np.ndarray
    share: np.ndarray
    starts: np.ndarray


def capsule_voxels(tubes: Tubes, z: np.ndarray, y: np.ndarray, x: np.ndarray, pixel: float) -> CapsuleVoxels:
    """Return the voxels of capsules on a grid.

    Args:
        tubes: the capsules.
        z, y, x: increasing axes of the grid, mm.
        pixel: in-plane pixel in mm, which is the width of a capsule's edge.
    """
    parts = _Parts.of(tubes, pixel)
    section, level = _expand(*_range(z, parts.start[2], parts.end[2], parts.reach))
    by_level = np.argsort(level, kind="stable")
    section, level = section[by_level], level[by_level]
    index, share = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.float32)]
    for start in range(0, len(section), _BATCH):
        batch = slice(start, start + _BATCH)
        voxels = _sections(parts, section[batch], level[batch], z, y, x, pixel)
        index.append(voxels[0])
        share.append(voxels[1])
    flat = np.concatenate(index)
    counts = np.bincount(flat // (len(y) * len(x)), minlength=len(z))
    return CapsuleVoxels(flat, np.concatenate(share), np.concatenate([[0], np.cumsum(counts)]))


@dataclass(frozen=True)
class _Parts:
    """Capsules by attribute, float32 mm; the first three have a row for x, y and z each.

    Attributes:
        start, end: ends of the axis.
        axis: from start to end.
        squared: squared length of the axis, at least 1e-6.
        radius: radius at the start.
        taper: radius at the end minus that at the start.
        reach: a voxel farther from the axis is outside.
    """

    start: np.ndarray
    end: np.ndarray
    axis: np.ndarray
    squared: np.ndarray
    radius: np.ndarray
    taper: np.ndarray
    reach: np.ndarray

    @classmethod
    def of(cls, tubes: Tubes, pixel: float) -> _Parts:
        reach = np.maximum(tubes.parts[:, 6], tubes.parts[:, 7]) - tubes.lumen + pixel / 2 + _MARGIN_MM
        parts, reach = np.ascontiguousarray(tubes.parts[reach > 0].T), reach[reach > 0]
        start, end = parts[:3], parts[3:6]
        axis = end - start
        squared = np.array([max(float(line @ line), 1e-6) for line in np.ascontiguousarray(axis.T)], dtype=np.float32)
        return cls(start, end, axis, squared, parts[6] - tubes.lumen, parts[7] - parts[6], reach)


def _sections(
    parts: _Parts, part: np.ndarray, level: np.ndarray, z: np.ndarray, y: np.ndarray, x: np.ndarray, pixel: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return flat indices and shares of the voxels of capsules `part` in slices `level`."""
    # the stretch of the axis within reach of the slice, and then of the row, limits the voxels to evaluate
    first, last = _stretch(parts, part, 2, z[level], 0.0, 1.0)
    section, row = _expand(*_range(y, *_ends(parts, part, 1, first, last), parts.reach[part]))
    part, level, first, last = part[section], level[section], first[section], last[section]
    first, last = _stretch(parts, part, 1, y[row], first, last)
    line, column = _expand(*_range(x, *_ends(parts, part, 0, first, last), parts.reach[part]))

    ax, ay, az = (axis[part] for axis in parts.axis)
    py, pz = (
        (p - start[part]).astype(np.float32) for p, start in ((y[row], parts.start[1]), (z[level], parts.start[2]))
    )
    px, along = (x[column] - parts.start[0][part][line]).astype(np.float32), ax[line]
    t = px * along
    t += (py * ay)[line]
    t += (pz * az)[line]
    t /= parts.squared[part][line]
    np.clip(t, 0, 1, out=t)
    along *= t
    px -= along
    squared = np.square(px, out=px)
    for p, axis in ((py, ay), (pz, az)):
        np.multiply(t, axis[line], out=along)
        offset = np.subtract(p[line], along, out=along)
        squared += np.square(offset, out=offset)
    t *= parts.taper[part][line]
    t += parts.radius[part][line]
    t -= np.sqrt(squared, out=squared)
    t /= np.float32(pixel)
    t += np.float32(0.5)
    share = np.clip(t, 0, 1, out=t)
    filled = np.flatnonzero(share > 0)
    return ((level * len(y) + row) * len(x))[line[filled]] + column[filled], share[filled]


def _stretch(
    parts: _Parts, part: np.ndarray, k: int, position: np.ndarray, first: np.ndarray | float, last: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the stretch of each axis, in shares of its length, within reach of a position along (x, y, z)[k].

    Args:
        parts: the capsules.
        part: number of the capsule.
        k: 1 for y, 2 for z.
        position: position along y or z, mm.
        first, last: the stretch is limited to these shares.
    """
    along = parts.axis[k][part].astype(np.float64)
    along[np.abs(along) < 1e-6] = 1e-6
    offset, reach = position - parts.start[k][part], np.copysign(parts.reach[part], along)
    return np.clip((offset - reach) / along, first, last), np.clip((offset + reach) / along, first, last)


def _ends(
    parts: _Parts, part: np.ndarray, k: int, first: np.ndarray, last: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of both ends of a stretch of each axis along (x, y, z)[k], mm."""
    start, axis = parts.start[k][part], parts.axis[k][part]
    return start + first * axis, start + last * axis


def _range(axis: np.ndarray, begin: np.ndarray, end: np.ndarray, reach: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the range of indices of an axis within reach of the positions between two ends."""
    low, high = np.minimum(begin, end) - reach, np.maximum(begin, end) + reach
    return np.searchsorted(axis, low), np.searchsorted(axis, high)


def _expand(first: np.ndarray, stop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return all integers of the ranges `first` to `stop`, and the number of the range of each."""
    counts = np.maximum(stop - first, 0)
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts - first, counts)
