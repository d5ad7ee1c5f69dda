"""Intervals over patients, and p values corrected for multiple tests."""

import math

import numpy as np
import pytest
import scipy.stats
from scipy.stats import bootstrap as scipy_bootstrap

from liverseg.evaluation import bootstrap, detectable_difference, holm, paired_difference, patient_weights


def mean(sums):
    return sums[..., 0] / sums[..., 1]


def one_each(values):
    return np.stack([values, np.ones(len(values))], axis=1)


def test_every_resample_draws_as_many_patients_as_there_are():
    weights = patient_weights(7, resamples=50, seed=3)
    assert weights.shape == (50, 7)
    assert (weights.sum(axis=1) == 7).all()
    assert (patient_weights(7, resamples=50, seed=3) == weights).all()
    with pytest.raises(ValueError, match="no patients"):
        patient_weights(0)


def test_the_interval_of_a_mean_is_scipys():
    values = np.random.default_rng(0).gamma(2.0, size=60)
    found = bootstrap(mean, one_each(values), patient_weights(60))
    theirs = scipy_bootstrap((values,), np.mean, method="percentile", n_resamples=10_000, rng=1).confidence_interval
    assert found.value == pytest.approx(values.mean())
    assert found.lower == pytest.approx(theirs.low, abs=0.03)
    assert found.upper == pytest.approx(theirs.high, abs=0.03)


def test_slices_of_one_patient_do_not_make_it_surer():
    values = np.random.default_rng(1).normal(size=30)
    weights = patient_weights(30)
    once = bootstrap(mean, one_each(values), weights)
    tenfold = bootstrap(mean, 10 * one_each(values), weights)
    assert (once.lower, once.upper) == pytest.approx((tenfold.lower, tenfold.upper))


def test_a_patient_with_more_slices_weighs_more():
    by_patient = np.array([[3.0, 3], [0.0, 1]])
    assert bootstrap(mean, by_patient, patient_weights(2)).value == 0.75


def test_pairing_finds_what_two_intervals_hide():
    rng = np.random.default_rng(2)
    base = rng.normal(0.5, 0.2, 40)
    better = base + rng.normal(0.03, 0.02, 40)
    weights = patient_weights(40)
    difference = paired_difference(mean, one_each(better), one_each(base), weights)
    assert difference.value == pytest.approx((better - base).mean())
    assert difference.lower > 0
    assert difference.p == pytest.approx(2 / 10_001)
    # that of a mean of independent differences
    assert difference.standard_error == pytest.approx((better - base).std() / math.sqrt(40), rel=0.03)
    apart = [bootstrap(mean, one_each(values), weights) for values in (better, base)]
    assert apart[0].lower < apart[1].upper


def test_no_difference_has_a_p_of_one():
    values = one_each(np.random.default_rng(3).normal(size=20))
    difference = paired_difference(mean, values, values, patient_weights(20))
    assert (difference.value, difference.lower, difference.upper, difference.p) == (0, 0, 0, 1)
    assert difference.standard_error == 0


def test_what_is_not_defined_is_nan():
    nothing = np.zeros((5, 2))
    found = bootstrap(mean, nothing, patient_weights(5))
    assert math.isnan(found.value)
    assert math.isnan(found.lower)
    difference = paired_difference(mean, nothing, nothing, patient_weights(5))
    assert math.isnan(difference.p) and math.isnan(detectable_difference(difference.standard_error))


@pytest.mark.parametrize("comparisons", [1, 7])
def test_detectable_difference_is_found_in_four_of_five_studies(comparisons):
    error = 0.02
    true = detectable_difference(error, comparisons)
    estimates = np.random.default_rng(4).normal(true, error, 100_000)
    p = 2 * scipy.stats.norm.sf(np.abs(estimates) / error)
    assert np.mean(p < 0.05 / comparisons) == pytest.approx(0.8, abs=0.005)


def test_detectable_difference_of_one_comparison_is_2_80_standard_errors():
    assert detectable_difference(1.0) == pytest.approx(2.80, abs=0.002)
    with pytest.raises(ValueError, match="at least 1"):
        detectable_difference(1.0, 0)


def test_resamples_without_a_value_are_left_out():
    by_patient = np.array([[1.0, 1], [0.0, 0], [0.0, 0]])
    found = bootstrap(mean, by_patient, patient_weights(3))
    assert (found.value, found.lower, found.upper) == (1, 1, 1)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == pytest.approx([1, 1])
    adjusted = holm([0.02, math.nan, 0.01])
    assert adjusted[[0, 2]] == pytest.approx([0.02, 0.02])
    assert math.isnan(adjusted[1])
