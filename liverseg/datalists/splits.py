"""Folds and held-out patients: every split is by patient, balanced over lesion types and lesion load where known."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import islice

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from liverseg.datalists.model import DataItem, DataList
from liverseg.errors import LiversegError, UsageError

__all__ = [
    "adopt_folds",
    "assign_folds",
    "check_split",
    "hold_out",
    "imbalance",
    "load_classes",
    "most_even_split",
    "spread_splits",
]

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


_PARTS = 20
"""Most parts items are cut into to hold out a share, unless a smaller share needs more."""


def check_split(folds: int = 2, share: float = 0.0, seed: int = 0) -> None:
    """Refuse numbers that no split can have, whatever the items.

    Raises:
        UsageError: if there are fewer than 2 folds, the share is not in [0, 1], or the seed is negative or beyond 32
            bits.
    """
    if folds < 2:
        raise UsageError(f"{folds} folds asked for; at least 2 are needed")
    if not 0 <= share <= 1:
        raise UsageError(f"test share {share}; a number from 0 to 1 is needed")
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed {seed}; a whole number from 0 to {2**32 - 1} is needed")


def assign_folds(
    items: Sequence[DataItem], folds: int = 5, seed: int = 0, loads: Sequence[float | None] | None = None
) -> tuple[DataItem, ...]:
    """Give every item a fold, whole patients at a time, with lesion types and lesion load spread evenly.

    Loads are spread within each type by classes: no lesion, and up to three equally frequent classes of the others. Of
    several such splits, drawn with the seed, the one whose folds are most alike is taken; benchmarks/split_balance.py
    measures what that brings. Without loads there is one split, by type alone.

    Args:
        items: items of any number of patients, in any order; the order is kept.
        folds: number of folds, at least 2.
        seed: the same items, loads and seed give the same folds.
        loads: how much lesion each item holds, as `lesion_loads` measures it; None where it is not known.

    Raises:
        UsageError: if there are fewer than 2 folds, or the seed is negative or beyond 32 bits.
        LiversegError: if there are fewer patients than folds.
        ValueError: if there are not as many loads as items.
    """
    check_split(folds=folds, seed=seed)
    patients = {item.patient for item in items}
    if len(patients) < folds:
        most = f"take 2 to {len(patients)}" if len(patients) >= 2 else "at least 2 patients are needed"
        raise LiversegError(f"{folds} folds asked for with {len(patients)} patients; {most}")
    if loads is not None and len(loads) != len(items):
        raise ValueError(f"{len(loads)} loads for {len(items)} items")
    groups = np.array([item.patient for item in items])
    kinds = Counter(item.lesion_type or "" for item in items)
    # types so rare that none could be in every fold cannot be spread
    spread = max(kinds.values()) >= folds
    types = np.array([(item.lesion_type or "") if spread else "" for item in items])
    if loads is None or all(load is None for load in loads):
        numbers = next(spread_splits([types], groups, folds, seed))
    else:
        amounts = np.array([np.nan if load is None else load for load in loads], dtype=float)
        numbers = most_even_split(types, amounts, groups, folds, seed)
    return tuple(replace(item, fold=int(number)) for item, number in zip(items, numbers, strict=True))


def hold_out(
    items: Sequence[DataItem], share: float, seed: int = 0, loads: Sequence[float | None] | None = None
) -> tuple[tuple[DataItem, ...], tuple[DataItem, ...]]:
    """Set whole patients aside for testing.

    The items are cut as `assign_folds` does, into the parts of the fraction nearest the share, and as many parts are
    held out as come closest to it: for a quarter the first of four, for 0.4 about two of five.

    Args:
        items: as for `assign_folds`.
        share: share of the items to hold out, 0 to 1; met as closely as whole parts allow. 1 keeps nobody.
        seed: the same items, loads and seed hold out the same patients.
        loads: as for `assign_folds`.

    Returns:
        The items kept, and the items held out, whose fold is None.

    Raises:
        UsageError: if the share is not in [0, 1], or as from `assign_folds`.
        LiversegError: if there are fewer than 2 patients, one for each side, of a share below 1.
    """
    check_split(share=share, seed=seed)
    if share == 0:
        return tuple(items), ()
    if share == 1:
        return (), tuple(replace(item, fold=None) for item in items)
    patients = len({item.patient for item in items})
    if patients < 2:
        raise LiversegError(f"test share {share} asked for with {patients} patients; at least 2 are needed")
    parts = _parts(items, share, patients)
    numbered = assign_folds(items, parts, seed, loads)
    sizes = Counter(item.fold for item in numbered)
    # how many parts are taken: somebody is held out, and somebody is left
    ends = np.cumsum([sizes[part] for part in range(parts)])[:-1]
    misfit = np.where((ends > 0) & (ends < len(items)), np.abs(ends - share * len(items)), np.inf)
    taken = range(1 + int(np.argmin(misfit)))
    kept = tuple(replace(item, fold=None) for item in numbered if item.fold not in taken)
    return kept, tuple(replace(item, fold=None) for item in numbered if item.fold in taken)


def adopt_folds(items: Sequence[DataItem], datalist: DataList) -> tuple[tuple[DataItem, ...], tuple[DataItem, ...]]:
    """Split items as a list splits their patients, so that two groups train and test on the same.

    Args:
        items: labelled items of patients the list has, in any order.
        datalist: whose folds and test patients are taken.

    Returns:
        Items with their patient's fold, and items of patients of the list's test part.

    Raises:
        LiversegError: if a patient is not in the list.
    """
    homes = {item.patient: item.fold for item in (*datalist.training, *datalist.test)}
    unknown = sorted({item.patient for item in items} - homes.keys())
    if unknown:
        raise LiversegError(
            f"data list {datalist.name}: {len(unknown)} of the patients are not in it, {unknown[0]} for one; "
            "take a list of the same set"
        )
    placed = [replace(item, fold=homes[item.patient]) for item in items]
    training = tuple(item for item in placed if item.fold is not None)
    return training, tuple(item for item in placed if item.fold is None)


def _parts(items: Sequence[DataItem], share: float, patients: int) -> int:
    """Denominator of the fraction nearest the share, with no more parts than can be balanced, or than it needs."""
    frequent = max(Counter(item.lesion_type or "" for item in items).values())
    most = math.ceil(min(patients, max(min(_PARTS, frequent), 1 / min(share, 1 - share))))
    nearest = Fraction(share).limit_denominator(most)
    return nearest.denominator if nearest.denominator > 1 else most
