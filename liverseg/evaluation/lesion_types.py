"""Whether lesions got their right names: confusion, per-type rates, ranking and calibration.

A confusion matrix has a row for each true type and one for what is no lesion, and a column for each predicted type and
one for what was missed; the cell of the last row and column, neither a lesion nor called one, is always 0. Rates are
NaN where nothing counts, without a warning: a resample of few patients often lacks a type.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

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
    """The confusion matrix of each lesion or slice by itself, flattened, (lesions, (types + 1)²): to be summed.

    Args:
        true: type of each lesion or slice; empty for a predicted lesion that is none.
        pred: its predicted type; empty where it was missed.

    Raises:
        ValueError: if a name is no lesion type.
    """
    index = {**{name: number for number, name in enumerate(LESION_TYPES)}, "": _TYPES}
    unknown = [name for name in (*true, *pred) if name not in index]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no lesion type; there are {', '.join(LESION_TYPES)}")
    cells = [index[one] * _SIDE + index[other] for one, other in zip(true, pred, strict=True)]
    counts = np.eye(_SIDE * _SIDE, dtype=np.int64)[cells]
    counts[:, -1] = 0
    return counts


def confusion(true: Sequence[str], pred: Sequence[str]) -> np.ndarray:
    """Counts (types + 1, types + 1): see the module's text; arguments and errors as for `confusions`."""
    return confusions(true, pred).sum(axis=0).reshape(_SIDE, _SIDE)


def confusion_table(counts: np.ndarray) -> pd.DataFrame:
    """A confusion matrix with its names."""
    return pd.DataFrame(counts, index=[*LESION_TYPES, FALSE_POSITIVE], columns=[*LESION_TYPES, MISSED])


def accuracy(flat: np.ndarray) -> np.ndarray:
    """Share of the true lesions that are rightly named, the missed ones among the wrong; flat (..., 16) to (...)."""
    counts = _square(flat)[..., :_TYPES, :]
    return _share(_diagonal(counts).sum(-1), counts.sum((-2, -1)))


def sensitivity(flat: np.ndarray) -> np.ndarray:
    """Share of each true type that is named so, (..., 16) to (..., types); missed lesions count as wrong."""
    counts = _square(flat)[..., :_TYPES, :]
    return _share(_diagonal(counts), counts.sum(-1))


def specificity(flat: np.ndarray) -> np.ndarray:
    """Share of what is not of a type that is not named so, (..., 16) to (..., types); missed lesions are not."""
    counts = _square(flat)
    named, of_type = counts[..., :, :_TYPES].sum(-2), counts[..., :_TYPES, :].sum(-1)
    others = counts.sum((-2, -1))[..., None] - of_type
    return 1 - _share(named - _diagonal(counts), others)


def balanced_accuracy(flat: np.ndarray) -> np.ndarray:
    """Mean sensitivity over the types that occur, (..., 16) to (...)."""
    return _mean_of_defined(sensitivity(flat))


def macro_f1(flat: np.ndarray) -> np.ndarray:
    """Mean over the types that occur or are named of F1 = 2 hits / (true + named), (..., 16) to (...)."""
    counts = _square(flat)
    total = counts[..., :_TYPES, :].sum(-1) + counts[..., :, :_TYPES].sum(-2)
    return _mean_of_defined(_share(2 * _diagonal(counts), total))


def mean_auc(true: Sequence[str], probabilities: np.ndarray) -> float:
    """Mean over types of the area under the ROC curve of one against the rest (Hand & Till's one-vs-rest, unweighted).

    Args:
        true: type of each lesion or slice.
        probabilities: (lesions, types).

    Returns:
        NaN where no type has both lesions of it and others.
    """
    names = np.asarray(true)
    areas = [
        roc_auc_score(names == name, probabilities[:, column])
        for column, name in enumerate(LESION_TYPES)
        if 0 < np.count_nonzero(names == name) < len(names)
    ]
    return float(np.mean(areas)) if areas else float("nan")


def reliability(true: Sequence[str], pred: Sequence[str], confidence: Sequence[float]) -> pd.DataFrame:
    """How often names are right by how sure they were: `confidence` (mean), `accuracy` and `count` of ten even bins.

    Args:
        true: type of each lesion or slice.
        pred: its predicted type.
        confidence: probability of that type, 0 to 1.
    """
    rows = pd.DataFrame({"right": np.asarray(true) == np.asarray(pred), "confidence": np.asarray(confidence, float)})
    rows["bin"] = np.minimum((rows["confidence"] * _BINS).astype(int), _BINS - 1)
    by_bin = rows.groupby("bin").agg(
        confidence=("confidence", "mean"), accuracy=("right", "mean"), count=("right", "size")
    )
    return by_bin.reset_index(drop=True)


def calibration_error(true: Sequence[str], pred: Sequence[str], confidence: Sequence[float]) -> float:
    """Expected calibration error: |accuracy - confidence| of the bins, weighted by count (Guo et al. 2017)."""
    bins = reliability(true, pred, confidence)
    if bins.empty:
        return float("nan")
    return float(np.average((bins["accuracy"] - bins["confidence"]).abs(), weights=bins["count"]))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Part of a whole, NaN where that is empty."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


def _mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is not NaN."""
    defined = ~np.isnan(values)
    return _share(np.where(defined, values, 0).sum(-1), defined.sum(-1))


def _square(flat: np.ndarray) -> np.ndarray:
    return np.asarray(flat, dtype=float).reshape(*np.shape(flat)[:-1], _SIDE, _SIDE)


def _diagonal(counts: np.ndarray) -> np.ndarray:
    return np.diagonal(counts, axis1=-2, axis2=-1)[..., :_TYPES]
