"""Scores, compared with cases counted by hand."""

import math

import pytest
import torch

from liverseg.evaluation import BatchPrediction, UnitScores
from liverseg.labels import LIVER_OR_LESION, UNTYPED_LESION


def logits_of(labels, channels, sharp=20.0):
    """Return logits whose softmax is nearly one-hot at `labels` (batch, H, W)."""
    return sharp * torch.nn.functional.one_hot(labels, channels).permute(0, 3, 1, 2).float()


def of_map(labels, channels):
    return BatchPrediction.from_logits(logits_of(labels, channels))


def rows(*rows_):
    return torch.tensor([rows_])


def score(pred, true, types=(-1,), units=(0,), typed=True):
    counted = UnitScores()
    counted.add(of_map(pred, 5 if typed else 3), true[:, None], units, types)
    return counted


def test_counts_by_hand():
    true = rows([1, 1, 1, 0], [1, 2, 2, 0])
    pred = rows([1, 1, 0, 0], [1, 2, 3, 0])
    scores = score(pred, true, types=(0,)).scores()
    assert scores["liver_dice"] == pytest.approx(2 * 5 / (5 + 6))
    assert scores["lesion_dice"] == 1.0
    assert scores["lesion_recall"] == 1.0
    assert scores["class_aware_dice"] == pytest.approx(2 * 1 / 4)
    assert scores["success_rate"] == 1.0


def test_missed_lesion_is_wrongly_typed():
    true, pred = rows([1, 2, 2]), rows([1, 1, 1])
    counted = score(pred, true, types=(0,))
    scores = counted.scores()
    assert scores["lesion_dice"] == scores["lesion_recall"] == scores["type_accuracy"] == 0
    assert counted.table()["pred_type"].item() == ""


def test_no_lesion_and_none_predicted():
    scores = score(rows([1, 1, 0]), rows([1, 1, 0])).scores()
    assert scores["lesion_dice"] == scores["class_aware_dice"] == scores["lesion_dice_global"] == 1
    assert "lesion_recall" not in scores
    assert "type_accuracy" not in scores


@pytest.mark.parametrize(("pred", "rate"), [([1, 1, 1], 0), ([1, 3, 1], 0.5), ([4, 1, 2], 0.5)])
def test_prediction_rate_counts_units_with_a_predicted_lesion_right_or_wrong(pred, rate):
    counted = score(rows([1, 1, 0]), rows([1, 1, 0]))
    counted.add(of_map(rows(pred), 5), rows([2, 1, 1])[:, None], [1], [0])
    assert counted.scores()["prediction_rate"] == rate


def test_false_lesion_on_a_healthy_slice_scores_nothing():
    assert score(rows([1, 3, 0]), rows([1, 1, 0])).scores()["lesion_dice"] == 0


def test_vote_is_by_probability_not_by_count():
    # two uncertain cyst pixels and one certain metastasis
    logits = torch.zeros(1, 5, 1, 3)
    logits[0, 2, 0, :2] = 1.0
    logits[0, 4, 0, :2] = 0.9
    logits[0, 4, 0, 2] = 9.0
    counted = UnitScores()
    counted.add(BatchPrediction.from_logits(logits), torch.tensor([[[[2, 2, 4]]]]), [0], [2])
    row = counted.table().iloc[0]
    assert row["pred_type"] == row["true_type"] == "metastasis"
    assert sum(row[f"probability_{name}"] for name in ("cyst", "hemangioma", "metastasis")) == pytest.approx(1)


def test_units_gather_over_batches_and_global_dice_pools_them():
    counted = UnitScores()
    first, second = rows([2, 2, 1]), rows([2, 0, 0])
    counted.add(of_map(first, 3), rows([2, 1, 1])[:, None], [0], [-1])
    counted.add(of_map(second, 3), rows([2, 2, 2])[:, None], [0], [-1])
    counted.add(of_map(first, 3), rows([2, 2, 1])[:, None], [7], [-1])
    table = counted.table()
    assert table.index.tolist() == [0, 7]
    assert table["lesion_hit"].tolist() == [2, 2]
    scores = counted.scores()
    assert scores["lesion_dice"] == pytest.approx((4 / 7 + 1) / 2)
    assert scores["lesion_dice_global"] == pytest.approx(2 * 4 / (5 + 6))
    assert math.isclose(scores["lesion_recall"], (2 / 4 + 1) / 2)


