"""What the numbers and words of a bundle's config may be, each rule written once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

from liverseg.errors import UsageError

__all__ = ["INITIALISATIONS", "are_lesion_ranges", "check_values"]

INITIALISATIONS = ("scratch", "imagenet", "lits")
"""What a training of the joint bundle may start from."""


class _Rule(NamedTuple):
    """What a key of a config may be, as a test and in words."""

    holds: Callable[[Any], bool]
    words: str


def _whole(lowest: int, highest: int | None = None, *, or_none: bool = False) -> _Rule:
    def holds(value: Any) -> bool:
        if value is None:
            return or_none
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        return whole and lowest <= value and (highest is None or value <= highest)

    span = f"{lowest} or more" if highest is None else f"{lowest} to {highest}"
    return _Rule(holds, f"a whole number, {span}" + (", or null" if or_none else ""))


def _number(
    above: float | None = None, *, lowest: float = 0, highest: float = math.inf, or_none: bool = False
) -> _Rule:
    def holds(value: Any) -> bool:
        if value is None:
            return or_none
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            return False
        return lowest <= float(value) <= highest and (above is None or float(value) > above)

    if above is not None:
        most = "" if highest == math.inf else f", {highest:g} at most"
        return _Rule(holds, f"a number above {above:g}{most}" + (", or null" if or_none else ""))
    return _Rule(
        holds, f"a number, {lowest:g} or more" if highest == math.inf else f"a number, {lowest:g} to {highest:g}"
    )


def _word(*words: str) -> _Rule:
    return _Rule(lambda value: str(value).lower() in words, f"{', '.join(words[:-1])} or {words[-1]}")


def _numbers(value: Any) -> list[float] | None:
    """A list of finite numbers, or None where the value is something else."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return None
    one = _number(lowest=-math.inf)
    return [float(number) for number in value] if all(one.holds(number) for number in value) else None


def _weights(value: Any) -> bool:
    numbers = _numbers(value)
    return numbers is not None and min(numbers, default=-1) >= 0 and sum(numbers) > 0


def _ratios(value: Any) -> bool:
    numbers = _numbers(value)
    return numbers is not None and min(numbers, default=0) > 0


def _window(value: Any) -> bool:
    numbers = _numbers(value)
    return numbers is not None and len(numbers) == 2 and numbers[0] < numbers[1]


def are_lesion_ranges(value: Any) -> bool:
    """True for two finite numbers, the lower first, for each measurement of each type, with at least one of either."""

    def pair(bounds: Any) -> bool:
        numbers = _numbers(bounds)
        return numbers is not None and len(numbers) == 2 and numbers[0] <= numbers[1]

    if not isinstance(value, Mapping) or not value:
        return False
    return all(
        isinstance(kind, str) and isinstance(of_type, Mapping) and of_type and all(map(pair, of_type.values()))
        for kind, of_type in value.items()
    )


_PER_LABEL = {
    "class_weights": _Rule(_weights, "a list of numbers, 0 or more and not all 0, one for each label"),
    # none may be 0: a slice may hold nothing but the labels that are never to be cropped
    "crop_ratios": _Rule(_ratios, "a list of numbers above 0, one for each label"),
}

_YES_OR_NO = _Rule(lambda value: isinstance(value, bool), "True or False")

_RULES = {
    **_PER_LABEL,
    "amp": _word("auto", "true", "false"),
    "batch_size": _whole(1),
    "crop_size": _whole(1),
    "balanced_types": _YES_OR_NO,
    "carry_heads": _YES_OR_NO,
    "deep_supervision": _YES_OR_NO,
    "dice_weight": _number(),
    "dicom": _YES_OR_NO,
    "epochs": _whole(1),
    "fold": _whole(0),
    "head_factor": _number(0),
    "half": _YES_OR_NO,
    "hu_window": _Rule(_window, "two numbers, the lower first, in HU"),
    "learning_rate": _number(0),
    "initialisation": _word(*INITIALISATIONS),
    # of the pre-training; the joint bundle's strategies have others, which its metric knows
    "key_score": _word("lesion_dice", "liver_dice"),
    "keep_identifiers": _YES_OR_NO,
    "lesion_free": _number(highest=1),
    "lesion_ranges": _Rule(
        lambda value: value is None or are_lesion_ranges(value), "null, or by type and measurement two numbers"
    ),
    "lesion_threshold": _number(highest=1),
    "voxel_threshold": _Rule(
        lambda value: value is None or (_number(0).holds(value) and value < 1), "null or a number between 0 and 1"
    ),
    "liver_crop": _whole(1, or_none=True),
    "min_confidence": _number(highest=1),
    "min_lesion_ml": _number(),
    "min_liver_contact": _number(highest=1),
    "num_workers": _whole(0),
    "patience": _whole(1, or_none=True),
    "pixel_mm": _number(0.1, highest=10, or_none=True),
    "preview": _YES_OR_NO,
    "progress": _YES_OR_NO,
    "repeats": _whole(1),
    "report": _YES_OR_NO,
    "resume": _YES_OR_NO,
    "slab_spacing_mm": _number(0, highest=100, or_none=True),
    "seed": _whole(0, 2**32 - 1),
    "stage_epochs": _whole(1),
    "statistics": _YES_OR_NO,
    "type_head_factor": _number(0),
    "type_temperature": _number(0),
    "type_weight": _number(),
    "val_batch_size": _whole(1),
    "val_every": _whole(1),
    "val_interval": _whole(1),
    "wait_minutes": _number(0),
}


def check_values(labels: int | None = None, **values: Any) -> None:
    """Refuse a value that a config's key cannot have, before anything is built from it or written.

    Args:
        labels: how many labels there are, for values that have a number for each.
        values: keys of a config and what they are; a key without a rule is a mistake in the config.

    Raises:
        UsageError: for the first value that is not allowed; it tells the key, the value and what is allowed.

    Example:
        >>> check_values(epochs=60, lesion_free=0.1, amp="auto")
    """
    for key, value in values.items():
        if not _RULES[key].holds(value):
            raise UsageError(f"{key} is {value!r}; it must be {_RULES[key].words}")
        if key in _PER_LABEL and len(value) != labels:
            raise UsageError(f"{key} is {value!r}, {len(value)} numbers; it must have {labels}, one for each label")
