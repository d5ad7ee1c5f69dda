"""Ranges of the training's lesion measurements by type, and lesions outside the ranges of all types.

A softmax assigns a type to every lesion, even to one of a type unknown to the network. Bounds of four single
measurements can explain in one sentence why a lesion is like no type; a multivariate distance cannot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from liverseg.labels import LESION_TYPES

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MEASURES", "LesionRanges", "lesion_ranges", "training_distance", "unlike_training"]

LesionRanges = Mapping[str, Mapping[str, tuple[float, float]]]
"""Lower and upper bound of 98 % of the training's lesions by type and measurement."""

MEASURES: Final = {
    "mean_hu": "a mean of {:.0f} HU",
    "std_hu": "a standard deviation of {:.0f} HU",
    "liver_contrast_hu": "{:+.0f} HU against the liver around it",
    "longest_diameter_mm": "a diameter of {:.0f} mm",
}
"""The measurements, columns of the lesion table, and their wording in messages."""

_QUANTILES: Final = (0.01, 0.99)
_MARGIN: Final = 0.25
"""Tolerance at both ends as a share of a range's width, since the training's lesions are only a sample."""
_MIN_LESIONS: Final = 20
"""Fewer lesions of a type do not determine the 1 % quantiles."""


def lesion_ranges(rows: pd.DataFrame) -> dict[str, dict[str, tuple[float, float]]]:
    """Return the field `lesion_ranges` of a weights' record, from lesions of known types.

    Args:
        rows: one row per lesion with `type` and the columns of `MEASURES` of
            `liverseg.inference.measurements.lesion_table`, in mm and HU; empty measurements are ignored. The outlines
            should be those of inference: the network's, for lesions of known type, or else the true ones.

    Raises:
        ValueError: if a column is missing, or if a type has fewer than 20 lesions with a measurement: without the range
            of every type no lesion can be outside of all.

    Example:
        >>> import pandas as pd
        >>> values = {name: range(40) for name in MEASURES}
        >>> rows = pd.concat([pd.DataFrame({"type": name, **values}) for name in LESION_TYPES])
        >>> lesion_ranges(rows)["cyst"]["mean_hu"]
        (0.39, 38.61)
    """
    missing = [name for name in ("type", *MEASURES) if name not in rows.columns]
    if missing:
        raise ValueError(f"rows without {', '.join(missing)}")
    ranges: dict[str, dict[str, tuple[float, float]]] = {}
    for lesion_type in LESION_TYPES:
        of_type = rows[rows["type"] == lesion_type]
        ranges[lesion_type] = {}
        for measure in MEASURES:
            values = of_type[measure].dropna().to_numpy(np.float64)
            if len(values) < _MIN_LESIONS:
                raise ValueError(
                    f"{len(values)} lesions of type {lesion_type} with {measure}; at least {_MIN_LESIONS} are needed"
                )
            low, high = np.quantile(values, _QUANTILES)
            ranges[lesion_type][measure] = (round(float(low), 2), round(float(high), 2))
    return ranges


def training_distance(lesion: Mapping[str, Any], ranges: LesionRanges) -> float:
    """Return the distance of a lesion from the ranges of the nearest type.

    It is the smallest, over types, of the largest distance of a measurement from its range, as a share of the range's
    width; 0 within the ranges of a type. Above 0.25, `unlike_training` calls the lesion unlike the training's.

    Args:
        lesion: the measurements by name.
        ranges: ranges of `lesion_ranges`.
    """
    return min(
        max(
            (_relative_distance(float(lesion[name]), *bounds[name]) for name in MEASURES if name in bounds), default=0.0
        )
        for bounds in ranges.values()
    )


def unlike_training(lesions: Iterable[Mapping[str, Any]], ranges: LesionRanges) -> dict[int, str]:
    """Return the lesions outside the ranges of every type, with the reason.

    A lesion is within a type's ranges if each measurement is between the bounds, or outside by at most a quarter of
    their distance. Empty measurements are ignored.

    Args:
        lesions: each with `id` and the measurements by name, as the records of the lesion table.
        ranges: ranges of `lesion_ranges`.

    Returns:
        Reason by lesion id: the nearest type by the sum of relative distances, and the measurement with the largest
        distance from it.
    """
    reasons: dict[int, str] = {}
    for row in lesions:
        candidates = []
        for lesion_type, bounds in ranges.items():
            distances = {
                name: _relative_distance(float(row[name]), *bounds[name]) for name in MEASURES if name in bounds
            }
            worst = max(distances, key=lambda name: distances[name], default="")
            candidates.append((sum(distances.values()), distances.get(worst, 0.0), lesion_type, worst))
        if training_distance(row, ranges) > _MARGIN:
            _, _, lesion_type, measure = min(candidates)
            low, high = ranges[lesion_type][measure]
            measured = MEASURES[measure].format(row[measure])
            reasons[int(row["id"])] = (
                f"like no lesion of the training: {measured}, while 98 % of those of the nearest type, {lesion_type}, "
                f"have {low:.0f} to {high:.0f}"
            )
    return reasons


def _relative_distance(value: float, low: float, high: float) -> float:
    """Return the distance of a value from an interval as a share of its width; 0 inside it and for NaN."""
    if np.isnan(value):
        return 0.0
    return max(low - value, value - high, 0.0) / max(high - low, 1e-6)
