"""A lesion: shape and appearance at a position, evaluated on any grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from liverseg.synthesis.appearance import Appearance, Surroundings, draw_appearance, match_contrast
from liverseg.synthesis.shape import Shape, draw_shape

__all__ = ["Lesion", "draw_lesion"]

_WAVE_NUMBER: Final = np.float32(2 * np.pi / 9.0)  # the slow variation has a period of about 9 mm
_WAVE_SD: Final = 1.22  # of the sum of three sines
_MIN_NODULE_EDGE_MM: Final = 1.6


@dataclass(frozen=True)
class Lesion:
    """One lesion.

    Attributes:
        kind: one of `liverseg.labels.LESION_TYPES`.
        centre: mm along slices, rows and columns, in the frame of the grid.
        shape: shape around the centre.
        appearance: attenuation and edge.
    """

    kind: str
    centre: tuple[float, float, float]
    shape: Shape
    appearance: Appearance

    @property
    def reach(self) -> float:
        """Half the edge in mm of a cube around the centre that contains the lesion with its edge."""
        return self.shape.reach + self.appearance.edge_mm

    def extent(self, pixel: float) -> np.ndarray:
        """Return half the edges in mm of a box around the centre outside of which the lesion's share is 0.

        Args:
            pixel: in-plane pixel in mm, see `evaluate`.
        """
        return self.shape.extent(max(pixel, self.appearance.edge_mm) / 2)

    def evaluate(self, z: np.ndarray, y: np.ndarray, x: np.ndarray, pixel: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the lesion's share of each voxel of a grid, and its HU there, float32 (slice, row, column).

        Args:
            z, y, x: axes of the grid, mm, one-dimensional.
            pixel: in-plane pixel in mm, which is the width of the sharpest edge.
        """
        q = self.shape.round_frame(z - self.centre[0], y - self.centre[1], x - self.centre[2])
        surface = self.shape.distance(q)
        share = np.clip(0.5 - surface / np.float32(max(pixel, self.appearance.edge_mm)), 0, 1)
        return share, self._hu(q, surface, pixel)

    def _hu(self, q: tuple[np.ndarray, np.ndarray, np.ndarray], surface: np.ndarray, pixel: float) -> np.ndarray:
        appearance = self.appearance
        inner, outer = np.float32(appearance.centre_hu), np.float32(appearance.outer_hu)
        wave = (
            np.sin(_WAVE_NUMBER * (q[0] + np.float32(0.4) * q[1]))
            + np.sin(_WAVE_NUMBER * (q[1] - np.float32(0.5) * q[2]) + 1)
            + np.sin(_WAVE_NUMBER * (q[2] + np.float32(0.3) * q[0]) + 2)
        )
        hu = inner + np.float32(appearance.texture_hu / _WAVE_SD) * wave
        if appearance.rim_mm:
            depth = -surface + np.float32(0.12 * appearance.rim_mm) * wave
            # clipped, because the exponential overflows float32 in the middle of a large lesion
            exponent = (depth - np.float32(appearance.rim_mm)) / np.float32(0.22 * appearance.rim_mm)
            hu += (outer - inner) / (1 + np.exp(np.clip(exponent, -30, 30)))
        if len(appearance.nodules):
            nearest = np.full_like(surface, np.inf)
            for first, second, third, radius in appearance.nodules.astype(np.float32):
                ball = np.sqrt((q[0] - first) ** 2 + (q[1] - second) ** 2 + (q[2] - third) ** 2) - radius
                np.minimum(nearest, ball, out=nearest)
            edge = np.float32(max(pixel, _MIN_NODULE_EDGE_MM))
            hu += (outer - inner) * np.clip(0.5 - (nearest + np.float32(0.5) * wave) / edge, 0, 1)
        return hu


def draw_lesion(
    rng: np.random.Generator | np.random.RandomState,
    kind: str,
    centre: tuple[float, float, float],
    diameter: float,
    around: Surroundings,
    first: Appearance | None,
    *,
    flat: bool = False,
    match: Callable[..., Appearance] = match_contrast,
) -> tuple[Lesion, Appearance | None]:
    """Draw a lesion at a position.

    Args:
        rng: source of random numbers.
        kind: one of `liverseg.labels.LESION_TYPES`.
        centre: mm along slices, rows and columns.
        diameter: mm.
        around: liver of the scan.
        first: appearance of the patient's first metastasis, which the others resemble; None before it.
        flat: whether the scan is a single slice, see `draw_appearance`.
        match: `match_contrast` or `match_viable_tissue`, by which metastases resemble the first.

    Returns:
        The lesion, and `first` for the next lesion.
    """
    shape = draw_shape(rng, diameter)
    appearance = draw_appearance(rng, kind, shape, around, flat=flat)
    if kind == "metastasis":
        first = first or appearance
        appearance = match(rng, appearance, first, around)
    return Lesion(kind, centre, shape, appearance), first
