"""Confidence scores of lesions, and the choice of a threshold for them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LesionThreshold", "calibrate_lesion_threshold", "lesion_score"]

_QUANTILE = 0.9
"""Robust against a lesion's blurred edge and against single voxels. Ours."""
_JUST_ABOVE = 1e-5


@dataclass(frozen=True)
class LesionThreshold:
    """A threshold of lesion scores and its effect on the lesions it was chosen on.

    Attributes:
        threshold: lesions with a lower score are removed; 0 to keep all.
        sensitivity: share of the true lesions that a kept lesion overlaps; NaN without true lesions.
        false_per_patient: kept lesions that overlap no true one, per patient.
        patients: number of patients.
    """

    threshold: float
    sensitivity: float
    false_per_patient: float
    patients: int


def lesion_score(part_of_voxel: np.ndarray, count: int, probabilities: np.ndarray | None) -> np.ndarray:
    """Return the score of each lesion: the 0.9 quantile, by nearest rank, of its voxels' probabilities of lesion.

    Args:
        part_of_voxel: number of each lesion voxel's lesion, from 1, shape (voxels,).
        count: number of lesions; each has a voxel.
        probabilities: probability of lesion of any type for each voxel, shape (voxels,); None gives NaN.

    Returns:
        0 to 1, shape (count,).

    Example:
        >>> lesion_score(np.array([1, 2, 1]), 2, np.array([0.5, 0.7, 0.9]))
        array([0.9, 0.7])
    """
    if probabilities is None:
        return np.full(count, np.nan)
    voxels = np.bincount(part_of_voxel, minlength=count + 1)[1:]
    ordered = probabilities[np.lexsort((probabilities, part_of_voxel))]
    ranks = np.ceil(_QUANTILE * voxels - 1e-9).astype(np.int64) - 1
    return ordered[np.cumsum(voxels) - voxels + ranks].astype(np.float64)


def calibrate_lesion_threshold(
    lesions: pd.DataFrame, false_per_patient: float, patients: int | None = None
) -> LesionThreshold:
    """Return the threshold with the highest sensitivity at a limited number of false lesions.

    Sensitivity and false lesions both decrease with the threshold, so the result is the lowest threshold with few
    enough false lesions, halfway between the scores that it separates. Lesions with equal scores are kept or removed
    together. A true lesion counts as found if a kept lesion overlaps it. Lesions with a score of 1 cannot be removed.

    Args:
        lesions: rows of an evaluation's `lesions.csv` of validation patients: `patient`, `side` (true or predicted),
            `hit` (whether it overlaps a lesion of the other side), `lesion_score` (for a true lesion the highest score
            of those that overlap it).
        false_per_patient: largest mean number of false lesions per patient.
        patients: number of validation patients; by default the number of patients with a row, which excludes those
            without true and predicted lesions.

    Raises:
        ValueError: if a column or a score is missing, there is no patient, or the number of false lesions is below 0.

    Example:
        >>> import pandas as pd
        >>> sides = ["predicted"] * 4 + ["true"] * 2
        >>> scores = [0.9, 0.8, 0.6, 0.5, 0.9, 0.6]
        >>> rows = pd.DataFrame({"patient": "a", "side": sides, "hit": [True, False, True, False, True, True],
        ...                      "lesion_score": scores})
        >>> calibrate_lesion_threshold(rows, false_per_patient=1)
        LesionThreshold(threshold=0.55, sensitivity=1.0, false_per_patient=1.0, patients=1)
    """
    missing = [name for name in ("patient", "side", "hit", "lesion_score") if name not in lesions.columns]
    if missing:
        raise ValueError(f"rows of lesions without {', '.join(missing)}")
    if not false_per_patient >= 0:
        raise ValueError(f"false_per_patient is {false_per_patient}; it must be 0 or more")
    patients = int(lesions["patient"].nunique()) if patients is None else patients
    if patients < 1:
        raise ValueError("no patient to choose a threshold on")
    predicted, true = lesions[lesions["side"] == "predicted"], lesions[lesions["side"] == "true"]
    hits = predicted["hit"].astype(bool)
    scores = predicted["lesion_score"].to_numpy(np.float64)
    found = true.loc[true["hit"].astype(bool), "lesion_score"].to_numpy(np.float64)
    if np.isnan(scores).any() or np.isnan(found).any():
        raise ValueError("lesions without a score; evaluate with weights that outline lesions")
    false = np.sort(scores[~hits.to_numpy()])[::-1]
    allowed = math.floor(false_per_patient * patients + 1e-9)
    threshold = 0.0
    if len(false) > allowed:
        removed = false[allowed]  # the highest score to remove
        above = scores[scores > removed]
        threshold = float((removed + above.min()) / 2) if len(above) else min(1.0, float(removed) + _JUST_ABOVE)
    return LesionThreshold(
        threshold=threshold,
        sensitivity=float((found >= threshold).sum() / len(true)) if len(true) else math.nan,
        false_per_patient=float((false >= threshold).sum() / patients),
        patients=patients,
    )
