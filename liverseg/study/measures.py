"""Measures of the report. Each is a function of sums over patients, so that a bootstrap can draw patients.

A mean over slices or lesions, for example, is the sum of the values divided by the sum of the counts.
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
    """A measure.

    Attributes:
        name: in `study.csv`.
        title: in the report's tables.
        parts: maps slices (or lesions) to their contributions to the sums, one column per sum; None if the strategy
            does not have the measure.
        statistic: maps the sums, (..., columns), to the value, (...).
        of_lesions: whether it counts lesions instead of slices.
        typed: whether it needs predicted types; rows without them do not have it.
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
    *columns: str,
) -> Callable[[pd.DataFrame], pd.DataFrame | None]:
    """Return the parts of a mean of `value` over lines for which `among` is true; None if a column is missing."""

    def parts(frame: pd.DataFrame) -> pd.DataFrame | None:
        if not {*columns} <= {*frame.columns}:
            return None
        counted = pd.Series(True, frame.index) if among is None else among(frame)
        return pd.DataFrame({"sum": value(frame).astype(float).where(counted, 0.0), "count": counted.astype(float)})

    return parts


def _global_dice(units: pd.DataFrame) -> pd.DataFrame | None:
    """Return the parts of the Dice over the pixels of all slices."""
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
    """Return a flattened confusion matrix per slice. A slice whose lesion is not hit counts as missed."""
    pred = units["pred_type"].where(_hit(units), "") if "lesion_hit" in units else units["pred_type"]
    return _flat_confusions(units["true_type"], pred)


def _end_to_end(units: pd.DataFrame) -> pd.DataFrame | None:
    """Likewise; None for strategies that do not segment, since they cannot miss a lesion."""
    return _confusions(units) if "lesion_hit" in units else None


def _lesion_confusions(lesions: pd.DataFrame) -> pd.DataFrame:
    """Likewise per lesion: true lesions with the predicted one they overlap most, and predicted ones that hit none."""
    counted = (lesions["side"] == "true") | ~lesions["hit"].astype(bool)
    true = lesions["true_type"].where(lesions["side"] == "true", "").where(counted, "")
    return _flat_confusions(true, lesions["pred_type"].where(counted, ""))


def _flat_confusions(true: pd.Series, pred: pd.Series) -> pd.DataFrame:
    return pd.DataFrame(types.confusions(true.tolist(), pred.tolist()), index=true.index)


def _rate_of(rate: Callable[[np.ndarray], np.ndarray], index: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda flat: rate(flat)[..., index]


def _per_type(name: str, title: str, rate: Callable[[np.ndarray], np.ndarray]) -> list[Measure]:
    return [
        Measure(f"{name}_{lesion_type}", f"{title}, {lesion_type}", _end_to_end, _rate_of(rate, index), typed=True)
        for index, lesion_type in enumerate(LESION_TYPES)
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
        Measure("lesion_dice_global", "Dice of all pixels", _global_dice, _ratio),
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
"""Measures over the slices of `evaluation.csv`, by name. docs/evaluation.md defines them."""

CONFUSION = Measure("confusion", "confusion", _confusions, types.accuracy, typed=True)
LESION_CONFUSION = Measure(
    "lesion_confusion", "confusion", _lesion_confusions, types.accuracy, of_lesions=True, typed=True
)
"""Measures whose sums are flattened confusion matrices. For lesions, any overlap counts as found."""


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
            _lesion_mean(f"recall_{size}", f"recall, {title}", _matched, _true_of_size(size))
            for size, title in (("small", "below 10 mm"), ("medium", "10 to 20 mm"), ("large", "from 20 mm"))
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
"""Measures over the lesions of `lesions.csv`, by name."""
