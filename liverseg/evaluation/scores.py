"""Segmentation and type scores of volumes or annotated slices, from pixel counts.

A unit is what a score is averaged over: a volume when pre-training is evaluated, an annotated slice for the joint
network, as in the papers. With P, T the predicted and true lesion pixels of a unit:

* Dice = 2|P∩T| / (|P|+|T|); 1 when both are empty, 0 when one is (the LiTS convention).
* recall = |P∩T| / |T|, over units with a true lesion (that the paper's recall counts pixels is our reading).
* class-aware Dice: only pixels of P∩T whose predicted type is the true one count in the numerator (EMBC 2019's second
  Dice, as we read it).
* type: probability vote over P. A unit whose lesion is missed altogether counts as wrongly typed, because a reader
  would get no type for it.
* liver Dice: lesions count as liver, as in LiTS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike

from liverseg.labels import LESION, LESION_TYPES, LIVER

__all__ = ["UnitScores", "dice"]

_COUNTS = ("liver_hit", "liver_pred", "liver_true", "lesion_hit", "lesion_pred", "lesion_true", "typed_hit")


def dice(hit: ArrayLike, pred: ArrayLike, true: ArrayLike) -> np.ndarray:
    """Dice from pixel counts, any shape: 1 where both sides are empty."""
    total = np.asarray(pred, dtype=float) + np.asarray(true, dtype=float)
    return np.where(total > 0, 2.0 * np.asarray(hit) / np.maximum(total, 1), 1.0)


@dataclass
class UnitScores:
    """Accumulates pixel counts by unit and turns them into scores.

    Args:
        typed: True for the joint label table, where each lesion channel is a type.
    """

    typed: bool
    _counts: dict[int, np.ndarray] = field(default_factory=dict)
    _votes: dict[int, np.ndarray] = field(default_factory=dict)
    _types: dict[int, int] = field(default_factory=dict)

    def add(
        self, logits: torch.Tensor, labels: torch.Tensor, units: Sequence[int], lesion_types: Sequence[int]
    ) -> None:
        """Count one batch.

        Args:
            logits: (batch, channels, H, W).
            labels: (batch, 1, H, W) whole numbers of the same label table.
            units: number of the unit each batch element belongs to.
            lesion_types: index in `LESION_TYPES` of its true type, -1 where not known.
        """
        probabilities = torch.softmax(logits.float(), dim=1)
        pred, true = probabilities.argmax(dim=1), labels[:, 0].to(logits.device).long()
        pred_lesion, true_lesion = pred >= LESION, true >= LESION
        pred_liver, true_liver = pred >= LIVER, true >= LIVER
        maps = (
            pred_liver & true_liver,
            pred_liver,
            true_liver,
            pred_lesion & true_lesion,
            pred_lesion,
            true_lesion,
            pred_lesion & true_lesion & (pred == true),
        )
        counts = torch.stack([area.flatten(1).sum(1) for area in maps], dim=1).cpu().numpy()
        votes = (probabilities[:, LESION:] * pred_lesion[:, None]).flatten(2).sum(2).cpu().numpy()
        for row, unit in enumerate(int(number) for number in units):
            self._counts[unit] = self._counts.get(unit, np.zeros(len(_COUNTS), dtype=np.int64)) + counts[row]
            self._votes[unit] = self._votes.get(unit, np.zeros(votes.shape[1])) + votes[row]
            self._types[unit] = int(lesion_types[row])

    def table(self) -> pd.DataFrame:
        """One row a unit, in order of their numbers: counts, scores and, where types are known, the type vote."""
        units = sorted(self._counts)
        rows = pd.DataFrame([self._counts[unit] for unit in units], columns=list(_COUNTS), index=units)
        rows.index.name = "unit"
        for part in ("liver", "lesion"):
            rows[f"{part}_dice"] = dice(rows[f"{part}_hit"], rows[f"{part}_pred"], rows[f"{part}_true"])
        rows["lesion_recall"] = (rows["lesion_hit"] / rows["lesion_true"]).where(rows["lesion_true"] > 0)
        if self.typed:
            rows["class_aware_dice"] = dice(rows["typed_hit"], rows["lesion_pred"], rows["lesion_true"])
            votes = np.array([self._votes[unit] for unit in units]).reshape(len(units), len(LESION_TYPES))
            names = np.array(["", *LESION_TYPES])
            rows["true_type"] = names[[self._types[unit] + 1 for unit in units]]
            rows["pred_type"] = names[np.where(votes.sum(axis=1) > 0, votes.argmax(axis=1) + 1, 0)]
            for column, name in enumerate(LESION_TYPES):
                rows[f"probability_{name}"] = votes[:, column] / np.maximum(votes.sum(axis=1), 1e-12)
        return rows.drop(columns=[] if self.typed else ["typed_hit"])

    def scores(self) -> dict[str, float]:
        """Means over units, and the lesion Dice of all pixels pooled; what does not apply is left out.

        Raises:
            ValueError: if nothing was counted.
        """
        rows = self.table()
        if rows.empty:
            raise ValueError("no unit was counted")
        pooled = rows[["lesion_hit", "lesion_pred", "lesion_true"]].sum()
        scores = {
            "liver_dice": rows["liver_dice"].mean(),
            "lesion_dice": rows["lesion_dice"].mean(),
            "lesion_dice_global": float(dice(*pooled)),
        }
        lesions = rows[rows["lesion_true"] > 0]
        if len(lesions):
            scores["lesion_recall"] = lesions["lesion_recall"].mean()
            scores["success_rate"] = (lesions["lesion_hit"] > 0).mean()
        if self.typed:
            scores["class_aware_dice"] = rows["class_aware_dice"].mean()
            known = rows[rows["true_type"] != ""]
            if len(known):
                scores["type_accuracy"] = (known["true_type"] == known["pred_type"]).mean()
        return {name: float(value) for name, value in scores.items()}
