"""Folds and held-out patients. All splits are by patient, balanced by lesion type and, if known, lesion load."""

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

from liverseg.bundle.validation import check_values
from liverseg.datalists.model import DataItem, DataList
from liverseg.errors import LiversegError, UsageError

__all__ = [
    "adopt_folds",
    "assign_folds",
    "check_split",
    "hold_out",
    "imbalance",
    "load_classes",
    "most_balanced_split",
    "stratified_splits",
]

_PARTS = 20
"""Most parts that items are split into to hold out a share, unless a smaller share needs more."""

# our choices; benchmarks/split_balance.py measures them
_MAX_CLASSES = 3
"""Classes of lesion load above 0: small, medium, large."""
_TYPE_WEIGHT = 4
"""Weight of the stratification by type beside that by type and load class, whose more numerous strata would prevail."""
_CANDIDATES = 32
"""Number of random splits from which the most balanced is chosen."""


def check_split(folds: int = 2, share: float = 0.0, seed: int = 0) -> None:
    """Refuse arguments that are invalid for any items.

    Raises:
        UsageError: if there are fewer than 2 folds, the share is not in [0, 1], or the seed is negative or beyond 32
            bits.
    """
    if folds < 2:
        raise UsageError(f"{folds} folds requested; at least 2 are needed")
    if not 0 <= share <= 1:
        raise UsageError(f"test share {share}; a number from 0 to 1 is needed")
    check_values(seed=seed)


def assign_folds(
    items: Sequence[DataItem], folds: int = 5, seed: int = 0, loads: Sequence[float | None] | None = None
) -> tuple[DataItem, ...]:
    """Assign folds by patient, balanced by lesion type and lesion load.

    Loads are balanced within each type by classes: no lesion, and up to three equally frequent classes of the others.
    Of several random splits, the most balanced is chosen; benchmarks/split_balance.py measures the effect. Without
    loads, one split is drawn, balanced by type only.

    Args:
        items: items of any number of patients, in any order; the order is kept.
        folds: number of folds, at least 2.
        seed: the same items, loads and seed give the same folds.
        loads: lesion load of each item from `lesion_loads`; None where not known.

    Raises:
        UsageError: if there are fewer than 2 folds, or the seed is negative or beyond 32 bits.
        LiversegError: if there are fewer patients than folds.
        ValueError: if there are not as many loads as items.
    """
    check_split(folds=folds, seed=seed)
    patients = {item.patient for item in items}
    if len(patients) < folds:
        advice = f"take 2 to {len(patients)}" if len(patients) >= 2 else "at least 2 patients are needed"
        raise LiversegError(f"{folds} folds requested with {len(patients)} patients; {advice}")
    if loads is not None and len(loads) != len(items):
        raise ValueError(f"{len(loads)} loads for {len(items)} items")
    groups = np.array([item.patient for item in items])
    type_counts = Counter(item.lesion_type or "" for item in items)
    # if every type has fewer items than there are folds, types cannot be balanced
    by_type = max(type_counts.values()) >= folds
    types = np.array([(item.lesion_type or "") if by_type else "" for item in items])
    if loads is None or all(load is None for load in loads):
        fold_numbers = next(stratified_splits([types], groups, folds, seed))
    else:
        known_loads = np.array([np.nan if load is None else load for load in loads], dtype=float)
        fold_numbers = most_balanced_split(types, known_loads, groups, folds, seed)
    return tuple(replace(item, fold=int(fold)) for item, fold in zip(items, fold_numbers, strict=True))


