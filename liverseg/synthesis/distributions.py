"""Distributions of number, size and type of a patient's lesions, the same for patients' CTs and phantoms.

Sizes and numbers follow 913 lesions in 131 outlines of LiTS. Diameters (of the ball of the same volume) are log-normal
with a median of 10.5 mm and a standard deviation of the logarithm of 0.70, from 3 mm on. Patients with lesions have 1,
1, 4.5, 10 and 23 of them at the 5, 25, 50, 75 and 95 % quantile. 10 % of the scans have none. Nothing depends on the
type, because a network would learn it as a sign of the type.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from liverseg.labels import LESION_TYPES

__all__ = [
    "DIAMETER_LIMITS_MM",
    "LESION_FREE_SHARE",
    "draw_count",
    "draw_diameter",
    "draw_patient",
    "draw_section",
    "draw_types",
]

LESION_FREE_SHARE: Final = 0.10
"""Share of scans without lesions."""

DIAMETER_LIMITS_MM: Final = (3.0, 110.0)
_MEDIAN_MM: Final = 10.5
_LOG_SD: Final = 0.70

_SINGLE_SHARE: Final = 0.28
_COUNT_MEDIAN: Final = 6.5
_COUNT_LOG_SD: Final = 0.85
_MAX_COUNT: Final = 40

_MIXED_SHARE: Final = 0.20

_LIVER_HEIGHT_MM: Final = 150.0
_MEAN_HEIGHT_MM: Final = 13.4  # exp(SD²/2) times the median diameter

_Rng = np.random.Generator | np.random.RandomState


def draw_count(rng: _Rng) -> int:
    """Draw the number of lesions of a patient with lesions, 1 to 40."""
    if rng.uniform() < _SINGLE_SHARE:
        return 1
    return int(np.clip(round(_COUNT_MEDIAN * math.exp(_COUNT_LOG_SD * rng.standard_normal())), 1, _MAX_COUNT))


def draw_diameter(rng: _Rng, largest: float = DIAMETER_LIMITS_MM[1], in_section: bool = False) -> float:
    """Draw the diameter in mm of the ball of the same volume as a lesion.

    Args:
        rng: source of random numbers.
        largest: upper limit in mm.
        in_section: draw from the lesions that a slice crosses instead of all. The probability that a slice crosses a
            lesion is proportional to its diameter, and a log-normal distribution weighted by its variable is log-normal
            with a median larger by exp(SD²).
    """
    median = _MEDIAN_MM * (math.exp(_LOG_SD**2) if in_section else 1.0)
    low = DIAMETER_LIMITS_MM[0]
    diameter = median * math.exp(_LOG_SD * rng.standard_normal())
    return float(np.clip(diameter, low, max(low, min(largest, DIAMETER_LIMITS_MM[1]))))


def draw_patient(rng: _Rng) -> list[float]:
    """Draw the diameters in mm of a patient's lesions; one patient in ten has none."""
    if rng.uniform() < LESION_FREE_SHARE:
        return []
    return [draw_diameter(rng) for _ in range(draw_count(rng))]


def draw_section(rng: _Rng) -> list[float]:
    """Draw the diameters in mm of the lesions that a slice crosses, at least one.

    The patient's other lesions are anywhere in the height of the liver, 150 mm.
    """
    others = int(rng.binomial(draw_count(rng) - 1, _MEAN_HEIGHT_MM / _LIVER_HEIGHT_MM))
    return [draw_diameter(rng, in_section=True) for _ in range(1 + others)]


def draw_types(rng: _Rng, count: int, main: str | None = None) -> list[str]:
    """Draw the types of a patient's lesions: one type, or in one patient in five two types.

    Args:
        rng: source of random numbers.
        count: number of lesions.
        main: type of the first lesion; drawn with equal probabilities by default.
    """
    main = str(rng.choice(LESION_TYPES)) if main is None else main
    if rng.uniform() >= _MIXED_SHARE:
        return [main] * count
    second = str(rng.choice([kind for kind in LESION_TYPES if kind != main]))
    return [main] + [second if rng.uniform() < 0.4 else main for _ in range(count - 1)]
