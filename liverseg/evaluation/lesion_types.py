"""Classification of lesion types: confusion matrix, rates by type, ranking and calibration.

A confusion matrix has the true types and false positives as rows, the predicted types and missed lesions as columns;
its last cell is always 0. Undefined rates are NaN without a warning, since a resample of few patients often lacks a
type.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from liverseg.labels import LESION_TYPES

__all__ = [
    "FALSE_POSITIVE",
    "MISSED",
    "accuracy",
    "balanced_accuracy",
    "calibration_error",
    "confusion",
    "confusion_table",
    "confusions",
    "macro_f1",
    "mean_auc",
    "reliability",
    "sensitivity",
    "specificity",
]

MISSED, FALSE_POSITIVE = "missed", "false positive"
_TYPES = len(LESION_TYPES)
_SIDE = _TYPES + 1
_BINS = 10


def confusions(true: Sequence[str], pred: Sequence[str]) -> np.ndarray:
    """Return the flattened confusion matrix of each single lesion or slice, (lesions, (types + 1)²), to be summed.

    Args:
        true: true type of each lesion or slice; empty for a false positive.
        pred: predicted type; empty for a missed lesion.

    Raises:
        ValueError: if a name is no lesion type.
    """
    index = {**{name: number for number, name in enumerate(LESION_TYPES)}, "": _TYPES}
    unknown = [name for name in (*true, *pred) if name not in index]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no lesion type; there are {', '.join(LESION_TYPES)}")
    cells = [index[true_type] * _SIDE + index[pred_type] for true_type, pred_type in zip(true, pred, strict=True)]
    counts = np.eye(_SIDE * _SIDE, dtype=np.int64)[cells]
    counts[:, -1] = 0
    return counts


def confusion(true: Sequence[str], pred: Sequence[str]) -> np.ndarray:
    """Return the confusion matrix (types + 1, types + 1); arguments and errors as for `confusions`."""
    return confusions(true, pred).sum(axis=0).reshape(_SIDE, _SIDE)


def confusion_table(counts: np.ndarray) -> pd.DataFrame:
    """Return a confusion matrix with names of rows and columns."""
    return pd.DataFrame(counts, index=[*LESION_TYPES, FALSE_POSITIVE], columns=[*LESION_TYPES, MISSED])


def accuracy(flat: np.ndarray) -> np.ndarray:
    """Return the share of true lesions with the correct type, (..., 16) to (...); missed lesions count as wrong."""
    counts = _square(flat)[..., :_TYPES, :]
    return _share(_diagonal(counts).sum(-1), counts.sum((-2, -1)))


def sensitivity(flat: np.ndarray) -> np.ndarray:
    """Return the share of each type that is predicted so, (..., 16) to (..., types); missed lesions count as wrong."""
    counts = _square(flat)[..., :_TYPES, :]
    return _share(_diagonal(counts), counts.sum(-1))


def specificity(flat: np.ndarray) -> np.ndarray:
    """Return the share of other lesions that are not predicted as a type, (..., 16) to (..., types).

    Missed lesions of other types count as correct.
    """
    counts = _square(flat)
    predicted, true = counts[..., :, :_TYPES].sum(-2), counts[..., :_TYPES, :].sum(-1)
    others = counts.sum((-2, -1))[..., None] - true
    return 1 - _share(predicted - _diagonal(counts), others)


def balanced_accuracy(flat: np.ndarray) -> np.ndarray:
    """Return the mean sensitivity over the types that occur, (..., 16) to (...)."""
    return _mean_of_defined(sensitivity(flat))


def macro_f1(flat: np.ndarray) -> np.ndarray:
    """Return the mean F1 = 2 hits / (true + predicted) over types that occur or are predicted, (..., 16) to (...)."""
    counts = _square(flat)
    total = counts[..., :_TYPES, :].sum(-1) + counts[..., :, :_TYPES].sum(-2)
    return _mean_of_defined(_share(2 * _diagonal(counts), total))


def mean_auc(true: Sequence[str], probabilities: np.ndarray) -> float:
    """Return the mean area under the ROC curve of each type against the rest (Hand & Till, unweighted).

    Args:
        true: true type of each lesion or slice.
        probabilities: predicted probabilities (lesions, types).

    Returns:
        The mean over types with lesions both of the type and of others; NaN if there is no such type.
    """
    from sklearn.metrics import roc_auc_score  # a second

    types = np.asarray(true)
    areas = [
        roc_auc_score(types == name, probabilities[:, column])
        for column, name in enumerate(LESION_TYPES)
        if 0 < np.count_nonzero(types == name) < len(types)
    ]
    return float(np.mean(areas)) if areas else float("nan")


def reliability(true: Sequence[str], pred: Sequence[str], confidence: Sequence[float]) -> pd.DataFrame:
    """Return mean `confidence`, `accuracy` and `count` in ten bins of equal width, for a reliability diagram.

    Args:
        true: true type of each lesion or slice.
        pred: predicted type.
        confidence: probability of the predicted type, 0 to 1.
    """
    rows = pd.DataFrame({"correct": np.asarray(true) == np.asarray(pred), "confidence": np.asarray(confidence, float)})
    rows["bin"] = np.minimum((rows["confidence"] * _BINS).astype(int), _BINS - 1)
    by_bin = rows.groupby("bin").agg(
        confidence=("confidence", "mean"), accuracy=("correct", "mean"), count=("correct", "size")
    )
    return by_bin.reset_index(drop=True)


def calibration_error(true: Sequence[str], pred: Sequence[str], confidence: Sequence[float]) -> float:
    """Return the expected calibration error: |accuracy - confidence| of bins, weighted by count (Guo et al. 2017)."""
    bins = reliability(true, pred, confidence)
    if bins.empty:
        return float("nan")
    return float(np.average((bins["accuracy"] - bins["confidence"]).abs(), weights=bins["count"]))


def _share(part: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Return part / total, NaN where the total is 0."""
    return np.divide(part, total, out=np.full(np.shape(total), np.nan), where=total > 0)


def _mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis, ignoring NaN."""
    defined = ~np.isnan(values)
    return _share(np.where(defined, values, 0).sum(-1), defined.sum(-1))


def _square(flat: np.ndarray) -> np.ndarray:
    return np.asarray(flat, dtype=float).reshape(*np.shape(flat)[:-1], _SIDE, _SIDE)


def _diagonal(counts: np.ndarray) -> np.ndarray:
    return np.diagonal(counts, axis1=-2, axis2=-1)[..., :_TYPES]
