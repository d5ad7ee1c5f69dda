"""Each row's figures: pooled over folds, a patient's sums averaged over seeds, with intervals over patients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from liverseg.evaluation.intervals import Estimate, bootstrap, patient_weights
from liverseg.evaluation.lesion_types import calibration_error, mean_auc
from liverseg.labels import LESION_TYPES
from liverseg.study.measures import LESION_MEASURES, MEASURES, Measure
from liverseg.study.results import CELL_KEYS, RowResults, StudyResults

__all__ = [
    "Figure",
    "Figures",
    "cell_sums",
    "named",
    "patient_means",
    "row_figures",
    "type_probabilities",
    "weights_for",
]


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
