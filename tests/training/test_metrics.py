"""Scores of an evaluator's epoch: counted over batches, cleared between epochs, stored by name."""

import pandas as pd
import pytest
import torch
from ignite.engine import Engine

from liverseg.errors import UsageError
from liverseg.training import SlabScores


def batch(pred, true, units, types):
    """Return a batch with logits that predict `pred`."""
    logits = 20 * torch.nn.functional.one_hot(torch.tensor(pred), 5).permute(0, 3, 1, 2).float()
    labels = torch.tensor(true)[:, None]
    return {"pred": logits, "label": labels, "unit": torch.tensor(units), "lesion_type": torch.tensor(types)}


# two slices of unit 0, a cyst half found; unit 1, a metastasis found and predicted as cyst
FIRST = batch([[[1, 2, 1]], [[2, 1, 1]]], [[[1, 2, 2]], [[2, 2, 1]]], [0, 0], [0, 0])
SECOND = batch([[[1, 2, 2]]], [[[1, 4, 4]]], [1], [2])


def evaluated(*batches, epochs=1, **settings):
    engine = Engine(lambda engine, given: {"pred": given["pred"], "label": given["label"]})
    scores = SlabScores(**settings)
    scores.attach(engine, "the_key")
    engine.run(list(batches), max_epochs=epochs)
    return engine.state.metrics, scores


def test_scores_are_counted_by_unit_and_stored_by_name():
    metrics, _ = evaluated(FIRST, SECOND, key="class_aware_dice")
    assert metrics["the_key"] == metrics["val_class_aware_dice"] == pytest.approx((4 / 6 + 0) / 2)
    assert metrics["val_lesion_dice"] == pytest.approx((4 / 6 + 1) / 2)
    assert metrics["val_lesion_recall"] == pytest.approx((2 / 4 + 1) / 2)
    assert metrics["val_type_accuracy"] == 0.5
    assert metrics["val_liver_dice"] == 1


def test_a_second_epoch_starts_from_zero():
    once, _ = evaluated(FIRST, SECOND)
    assert evaluated(FIRST, SECOND, epochs=2)[0] == once


def test_another_prefix():
    assert "test_lesion_dice" in evaluated(FIRST, prefix="test_")[0]


def test_an_unknown_key_names_those_there_are():
    with pytest.raises(UsageError, match=r"key_score is 'dice'; it must be one of liver_dice, .*type_accuracy"):
        SlabScores("dice")


def test_a_key_that_a_network_does_not_give():
    with pytest.raises(UsageError, match=r"'class_aware_dice', which this network does not have; it has liver_dice"):
        evaluated({**FIRST, "pred": FIRST["pred"][:, :3]}, key="class_aware_dice")


def test_the_table_says_what_each_unit_is(tmp_path):
    _, scores = evaluated(SECOND, FIRST)
    scores.write_table(tmp_path / "table.csv", [{"patient": "a", "slice": 4}, {"patient": "b", "slice": 7}])
    table = pd.read_csv(tmp_path / "table.csv")
    assert table[["patient", "slice", "true_type", "pred_type"]].to_numpy().tolist() == [
        ["a", 4, "cyst", "cyst"],
        ["b", 7, "metastasis", "cyst"],
    ]
    assert "unit" not in table
