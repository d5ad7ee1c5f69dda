"""Rules for the values of the bundles' configs: one rule for each key, in one table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

from liverseg.bundle.outputs import OUTPUT_TYPES, are_output_types
from liverseg.errors import UsageError

__all__ = [
    "INITIALISATIONS",
    "NOT_RECORDED",
    "RULES",
    "Rule",
    "are_lesion_ranges",
    "check_values",
    "is_recorded",
    "none_if_null",
]

INITIALISATIONS = ("scratch", "imagenet", "lits")
"""Starting points of a training of the joint bundle."""


class Rule(NamedTuple):
    """The values that a key of a config allows.

    Attributes:
        is_valid: returns True for an allowed value.
        allowed: description of the allowed values, for the error.
        optional: None is allowed, and so are the words that a command line has for it, see `none_if_null`.
        labels: the rule is for configs with this number of labels only; None for all.
    """

    is_valid: Callable[[Any], bool]
    allowed: str
    optional: bool = False
    labels: int | None = None


def none_if_null(value: Any) -> Any:
    """Return None for None, an empty text and the words null and none, and any other value as it is."""
    return None if value is None or str(value).strip().lower() in ("", "null", "none") else value


def _integer(lowest: int, highest: int | None = None, *, optional: bool = False) -> Rule:
    def is_valid(value: Any) -> bool:
        if value is None:
            return optional
        is_integer = isinstance(value, Integral) and not isinstance(value, bool)
        return is_integer and lowest <= value and (highest is None or value <= highest)

    span = f"{lowest} or more" if highest is None else f"{lowest} to {highest}"
    return Rule(is_valid, f"a whole number, {span}" + (", or null" if optional else ""), optional)


def _number(
    above: float | None = None, *, lowest: float = 0, highest: float = math.inf, optional: bool = False
) -> Rule:
    def is_valid(value: Any) -> bool:
        if value is None:
            return optional
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            return False
        return lowest <= float(value) <= highest and (above is None or float(value) > above)

    if above is not None:
        span = f"a number above {above:g}" + ("" if highest == math.inf else f", {highest:g} at most")
    else:
        span = f"a number, {lowest:g} " + ("or more" if highest == math.inf else f"to {highest:g}")
    return Rule(is_valid, span + (", or null" if optional else ""), optional)


def _one_of(*words: str, labels: int | None = None) -> Rule:
    return Rule(lambda value: str(value).lower() in words, f"{', '.join(words[:-1])} or {words[-1]}", labels=labels)


def _finite_numbers(value: Any) -> list[float] | None:
    """Return a list of finite numbers as floats, or None for anything else."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return None
    is_number = _number(lowest=-math.inf).is_valid
    return [float(number) for number in value] if all(map(is_number, value)) else None


def _are_class_weights(value: Any) -> bool:
    numbers = _finite_numbers(value)
    return numbers is not None and min(numbers, default=-1) >= 0 and sum(numbers) > 0


def _are_ratios(value: Any) -> bool:
    numbers = _finite_numbers(value)
    return numbers is not None and min(numbers, default=0) > 0


def _is_window(value: Any) -> bool:
    numbers = _finite_numbers(value)
    return numbers is not None and len(numbers) == 2 and numbers[0] < numbers[1]


def are_lesion_ranges(value: Any) -> bool:
    """Return True for a mapping from type and measurement to two finite numbers, the lower first; none may be empty."""

    def is_range(bounds: Any) -> bool:
        numbers = _finite_numbers(bounds)
        return numbers is not None and len(numbers) == 2 and numbers[0] <= numbers[1]

    if not isinstance(value, Mapping) or not value:
        return False
    return all(
        isinstance(kind, str) and isinstance(of_type, Mapping) and of_type and all(map(is_range, of_type.values()))
        for kind, of_type in value.items()
    )


_PER_LABEL = {
    "class_weights": Rule(_are_class_weights, "a list of numbers, 0 or more and not all 0, one for each label"),
    # 0 is refused: a slice may hold nothing but labels whose ratio is 0
    "crop_ratios": Rule(_are_ratios, "a list of numbers above 0, one for each label"),
}

_SMALLEST_CROP = 64
"""A crop of 32 pixels is one pixel wide after five halvings. There, oneDNN's bfloat16 convolutions read memory that is
not their own (torch 2.13, AMX)."""

_BOOLEAN = Rule(lambda value: isinstance(value, bool), "True or False")

