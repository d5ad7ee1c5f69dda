"""How many lesions a patient has, how large they are and of which types, the same for patients' CTs and phantoms.

Sizes and numbers follow 913 lesions in 131 outlines of LiTS: diameters (of the ball of the same volume) are log-normal
with a median of 10.5 mm and a standard deviation of the logarithm of 0.70 from 3 mm on; patients who have lesions have
1, 1, 4.5, 10 and 23 of them at the 5, 25, 50, 75 and 95 % quantile; 10 % of the scans have none. None of it depends on
the type: a network would learn it as a sign of the type.
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
"""Of all scans."""

DIAMETER_LIMITS_MM: Final = (3.0, 110.0)
_MEDIAN_MM: Final = 10.5
_LOG_SD: Final = 0.70

_SINGLE_SHARE: Final = 0.28
_COUNT_MEDIAN: Final = 6.5
_COUNT_LOG_SD: Final = 0.85
_MOST: Final = 40

_MIXED_SHARE: Final = 0.20

_LIVER_HEIGHT_MM: Final = 150.0
_MEAN_HEIGHT_MM: Final = 13.4  # exp(SD²/2) times the median diameter

_Rng = np.random.Generator | np.random.RandomState


def draw_count(rng: _Rng) -> int:
    """Number of lesions of a patient who has any: 1 to 40."""
    if rng.uniform() < _SINGLE_SHARE:
        return 1
    return int(np.clip(round(_COUNT_MEDIAN * math.exp(_COUNT_LOG_SD * rng.standard_normal())), 1, _MOST))


def draw_diameter(rng: _Rng, largest: float = DIAMETER_LIMITS_MM[1], in_section: bool = False) -> float:
    """Diameter in mm of the ball of the same volume as a lesion.

    Args:
        rng: source of random numbers.
        largest: upper limit in mm.
        in_section: draw from the lesions that a slice crosses instead of all. A slice meets a lesion in proportion to
            its diameter, and a log-normal distribution that is weighted by its variable is log-normal with a median
            larger by exp(SD²).
    """
    median = _MEDIAN_MM * (math.exp(_LOG_SD**2) if in_section else 1.0)
    low = DIAMETER_LIMITS_MM[0]
    diameter = median * math.exp(_LOG_SD * rng.standard_normal())
    return float(np.clip(diameter, low, max(low, min(largest, DIAMETER_LIMITS_MM[1]))))


def draw_patient(rng: _Rng) -> list[float]:
    """Diameters in mm of a patient's lesions; one patient of ten has none."""
    if rng.uniform() < LESION_FREE_SHARE:
        return []
    return [draw_diameter(rng) for _ in range(draw_count(rng))]


def draw_section(rng: _Rng) -> list[float]:
    """Diameters in mm of the lesions that a slice with lesions crosses: one, and what it meets of the patient's others.

    The others lie anywhere in the height of the liver, 150 mm.
    """
    more = int(rng.binomial(draw_count(rng) - 1, _MEAN_HEIGHT_MM / _LIVER_HEIGHT_MM))
    return [draw_diameter(rng, in_section=True) for _ in range(1 + more)]


def draw_types(rng: _Rng, count: int, main: str | None = None) -> list[str]:
    """Types of a patient's lesions: all of one type, or in one patient of five some of a second type.

    Args:
        rng: source of random numbers.
        count: number of lesions.
        main: the type of the first lesion; drawn, each equally likely, if it is not given.
    """
    main = str(rng.choice(LESION_TYPES)) if main is None else main
    if rng.uniform() >= _MIXED_SHARE:
        return [main] * count
    second = str(rng.choice([kind for kind in LESION_TYPES if kind != main]))
    return [main] + [second if rng.uniform() < 0.4 else main for _ in range(count - 1)]
