"""A lesion: its shape and appearance at a place, evaluated on any grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from liverseg.synthesis.appearance import Appearance, Surroundings, alike, draw_appearance
from liverseg.synthesis.shape import Shape, draw_shape

__all__ = ["Lesion", "draw_lesion"]

_GRAIN: Final = np.float32(2 * np.pi / 9.0)  # slow variation repeats after about 9 mm
_WAVE_SD: Final = 1.22  # of the sum of three sines
_LEAST_NODULE_EDGE_MM: Final = 1.6


@dataclass(frozen=True)
class Lesion:
    """One lesion.

    Attributes:
        kind: one of `liverseg.labels.LESION_TYPES`.
        centre: mm along slices, rows and columns, in the frame of the grid it is evaluated on.
        shape: around the centre.
        appearance: attenuation and edge.
    """

    kind: str
    centre: tuple[float, float, float]
    shape: Shape
    appearance: Appearance

    @property
    def reach(self) -> float:
        """Half the edge in mm of a cube around the centre that holds the lesion with its edge."""
        return self.shape.reach + self.appearance.edge_mm

    def evaluate(self, z: np.ndarray, y: np.ndarray, x: np.ndarray, pixel: float) -> tuple[np.ndarray, np.ndarray]:
        """Share of the lesion in each point of a grid, and its HU there, float32 (slice, row, column).

        Args:
            z, y, x: the grid's axes, mm, one-dimensional.
            pixel: in-plane pixel, mm: the sharpest edge is as wide.
        """
        q = self.shape.round_frame(z - self.centre[0], y - self.centre[1], x - self.centre[2])
        surface = self.shape.distance(q)
        share = np.clip(0.5 - surface / np.float32(max(pixel, self.appearance.edge_mm)), 0, 1)
        return share, self._hu(q, surface, pixel)

    def _hu(self, q: tuple[np.ndarray, np.ndarray, np.ndarray], surface: np.ndarray, pixel: float) -> np.ndarray:
        look = self.appearance
        inner, outer = np.float32(look.centre_hu), np.float32(look.outer_hu)
        wave = (
            np.sin(_GRAIN * (q[0] + np.float32(0.4) * q[1]))
            + np.sin(_GRAIN * (q[1] - np.float32(0.5) * q[2]) + 1)
            + np.sin(_GRAIN * (q[2] + np.float32(0.3) * q[0]) + 2)
        )
        hu = inner + np.float32(look.texture_hu / _WAVE_SD) * wave
        if look.rim_mm:
            depth = -surface + np.float32(0.12 * look.rim_mm) * wave
            # the exponent is far beyond float32's range in the middle of a large lesion
            far = np.clip((depth - np.float32(look.rim_mm)) / np.float32(0.22 * look.rim_mm), -30, 30)
            hu += (outer - inner) / (1 + np.exp(far))
        if len(look.nodules):
            nearest = np.full_like(surface, np.inf)
            for first, second, third, radius in look.nodules.astype(np.float32):
                ball = np.sqrt((q[0] - first) ** 2 + (q[1] - second) ** 2 + (q[2] - third) ** 2) - radius
                np.minimum(nearest, ball, out=nearest)
            edge = np.float32(max(pixel, _LEAST_NODULE_EDGE_MM))
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
) -> tuple[Lesion, Appearance | None]:
    """Draw a lesion at a place.

    Args:
        rng: source of random numbers.
        kind: one of `liverseg.labels.LESION_TYPES`.
        centre: mm along slices, rows and columns.
        diameter: mm.
        around: of the same scan.
        first: appearance of the patient's first metastasis, which the others resemble; None before it.
        flat: the scan is one slice, see `draw_appearance`.

    Returns:
        The lesion, and the first metastasis's appearance from now on.
    """
    shape = draw_shape(rng, diameter)
    look = draw_appearance(rng, kind, shape, around, flat=flat)
    if kind == "metastasis":
        first = first or look
        look = alike(rng, look, first, around)
    return Lesion(kind, centre, shape, look), first
