"""The liver: two lobes below the diaphragm, fissures, and two vessel trees. Frame LPS+, mm."""

from __future__ import annotations

import numpy as np

from liverseg.phantom.fields import Field, Region, ellipsoid, smooth_max, smooth_min
from liverseg.phantom.organs import Organs

__all__ = ["hepatic_veins", "liver_shape", "portal_tree"]

_LEAF_RADIUS = 1.15
_MURRAY = 2.8
"""Exponent of Murray's law: a parent's radius to this power is the sum over its children. Murray (1926) has 3, measured
hepatic trees a little less."""


def liver_shape(rng: np.random.Generator, organs: Organs) -> Field:
    """Draw the signed distance to a patient's liver; size, left lobe, lower tip and fissures vary."""
    trunk = organs.trunk
    h = trunk.habitus
    sx, sy, sz = h.scale
    region = trunk.soft.around((-20 * sx, 0, -10), (150, 120, 130), 0)
    size = rng.uniform(0.93, 1.06)
    left_reach = rng.uniform(0.75, 1.2)
    tip = rng.uniform(-112, -78)
    right = ellipsoid(region, (-66 * sx, 6 * sy, -8 * sz), (73 * sx * size, 87 * sy * size, 95 * sz))
    cos, sin = np.cos(0.28), np.sin(0.28)
    tilt = np.array([[cos, -0.12, sin], [0.12, 1.0, 0.0], [-sin, 0.0, cos]])
    left = ellipsoid(
        region,
        (6 * sx, -50 * sy, 22 * sz),
        (90 * sx * left_reach, 36 * sy, 42 * sz),
        tilt,
        taper=rng.uniform(0.30, 0.5),
    )
    caudate = ellipsoid(region, (-16 * sx, 16 * sy, 20 * sz), (20, 15, 30 * sz))
    shape = smooth_min(right, left, 26)
    shape = smooth_max(shape, -_retroperitoneum(region, organs), 14)
    shape = smooth_min(shape, caudate, 5)
    slope = rng.uniform(0.45, 0.65)
    lower = (np.float32(tip) + np.float32(slope) * (region.x + 120) + 0.18 * region.y) - region.z
    shape = smooth_max(shape, lower, 26)
    shape = _carve(rng, region, organs, shape)
    limits = smooth_max(region.cut(trunk.cavity) + 1.5, region.cut(trunk.abdomen) + 2.0, 10)
    return region.field(smooth_max(shape, limits, 8))


def _retroperitoneum(region: Region, organs: Organs) -> np.ndarray:
    h = organs.trunk.habitus
    return ellipsoid(region, (10, h.spine + 12, 0), (54, 44, 400))


def _carve(rng: np.random.Generator, region: Region, organs: Organs, shape: np.ndarray) -> np.ndarray:
    """Subtract fissures and impressions of neighbouring organs."""
    sx, sy, sz = organs.trunk.habitus.scale
    centre, radii = organs.kidneys[0]
    shape = smooth_max(shape, -(ellipsoid(region, centre, radii) - 7), 10)
    porta = ellipsoid(region, (-22 * sx, 0, -16 * sz), (26 * sx, 11 * sy, 20 * sz))
    shape = smooth_max(shape, -porta, 8)
    # ligamentum teres: a cleft from below and from the front, left of the gallbladder
    x = region.x - (6 * sx + 0.10 * (region.y + 50))
    cleft = np.maximum(np.abs(x) - rng.uniform(1.0, 3.5), np.maximum(region.z - 8 * sz, region.y + 14 * sy))
    shape = smooth_max(shape, -cleft, 6)
    # ligamentum venosum: between caudate and left lobe
    y = region.y - (-8 * sy + 0.15 * (region.x + 10))
    cleft = np.maximum(np.abs(y) - 1.6, np.maximum(np.abs(region.x - 4 * sx) - 20, np.abs(region.z - 26 * sz) - 26))
    return smooth_max(shape, -cleft, 5)


