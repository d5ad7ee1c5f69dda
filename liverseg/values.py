"""What the numbers and words of a bundle's config may be, each rule written once."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, NamedTuple

from liverseg.errors import UsageError

__all__ = ["check_values"]


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


def _number(above: float | None = None, *, lowest: float = 0, highest: float = math.inf) -> _Rule:
    def holds(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            return False
        return lowest <= float(value) <= highest and (above is None or float(value) > above)

    if above is not None:
        return _Rule(holds, f"a number above {above:g}")
    return _Rule(
        holds, f"a number, {lowest:g} or more" if highest == math.inf else f"a number, {lowest:g} to {highest:g}"
    )


def _word(*words: str) -> _Rule:
    return _Rule(lambda value: str(value).lower() in words, f"{', '.join(words[:-1])} or {words[-1]}")


_RULES = {
    "amp": _word("auto", "true", "false"),
    "batch_size": _whole(1),
    "crop_size": _whole(1),
    "deep_supervision": _Rule(lambda value: isinstance(value, bool), "True or False"),
    "dice_weight": _number(),
    "epochs": _whole(1),
    "fold": _whole(0),
    "head_factor": _number(0),
    "learning_rate": _number(0),
    "lesion_free": _number(highest=1),
    "min_lesion_ml": _number(),
    "num_workers": _whole(0),
    "patience": _whole(1, or_none=True),
    "progress": _Rule(lambda value: isinstance(value, bool), "True or False"),
    "repeats": _whole(1),
    "resume": _Rule(lambda value: isinstance(value, bool), "True or False"),
    "seed": _whole(0, 2**32 - 1),
    "val_batch_size": _whole(1),
    "val_every": _whole(1),
    "val_interval": _whole(1),
}


def check_values(**values: Any) -> None:
    """Refuse a value that a config's key cannot have, before anything is built from it or written.

    Args:
        values: keys of a config and what they are; a key without a rule is a mistake in the config.

    Raises:
        UsageError: for the first value that is not allowed; it tells the key, the value and what is allowed.

    Example:
        >>> check_values(epochs=60, lesion_free=0.1, amp="auto")
    """
    for key, value in values.items():
        if not _RULES[key].holds(value):
            raise UsageError(f"{key} is {value!r}; it must be {_RULES[key].words}")
