"""Paired differences between rows, on the same patients, folds and seeds, adjusted for how many there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from liverseg.evaluation.intervals import Difference, holm, paired_difference
from liverseg.study.estimates import cell_sums, weights_for
from liverseg.study.measures import MEASURES
from liverseg.study.results import RowResults, StudyResults

__all__ = ["COMPARED", "QUESTIONS", "Comparison", "compare", "find"]

COMPARED = ("type_accuracy", "lesion_dice", "lesion_recall", "class_aware_dice")
"""The measures that are compared."""

QUESTIONS = {
    "strategy": "strategies against joint, from the same initialisation",
    "initialisation": "initialisations of the same strategy",
    "plan": "fine-tuning plans against none",
}


@dataclass(frozen=True)
class Comparison:
    """One row less another, by one measure.

    Attributes:
        question: key of `QUESTIONS`.
        measure: name of the measure.
        row: name of the row.
        other: name of the row it is compared with.
        seeds: that both rows have been trained with: others of either row are left out.
        patients: that both rows have scored with them.
        difference: row less other.
        adjusted_p: by Holm, over all comparisons of this question and measure.
    """

    question: str
    measure: str
    row: str
    other: str
    seeds: tuple[int, ...]
    patients: int
    difference: Difference
    adjusted_p: float

    def turned(self) -> Comparison:
        """The same comparison from the other side."""
        own = self.difference
        turned = Difference(-own.value, -own.upper, -own.lower, own.p)
        return replace(self, row=self.other, other=self.row, difference=turned)


def compare(results: StudyResults) -> list[Comparison]:
    """Every comparison the study's rows allow; one family of Holm's for each question and measure."""
    compared: list[Comparison] = []
    for question in QUESTIONS:
        pairs = _pairs(results, question)
        for measure in COMPARED:
            family = [one for row, other in pairs if (one := _compared(question, measure, row, other)) is not None]
            adjusted = holm([one.difference.p for one in family])
            compared += [replace(one, adjusted_p=float(p)) for one, p in zip(family, adjusted, strict=True)]
    return compared


def find(compared: Sequence[Comparison], measure: str, row: str, other: str) -> Comparison | None:
    """`row` less `other` by a measure, whichever of the two was compared with the other; None where neither was."""
    for one in compared:
        if one.measure != measure:
            continue
        if (one.row, one.other) == (row, other):
            return one
        if (one.row, one.other) == (other, row):
            return one.turned()
    return None


def _pairs(results: StudyResults, question: str) -> list[tuple[RowResults, RowResults]]:
    pairs: list[tuple[RowResults, RowResults | None]] = []
    for one in results.with_results:
        row = one.row
        if question == "strategy" and row.plan == "none":
            pairs.append((one, results.find("joint", row.initialisation)))
        if question == "initialisation" and row.plan == "none" and not row.label:
            if row.initialisation != "scratch":
                pairs.append((one, results.find(row.strategy, "scratch")))
            if row.initialisation == "lits":
                pairs.append((one, results.find(row.strategy, "imagenet")))
        if question == "plan" and row.plan != "none":
            pairs.append((one, results.find(row.strategy, row.initialisation)))
    return [(row, other) for row, other in pairs if other is not None and other is not row]


def _compared(question: str, measure: str, row: RowResults, other: RowResults) -> Comparison | None:
    """None where one of the rows does not say it, or no patient was scored by both."""
    ours, theirs = cell_sums(row, MEASURES[measure]), cell_sums(other, MEASURES[measure])
    if ours is None or theirs is None:
        return None
    common = ours.index.intersection(theirs.index).sort_values()
    if common.empty:
        return None
    seeds = tuple(sorted({int(seed) for seed in common.get_level_values("seed")}))
    of_ours, of_theirs = (sums.loc[common].groupby("patient").mean().to_numpy() for sums in (ours, theirs))
    patients = len(of_ours)
    difference = paired_difference(MEASURES[measure].statistic, of_ours, of_theirs, weights_for(patients))
    return Comparison(question, measure, row.name, other.name, seeds, patients, difference, difference.p)
