"""Rates of a confusion matrix, ranking and calibration, compared with values computed by hand."""

import math
import warnings

import numpy as np
import pytest

from liverseg.evaluation import bootstrap, patient_weights
from liverseg.evaluation.lesion_types import (
    accuracy,
    balanced_accuracy,
    calibration_error,
    confusion,
    confusion_table,
    macro_f1,
    mean_auc,
    reliability,
    sensitivity,
    specificity,
)

# rows cyst, hemangioma, metastasis, false positive; columns the types, missed
COUNTS = np.array([[3, 1, 0, 0], [0, 2, 0, 2], [1, 0, 5, 0], [0, 1, 1, 0]])
FLAT = COUNTS.ravel()


def test_counting_with_missed_and_false_positives():
    true = ["cyst"] * 4 + ["hemangioma"] * 4 + ["metastasis"] * 6 + ["", ""]
    pred = ["cyst"] * 3 + ["hemangioma"] + ["hemangioma"] * 2 + ["", ""] + ["cyst"] + ["metastasis"] * 5
    assert (confusion(true, [*pred, "hemangioma", "metastasis"]) == COUNTS).all()
    table = confusion_table(COUNTS)
    assert table.loc["hemangioma", "missed"] == 2
    assert table.loc["false positive", "metastasis"] == 1


def test_a_name_that_is_no_type():
    with pytest.raises(ValueError, match="'abscess' is no lesion type"):
        confusion(["abscess"], ["cyst"])


def test_rates():
    assert accuracy(FLAT) == pytest.approx(10 / 14)
    assert sensitivity(FLAT) == pytest.approx([3 / 4, 2 / 4, 5 / 6])
    assert specificity(FLAT) == pytest.approx([1 - 1 / 12, 1 - 2 / 12, 1 - 1 / 10])
    assert balanced_accuracy(FLAT) == pytest.approx((3 / 4 + 2 / 4 + 5 / 6) / 3)
    assert macro_f1(FLAT) == pytest.approx((6 / 8 + 4 / 8 + 10 / 12) / 3)


def test_rates_of_many_at_once():
    both = np.stack([FLAT, 2 * FLAT])
    assert balanced_accuracy(both).tolist() == [balanced_accuracy(FLAT)] * 2
    assert sensitivity(both).shape == specificity(both).shape == (2, 3)


def test_a_type_that_does_not_occur_does_not_count():
    counts = confusion(["cyst", "cyst", "metastasis"], ["cyst", "", "metastasis"]).ravel()
    assert balanced_accuracy(counts) == pytest.approx((1 / 2 + 1) / 2)
    assert macro_f1(counts) == pytest.approx((2 / 3 + 1) / 2)
    assert sensitivity(counts) == pytest.approx([1 / 2, math.nan, 1], nan_ok=True)


def test_false_positives_alone_leave_only_specificity():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        counts = confusion(["", "", ""], ["cyst", "cyst", "metastasis"]).ravel()
        assert specificity(counts) == pytest.approx([1 / 3, 1, 2 / 3])
        assert math.isnan(balanced_accuracy(counts))
        assert macro_f1(counts) == 0


def test_resamples_without_a_type_are_skipped_silently():
    by_patient = np.zeros((3, 16))
    by_patient[0, 0] = 2  # only the first patient has a lesion, a cyst that is predicted as one
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rate in (accuracy, balanced_accuracy, macro_f1):
            found = bootstrap(rate, by_patient, patient_weights(3, resamples=50))
            assert (found.value, found.lower, found.upper) == (1, 1, 1)


def test_auc_is_one_against_the_rest():
    true = ["cyst", "cyst", "hemangioma", "metastasis"]
    probabilities = np.array([[0.8, 0.1, 0.1], [0.3, 0.5, 0.2], [0.4, 0.4, 0.2], [0.1, 0.1, 0.8]])
    # cyst: of 2 x 2 pairs one is out of order; hemangioma: 0.5 above it, 0.1 and 0.1 below; metastasis: in order
    assert mean_auc(true, probabilities) == pytest.approx((3 / 4 + 2 / 3 + 1) / 3)
    assert math.isnan(mean_auc(["cyst"], probabilities[:1]))


def test_calibration():
    true = ["cyst"] * 4
    pred = ["cyst", "cyst", "metastasis", "cyst"]
    sure = [0.92, 0.98, 0.55, 1.0]
    bins = reliability(true, pred, sure)
    assert bins["count"].tolist() == [1, 3]
    assert bins["accuracy"].tolist() == [0, 1]
    assert bins["confidence"].tolist() == pytest.approx([0.55, 2.9 / 3])
    assert calibration_error(true, pred, sure) == pytest.approx((1 * 0.55 + 3 * (1 - 2.9 / 3)) / 4)
    assert math.isnan(calibration_error([], [], []))
