"""Estimates of every measure for every row, and paired comparisons of rows.

Folds are pooled, a patient's sums are averaged over seeds, and intervals are bootstrapped over patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pandas as pd

from liverseg.bundle.validation import INITIALISATIONS
from liverseg.evaluation.intervals import (
    SIGNIFICANCE,
    Difference,
    Estimate,
    bootstrap,
    detectable_difference,
    holm,
    paired_difference,
    patient_weights,
)
from liverseg.evaluation.lesion_types import calibration_error, mean_auc
from liverseg.labels import LESION_TYPES
from liverseg.study.measures import LESION_MEASURES, MEASURES, Measure
from liverseg.study.published import published_difference
from liverseg.study.results import CELL_KEYS, RowResults, StudyResults

__all__ = [
    "COMPARED",
    "OURS",
    "PEER_RIVALS",
    "QUESTIONS",
    "Comparison",
    "Estimates",
    "RowEstimate",
    "cell_sums",
    "compare",
    "estimate_rows",
    "find_comparison",
    "format_signed",
    "patient_means",
    "type_probabilities",
    "with_predicted_type",
]

COMPARED = ("type_accuracy", "lesion_dice", "lesion_recall", "class_aware_dice")
"""Measures by which rows are compared."""

OURS = ("regions", "ours")
"""Our own strategies, the later version first, which are compared with joint learning."""

PEER_RIVALS = ("segmentation", "joint", *OURS)
"""Strategies that peers are compared with."""

QUESTIONS = {
    "strategy": "strategies against joint, from the same initialisation",
    "initialisation": "initialisations of the same strategy",
    "plan": "fine-tuning plans against none",
    "peer": f"peers against {', '.join(PEER_RIVALS)}",
}
"""Kinds of comparisons, and their titles."""


@dataclass(frozen=True)
class Comparison:
    """Difference of two rows in one measure.

    Attributes:
        question: key of `QUESTIONS`.
        measure: name of the measure.
        row: name of the row.
        other: name of the row it is compared with.
        seeds: seeds of both rows; other seeds of either row are left out.
        patients: number of patients scored in both rows with these seeds.
        difference: row minus other.
        published: the difference that a paper prints; None if it prints none.
        adjusted_p: p value adjusted by Holm's method over all comparisons of this question and measure.
        family: number of these comparisons.
    """

    question: str
    measure: str
    row: str
    other: str
    seeds: tuple[int, ...]
    patients: int
    difference: Difference
    published: float | None
    adjusted_p: float = float("nan")
    family: int = 1

    @property
    def is_significant(self) -> bool:
        """Whether the adjusted p value is below `SIGNIFICANCE`."""
        return self.adjusted_p < SIGNIFICANCE

    @property
    def detectable(self) -> float:
        """Smallest true difference found with 80 % power, without adjustment."""
        return detectable_difference(self.difference.standard_error)

    @property
    def detectable_in_family(self) -> float:
        """Likewise within Holm's family."""
        return detectable_difference(self.difference.standard_error, self.family)

    @property
    def text(self) -> str:
        """The difference with its interval."""
        value, lower, upper = (format_signed(getattr(self.difference, name)) for name in ("value", "lower", "upper"))
        return f"{value} ({lower} to {upper})"

    def swapped(self) -> Comparison:
        """Return the comparison with the rows swapped."""
        difference = self.difference
        negated = replace(difference, value=-difference.value, lower=-difference.upper, upper=-difference.lower)
        published = None if self.published is None else -self.published
        return replace(self, row=self.other, other=self.row, difference=negated, published=published)


def compare(results: StudyResults) -> list[Comparison]:
    """Make all comparisons that the study's rows allow. Each question and measure is a family of Holm's method."""
    compared: list[Comparison] = []
    for question in QUESTIONS:
        pairs = _pairs(results, question)
        for measure in COMPARED:
            family = [found for row, other in pairs if (found := _compare(question, measure, row, other)) is not None]
            adjusted = holm([comparison.difference.p for comparison in family])
            tested = max(1, int(np.isfinite(adjusted).sum()))
            compared += [
                replace(comparison, adjusted_p=float(p), family=tested)
                for comparison, p in zip(family, adjusted, strict=True)
            ]
    return compared


def format_signed(value: float) -> str:
    """Return a difference with its sign and three decimals; 0 has a plus."""
    return f"{round(value, 3) + 0.0:+.3f}"


def find_comparison(compared: Sequence[Comparison], measure: str, row: str, other: str) -> Comparison | None:
    """Return `row` minus `other` by a measure, swapping the rows if necessary; None if they were not compared."""
    for comparison in compared:
        if comparison.measure != measure:
            continue
        if (comparison.row, comparison.other) == (row, other):
            return comparison
        if (comparison.row, comparison.other) == (other, row):
            return comparison.swapped()
    return None


