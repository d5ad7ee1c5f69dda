"""How sure a network is of a lesion, and from which score on lesions are kept."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

__all__ = ["LesionThreshold", "calibrate_lesion_threshold", "lesion_score"]

_QUANTILE = 0.9
"""A lesion's score is not that of its blurred edge, nor that of a single voxel. Ours."""
_JUST_ABOVE = 1e-5


@dataclass(frozen=True)
class LesionThreshold:
    """A threshold of lesions' scores, and what it does to the lesions it was chosen on.

    Attributes:
        threshold: lesions of a lower score are left out; 0 where none needs to be.
        sensitivity: true lesions that a kept one overlaps / true lesions; NaN without one.
        false_per_patient: kept lesions that overlap no true one / patients.
        patients: how many.
    """

    threshold: float
    sensitivity: float
    false_per_patient: float
    patients: int


def lesion_score(part_of_voxel: np.ndarray, count: int, probabilities: np.ndarray | None) -> np.ndarray:
    """How sure a network is of each lesion: the 0.9 quantile, by nearest rank, of its voxels' probability of lesion.

    Args:
        part_of_voxel: number of the lesion that each lesion voxel is of, from 1, shape (voxels,).
        count: of lesions; each has a voxel.
        probabilities: that the voxel is lesion, of whatever type, shape (voxels,); None gives NaN.

    Returns:
        0 to 1, shape (count,).

    Example:
        >>> lesion_score(np.array([1, 2, 1]), 2, np.array([0.5, 0.7, 0.9]))
        array([0.9, 0.7])
    """
    if probabilities is None:
        return np.full(count, np.nan)
    voxels = np.bincount(part_of_voxel, minlength=count + 1)[1:]
    rising = probabilities[np.lexsort((probabilities, part_of_voxel))]
    ranks = np.ceil(_QUANTILE * voxels - 1e-9).astype(np.int64) - 1
    return rising[np.cumsum(voxels) - voxels + ranks].astype(np.float64)


def calibrate_lesion_threshold(
    lesions: pd.DataFrame, false_per_patient: float, patients: int | None = None
) -> LesionThreshold:
    """The threshold of highest sensitivity at which there are no more false lesions than wanted.

    Sensitivity and false lesions both fall as the threshold rises, so it is the lowest that leaves few enough false
    ones, halfway between the scores it separates. Lesions of one score are kept or left out together. A true lesion
    counts as found if a kept one overlaps it. A score of 1 cannot be left out.

    Args:
        lesions: of validation patients, rows as an evaluation's `lesions.csv` has them: `patient`, `side` (true or
            predicted), `hit` (it overlaps one of the other side), `lesion_score` (of a predicted lesion; of a true one
            the highest of those that overlap it).
        false_per_patient: at most so many false lesions a patient, on average.
        patients: number of validation patients; by default those with a row, which leaves out patients without any
            lesion, true or predicted.

    Raises:
        ValueError: if a column or a score is missing, there is no patient, or the wanted number is below 0.

    Example:
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
        raise ValueError(f"{false_per_patient} false lesions a patient; 0 or more may be wanted")
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
        dropped = false[allowed]  # it and all of lower scores go
        above = scores[scores > dropped]
        threshold = float((dropped + above.min()) / 2) if len(above) else min(1.0, float(dropped) + _JUST_ABOVE)
    return LesionThreshold(
        threshold=threshold,
        sensitivity=float((found >= threshold).sum() / len(true)) if len(true) else math.nan,
        false_per_patient=float((false >= threshold).sum() / patients),
        patients=patients,
    )
