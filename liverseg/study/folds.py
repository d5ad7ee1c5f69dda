"""The data list of each held-out fold, with test, validation and training patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from liverseg.datalists import DataItem, DataList, datalist_text, hold_out, read_datalist, write_datalist
from liverseg.errors import LiversegError
from liverseg.labels import LESION_TYPES
from liverseg.study.config import StudyConfig
from liverseg.utils.files import sha256_text

__all__ = ["VALIDATION_FOLD", "check_fold_lists", "fold_list_path", "fold_lists", "list_hash", "write_fold_lists"]

VALIDATION_FOLD = 0
"""In the list of a held-out fold, validation patients are fold 0 and training patients fold 1."""


def fold_lists(study: StudyConfig) -> dict[int, DataList]:
    """Make the list of each held-out fold. The same study gives the same lists.

    Test patients of the study's data list are left out. Every patient of a fold is tested once.

    Returns:
        Fold to its list.

    Raises:
        LiversegError: if the data list cannot be read, has fewer than two folds, or a fold is empty.
    """
    datalist = read_datalist(study.datalist)
    folds = datalist.folds if study.folds is None else study.folds
    if len(datalist.folds) < 2:
        raise LiversegError(f"{study.datalist}: {len(datalist.folds)} folds; a study needs 2 or more")
    lists = {}
    for fold in folds:
        held_out = tuple(item for item in datalist.training if item.fold == fold)
        if not held_out:
            existing = ", ".join(map(str, datalist.folds))
            raise LiversegError(f"{study.datalist}: fold {fold} is empty; the data list has the folds {existing}")
        others = [item for item in datalist.training if item.fold != fold]
        training, validation = hold_out(others, study.validation_share, seed=fold)
        lists[fold] = DataList(
            name=f"{datalist.name}, fold {fold} held out",
            version=datalist.version,
            source=datalist.source,
            licence=datalist.licence,
            labels=datalist.labels,
            training=(
                *(replace(item, fold=1) for item in training),
                *(replace(item, fold=VALIDATION_FOLD) for item in validation),
            ),
            test=tuple(replace(item, fold=None) for item in held_out) if study.scored == "test" else (),
        )
    return lists


def check_fold_lists(study: StudyConfig, lists: Mapping[int, DataList]) -> None:
    """Refuse lists with a part that lacks a lesion type, or with partial label maps among the scored items.

    Raises:
        LiversegError: for the first such list.
    """
    for fold, datalist in lists.items():
        training, validation = datalist.split(VALIDATION_FOLD)
        parts = {"validation": validation, "training": training}
        if study.scored == "test":
            parts = {"held out": datalist.test, **parts}
        for part, items in parts.items():
            if part != "training":
                _check_labelled(study, fold, part, items)
            _check_types(study, fold, part, items)


def list_hash(datalist: DataList) -> str:
    """Return the SHA-256 of a list's file as `write_datalist` writes it, hexadecimal."""
    return sha256_text(datalist_text(datalist))


def fold_list_path(study: StudyConfig, fold: int, datalist: DataList) -> Path:
    """Return the path to which `write_fold_lists` writes a fold's list.

    It contains the list's hash, so that changing a study while it runs does not change the data of running cells.
    """
    return study.output_dir / "folds" / f"fold{fold}-{list_hash(datalist)[:12]}.json"


def write_fold_lists(study: StudyConfig, lists: Mapping[int, DataList]) -> None:
    """Write the lists, for the bundle to read.

    Raises:
        LiversegError: if they cannot be written.
    """
    for fold, datalist in lists.items():
        write_datalist(fold_list_path(study, fold, datalist), datalist)


def _check_labelled(study: StudyConfig, fold: int, part: str, items: Sequence[DataItem]) -> None:
    partial = [item for item in items if item.labelled is not None]
    if partial:
        raise LiversegError(
            f"{study.datalist}: fold {fold}: {partial[0].image} of the {part} items has labelled, and a study scores "
            "only lesions of known types; leave such items out of folds and test"
        )


def _check_types(study: StudyConfig, fold: int, part: str, items: Sequence[DataItem]) -> None:
    missing = [name for name in LESION_TYPES if not any(item.lesion_type == name for item in items)]
    if missing:
        raise LiversegError(
            f"{study.datalist}: fold {fold}: no {missing[0]} among the {len(items)} {part} items, but every part needs "
            "all types; make fewer folds, or a larger validation_share"
        )
