"""Each row's figures: pooled over folds, a patient's sums averaged over seeds, with intervals over patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pandas as pd

from liverseg.evaluation.intervals import Difference, Estimate, bootstrap, holm, paired_difference, patient_weights
from liverseg.evaluation.lesion_types import calibration_error, mean_auc
from liverseg.labels import LESION_TYPES
from liverseg.study.measures import LESION_MEASURES, MEASURES, Measure
from liverseg.study.results import CELL_KEYS, RowResults, StudyResults

__all__ = [
    "COMPARED",
    "QUESTIONS",
    "Comparison",
    "Figure",
    "Figures",
    "cell_sums",
    "compare",
    "find",
    "named",
    "patient_means",
    "row_figures",
    "type_probabilities",
    "weights_for",
]

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


@dataclass(frozen=True)
class Figure:
    """A figure of a row.

    Attributes:
        estimate: with its interval; bounds are NaN where there is none.
        seeds: each seed's own value.
    """

    estimate: Estimate
    seeds: Mapping[int, float]


Figures = dict[tuple[str, str], Figure]
"""By (row name, measure name)."""


@lru_cache(maxsize=4)
def weights_for(patients: int) -> np.ndarray:
    """Bootstrap weights, drawn once for each number of patients: 10,000 resamples, seed 0."""
    return patient_weights(patients)


def patient_means(row: RowResults, measure: Measure) -> pd.DataFrame | None:
    """A measure's sums of every patient, averaged over the cells that scored the patient; None where it does not apply.

    Indexed by patient, sorted.
    """
    sums = cell_sums(row, measure)
    return None if sums is None else sums.groupby("patient").mean()


def cell_sums(row: RowResults, measure: Measure) -> pd.DataFrame | None:
    """A measure's sums of every patient in every cell, indexed by fold, seed, patient; None where it does not apply."""
    frame = row.lesions if measure.of_lesions else row.units
    if frame.empty or (measure.typed and not row.typed):
        return None
    frame = frame.reset_index(drop=True)
    parts = measure.parts(frame)
    if parts is None:
        return None
    sums = parts.groupby([frame[key] for key in CELL_KEYS]).sum()
    # a patient without a lesion on either side has no line in lesions.csv, and yet was scored
    return sums.reindex(pd.MultiIndex.from_frame(row.scored), fill_value=0.0).sort_index()


def row_figures(results: StudyResults) -> Figures:
    """All figures of all rows with results."""
    figures: Figures = {}
    for row in results.with_results:
        for measure in (*MEASURES.values(), *LESION_MEASURES.values()):
            sums = cell_sums(row, measure)
            if sums is None:
                continue
            by_patient = sums.groupby("patient").mean()
            estimate = bootstrap(measure.statistic, by_patient.to_numpy(), weights_for(len(by_patient)))
            seeds = {
                seed: float(
                    measure.statistic(sums.xs(seed, level="seed").groupby("patient").mean().to_numpy().sum(axis=0))
                )
                for seed in _seeds(row)
            }
            figures[row.name, measure.name] = Figure(estimate, seeds)
        if "pred_type" in row.units:
            for name, score in (("mean_auc", _auc), ("calibration_error", _calibration)):
                seeds = {seed: score(row.units[row.units["seed"] == seed]) for seed in _seeds(row)}
                figures[row.name, name] = Figure(Estimate(float(np.mean([*seeds.values()])), np.nan, np.nan), seeds)
    return figures


def type_probabilities(units: pd.DataFrame) -> np.ndarray:
    """Probability of each type, (slices, types); of a slice where nothing was found each type is as likely."""
    probabilities = units[[f"probability_{name}" for name in LESION_TYPES]].to_numpy(float)
    return np.where((units["pred_type"] == "").to_numpy()[:, None], 1 / len(LESION_TYPES), probabilities)


def named(units: pd.DataFrame) -> pd.DataFrame:
    """The slices that have a type and were given one, with `confidence`, the probability of the one given."""
    kept = units[(units["true_type"] != "") & (units["pred_type"] != "")]
    return kept.assign(confidence=type_probabilities(kept).max(axis=1))


def _seeds(row: RowResults) -> list[int]:
    return sorted({cell.seed for cell in row.complete})


def _auc(units: pd.DataFrame) -> float:
    known = units[units["true_type"] != ""]
    return mean_auc(known["true_type"].tolist(), type_probabilities(known))


def _calibration(units: pd.DataFrame) -> float:
    kept = named(units)
    return calibration_error(kept["true_type"].tolist(), kept["pred_type"].tolist(), kept["confidence"].tolist())
