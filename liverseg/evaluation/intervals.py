"""Intervals and comparisons that respect that a patient's lesions are alike: bootstrap clustered by patient, Holm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Difference", "Estimate", "bootstrap", "holm", "paired_difference", "patient_weights"]

_TAIL = 2.5  # percent on either side of a 95 % interval

Statistic = Callable[[np.ndarray], np.ndarray]
"""From sums over patients (..., columns) to values (...)."""


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; all NaN where the value is not defined."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Difference(Estimate):
    """A paired difference with its 95 % interval and two-sided p value."""

    p: float


def patient_weights(patients: int, resamples: int = 10_000, seed: int = 0) -> np.ndarray:
    """How often each patient is drawn in each resample, shape (resamples, patients).

    Patients are drawn with replacement, as many as there are, each with all its slices and lesions: the bootstrap
    clustered by patient (Field & Welsh 2007).

    Raises:
        ValueError: if there is no patient.
    """
    if patients < 1:
        raise ValueError("no patients to draw from")
    return np.random.default_rng(seed).multinomial(patients, np.full(patients, 1 / patients), size=resamples)


def bootstrap(statistic: Statistic, by_patient: np.ndarray, weights: np.ndarray) -> Estimate:
    """A statistic of all patients and its 95 % percentile interval.

    Args:
        statistic: from sums over patients to the value, e.g. a sum over a count.
        by_patient: each patient's part of those sums, shape (patients, columns).
        weights: from `patient_weights`.

    Resamples in which the statistic is not defined are left out.
    """
    value, resampled = _values(statistic, by_patient, weights)
    return Estimate(value, *_interval(value, resampled))


def paired_difference(statistic: Statistic, ours: np.ndarray, theirs: np.ndarray, weights: np.ndarray) -> Difference:
    """How much a statistic differs on the same patients: ours less theirs; arguments as for `bootstrap`.

    The p value is twice the smaller share of resamples on one side of zero, each share with one added to numerator and
    denominator (Davison & Hinkley 1997), so that none is ever 0.
    """
    own, own_resampled = _values(statistic, ours, weights)
    other, other_resampled = _values(statistic, theirs, weights)
    value, resampled = own - other, own_resampled - other_resampled
    lower, upper = _interval(value, resampled)
    kept = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or not kept.size:
        return Difference(float("nan"), lower, upper, float("nan"))
    below, above = (1 + np.count_nonzero(kept <= 0)), (1 + np.count_nonzero(kept >= 0))
    p = min(1.0, 2 * min(below, above) / (1 + kept.size))
    return Difference(value, lower, upper, p)


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """P values adjusted for being several, by Holm's step-down method (Holm 1979).

    Args:
        p_values: of one family; NaN stays NaN and does not count.
    """
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(p.shape, np.nan)
    order = [index for index in np.argsort(p, kind="stable") if np.isfinite(p[index])]
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p[index]))
        adjusted[index] = largest
    return adjusted


def _values(statistic: Statistic, by_patient: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    sums = np.asarray(by_patient, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(statistic(sums.sum(axis=0))), np.asarray(statistic(weights @ sums), dtype=float)


def _interval(value: float, resampled: np.ndarray) -> tuple[float, float]:
    kept = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or not kept.size:
        return float("nan"), float("nan")
    lower, upper = np.percentile(kept, [_TAIL, 100 - _TAIL])
    return float(lower), float(upper)
