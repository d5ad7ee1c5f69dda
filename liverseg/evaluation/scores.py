"""Segmentation and type scores of volumes or annotated slices, from pixel counts.

Scores are averaged over units: volumes in the evaluation of the pre-training, annotated slices for the joint network,
as in the papers. With P and T the predicted and true lesion pixels of a unit:

* Dice = 2|P∩T| / (|P|+|T|); 1 if both are empty, 0 if one is (the LiTS convention).
* recall = |P∩T| / |T|, over units with a true lesion (it is our reading that the paper's recall counts pixels).
* class-aware Dice: the numerator counts only pixels of P∩T with the correct type (EMBC 2019's second Dice, as we read
  it).
* type: the vote of the probabilities over P, or the slab's type of a network that predicts it separately from the map.
  A unit whose lesion is missed completely has no vote and counts as wrong, because a reader would get no type for it.
  docs/evaluation.md defines the accuracies of units with a hit and end to end.
* liver Dice: lesions count as liver, as in LiTS.

Units with a partial label map have only the scores that it determines: liver Dice alone where lesions are not
distinguished from liver (`LIVER_OR_LESION`), no class-aware Dice where a lesion has no type (`UNTYPED_LESION`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike

from liverseg.evaluation.prediction import BatchPrediction
from liverseg.labels import LESION, LESION_TYPES, LIVER, LIVER_OR_LESION, UNTYPED_LESION, is_lesion

__all__ = ["SCORES", "UnitScores", "dice"]

SCORES = (
    "liver_dice",
    "lesion_dice",
    "lesion_dice_global",
    "lesion_recall",
    "success_rate",
    "prediction_rate",
    "class_aware_dice",
    "type_accuracy",
    "type_log_likelihood",
    "type_accuracy_end_to_end",
    "type_accuracy_detected",
)
"""Names of all scores; docs/evaluation.md defines them."""

_MIN_PROBABILITY = 1e-3  # keeps single slices from dominating a mean of logarithms

_COUNTS = ("liver_hit", "liver_pred", "liver_true", "lesion_hit", "lesion_pred", "lesion_true", "typed_hit")
_UNKNOWN = ("lesions_unknown", "types_unknown")
"""Pixels for which the label map does not say whether they are lesion, or of which type."""


def dice(hit: ArrayLike, pred: ArrayLike, true: ArrayLike) -> np.ndarray:
    """Return Dice from pixel counts of any shape: 1 where both masks are empty, NaN where a count is NaN."""
    hit = np.asarray(hit, dtype=float)
    total = np.asarray(pred, dtype=float) + np.asarray(true, dtype=float)
    return np.where(total == 0, 1.0, 2.0 * hit / np.maximum(total, 1))


@dataclass
class UnitScores:
    """Accumulate pixel counts and type votes by unit, and compute scores from them.

    Table and scores contain only what the network predicts, as found in the counted batches: a classifier has no Dice,
    a segmentation network no types.
    """

    _counts: dict[int, np.ndarray] = field(default_factory=dict)
    _votes: dict[int, np.ndarray] = field(default_factory=dict)
    _types: dict[int, int] = field(default_factory=dict)
    _typed_map: bool = False

    def add(
        self, prediction: BatchPrediction, labels: torch.Tensor, units: Sequence[int], lesion_types: Sequence[int]
    ) -> None:
        """Count a batch.

        Args:
            prediction: prediction of the batch.
            labels: true label maps (batch, 1, H, W).
            units: number of each element's unit.
            lesion_types: index in `LESION_TYPES` of each element's true type, -1 for unknown.
        """
        counts = votes = None
        if prediction.labels is not None:
            counts, votes = _count(prediction, labels[:, 0].to(prediction.labels.device).long())
            self._typed_map = prediction.type_weights is not None
        if prediction.slab_types is not None:
            votes = prediction.slab_types.cpu().numpy()
        for row, unit in enumerate(int(number) for number in units):
            self._types[unit] = int(lesion_types[row])
            if counts is not None:
                self._counts[unit] = (
                    self._counts.get(unit, np.zeros(len(_COUNTS) + len(_UNKNOWN), dtype=np.int64)) + counts[row]
                )
            if votes is not None:
                self._votes[unit] = self._votes.get(unit, np.zeros(votes.shape[1])) + votes[row]

    def merge(self, other: UnitScores) -> None:
        """Add the counts of other slabs, which may belong to the same units."""
        for sums, added in ((self._counts, other._counts), (self._votes, other._votes)):
            for unit, values in added.items():
                sums[unit] = sums[unit] + values if unit in sums else values
        self._types |= other._types
        self._typed_map |= other._typed_map

    def table(self) -> pd.DataFrame:
        """Return one row per unit, in order of their numbers: counts and scores of the map, and the type vote."""
        units = sorted(self._types)
        rows = pd.DataFrame(index=pd.Index(units, name="unit"))
        if self._counts:
            counts = pd.DataFrame(
                [self._counts[unit] for unit in units], index=rows.index, columns=[*_COUNTS, *_UNKNOWN]
            )
            no_lesions, no_types = counts["lesions_unknown"] > 0, counts[list(_UNKNOWN)].sum(axis=1) > 0
            rows[list(_COUNTS)] = counts[list(_COUNTS)]
            if no_lesions.any():
                lesion = ["lesion_hit", "lesion_pred", "lesion_true"]
                rows[lesion] = rows[lesion].astype(float).where(~no_lesions)
            if no_types.any():
                rows["typed_hit"] = rows["typed_hit"].astype(float).where(~no_types)
            for part in ("liver", "lesion"):
                rows[f"{part}_dice"] = dice(rows[f"{part}_hit"], rows[f"{part}_pred"], rows[f"{part}_true"])
            rows["lesion_recall"] = (rows["lesion_hit"] / rows["lesion_true"]).where(rows["lesion_true"] > 0)
            if self._typed_map:
                rows["class_aware_dice"] = dice(rows["typed_hit"], rows["lesion_pred"], rows["lesion_true"])
            else:
                rows = rows.drop(columns="typed_hit")
        if self._votes:
            votes = np.array([self._votes[unit] for unit in units]).reshape(len(units), len(LESION_TYPES))
            names = np.array(["", *LESION_TYPES])
            rows["true_type"] = names[[self._types[unit] + 1 for unit in units]]
            rows["pred_type"] = names[np.where(votes.sum(axis=1) > 0, votes.argmax(axis=1) + 1, 0)]
            for column, name in enumerate(LESION_TYPES):
                rows[f"probability_{name}"] = votes[:, column] / np.maximum(votes.sum(axis=1), 1e-12)
        return rows

    def scores(self) -> dict[str, float]:
        """Return means over units, and the lesion Dice of all pixels pooled; scores that do not apply are left out.

        Raises:
            ValueError: if nothing was counted.
        """
        rows = self.table()
        if rows.empty:
            raise ValueError("no unit was counted")
        scores: dict[str, float] = {}
        if "lesion_dice" in rows:
            pooled = rows[["lesion_hit", "lesion_pred", "lesion_true"]].sum()
            scores["liver_dice"] = rows["liver_dice"].mean()
            if rows["lesion_dice"].notna().any():
                scores["lesion_dice"] = rows["lesion_dice"].mean()
                scores["lesion_dice_global"] = float(dice(*pooled))
                scores["prediction_rate"] = (rows["lesion_pred"].dropna() > 0).mean()
            lesions = rows[rows["lesion_true"] > 0]
            if len(lesions):
                scores["lesion_recall"] = lesions["lesion_recall"].mean()
                scores["success_rate"] = (lesions["lesion_hit"] > 0).mean()
        if "class_aware_dice" in rows and rows["class_aware_dice"].notna().any():
            scores["class_aware_dice"] = rows["class_aware_dice"].mean()
        if "true_type" in rows and (rows["true_type"] != "").any():
            scores |= _type_scores(rows[rows["true_type"] != ""])
        return {name: float(value) for name, value in scores.items()}


def _count(prediction: BatchPrediction, true: torch.Tensor) -> tuple[np.ndarray, np.ndarray | None]:
    """Return pixel counts (batch, counts) and, for maps with types, the votes of lesion pixels (batch, types)."""
    pred = prediction.labels
    assert pred is not None
    pred_lesion, true_lesion = pred >= LESION, is_lesion(true)
    pred_liver, true_liver = pred >= LIVER, true >= LIVER
    masks = (
        pred_liver & true_liver,
        pred_liver,
        true_liver,
        pred_lesion & true_lesion,
        pred_lesion,
        true_lesion,
        pred_lesion & true_lesion & (pred == true),
        true == LIVER_OR_LESION,
        true == UNTYPED_LESION,
    )
    counts = torch.stack([mask.flatten(1).sum(1) for mask in masks], dim=1).cpu().numpy()
    if prediction.type_weights is None:
        return counts, None
    return counts, (prediction.type_weights * pred_lesion[:, None]).flatten(2).sum(2).cpu().numpy()


def _type_scores(rows: pd.DataFrame) -> dict[str, float]:
    """Return the type scores of units with a known type."""
    correct = rows["true_type"] == rows["pred_type"]
    probability = np.choose(
        [LESION_TYPES.index(name) for name in rows["true_type"]],
        [rows[f"probability_{name}"] for name in LESION_TYPES],
    )
    # all types of a missed lesion are equally likely
    probability = np.where(rows["pred_type"] == "", 1 / len(LESION_TYPES), probability)
    log_probability = np.log(np.maximum(probability, _MIN_PROBABILITY))
    scores = {"type_accuracy": correct.mean(), "type_log_likelihood": log_probability.mean()}
    if "lesion_hit" in rows:
        hit = rows["lesion_hit"] > 0
        scores["type_accuracy_end_to_end"] = (hit & correct).mean()
        if hit.any():
            scores["type_accuracy_detected"] = correct[hit].mean()
    return scores
