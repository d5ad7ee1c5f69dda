"""Sizes and positions of a phantom's lesions; `liverseg.synthesis` draws the lesions, as for patients' livers."""

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

_MIN_CLEARANCE: Final = 0.6
"""Smallest distance of a lesion's centre to gallbladder and great vessels, in radii."""
_MAX_DRAWS: Final = 200
"""Draws of a diameter before the lower limit is used."""
_MIN_ANNOTATED_MM: Final = 11.0
"""An annotated patient has a lesion of at least this diameter."""


def draw_diameters(rng: np.random.Generator, smallest: float, annotated: bool) -> list[float]:
    """Draw the diameters in mm of a phantom's lesions.

    Args:
        rng: the patient's random number generator.
        smallest: diameter in mm of the smallest lesion that the scan can show.
        annotated: whether there must be a lesion; otherwise one scan in ten has none.
    """
    if not annotated:
        return [max(diameter, smallest) for diameter in draw_patient(rng)]
    minima = [max(smallest, _MIN_ANNOTATED_MM)] + [smallest] * (draw_count(rng) - 1)
    return [_draw_at_least(rng, minimum) for minimum in minima]


def _draw_at_least(rng: np.random.Generator, minimum: float) -> float:
    for _ in range(_MAX_DRAWS):
        diameter = draw_diameter(rng)
        if diameter >= minimum:
            return diameter
    return minimum


def place_lesions(
    rng: np.random.Generator,
    kinds: Sequence[str],
    diameters: Sequence[float],
    liver: Field,
    not_liver: Field,
    around: Surroundings,
) -> list[Lesion]:
    """Draw lesions and place them in the liver, separate from each other; centres are (z, y, x) in LPS+ mm.

    Args:
        rng: the patient's random number generator.
        kinds: type of each lesion.
        diameters: diameter of each lesion, mm. A lesion without enough space becomes smaller, down to a third of its
            diameter, or is left out.
        liver: signed distance to the liver, mm.
        not_liver: signed distance to gallbladder and great vessels, mm. Lesions may touch them, but not be in them.
        around: attenuation of the liver.
    """
    lesions: list[Lesion] = []
    candidates = np.argwhere(liver.values < -3.0)
    depth = -liver.values[tuple(candidates.T)]
    first: Appearance | None = None
    for kind, drawn_diameter in zip(kinds, diameters, strict=True):
        diameter = min(drawn_diameter, 1.9 * float(depth.max()))
        for _ in range(60):
            radius = diameter / 2
            deep = np.flatnonzero(depth > min(rng.uniform(0.35, 1.1) * radius + 1.0, 0.8 * depth.max()))
            row = candidates[rng.choice(deep)]
            lattice = liver.lattice
            z, y, x = (
                lattice.origin[k] + lattice.step * (row[k] + liver.start[k] + rng.uniform(-0.4, 0.4)) for k in range(3)
            )
            if not_liver.at(z, y, x) >= _MIN_CLEARANCE * radius and _is_separate((z, y, x), radius, lesions):
                lesion, first = draw_lesion(rng, kind, (float(z), float(y), float(x)), diameter, around, first)
                lesions.append(lesion)
                break
            diameter = max(0.97 * diameter, drawn_diameter / 3)
    return lesions


def _is_separate(centre: tuple[float, float, float], radius: float, lesions: Sequence[Lesion]) -> bool:
    """Whether there are 3 mm of liver between balls with 1.15 times the radii of the lesions."""
    gaps = [
        np.linalg.norm(np.subtract(centre, other.centre)) - 1.15 * (radius + other.shape.radius) for other in lesions
    ]
    return all(gap > 3.0 for gap in gaps)
