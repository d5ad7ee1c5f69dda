"""What an evaluation leaves on disk."""

import json
import logging

import pandas as pd
import torch
from ignite.engine import Engine

from liverseg.datalists import DataItem
from liverseg.training import EvaluationWriter, SlabScores

ITEMS = (
    DataItem("a.nii", "s.nii", "p1", slice=3, lesion_type="cyst"),
    DataItem("a.nii", "s.nii", "p1", slice=9, lesion_type="cyst"),
    DataItem("b.nii", "t.nii", "p2", slice=0, lesion_type="metastasis"),
)


def test_a_row_a_unit_one_file_of_scores_and_a_line_in_the_log(tmp_path, caplog):
    labels = torch.tensor([[[[1, 2]]], [[[1, 2]]], [[[1, 4]]]])
    pred = torch.tensor([[[1, 2]], [[1, 1]], [[1, 4]]])  # the second slice's cyst is missed
    logits = 20 * torch.nn.functional.one_hot(pred, 5).permute(0, 3, 1, 2).float()
    batch = {"unit": torch.arange(3), "lesion_type": torch.tensor([0, 0, 2])}
    evaluator = Engine(lambda *_: {"pred": logits, "label": labels})
    scores = SlabScores()
    scores.attach(evaluator, "val_lesion_dice")
    EvaluationWriter(tmp_path, ITEMS, scores, "joint").attach(evaluator)
    with caplog.at_level(logging.INFO, logger="liverseg"):
        evaluator.run([batch])
    table = pd.read_csv(tmp_path / "evaluation.csv", keep_default_na=False)
    assert table[["patient", "image", "slice", "lesion_dice", "pred_type"]].to_numpy().tolist() == [
        ["p1", "a.nii", 3, 1.0, "cyst"],
        ["p1", "a.nii", 9, 0.0, ""],
        ["p2", "b.nii", 0, 1.0, "metastasis"],
    ]
    content = json.loads((tmp_path / "evaluation.json").read_text())
    assert (content["units"], content["patients"]) == (3, 2)
    assert content["type_accuracy"] == content["lesion_dice"] == 2 / 3
    (line,) = [record.getMessage() for record in caplog.records if "patients" in record.getMessage()]
    assert line.startswith("joint, 2 patients: liver_dice 1.000, lesion_dice 0.667")
