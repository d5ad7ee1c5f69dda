"""Folds and held-out patients: every split is by patient, balanced over lesion types where they are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from liverseg.datalists.model import DataItem
from liverseg.errors import LiversegError

__all__ = ["assign_folds", "hold_out"]


def assign_folds(items: Sequence[DataItem], folds: int = 5, seed: int = 0) -> tuple[DataItem, ...]:
    """Give every item a fold, whole patients at a time and lesion types spread evenly.

    Args:
        items: items of any number of patients, in any order; the order is kept.
        folds: number of folds, at least 2.
        seed: the same items and seed give the same folds.

    Raises:
        LiversegError: if there are fewer patients than folds.
    """
    patients = sorted({item.patient for item in items})
    if folds < 2 or len(patients) < folds:
        raise LiversegError(f"{folds} folds asked for with {len(patients)} patients; take 2 to {len(patients)}")
    groups = np.array([item.patient for item in items])
    strata = np.array([item.lesion_type or "" for item in items])
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    numbers = np.empty(len(items), dtype=int)
    for fold, (_, held_out) in enumerate(splitter.split(groups, strata, groups)):
        numbers[held_out] = fold
    return tuple(replace(item, fold=int(number)) for item, number in zip(items, numbers, strict=True))


def hold_out(
    items: Sequence[DataItem], share: float, seed: int = 0
) -> tuple[tuple[DataItem, ...], tuple[DataItem, ...]]:
    """Set whole patients aside for testing.

    Args:
        items: as for `assign_folds`.
        share: about what part of the items to hold out, 0 to below 1.
        seed: the same items and seed hold out the same patients.

    Returns:
        The items kept, and the items held out, whose fold is None.

    Raises:
        LiversegError: if the share is not in [0, 1) or leaves nobody on one side.
    """
    if not 0 <= share < 1:
        raise LiversegError(f"test share {share}; a number from 0 to below 1 is needed")
    if share == 0:
        return tuple(items), ()
    parts = max(2, round(1 / share))
    numbered = assign_folds(items, parts, seed)
    kept = tuple(replace(item, fold=None) for item in numbered if item.fold != 0)
    return kept, tuple(replace(item, fold=None) for item in numbered if item.fold == 0)
