import math

import pytest
from pretend_study import fill_cell, fill_peer, write_events, write_study

from liverseg.study.curves import read_curves, row_progress
from liverseg.study.findings import lengths_of_trainings
from liverseg.study.results import read_results
from liverseg.study.tables import training_table

ROW = "joint-lits-none"


def _progress(study):
    results = read_results(study)
    return row_progress(results, read_curves(results))


@pytest.fixture
def study(tmp_path):
    """A study with the complete cells of a row, but without events."""
    study = write_study(tmp_path)
    for fold in (0, 1):
        for seed in (0, 1):
            fill_cell(study, ROW, fold, seed)
    return study


def test_means_are_of_the_scores_of_these_epochs(study):
    # the score at 28 of 40 epochs is that at three quarters
    write_events(study, ROW, 0, 0, val_score={4: 0.1, 20: 0.5, 28: 0.4, 32: 0.55, 40: 0.6})
    write_events(study, ROW, 0, 1, val_score={4: 0.3, 20: 0.2, 28: 0.7, 40: 0.7})
    # ended early, after 20 epochs; 10 and 15 are a half and three quarters of them
    write_events(study, ROW, 1, 0, val_score={5: 0.4, 10: 0.2, 15: 0.3, 20: 0.25}, train_loss={1: 9.0})
    (of_row,) = _progress(study)
    assert (of_row.row.name, of_row.key_score, of_row.trainings) == (ROW, "class_aware_dice", 3)
    assert of_row.half == pytest.approx((0.5 + 0.2 + 0.2) / 3)
    assert of_row.three_quarters == pytest.approx((0.4 + 0.7 + 0.3) / 3)
    assert of_row.end == pytest.approx((0.6 + 0.7 + 0.25) / 3)
    assert of_row.rise == pytest.approx(0.15 / 3)
    # rises .2, 0 and -.05 have the sample variance .0175
    assert of_row.standard_error == pytest.approx((0.0175 / 3) ** 0.5)
    (line,) = training_table([of_row]).rows
    assert line[3:] == ["class-aware Dice", "3 of 4", "0.300", "0.467", "0.517", "+0.050 ± 0.076"]


def test_a_resumed_training_has_the_later_value_of_an_epoch(study):
    write_events(study, ROW, 0, 0, val_score={1: 0.1, 2: 0.2, 3: 0.9})
    write_events(study, ROW, 0, 0, val_score={3: 0.3, 4: 0.4})
    (of_row,) = _progress(study)
    assert (of_row.half, of_row.three_quarters, of_row.end) == pytest.approx((0.2, 0.3, 0.4))


@pytest.mark.parametrize("values", [{}, {3: 0.5, 4: 0.6}, {1: math.nan, 2: math.nan}])
def test_trainings_without_a_score_in_the_first_half_are_left_out(study, values):
    write_events(study, ROW, 0, 0, val_score=values, val_lesion_dice={1: 0.5})
    write_events(study, ROW, 1, 0, val_score={1: 0.5, 2: math.nan, 3: 0.5, 4: 0.5})
    (of_row,) = _progress(study)
    assert (of_row.trainings, of_row.half, of_row.end) == (1, 0.5, 0.5)
    assert math.isnan(of_row.standard_error)
    (line,) = training_table([of_row]).rows
    assert line[-1] == "+0.000"
    (sentence,) = lengths_of_trainings([of_row])
    assert sentence.text.endswith("less than 0.01 in 1 of 1 rows; the curves of 3 of 4 trainings are missing.")


@pytest.mark.parametrize(("end", "named"), [(0.509, False), (0.51, True), (0.6, True)])
def test_rows_that_rise_by_a_hundredth_or_more_are_named(study, end, named):
    for fold in (0, 1):
        for seed in (0, 1):
            write_events(study, ROW, fold, seed, val_score={1: 0.4, 2: 0.5, 3: 0.5, 4: end})
    (sentence,) = lengths_of_trainings(_progress(study))
    assert (f"`{ROW}` (+{end - 0.5:.3f} ± 0.000)" in sentence.text) == named
    assert sentence.text.endswith("too short." if named else "in 1 of 1 rows.")


def test_each_strategys_own_score_decides(tmp_path):
    rows = [{"strategy": ["classification", "segmentation", "ynet"], "initialisation": "scratch"}]
    rows += [{"strategy": "joint", "initialisation": "lits", "overrides": {"key_score": "lesion_dice"}}]
    study = write_study(tmp_path, rows=rows)
    for row in ("classification-scratch-none", "segmentation-scratch-none", "ynet-scratch-none", ROW):
        fill_cell(study, row, 0, 0)
    progress = _progress(study)
    assert [line[3:] for line in training_table(progress).rows] == [
        ["type accuracy", "0 of 1", "", "", "", ""],
        ["lesion Dice", "0 of 1", "", "", "", ""],
        ["class-aware Dice", "0 of 1", "", "", "", ""],
        ["lesion Dice", "0 of 1", "", "", "", ""],
    ]


def test_peers_are_left_out(tmp_path):
    study = write_study(tmp_path, peers=[{"strategy": "nnunet", "seeds": [0]}])
    fill_cell(study, ROW, 0, 0)
    fill_peer(study, "nnunet-scratch-none", 0, 0)
    write_events(study, "nnunet-scratch-none", 0, 0, val_score={1: 0.1, 2: 0.2})
    assert [of_row.row.name for of_row in _progress(study)] == [ROW]
