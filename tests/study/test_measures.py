"""A study's figures of one evaluation equal the scores that the evaluation wrote."""

import json

import pytest

from liverseg.study.cells import Cell
from liverseg.study.config import Row
from liverseg.study.measures import LESION_MEASURES, MEASURES
from liverseg.study.results import _read_table


@pytest.mark.parametrize("name", ["evaluation.csv", "lesions.csv"])
def test_pooled_figures_are_those_of_the_evaluation(joint_run, name):
    cell = Cell(Row("joint", "lits", "none", "", (0,), ()), 0, 0, joint_run)
    table = _read_table(cell, name, required=True)
    written = json.loads((joint_run / "evaluation.json").read_text(encoding="utf-8"))
    measures, prefix = (MEASURES, "") if name == "evaluation.csv" else (LESION_MEASURES, "lesion_level_")
    scores = written if name == "evaluation.csv" else written["lesion_level"]
    compared = []
    for measure in measures.values():
        score = scores.get(measure.name.removeprefix(prefix))
        if score is not None:
            value = float(measure.statistic(measure.parts(table).sum().to_numpy()))
            assert value == pytest.approx(score, abs=1e-5), measure.name  # the table has six digits
            compared.append(measure.name)
    assert len(compared) >= 7 - 2 * (name == "lesions.csv")
