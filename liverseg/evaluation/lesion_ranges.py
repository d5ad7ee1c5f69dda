"""What lesions of each type measured in the training, and lesions that measure like none of them.

A softmax names every lesion, also one of a type the network has never seen. Four measurements of a lesion are compared
with those of the training's lesions, one by one: bounds for each say in one sentence why a lesion is like no type,
which a distance in all of them at once does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import pandas as pd

from liverseg.labels import LESION_TYPES

__all__ = ["MEASURES", "LesionRanges", "lesion_ranges", "unlike_training"]

LesionRanges = Mapping[str, Mapping[str, tuple[float, float]]]
"""By type and measurement, what 98 of 100 lesions of the training had: from which value to which."""

MEASURES: Final = {
    "mean_hu": "a mean of {:.0f} HU",
    "std_hu": "a standard deviation of {:.0f} HU",
    "liver_contrast_hu": "{:+.0f} HU against the liver around it",
    "longest_diameter_mm": "a diameter of {:.0f} mm",
}
"""The measurements, columns of the lesion table, and how they are told."""

_QUANTILES: Final = (0.01, 0.99)
_MARGIN: Final = 0.25
"""So much of a range's width may be missing at either end: the training's lesions are a sample."""
_FEWEST: Final = 20
"""Lesions of a type; fewer say nothing about the hundredth at either end."""


def lesion_ranges(rows: pd.DataFrame) -> dict[str, dict[str, tuple[float, float]]]:
    """The field `lesion_ranges` of a weights' record, from lesions of known types.

    Args:
        rows: a row a lesion: `type`, and the columns of `MEASURES` as
            `liverseg.inference.measurements.lesion_table` gives them; mm and HU. An empty measurement is left out.
            Measure lesions as they are found in inference: the network's outlines of lesions whose types are known, or
            the true ones where there is no better.

    Raises:
        ValueError: if a column is missing, or a type has fewer than 20 lesions with a measurement: without a range for
            each type nothing can be said to be outside of all.

    Example:
        >>> values = {name: range(40) for name in MEASURES}
        >>> rows = pd.concat([pd.DataFrame({"type": name, **values}) for name in LESION_TYPES])
        >>> lesion_ranges(rows)["cyst"]["mean_hu"]
        (0.39, 38.61)
    """
    missing = [name for name in ("type", *MEASURES) if name not in rows.columns]
    if missing:
        raise ValueError(f"rows without {', '.join(missing)}")
    ranges: dict[str, dict[str, tuple[float, float]]] = {}
    for kind in LESION_TYPES:
        own = rows[rows["type"] == kind]
        ranges[kind] = {}
        for measure in MEASURES:
            values = own[measure].dropna().to_numpy(np.float64)
            if len(values) < _FEWEST:
                raise ValueError(f"{len(values)} lesions of type {kind} with {measure}; at least {_FEWEST} are needed")
            low, high = np.quantile(values, _QUANTILES)
            ranges[kind][measure] = (round(float(low), 2), round(float(high), 2))
    return ranges


def unlike_training(table: pd.DataFrame, ranges: LesionRanges) -> dict[int, str]:
    """Lesions that are outside the ranges of every type, and why.

    A lesion is within a type's ranges if each of its measurements lies between the bounds, or beyond one of them by at
    most a quarter of their distance. An empty measurement is not judged.

    Args:
        table: a row a lesion, of `liverseg.inference.measurements.lesion_table`.
        ranges: of `lesion_ranges`.

    Returns:
        A reason by lesion id: the type that is missed by least in all, and the measurement that misses it by most.
    """
    reasons: dict[int, str] = {}
    for row in table.to_dict("records"):
        misses = []
        for kind, bounds in ranges.items():
            by = {name: _beyond(float(row[name]), *bounds[name]) for name in MEASURES if name in bounds}
            worst = max(by, key=lambda name: by[name], default="")
            misses.append((sum(by.values()), by.get(worst, 0.0), kind, worst))
        if min(beyond for _, beyond, _, _ in misses) > _MARGIN:
            _, _, kind, measure = min(misses)
            low, high = ranges[kind][measure]
            told = MEASURES[measure].format(row[measure])
            reasons[int(row["id"])] = (
                f"like no lesion of the training: {told}, while 98 % of those of the nearest type, {kind}, have "
                f"{low:.0f} to {high:.0f}"
            )
    return reasons


def _beyond(value: float, low: float, high: float) -> float:
    """How far a value lies outside two bounds, as a share of their distance; 0 within them or where it is not known."""
    if np.isnan(value):
        return 0.0
    return max(low - value, value - high, 0.0) / max(high - low, 1e-6)