def test_nothing_counted_is_an_error():
    with pytest.raises(ValueError, match="no unit"):
        UnitScores().scores()


def test_type_vector_names_lesion_pixels_and_works_without_lesion():
    maps = logits_of(rows([1, 2, 2], [1, 1, 1]).reshape(2, 1, 3), 3)
    types = torch.log(torch.tensor([[0.2, 0.7, 0.1], [0.1, 0.1, 0.8]]))
    prediction = BatchPrediction.from_logits(maps, types)
    assert prediction.labels.tolist() == [[[1, 3, 3]], [[1, 1, 1]]]
    counted = UnitScores()
    counted.add(prediction, torch.tensor([[[[1, 3, 2]]], [[[1, 1, 4]]]]), [0, 1], [1, 2])
    table, scores = counted.table(), counted.scores()
    assert table["typed_hit"].tolist() == [1, 0]
    assert table["pred_type"].tolist() == ["hemangioma", "metastasis"]
    assert table["probability_hemangioma"].tolist() == pytest.approx([0.7, 0.1])
    assert scores["type_accuracy"] == scores["type_accuracy_detected"] == 1
    assert scores["type_accuracy_end_to_end"] == 0.5  # the second slice's lesion was not found
    assert scores["type_log_likelihood"] == pytest.approx((math.log(0.7) + math.log(0.8)) / 2)


def test_a_map_without_types_has_no_type_scores():
    scores = score(rows([1, 2, 2]), rows([1, 4, 4]), types=(2,), typed=False)
    assert scores.scores()["lesion_dice"] == 1
    assert not {"class_aware_dice", "type_accuracy"} & {*scores.scores()}
    assert not {"typed_hit", "class_aware_dice", "true_type", "pred_type"} & {*scores.table()}


def test_a_classifier_has_type_scores_alone():
    counted = UnitScores()
    types = torch.log(torch.tensor([[0.6, 0.3, 0.1], [0.6, 0.3, 0.1]]))
    counted.add(
        BatchPrediction.from_logits(None, types), rows([2, 2, 1], [1, 1, 1]).reshape(2, 1, 1, 3), [0, 1], [0, 1]
    )
    assert {*counted.scores()} == {"type_accuracy", "type_log_likelihood"}
    assert counted.scores()["type_accuracy"] == 0.5
    assert not {"lesion_dice", "lesion_hit"} & {*counted.table()}


def test_undistinguished_lesions_leave_only_liver_scores():
    partial = rows([LIVER_OR_LESION, LIVER_OR_LESION, LIVER_OR_LESION, 0])
    pred = rows([1, 3, 0, 2])
    scores = score(pred, partial).scores()
    assert scores == {"liver_dice": pytest.approx(2 * 2 / (3 + 3))}
    full = rows([1, 2, 2, 0])
    both = score(torch.cat([pred, rows([1, 2, 0, 0])]), torch.cat([partial, full]), (-1, 0), (0, 1))
    table = both.table()
    assert table[["lesion_hit", "lesion_pred", "lesion_true", "typed_hit", "lesion_dice"]].iloc[0].isna().all()
    alone = score(rows([1, 2, 0, 0]), full, (0,)).scores()
    scores = both.scores()
    assert scores.keys() == alone.keys()
    assert {name: scores[name] for name in scores if name != "liver_dice"} == {
        name: alone[name] for name in alone if name != "liver_dice"
    }


def test_lesion_of_unknown_type_counts_only_its_outline():
    scores = score(rows([1, 3, 2, 0]), rows([1, UNTYPED_LESION, UNTYPED_LESION, 1])).scores()
    assert scores["lesion_dice"] == scores["lesion_recall"] == 1
    assert scores["liver_dice"] == pytest.approx(2 * 3 / (3 + 4))
    assert "class_aware_dice" not in scores and "type_accuracy" not in scores
