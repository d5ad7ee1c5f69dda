"""Confidence intervals and paired comparisons by a bootstrap clustered by patient, and Holm's adjustment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

__all__ = [
    "POWER",
    "SIGNIFICANCE",
    "Difference",
    "Estimate",
    "bootstrap",
    "detectable_difference",
    "holm",
    "paired_difference",
    "patient_weights",
]

SIGNIFICANCE = 0.05
"""A difference is significant if its two-sided p value is below this."""
POWER = 0.8
"""Probability with which a test finds a true difference of the size of `detectable_difference`."""

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
    """A paired difference with its 95 % interval, two-sided p value, and the resamples' standard deviation."""

    p: float
    standard_error: float


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
        return Difference(float("nan"), lower, upper, float("nan"), float("nan"))
    below, above = (1 + np.count_nonzero(finite <= 0)), (1 + np.count_nonzero(finite >= 0))
    p = min(1.0, 2 * min(below, above) / (1 + finite.size))
    return Difference(value, lower, upper, p, float(np.std(finite)))


def detectable_difference(standard_error: float, comparisons: int = 1) -> float:
    """Return the smallest true difference that a test finds with a probability of `POWER`.

    The test is two-sided at the level `SIGNIFICANCE`. The difference is z(1 - .05 / 2) + z(.8) = 2.80 standard errors
    of a normally distributed estimate (Bloom, Minimum detectable effects, Evaluation Review 19, 1995, 547). It does not
    depend on the difference that was observed.

    Args:
        standard_error: of the difference.
        comparisons: number of comparisons in a family that Holm's method adjusts. The level is divided by it, as in the
            first and strictest of Holm's steps, so that the power in the family is at least `POWER`.

    Raises:
        ValueError: if there are no comparisons.
    """
    if comparisons < 1:
        raise ValueError(f"{comparisons} comparisons; at least 1 is needed")
    normal = NormalDist()
    return (normal.inv_cdf(1 - SIGNIFICANCE / (2 * comparisons)) + normal.inv_cdf(POWER)) * standard_error


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