RULES = {
    **_PER_LABEL,
    "amp": _one_of("auto", "true", "false"),
    "balanced_types": _BOOLEAN,
    "batch_norm_momentum": _number(0, highest=1, optional=True),
    "batch_size": _integer(1),
    "best_from": _integer(1),
    "carry_heads": _BOOLEAN,
    "crop_size": _integer(_SMALLEST_CROP),
    "deep_supervision": _BOOLEAN,
    "dice_weight": _number(),
    "dicom": _BOOLEAN,
    "epochs": _integer(1),
    "fold": _integer(0),
    "half": _BOOLEAN,
    "head_factor": _number(0),
    "hu_window": Rule(_is_window, "two numbers, the lower first, in HU"),
    "initialisation": _one_of(*INITIALISATIONS),
    "keep_identifiers": _BOOLEAN,
    # each strategy of the joint bundle has its own scores, which `SlabScores` checks
    "key_score": _one_of("lesion_dice", "liver_dice", labels=3),
    "learning_rate": _number(0),
    "lesion_free": _number(highest=1),
    "lesion_ranges": Rule(
        lambda value: value is None or are_lesion_ranges(value), "null, or by type and measurement two numbers", True
    ),
    "lesion_threshold": _number(highest=1),
    "liver_crop": _integer(_SMALLEST_CROP, optional=True),
    "min_confidence": _number(highest=1),
    "min_lesion_ml": _number(),
    "min_liver_contact": _number(highest=1),
    "num_workers": _integer(0),
    "output_types": Rule(
        lambda value: value is None or are_output_types(value),
        f"null or a list of {', '.join(OUTPUT_TYPES)}, each once",
        True,
    ),
    "patience": _integer(1, optional=True),
    "phase": Rule(
        lambda value: value is None or value in ("portal", "arterial", "delayed", "native"),
        "portal, arterial, delayed or native, or null",
        True,
    ),
    "pixel_mm": _number(0.1, highest=10, optional=True),
    "pixel_type_weight": _number(optional=True),
    "preview": _BOOLEAN,
    "progress": _BOOLEAN,
    "repeats": _integer(1),
    "report": _BOOLEAN,
    "resume": _BOOLEAN,
    "seed": _integer(0, 2**32 - 1),
    "share": _number(highest=1),
    "slab_spacing_mm": _number(0, highest=100, optional=True),
    "stage_epochs": _integer(1),
    "statistics": _BOOLEAN,
    "sum_types": _BOOLEAN,
    "type_head_factor": _number(0),
    "type_temperature": _number(0),
    "type_weight": _number(),
    "untilt": _BOOLEAN,
    "val_batch_size": _integer(1),
    "val_every": _integer(1),
    "val_interval": _integer(1),
    "voxel_threshold": Rule(
        lambda value: value is None or (_number(0).is_valid(value) and value < 1),
        "null or a number between 0 and 1",
        True,
    ),
    "wait_minutes": _number(0),
    # no config has it, but commands do; None is their default, for which a command line has no word
    "workers": _integer(1, optional=True)._replace(allowed="a whole number, 1 or more"),
}
"""The rule of each key, by the key's name. `liverseg.bundle.config.check_config` applies it in every config that has
the key, so a new key needs no more than its line here."""

NOT_RECORDED = ("output_types", "dicom", "preview", "report", "statistics", "progress")
"""Keys of an inference's config that choose files and what is shown, and leave labels and measurements as they are."""


def is_recorded(key: str) -> bool:
    """Return whether a key of an inference's config is in the records of cases: `liver`, and keys with a rule."""
    return key == "liver" or (key in RULES and key not in NOT_RECORDED)


def check_values(labels: int | None = None, **values: Any) -> None:
    """Refuse a value that a key of a config does not allow.

    Args:
        labels: number of labels, for keys with a number for each label.
        values: value by key.

    Raises:
        UsageError: for the first value that is not allowed. The message has the key, the value and the allowed values.
        KeyError: if a key has no rule.

    Example:
        >>> check_values(epochs=60, lesion_free=0.1, amp="auto")
    """
    for key, value in values.items():
        if not RULES[key].is_valid(value):
            raise UsageError(f"{key} is {value!r}; it must be {RULES[key].allowed}")
        if key in _PER_LABEL and len(value) != labels:
            raise UsageError(f"{key} is {value!r}, {len(value)} numbers; it must have {labels}, one for each label")
