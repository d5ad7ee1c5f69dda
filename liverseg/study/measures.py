"""The figures of the report: each a statistic of sums over patients, so that a bootstrap can draw patients.

A slice-level mean over slices is the sum of its values over their count; what is pooled over lesions likewise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from liverseg.evaluation import lesion_types as types
from liverseg.evaluation.lesions import SIZES
from liverseg.labels import LESION_TYPES

__all__ = ["CONFUSION", "LESION_CONFUSION", "LESION_MEASURES", "MEASURES", "Measure"]


@dataclass(frozen=True)
class Measure:
    """A figure.

    Attributes:
        name: in `study.csv`.
        title: in the report's tables.
        parts: from slices (or lesions) to each one's part of the sums, a column a sum; None where the strategy does not
            say it.
        statistic: from the sums, (..., columns), to the value, (...).
        of_lesions: whether it counts lesions instead of slices.
        typed: whether it asks for types, so that rows which name none do not have it.
    """

    name: str
    title: str
    parts: Callable[[pd.DataFrame], pd.DataFrame | None]
    statistic: Callable[[np.ndarray], np.ndarray]
    of_lesions: bool = False
    typed: bool = False


def _ratio(sums: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.divide(sums[..., 0], sums[..., 1])


def _mean(
    value: Callable[[pd.DataFrame], pd.Series],
    among: Callable[[pd.DataFrame], pd.Series] | None,
    *needed: str,
) -> Callable[[pd.DataFrame], pd.DataFrame | None]:
    """Parts of a mean of `value` over the lines for which `among` is true; None where a needed column is missing."""

    def parts(frame: pd.DataFrame) -> pd.DataFrame | None:
        if not {*needed} <= {*frame.columns}:
            return None
        counted = pd.Series(True, frame.index) if among is None else among(frame)
        return pd.DataFrame({"sum": value(frame).astype(float).where(counted, 0.0), "count": counted.astype(float)})

    return parts


def _pixels(units: pd.DataFrame) -> pd.DataFrame | None:
    """Parts of the Dice of all slices' pixels together."""
    if "lesion_hit" not in units:
        return None
    return pd.DataFrame({"sum": 2.0 * units["lesion_hit"], "count": units["lesion_pred"] + units["lesion_true"]})


def _known(frame: pd.DataFrame) -> pd.Series:
    return frame["true_type"] != ""


def _right(frame: pd.DataFrame) -> pd.Series:
    return _known(frame) & (frame["true_type"] == frame["pred_type"])


def _hit(frame: pd.DataFrame) -> pd.Series:
    return frame["lesion_hit"] > 0


def _with_lesion(frame: pd.DataFrame) -> pd.Series:
    return frame["lesion_true"] > 0


def _confusions(units: pd.DataFrame) -> pd.DataFrame:
    """Each slice's confusion matrix, flattened, a line a slice; where nothing of its lesion was found it is missed."""
    seen = units["pred_type"].where(_hit(units), "") if "lesion_hit" in units else units["pred_type"]
    return _flattened(units["true_type"], seen)


def _end_to_end(units: pd.DataFrame) -> pd.DataFrame | None:
    """Likewise; None where nothing is outlined, so that nothing could be missed."""
    return _confusions(units) if "lesion_hit" in units else None


def _lesion_confusions(lesions: pd.DataFrame) -> pd.DataFrame:
    """Likewise each lesion's: a true one with the predicted one it overlaps most, and predicted ones that hit none."""
    counted = (lesions["side"] == "true") | ~lesions["hit"].astype(bool)
    true = lesions["true_type"].where(lesions["side"] == "true", "").where(counted, "")
    return _flattened(true, lesions["pred_type"].where(counted, ""))


def _flattened(true: pd.Series, pred: pd.Series) -> pd.DataFrame:
    return pd.DataFrame(types.confusions(true.tolist(), pred.tolist()), index=true.index)


