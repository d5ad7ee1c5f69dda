"""Scores of lesions, and the threshold that limits false lesions."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liverseg.evaluation import calibrate_lesion_threshold, compare_lesions
from liverseg.evaluation.lesion_threshold import lesion_score


def table(predicted, found, missed=0, patient="a"):
    """Return a table of predicted lesions (score, hit), scores of found true lesions, and missed lesions."""
    rows = [("predicted", hit, score) for score, hit in predicted]
    rows += [("true", True, score) for score in found] + [("true", False, np.nan)] * missed
    rows = [(patient, *row) for row in rows]
    return pd.DataFrame(rows, columns=["patient", "side", "hit", "lesion_score"])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30), min_size=1, max_size=6), st.randoms())
def test_lesion_score_is_the_ninetieth_percentile(lesions, random):
    voxels = [(number, value) for number, values in enumerate(lesions, 1) for value in values]
    random.shuffle(voxels)
    parts, values = (np.array(column) for column in zip(*voxels, strict=True))
    for values_of, score in zip(lesions, lesion_score(parts, len(lesions), values), strict=True):
        assert np.isclose(score, np.quantile(values_of, 0.9, method="inverted_cdf"))


def test_without_probabilities_scores_are_not_known():
    assert np.isnan(lesion_score(np.array([1, 1, 2]), 2, None)).all()
    assert lesion_score(np.zeros(0, int), 0, np.zeros(0)).shape == (0,)


def test_the_lowest_threshold_with_few_enough_false_lesions():
    rows = table(
        [(0.95, True), (0.9, False), (0.7, True), (0.6, False), (0.5, True), (0.4, False)], [0.95, 0.7, 0.5], 1
    )
    three = calibrate_lesion_threshold(rows, 3)
    assert (three.threshold, three.sensitivity, three.false_per_patient) == pytest.approx((0, 0.75, 3))
    two = calibrate_lesion_threshold(rows, 2)
    assert (two.threshold, two.sensitivity, two.false_per_patient) == pytest.approx((0.45, 0.75, 2))
    limit_one = calibrate_lesion_threshold(rows, 1)
    assert (limit_one.threshold, limit_one.sensitivity, limit_one.false_per_patient) == pytest.approx((0.65, 0.5, 1))
    none = calibrate_lesion_threshold(rows, 0)
    assert (none.threshold, none.sensitivity, none.false_per_patient) == pytest.approx((0.925, 0.25, 0))


def test_false_lesions_are_counted_over_all_patients():
    rows = pd.concat([table([(0.9, False), (0.8, False)], []), table([(0.85, True)], [0.85], patient="b")])
    assert calibrate_lesion_threshold(rows, 1).threshold == 0  # two in two patients
    half = calibrate_lesion_threshold(rows, 0.5)
    assert (half.threshold, half.false_per_patient, half.patients) == pytest.approx((0.825, 0.5, 2))
    assert calibrate_lesion_threshold(rows, 0.5, patients=4).threshold == 0  # two of them without any lesion


def test_all_true_lesions_may_be_lost():
    found = calibrate_lesion_threshold(table([(0.9, False), (0.8, True)], [0.8]), 0)
    assert 0.9 < found.threshold <= 0.901
    assert (found.sensitivity, found.false_per_patient) == (0, 0)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 19).map(lambda number: number / 20), st.booleans()), max_size=25),
    st.sampled_from([0, 0.5, 1, 2.5, 4]),
)
def test_no_other_threshold_is_better(predicted, allowed):
    rows = table(predicted, [score for score, hit in predicted if hit], missed=1)
    found = calibrate_lesion_threshold(rows, allowed, patients=2)
    assert found.false_per_patient <= allowed
    true = np.array([score for score, hit in predicted if hit])
    false = np.array([score for score, hit in predicted if not hit])
    best = max(
        ((true >= level).sum() for level in np.linspace(0, 1.05, 43) if (false >= level).sum() <= 2 * allowed),
        default=0,
    )
    assert found.sensitivity == pytest.approx(best / (len(true) + 1))


def test_what_cannot_be_calibrated_is_refused():
    rows = table([(0.9, False)], [0.8])
    with pytest.raises(ValueError, match="without hit, lesion_score"):
        calibrate_lesion_threshold(rows.drop(columns=["hit", "lesion_score"]), 1)
    with pytest.raises(ValueError, match="false_per_patient is -1; it must be 0 or more"):
        calibrate_lesion_threshold(rows, -1)
    with pytest.raises(ValueError, match="no patient"):
        calibrate_lesion_threshold(rows.iloc[:0], 1)
    with pytest.raises(ValueError, match="lesions without a score"):
        calibrate_lesion_threshold(rows.assign(lesion_score=np.nan), 1)


def test_an_evaluations_rows_can_be_calibrated():
    true, pred = np.zeros((2, 12, 12), np.uint8)
    true[1:4, 1:4] = true[8:10, 8:10] = 2
    pred[1:4, 1:3] = pred[1:3, 6:8] = 2
    probabilities = np.where(pred > 0, 0.9, 0.0)
    probabilities[1:3, 6:8] = 0.6
    rows = compare_lesions(pred, true, (1, 1), lesion_probabilities=probabilities[pred >= 2])
    rows["patient"] = "a"
    scores = rows.set_index("side")["lesion_score"]
    assert sorted(scores["predicted"]) == pytest.approx([0.6, 0.9])
    assert scores["true"].tolist() == [pytest.approx(0.9), pytest.approx(np.nan, nan_ok=True)]
    found = calibrate_lesion_threshold(rows, 0)
    assert (found.threshold, found.sensitivity, found.false_per_patient) == pytest.approx((0.75, 0.5, 0))
