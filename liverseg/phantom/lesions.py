"""Where a phantom's lesions lie; what they are is `liverseg.synthesis`'s, as for lesions in patients' livers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from liverseg.phantom.fields import Field
from liverseg.synthesis import (
    Appearance,
    Lesion,
    Surroundings,
    draw_count,
    draw_diameter,
    draw_lesion,
    draw_patient,
)

__all__ = ["draw_diameters", "place_lesions"]

_CLEAR_SHARE: Final = 0.6
"""A lesion's centre is at least this share of its radius away from what takes its place from the liver."""
_MOST: Final = 200
"""Draws of a diameter before it is taken as it must be."""
_INDEX_MM: Final = 11.0
"""A patient who is annotated for a lesion has one of at least this diameter."""


def draw_diameters(rng: np.random.Generator, smallest: float, annotated: bool) -> list[float]:
    """Diameters in mm of a phantom's lesions.

    Args:
        rng: the patient's random numbers.
        smallest: diameter in mm below which the scan could not show a lesion.
        annotated: whether there must be a lesion; otherwise one scan of ten has none.
    """
    if not annotated:
        return [max(diameter, smallest) for diameter in draw_patient(rng)]
    least = [max(smallest, _INDEX_MM)] + [smallest] * (draw_count(rng) - 1)
    return [_at_least(rng, low) for low in least]


def _at_least(rng: np.random.Generator, low: float) -> float:
    for _ in range(_MOST):
        diameter = draw_diameter(rng)
        if diameter >= low:
            return diameter
    return low


def place_lesions(
    rng: np.random.Generator,
    kinds: Sequence[str],
    diameters: Sequence[float],
    liver: Field,
    not_liver: Field,
    around: Surroundings,
) -> list[Lesion]:
    """Draw lesions and place them in the liver, apart from each other; centres are (z, y, x) in LPS+ mm.

    Args:
        rng: the patient's random numbers.
        kinds: type of each.
        diameters: of each in mm; one for which there is no room becomes smaller, down to a third, or is left out.
        liver: signed distance to the liver, mm.
        not_liver: signed distance to gallbladder and great vessels, mm; a lesion may touch them, not lie in them.
        around: attenuation around them.
    """
    lesions: list[Lesion] = []
    candidates = np.argwhere(liver.values < -3.0)
    depth = -liver.values[tuple(candidates.T)]
    first: Appearance | None = None
    for kind, wanted in zip(kinds, diameters, strict=True):
        diameter = min(wanted, 1.9 * float(depth.max()))
        for _ in range(60):
            radius = diameter / 2
            deep = np.flatnonzero(depth > min(rng.uniform(0.35, 1.1) * radius + 1.0, 0.8 * depth.max()))
            row = candidates[rng.choice(deep)]
            lattice = liver.lattice
            z, y, x = (
                lattice.origin[k] + lattice.step * (row[k] + liver.start[k] + rng.uniform(-0.4, 0.4)) for k in range(3)
            )
            if not_liver.at(z, y, x) >= _CLEAR_SHARE * radius and _is_apart((z, y, x), radius, lesions):
                lesion, first = draw_lesion(rng, kind, (float(z), float(y), float(x)), diameter, around, first)
                lesions.append(lesion)
                break
            diameter = max(0.97 * diameter, wanted / 3)
    return lesions


def _is_apart(centre: tuple[float, float, float], radius: float, lesions: Sequence[Lesion]) -> bool:
    """Whether 3 mm of liver would be left between balls somewhat larger than the lesions."""
    gaps = [
        np.linalg.norm(np.subtract(centre, other.centre)) - 1.15 * (radius + other.shape.radius) for other in lesions
    ]
    return all(gap > 3.0 for gap in gaps)