def hold_out(
    items: Sequence[DataItem], share: float, seed: int = 0, loads: Sequence[float | None] | None = None
) -> tuple[tuple[DataItem, ...], tuple[DataItem, ...]]:
    """Hold out patients for testing.

    `assign_folds` splits the items into parts, whose number is the denominator of the fraction nearest the share. As
    many parts are held out as come closest to the share: for a quarter the first of four, for 0.4 about two of five.

    Args:
        items: items as for `assign_folds`.
        share: share of the items to hold out, 0 to 1, met as closely as complete parts allow; 1 keeps nobody.
        seed: the same items, loads and seed hold out the same patients.
        loads: loads as for `assign_folds`.

    Returns:
        The items kept, and the items held out, whose fold is None.

    Raises:
        UsageError: if the share is not in [0, 1], or as for `assign_folds`.
        LiversegError: if there are fewer than 2 patients and the share is below 1.
    """
    check_split(share=share, seed=seed)
    if share == 0:
        return tuple(items), ()
    if share == 1:
        return (), tuple(replace(item, fold=None) for item in items)
    patients = len({item.patient for item in items})
    if patients < 2:
        raise LiversegError(f"test share {share} requested with {patients} patients; at least 2 are needed")
    parts = _parts(items, share, patients)
    split = assign_folds(items, parts, seed, loads)
    sizes = Counter(item.fold for item in split)
    # the number of parts to hold out, so that both sides get items
    cumulative = np.cumsum([sizes[part] for part in range(parts)])[:-1]
    error = np.abs(cumulative - share * len(items))
    error = np.where((cumulative > 0) & (cumulative < len(items)), error, np.inf)
    held_out = range(1 + int(np.argmin(error)))
    kept = tuple(replace(item, fold=None) for item in split if item.fold not in held_out)
    return kept, tuple(replace(item, fold=None) for item in split if item.fold in held_out)


def adopt_folds(items: Sequence[DataItem], datalist: DataList) -> tuple[tuple[DataItem, ...], tuple[DataItem, ...]]:
    """Split items as an existing list splits their patients, so that two groups train and test on the same patients.

    Args:
        items: labelled items of patients of the list, in any order.
        datalist: the list with the folds and test patients.

    Returns:
        Items with their patient's fold, and items of patients of the list's test part.

    Raises:
        LiversegError: if a patient is not in the list.
    """
    fold_of = {item.patient: item.fold for item in (*datalist.training, *datalist.test)}
    unknown = sorted({item.patient for item in items} - fold_of.keys())
    if unknown:
        raise LiversegError(
            f"data list {datalist.name}: {len(unknown)} of the patients are not in it, such as {unknown[0]}; "
            "take a list of the same set"
        )
    with_folds = [replace(item, fold=fold_of[item.patient]) for item in items]
    training = tuple(item for item in with_folds if item.fold is not None)
    return training, tuple(item for item in with_folds if item.fold is None)


def _parts(items: Sequence[DataItem], share: float, patients: int) -> int:
    """Return the denominator of the fraction nearest the share, limited to what can be balanced or the share needs."""
    most_frequent = max(Counter(item.lesion_type or "" for item in items).values())
    limit = math.ceil(min(patients, max(min(_PARTS, most_frequent), 1 / min(share, 1 - share))))
    nearest = Fraction(share).limit_denominator(limit)
    return nearest.denominator if nearest.denominator > 1 else limit


