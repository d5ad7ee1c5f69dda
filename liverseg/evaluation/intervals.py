"""Confidence intervals and paired comparisons by a bootstrap clustered by patient, and Holm's adjustment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Difference", "Estimate", "bootstrap", "holm", "paired_difference", "patient_weights"]

_TAIL = 2.5  # percent on either side of a 95 % interval

Statistic = Callable[[np.ndarray], np.ndarray]
"""Maps sums over patients (..., columns) to values (...)."""


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; all NaN for an undefined value."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Difference(Estimate):
    """A paired difference with its 95 % interval and two-sided p value."""

    p: float


def patient_weights(patients: int, resamples: int = 10_000, seed: int = 0) -> np.ndarray:
    """Return how many times each patient is drawn in each resample, shape (resamples, patients).

    This is the bootstrap clustered by patient (Field & Welsh 2007): a resample has as many patients as there are, drawn
    with replacement, each with all slices and lesions.

    Raises:
        ValueError: if there is no patient.
    """
    if patients < 1:
        raise ValueError("no patients to draw from")
    return np.random.default_rng(seed).multinomial(patients, np.full(patients, 1 / patients), size=resamples)


def bootstrap(statistic: Statistic, by_patient: np.ndarray, weights: np.ndarray) -> Estimate:
    """Return a statistic of all patients and its 95 % percentile interval.

    Resamples in which the statistic is undefined are left out.

    Args:
        statistic: maps sums over patients to the value, for example to a ratio of a sum and a count.
        by_patient: each patient's contribution to these sums, shape (patients, columns).
        weights: from `patient_weights`.
    """
    value, resampled = _evaluate(statistic, by_patient, weights)
    return Estimate(value, *_interval(value, resampled))


def paired_difference(statistic: Statistic, ours: np.ndarray, theirs: np.ndarray, weights: np.ndarray) -> Difference:
    """Return the difference `ours` - `theirs` of a statistic on the same patients; arguments as for `bootstrap`.

    The p value is twice the smaller share of resamples on one side of zero, with one added to numerator and denominator
    of each share (Davison & Hinkley 1997), so that it is never 0.
    """
    our_value, our_resampled = _evaluate(statistic, ours, weights)
    their_value, their_resampled = _evaluate(statistic, theirs, weights)
    value, resampled = our_value - their_value, our_resampled - their_resampled
    lower, upper = _interval(value, resampled)
    finite = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or not finite.size:
        return Difference(float("nan"), lower, upper, float("nan"))
    below, above = (1 + np.count_nonzero(finite <= 0)), (1 + np.count_nonzero(finite >= 0))
    p = min(1.0, 2 * min(below, above) / (1 + finite.size))
    return Difference(value, lower, upper, p)


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Adjust p values for multiple comparisons by Holm's step-down method (Holm 1979).

    Args:
        p_values: p values of one family; NaN stays NaN and does not count.
    """
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(p.shape, np.nan)
    order = [index for index in np.argsort(p, kind="stable") if np.isfinite(p[index])]
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p[index]))
        adjusted[index] = largest
    return adjusted


def _evaluate(statistic: Statistic, by_patient: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    sums = np.asarray(by_patient, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(statistic(sums.sum(axis=0))), np.asarray(statistic(weights @ sums), dtype=float)


def _interval(value: float, resampled: np.ndarray) -> tuple[float, float]:
    finite = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or not finite.size:
        return float("nan"), float("nan")
    lower, upper = np.percentile(finite, [_TAIL, 100 - _TAIL])
    return float(lower), float(upper)