def _rate_of(rate: Callable[[np.ndarray], np.ndarray], number: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda flat: rate(flat)[..., number]


def _per_type(name: str, title: str, rate: Callable[[np.ndarray], np.ndarray]) -> list[Measure]:
    return [
        Measure(f"{name}_{one}", f"{title}, {one}", _end_to_end, _rate_of(rate, number), typed=True)
        for number, one in enumerate(LESION_TYPES)
    ]


def _is(side: str) -> Callable[[pd.DataFrame], pd.Series]:
    return lambda frame: frame["side"] == side


def _true_of_size(name: str) -> Callable[[pd.DataFrame], pd.Series]:
    least, most = SIZES[name]
    return lambda frame: (frame["side"] == "true") & (frame["diameter_mm"] >= least) & (frame["diameter_mm"] < most)


def _matched(frame: pd.DataFrame) -> pd.Series:
    return frame["matched"].fillna(0) > 0


def _found(frame: pd.DataFrame) -> pd.Series:
    return (frame["side"] == "true") & _matched(frame)


def _touched(frame: pd.DataFrame) -> pd.Series:
    return frame["hit"].astype(bool)


def _found_of_known_type(frame: pd.DataFrame) -> pd.Series:
    return _found(frame) & _known(frame)


def _true_of_known_type(frame: pd.DataFrame) -> pd.Series:
    return (frame["side"] == "true") & _known(frame)


def _found_and_named(frame: pd.DataFrame) -> pd.Series:
    return _found(frame) & _right(frame)


def _number(column: str) -> Callable[[pd.DataFrame], pd.Series]:
    return lambda frame: frame[column].fillna(0)


_TYPED = ("true_type", "pred_type")

MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure("type_accuracy", "type accuracy", _mean(_right, _known, *_TYPED), _ratio),
        Measure("lesion_dice", "lesion Dice", _mean(lambda f: f["lesion_dice"], None, "lesion_dice"), _ratio),
        Measure(
            "lesion_recall",
            "lesion recall",
            _mean(lambda f: f["lesion_recall"].fillna(0), _with_lesion, "lesion_recall"),
            _ratio,
        ),
        Measure(
            "class_aware_dice",
            "class-aware Dice",
            _mean(lambda f: f["class_aware_dice"], None, "class_aware_dice"),
            _ratio,
        ),
        Measure("lesion_dice_global", "Dice of all pixels", _pixels, _ratio),
        Measure("success_rate", "success rate", _mean(_hit, _with_lesion, "lesion_hit"), _ratio),
        Measure(
            "type_accuracy_detected",
            "accuracy given detection",
            _mean(_right, lambda f: _known(f) & _hit(f), *_TYPED, "lesion_hit"),
            _ratio,
        ),
        Measure(
            "type_accuracy_end_to_end",
            "accuracy end to end",
            _mean(lambda f: _right(f) & _hit(f), _known, *_TYPED, "lesion_hit"),
            _ratio,
        ),
        Measure("balanced_accuracy", "balanced accuracy", _end_to_end, types.balanced_accuracy, typed=True),
        Measure("macro_f1", "macro F1", _end_to_end, types.macro_f1, typed=True),
        *_per_type("sensitivity", "sensitivity", types.sensitivity),
        *_per_type("specificity", "specificity", types.specificity),
    )
}
"""From the slices of `evaluation.csv`; docs/evaluation.md has the definitions."""

CONFUSION = Measure("confusion", "confusion", _confusions, types.accuracy, typed=True)
LESION_CONFUSION = Measure(
    "lesion_confusion", "confusion", _lesion_confusions, types.accuracy, of_lesions=True, typed=True
)
"""Whose sums are confusion matrices, flattened; that of lesions takes any overlap for a find."""


def _lesion_mean(
    name: str,
    title: str,
    value: Callable[[pd.DataFrame], pd.Series],
    among: Callable[[pd.DataFrame], pd.Series],
    typed: bool = False,
) -> Measure:
    return Measure(f"lesion_level_{name}", title, _mean(value, among), _ratio, of_lesions=True, typed=typed)


LESION_MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        _lesion_mean("recall", "recall, IoU > 0.5", _matched, _is("true")),
        _lesion_mean("precision", "precision, IoU > 0.5", _matched, _is("predicted")),
        _lesion_mean("recall_any", "recall, IoU > 0", _touched, _is("true")),
        _lesion_mean("precision_any", "precision, IoU > 0", _touched, _is("predicted")),
        *(
            _lesion_mean(f"recall_{size}", f"recall, {told}", _matched, _true_of_size(size))
            for size, told in (("small", "below 10 mm"), ("medium", "10 to 20 mm"), ("large", "from 20 mm"))
        ),
        _lesion_mean("detected_dice", "Dice of detected", _number("dice"), _found),
        _lesion_mean("detected_assd_mm", "ASSD of detected, mm", _number("assd_mm"), _found),
        _lesion_mean("detected_mssd_mm", "MSSD of detected, mm", _number("mssd_mm"), _found),
        _lesion_mean("type_accuracy_detected", "type accuracy of detected", _right, _found_of_known_type, typed=True),
        _lesion_mean(
            "type_accuracy_end_to_end", "type accuracy end to end", _found_and_named, _true_of_known_type, typed=True
        ),
    )
}
"""From the lesions of `lesions.csv`, pooled over all of them."""