def _grow(
    rng: np.random.Generator, trunks: list[np.ndarray], targets: np.ndarray, step: float
) -> tuple[np.ndarray, np.ndarray]:
    """Grow a tree from trunk polylines to each target, bent from its nearest point; return points and parents."""
    points = np.concatenate(trunks)
    parents = list(range(-1, len(points) - 1))
    for start in np.cumsum([0, *map(len, trunks[:-1])]):
        parents[start] = -1
    order = np.argsort(np.linalg.norm(targets - points[0], axis=1))
    for target in targets[order]:
        nearest = int(np.argmin(np.linalg.norm(points - target, axis=1)))
        path = target - points[nearest]
        count = max(int(np.ceil(np.linalg.norm(path) / step)), 1)
        parent = parents[nearest]
        direction = points[nearest] - points[parent] if parent >= 0 else path
        direction = direction / (np.linalg.norm(direction) + 1e-6) * np.linalg.norm(path)
        t = np.arange(1, count + 1)[:, None] / count
        # starts in the parent's direction and bends towards the target
        bend = 0.45 * t * (1 - t) * direction
        parents += [nearest, *range(len(points), len(points) + count - 1)]
        branch = points[nearest] + t * path + bend + (1 - t) * 0.6 * rng.standard_normal((count, 3))
        points = np.concatenate([points, branch])
    return points, np.array(parents)


def _tree(rng: np.random.Generator, trunks: list[np.ndarray], targets: np.ndarray, largest: float) -> np.ndarray:
    """Grow a tree of capsules with radii by Murray's law, at most `largest` mm."""
    points, parents = _grow(rng, trunks, targets, 9.0)
    flow = np.zeros(len(points))
    has_child = np.zeros(len(points), dtype=bool)
    has_child[parents[parents >= 0]] = True
    flow[~has_child] = _LEAF_RADIUS**_MURRAY
    for index in range(len(points) - 1, -1, -1):
        if parents[index] >= 0:
            flow[parents[index]] += flow[index]
    radius = np.minimum(flow ** (1 / _MURRAY), largest)
    child = np.flatnonzero(parents >= 0)
    parent = parents[child]
    parts = [points[parent], points[child], radius[parent, None], radius[child, None]]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _targets(rng: np.random.Generator, shape: Field, count: int, spacing: float, depth: float) -> np.ndarray:
    """Draw points in the liver at least `depth` mm below its surface and about `spacing` mm from each other."""
    lattice = shape.lattice
    inside = np.argwhere(shape.values < -depth)
    chosen, number = np.empty((count, 3)), 0
    for row in inside[rng.permutation(len(inside))[: count * 12]]:
        z, y, x = (lattice.origin[k] + lattice.step * (row[k] + shape.start[k]) for k in range(3))
        point = np.array([x, y, z]) + rng.uniform(-2, 2, 3)
        if (np.linalg.norm(chosen[:number] - point, axis=1) > spacing).all():
            chosen[number] = point
            number += 1
        if number == count:
            break
    return chosen[:number]


def _route(start: np.ndarray, scale: tuple[float, float, float], *steps: tuple[float, float, float]) -> np.ndarray:
    """Return a polyline from `start` through points given as template offsets from it, (n, 3) mm."""
    return np.array([start, *(start + np.multiply(step, scale) for step in steps)])


def portal_tree(rng: np.random.Generator, organs: Organs, shape: Field) -> np.ndarray:
    """Grow the portal branches as capsules, right and left from the porta hepatis."""
    scale = organs.trunk.habitus.scale
    porta = organs.portal[-1]
    right = _route(porta, scale, (-16, 2, 5), (-34, 4, 8))
    trunks = [
        right,
        _route(right[-1], scale, (-10, -22, 12)),
        _route(right[-1], scale, (-16, 18, -14)),
        _route(porta, scale, (12, -18, 14), (24, -34, 18), (30, -50, 14)),
    ]
    return _tree(rng, trunks, _targets(rng, shape, 80, 13.0, 8.0), 5.8)


def hepatic_veins(rng: np.random.Generator, organs: Organs, shape: Field) -> np.ndarray:
    """Grow the right, middle and left hepatic vein as capsules, which meet at the cava below the diaphragm."""
    scale = organs.trunk.habitus.scale
    root = organs.cava[-3] + np.array([0.0, -4.0, 4.0])
    trunks = [
        _route(root, scale, (-26, 6, -6), (-52, 8, -24), (-66, 8, -52)),
        _route(root, scale, (-14, -22, -8), (-24, -44, -26), (-30, -56, -48)),
        _route(root, scale, (10, -26, -4), (26, -44, -14), (44, -50, -24)),
    ]
    return _tree(rng, trunks, _targets(rng, shape, 64, 15.0, 8.0), 5.2)
