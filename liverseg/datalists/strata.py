"""Splits by patient that spread lesion types and lesion load evenly over the folds."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

__all__ = ["imbalance", "load_classes", "most_even_split", "spread_splits"]

_MOST_CLASSES = 3
"""Classes of the loads above 0: small, medium, large."""
_TYPES_FIRST = 4
"""How often a type counts against its classes of load, which are more and would outvote it."""
_TRIES = 32
"""Splits of which the most even is taken. All three are our choice; benchmarks/split_balance.py measures them."""


def most_even_split(types: np.ndarray, loads: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The split of least `imbalance` among several that spread types and classes of load.

    Args:
        types: each item's type, text, shape (items,).
        loads: its load, shape (items,); NaN where it is not known.
        groups: whose it is, shape (items,).
        folds: number of folds, at most that of groups.
        seed: 0 to below 2**32.

    Returns:
        The fold of each item, shape (items,).
    """
    classes = np.char.add(types, [f" {number}" for number in load_classes(types, loads, folds)])
    splits = islice(spread_splits([classes, *[types] * _TYPES_FIRST], groups, folds, seed), _TRIES)
    # rounded, so that no machine's last digit decides
    return min(splits, key=lambda numbers: round(imbalance(types, loads, numbers, folds), 9))


def spread_splits(strata: Sequence[np.ndarray], groups: np.ndarray, folds: int, seed: int) -> Iterator[np.ndarray]:
    """Splits drawn one after the other, without end, each spreading all strata at once.

    Args:
        strata: stratifications, each with one text an item, shape (items,); all of them count alike.
        groups, folds, seed: as for `most_even_split`.

    Yields:
        The fold of each item, shape (items,).
    """
    # the splitter takes one stratum an item, so an item stands there once for each stratification
    named = np.concatenate([np.char.add(f"{number} ", one) for number, one in enumerate(strata)])
    repeated = np.tile(groups, len(strata))
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=np.random.RandomState(seed))
    while True:
        numbers = np.empty(len(named), dtype=int)
        with warnings.catch_warnings():
            # of a type with fewer items than folds, about which nobody can do anything
            warnings.filterwarnings("ignore", "The least populated class", UserWarning)
            for fold, (_, held_out) in enumerate(splitter.split(named, named, repeated)):
                numbers[held_out] = fold
        yield _filled(numbers[: len(groups)], groups, folds)


def _filled(numbers: np.ndarray, groups: np.ndarray, folds: int) -> np.ndarray:
    """The split without an empty fold, which the splitter can leave where few patients have most of the items.

    An empty fold gets the patient with the fewest items of the fold that has most patients.
    """
    names, owners, counts = np.unique(groups, return_inverse=True, return_counts=True)
    homes = np.empty(len(names), dtype=int)
    homes[owners] = numbers
    for fold in sorted(set(range(folds)) - set(homes.tolist())):
        fullest = int(np.argmax(np.bincount(homes, minlength=folds)))
        there = np.flatnonzero(homes == fullest)
        homes[there[np.argmin(counts[there])]] = fold
    return homes[owners]


def load_classes(types: np.ndarray, loads: np.ndarray, folds: int) -> np.ndarray:
    """Classes of lesion load, within each type: no lesion, up to three equally frequent classes of the others, unknown.

    A class needs an item for each fold, so there are fewer of the three where items are few. Items without a lesion, or
    of unknown load, that are still too few join the smallest or the middle class.

    Args:
        types: each item's type, shape (items,).
        loads: its load, any unit that is one for a type, shape (items,); NaN where it is not known.
        folds: number of folds.

    Returns:
        Whole numbers, shape (items,): classes count within a type only.
    """
    classes = np.zeros(len(types), dtype=int)
    for kind in np.unique(types):
        own = types == kind
        none, some, unknown = own & (loads == 0), own & (loads > 0), own & np.isnan(loads)
        count = max(1, min(_MOST_CLASSES, int(some.sum()) // folds))
        order = np.flatnonzero(some)[np.argsort(loads[some], kind="stable")]
        classes[order] = 1 + np.arange(len(order)) * count // max(1, len(order))
        classes[none] = 0 if none.sum() >= folds else 1
        classes[unknown] = 1 + count if unknown.sum() >= folds else (1 + count) // 2
    return classes


def imbalance(types: np.ndarray, loads: np.ndarray, numbers: np.ndarray, folds: int) -> float:
    """How unlike the folds are: twice the unevenness of the items of a type, plus that of their load; means over types.

    Unevenness is the coefficient of variation of a sum over the folds, 0 where each fold has the same.

    Args:
        types: each item's type, shape (items,).
        loads: its load, shape (items,); NaN, where it is not known, counts nothing.
        numbers: its fold, shape (items,).
        folds: number of folds.
    """
    amounts = np.nan_to_num(loads)
    kinds = [types == kind for kind in np.unique(types)]
    found = [2 * _unevenness(own.astype(float), numbers, folds) for own in kinds]
    found += [_unevenness(np.where(own, amounts, 0), numbers, folds) for own in kinds]
    return sum(found) / len(kinds)


def _unevenness(amounts: np.ndarray, numbers: np.ndarray, folds: int) -> float:
    sums = np.bincount(numbers, amounts, folds)
    mean = sums.mean()
    return float(sums.std() / mean) if mean > 0 else 0.0
