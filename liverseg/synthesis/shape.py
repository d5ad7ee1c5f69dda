"""Shapes of lesions: a bent, lobulated ellipsoid, the same distribution for every type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

__all__ = ["Shape", "draw_shape", "smooth_min"]

_AXIS_LOG_SD: Final = 0.36
_BUMPS: Final = 6
_BUMP_HEIGHT: Final = (0.05, 0.20)
_LOBULATED_SHARE: Final = 0.6
_REACH: Final = 3.0
"""Extent of a shape from its centre along an axis, in radii; hardly any shape exceeds it."""

_FILLET: Final = 0.25
"""Width of the fillet between lobes, in radii."""
_ROUNDING_MM: Final = 0.01
"""Much more than the rounding errors of distances."""


@dataclass(frozen=True)
class Shape:
    """Shape of a lesion around the origin, mm, axes (slice, row, column).

    Attributes:
        radius: radius of a ball of about the same volume, mm.
        frame: 3×3, maps an offset in mm to the frame in which the lesion is round.
        bumps: (n, 5): direction (3), phase, and height as a share of the radius, of each wave on the surface.
        lobes: (n, 4): centre in the round frame (3) and radius, mm, of each additional lobe.
    """

    radius: float
    frame: np.ndarray
    bumps: np.ndarray
    lobes: np.ndarray

    @property
    def reach(self) -> float:
        """Half the edge in mm of a cube around the origin that contains the shape."""
        return _REACH * self.radius

    def extent(self, distance: float) -> np.ndarray:
        """Return half the edges in mm, (slice, row, column), of a box that contains all points up to `distance`.

        Args:
            distance: as returned by `distance`, mm.
        """
        radius = self.radius * (1 + float(np.abs(self.bumps[:, 4]).sum()))
        for lobe in self.lobes:
            # a union is enlarged by a quarter of its fillet
            radius = max(radius, float(np.linalg.norm(lobe[:3]) + lobe[3])) + _FILLET / 4 * self.radius
        return np.asarray((radius + distance + _ROUNDING_MM) * np.linalg.norm(np.linalg.inv(self.frame), axis=1))

    def round_frame(self, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return coordinates in the round frame for a grid of offsets, given by its one-dimensional axes in mm."""
        frame = self.frame.astype(np.float32)
        axes = [axis.astype(np.float32) for axis in (z, y, x)]
        pz, py, px = axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None, :]
        first, second, third = (frame[row, 0] * pz + frame[row, 1] * py + frame[row, 2] * px for row in range(3))
        return first, second, third

    def distance(self, q: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
        """Return the approximate signed distance to the surface in mm, negative inside, at round-frame points."""
        length = np.sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2]) + np.float32(1e-3)
        bumps = np.zeros_like(length)
        for first, second, third, phase, height in self.bumps.astype(np.float32):
            bumps += height * np.sin((first * q[0] + second * q[1] + third * q[2]) / length + phase)
        surface = length - np.float32(self.radius) * (1 + bumps)
        for first, second, third, radius in self.lobes.astype(np.float32):
            lobe = np.sqrt((q[0] - first) ** 2 + (q[1] - second) ** 2 + (q[2] - third) ** 2) - radius
            surface = smooth_min(surface, lobe, _FILLET * self.radius)
        return surface


def draw_shape(rng: np.random.Generator | np.random.RandomState, diameter: float) -> Shape:
    """Draw a shape of about the volume of a ball of `diameter` mm.

    Ratios of axes, bumps and lobes were set to match the elongation and compactness of the lesions of LiTS: longest by
    shortest side of the bounding box, 1.22, 1.39 and 1.82 at the quartiles, and volume by that of the bounding box,
    0.30, 0.38 and 0.45. `benchmarks/synthetic_lesions.py` measures them.
    """
    axes = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    stretch = np.exp(_AXIS_LOG_SD * rng.standard_normal(3))
    stretch /= np.cbrt(stretch.prod())
    lobes = np.zeros((0, 4))
    radius = diameter / 2
    if rng.uniform() < _LOBULATED_SHARE:
        radius *= 0.84  # compensates for the volume of the lobes
        lobes = np.array(
            [
                [*(rng.uniform(0.7, 1.25) * radius * _direction(rng)), rng.uniform(0.4, 0.8) * radius]
                for _ in range(rng.choice([1, 2, 3]))
            ]
        )
    heights = rng.uniform(*_BUMP_HEIGHT) * rng.uniform(0.4, 1.0, _BUMPS)
    bumps = np.array(
        [[*(rng.uniform(1.5, 5.0) * _direction(rng)), rng.uniform(0, 2 * np.pi), height] for height in heights]
    )
    return Shape(radius, stretch[:, None] * axes, bumps, lobes)


def smooth_min(first: np.ndarray, second: np.ndarray, width: float) -> np.ndarray:
    """Unite two shapes, signed distances in mm, with a fillet of about `width` mm (quadratic polynomial blend)."""
    share = np.maximum(np.float32(width) - np.abs(first - second), 0) / np.float32(width)
    return np.minimum(first, second) - share * share * np.float32(width / 4)


def _direction(rng: np.random.Generator | np.random.RandomState) -> np.ndarray:
    vector = rng.standard_normal(3)
    return vector / np.linalg.norm(vector)