def _pairs(results: StudyResults, question: str) -> list[tuple[RowResults, RowResults]]:
    pairs: list[tuple[RowResults, RowResults | None]] = []
    for result in results.with_results:
        row = result.row
        if question == "peer" and row.peer:
            pairs += [
                (result, results.find(strategy, initialisation))
                for strategy in PEER_RIVALS
                for initialisation in INITIALISATIONS
            ]
        if row.peer:
            continue
        if question == "strategy" and row.plan == "none":
            pairs.append((result, results.find("joint", row.initialisation)))
        if question == "initialisation" and row.plan == "none" and not row.label:
            if row.initialisation != "scratch":
                pairs.append((result, results.find(row.strategy, "scratch")))
            if row.initialisation == "lits":
                pairs.append((result, results.find(row.strategy, "imagenet")))
        if question == "plan" and row.plan != "none":
            pairs.append((result, results.find(row.strategy, row.initialisation)))
    return [(row, other) for row, other in pairs if other is not None and other is not row]


def _compare(question: str, measure: str, row: RowResults, other: RowResults) -> Comparison | None:
    """Compare two rows; None if one lacks the measure or they share no scored patient."""
    ours, theirs = cell_sums(row, MEASURES[measure]), cell_sums(other, MEASURES[measure])
    if ours is None or theirs is None:
        return None
    common = ours.index.intersection(theirs.index).sort_values()
    if common.empty:
        return None
    seeds = tuple(sorted({int(seed) for seed in common.get_level_values("seed")}))
    of_ours, of_theirs = (sums.loc[common].groupby("patient").mean().to_numpy() for sums in (ours, theirs))
    patients = len(of_ours)
    difference = paired_difference(MEASURES[measure].statistic, of_ours, of_theirs, _bootstrap_weights(patients))
    published = published_difference(row.row, other.row, measure)
    return Comparison(question, measure, row.name, other.name, seeds, patients, difference, published)


@dataclass(frozen=True)
class RowEstimate:
    """A measure of a row.

    Attributes:
        estimate: over all seeds, with its interval; bounds are NaN without an interval.
        seeds: value of each seed.
    """

    estimate: Estimate
    seeds: Mapping[int, float]


Estimates = dict[tuple[str, str], RowEstimate]
"""Estimates by (row name, measure name)."""


@lru_cache(maxsize=4)
def _bootstrap_weights(patients: int) -> np.ndarray:
    """Draw 10,000 resamples of so many patients, with seed 0."""
    return patient_weights(patients)


def patient_means(row: RowResults, measure: Measure) -> pd.DataFrame | None:
    """Return a measure's sums of every patient, averaged over the cells that scored the patient.

    Returns:
        Indexed by patient, sorted; None if the row lacks the measure.
    """
    sums = cell_sums(row, measure)
    return None if sums is None else sums.groupby("patient").mean()


def cell_sums(row: RowResults, measure: Measure) -> pd.DataFrame | None:
    """Return a measure's sums of every patient in every cell.

    Returns:
        Indexed by fold, seed and patient, sorted; None if the row lacks the measure.
    """
    frame = row.lesions if measure.of_lesions else row.units
    if frame.empty or (measure.typed and not row.typed):
        return None
    frame = frame.reset_index(drop=True)
    parts = measure.parts(frame)
    if parts is None:
        return None
    sums = parts.groupby([frame[key] for key in CELL_KEYS]).sum()
    # scored patients without true or predicted lesions have no line in lesions.csv
    return sums.reindex(pd.MultiIndex.from_frame(row.scored), fill_value=0.0).sort_index()


def estimate_rows(results: StudyResults) -> Estimates:
    """Estimate all measures of all rows with results."""
    estimates: Estimates = {}
    for row in results.with_results:
        for measure in (*MEASURES.values(), *LESION_MEASURES.values()):
            sums = cell_sums(row, measure)
            if sums is None:
                continue
            by_patient = sums.groupby("patient").mean()
            estimate = bootstrap(measure.statistic, by_patient.to_numpy(), _bootstrap_weights(len(by_patient)))
            seeds = {
                seed: float(
                    measure.statistic(sums.xs(seed, level="seed").groupby("patient").mean().to_numpy().sum(axis=0))
                )
                for seed in row.seeds
            }
            estimates[row.name, measure.name] = RowEstimate(estimate, seeds)
        if "pred_type" in row.units:
            for name, score in (("mean_auc", _auc), ("calibration_error", _calibration)):
                seeds = {seed: score(row.units[row.units["seed"] == seed]) for seed in row.seeds}
                mean = Estimate(float(np.mean([*seeds.values()])), np.nan, np.nan)
                estimates[row.name, name] = RowEstimate(mean, seeds)
    return estimates


def type_probabilities(units: pd.DataFrame) -> np.ndarray:
    """Return the probability of each type, (slices, types). Types are equally likely on slices without a finding."""
    probabilities = units[[f"probability_{name}" for name in LESION_TYPES]].to_numpy(float)
    return np.where((units["pred_type"] == "").to_numpy()[:, None], 1 / len(LESION_TYPES), probabilities)


def with_predicted_type(units: pd.DataFrame) -> pd.DataFrame:
    """Return the slices with a true and a predicted type, and `confidence`, the probability of the predicted type."""
    kept = units[(units["true_type"] != "") & (units["pred_type"] != "")]
    return kept.assign(confidence=type_probabilities(kept).max(axis=1))


def _auc(units: pd.DataFrame) -> float:
    known = units[units["true_type"] != ""]
    return mean_auc(known["true_type"].tolist(), type_probabilities(known))


def _calibration(units: pd.DataFrame) -> float:
    kept = with_predicted_type(units)
    return calibration_error(kept["true_type"].tolist(), kept["pred_type"].tolist(), kept["confidence"].tolist())