def most_balanced_split(types: np.ndarray, loads: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Return the split of least `imbalance` among several that are stratified by type and load class.

    Args:
        types: type of each item, text, shape (items,).
        loads: load of each item, shape (items,); NaN where not known.
        groups: patient of each item, shape (items,).
        folds: number of folds, at most the number of groups.
        seed: 0 to below 2**32.

    Returns:
        The fold of each item, shape (items,).
    """
    classes = np.char.add(types, [f" {number}" for number in load_classes(types, loads, folds)])
    splits = islice(stratified_splits([classes, *[types] * _TYPE_WEIGHT], groups, folds, seed), _CANDIDATES)
    # rounded, so that the result does not depend on a machine's last digit
    return min(splits, key=lambda fold_numbers: round(imbalance(types, loads, fold_numbers, folds), 9))


def stratified_splits(strata: Sequence[np.ndarray], groups: np.ndarray, folds: int, seed: int) -> Iterator[np.ndarray]:
    """Draw an endless series of splits by group, each balanced for all stratifications at once.

    Args:
        strata: stratifications with equal weights, each with one text per item, shape (items,).
        groups, folds, seed: as for `most_balanced_split`.

    Yields:
        The fold of each item, shape (items,).
    """
    # the splitter takes one stratum per item, so it gets each item once for each stratification
    names = np.concatenate([np.char.add(f"{number} ", stratum) for number, stratum in enumerate(strata)])
    repeated_groups = np.tile(groups, len(strata))
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=np.random.RandomState(seed))
    while True:
        fold_numbers = np.empty(len(names), dtype=int)
        with warnings.catch_warnings():
            # types with fewer items than folds cannot be avoided
            warnings.filterwarnings("ignore", "The least populated class", UserWarning)
            for fold, (_, held_out) in enumerate(splitter.split(names, names, repeated_groups)):
                fold_numbers[held_out] = fold
        yield _fill_empty_folds(fold_numbers[: len(groups)], groups, folds)


def _fill_empty_folds(fold_numbers: np.ndarray, groups: np.ndarray, folds: int) -> np.ndarray:
    """Fill empty folds, which the splitter can leave if few patients have most of the items.

    An empty fold gets the patient with the fewest items of the fold that has most patients.
    """
    _, group_of, counts = np.unique(groups, return_inverse=True, return_counts=True)
    fold_of_group = np.empty(len(counts), dtype=int)
    fold_of_group[group_of] = fold_numbers
    for fold in sorted(set(range(folds)) - set(fold_of_group.tolist())):
        largest = int(np.argmax(np.bincount(fold_of_group, minlength=folds)))
        candidates = np.flatnonzero(fold_of_group == largest)
        fold_of_group[candidates[np.argmin(counts[candidates])]] = fold
    return fold_of_group[group_of]


def load_classes(types: np.ndarray, loads: np.ndarray, folds: int) -> np.ndarray:
    """Group lesion loads into classes within each type: none, up to three equally frequent classes, unknown.

    A class needs an item for each fold, so there are fewer than three if items are few. If items without a lesion, or
    of unknown load, are too few for a class, they join the smallest or the middle class.

    Args:
        types: type of each item, shape (items,).
        loads: load of each item, in one unit within a type, shape (items,); NaN where not known.
        folds: number of folds.

    Returns:
        Class of each item, integers, shape (items,). Classes of different types are unrelated.
    """
    classes = np.zeros(len(types), dtype=int)
    for lesion_type in np.unique(types):
        of_type = types == lesion_type
        empty, loaded, unknown = of_type & (loads == 0), of_type & (loads > 0), of_type & np.isnan(loads)
        count = max(1, min(_MAX_CLASSES, int(loaded.sum()) // folds))
        order = np.flatnonzero(loaded)[np.argsort(loads[loaded], kind="stable")]
        classes[order] = 1 + np.arange(len(order)) * count // max(1, len(order))
        classes[empty] = 0 if empty.sum() >= folds else 1
        classes[unknown] = 1 + count if unknown.sum() >= folds else (1 + count) // 2
    return classes


def imbalance(types: np.ndarray, loads: np.ndarray, fold_numbers: np.ndarray, folds: int) -> float:
    """Measure how much the folds differ, 0 if they are equal.

    It is the mean over types of twice the coefficient of variation of the number of items, plus that of their summed
    load, each over the folds.

    Args:
        types: type of each item, shape (items,).
        loads: load of each item, shape (items,); NaN (not known) counts as 0.
        fold_numbers: fold of each item, shape (items,).
        folds: number of folds.
    """
    known_loads = np.nan_to_num(loads)
    masks = [types == lesion_type for lesion_type in np.unique(types)]
    terms = [2 * _variation(mask.astype(float), fold_numbers, folds) for mask in masks]
    terms += [_variation(np.where(mask, known_loads, 0), fold_numbers, folds) for mask in masks]
    return sum(terms) / len(masks)


def _variation(amounts: np.ndarray, fold_numbers: np.ndarray, folds: int) -> float:
    """Return the coefficient of variation of the sums over folds."""
    sums = np.bincount(fold_numbers, amounts, folds)
    mean = sums.mean()
    return float(sums.std() / mean) if mean > 0 else 0.0
