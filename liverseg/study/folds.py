"""The data list of each held-out fold: who is tested on, who chooses the best epoch, who is learnt from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from liverseg.datalists import DataItem, DataList, datalist_text, hold_out, read_datalist, write_datalist
from liverseg.errors import LiversegError
from liverseg.labels import LESION_TYPES
from liverseg.study.config import StudyDefinition
from liverseg.utils.files import sha256_text

__all__ = ["VALIDATION_FOLD", "check_fold_lists", "fold_list_path", "fold_lists", "list_hash", "write_fold_lists"]

VALIDATION_FOLD = 0
"""In a fold's own list the validation patients are fold 0, those learnt from fold 1."""


def fold_lists(study: StudyDefinition) -> dict[int, DataList]:
    """The list of each held-out fold; the same study makes the same lists.

    Test patients of the study's data list stay out of it: every patient of a fold is tested on once.

    Returns:
        Fold to its list.

    Raises:
        LiversegError: if the data list cannot be read, has no such fold, or a fold is empty.
    """
    datalist = read_datalist(study.datalist)
    wanted = datalist.folds if study.folds is None else study.folds
    if len(datalist.folds) < 2:
        raise LiversegError(f"{study.datalist}: {len(datalist.folds)} folds; a study needs 2 or more")
    lists = {}
    for fold in wanted:
        held_out = tuple(item for item in datalist.training if item.fold == fold)
        if not held_out:
            there = ", ".join(map(str, datalist.folds))
            raise LiversegError(f"{study.datalist}: fold {fold} is empty; the data list has the folds {there}")
        others = [item for item in datalist.training if item.fold != fold]
        learnt, validation = hold_out(others, study.validation_share, seed=fold)
        lists[fold] = DataList(
            name=f"{datalist.name}, fold {fold} held out",
            version=datalist.version,
            source=datalist.source,
            licence=datalist.licence,
            labels=datalist.labels,
            training=(
                *(replace(item, fold=1) for item in learnt),
                *(replace(item, fold=VALIDATION_FOLD) for item in validation),
            ),
            test=tuple(replace(item, fold=None) for item in held_out) if study.scored == "test" else (),
        )
    return lists


def check_fold_lists(study: StudyDefinition, lists: Mapping[int, DataList]) -> None:
    """Refuse lists of which a part lacks one of the lesion types, or that score partial label maps.

    Raises:
        LiversegError: naming fold, part, and type or image.
    """
    for fold, made in lists.items():
        learnt, validation = made.split(VALIDATION_FOLD)
        parts = {"validation": validation, "training": learnt}
        if study.scored == "test":
            parts = {"held out": made.test, **parts}
        for part, items in parts.items():
            if part != "training":
                _check_labelled(study, fold, part, items)
            _check_types(study, fold, part, items)


def list_hash(datalist: DataList) -> str:
    """SHA-256 of the file `write_datalist` makes of a list, hexadecimal."""
    return sha256_text(datalist_text(datalist))


def fold_list_path(study: StudyDefinition, fold: int, made: DataList) -> Path:
    """Where `write_fold_lists` puts a fold's list; another list of the fold has another name.

    So a study that is changed while it runs does not change what its cells learn from.
    """
    return study.output_dir / "folds" / f"fold{fold}-{list_hash(made)[:12]}.json"


def write_fold_lists(study: StudyDefinition, lists: Mapping[int, DataList]) -> None:
    """Write the lists for the bundle to read.

    Raises:
        LiversegError: if they cannot be written.
    """
    for fold, made in lists.items():
        write_datalist(fold_list_path(study, fold, made), made)


def _check_labelled(study: StudyDefinition, fold: int, part: str, items: Sequence[DataItem]) -> None:
    partial = [item for item in items if item.labelled is not None]
    if partial:
        raise LiversegError(
            f"{study.datalist}: fold {fold}: {partial[0].image} of the {part} items has labelled, and a study scores "
            "lesions of known types alone; keep such items out of folds and test"
        )


def _check_types(study: StudyDefinition, fold: int, part: str, items: Sequence[DataItem]) -> None:
    missing = [name for name in LESION_TYPES if not any(item.lesion_type == name for item in items)]
    if missing:
        raise LiversegError(
            f"{study.datalist}: fold {fold}: no {missing[0]} among the {len(items)} {part} items, so no network can be "
            "scored on all types; make fewer folds, or a larger validation_share"
        )
