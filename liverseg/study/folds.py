"""The data list of each held-out fold: who is tested on, who chooses the best epoch, who is learnt from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from liverseg.datalists import DataItem, DataList, hold_out, read_datalist, write_datalist
from liverseg.errors import LiversegError
from liverseg.labels import LESION_TYPES
from liverseg.study.definition import StudyDefinition

__all__ = ["VALIDATION_FOLD", "write_fold_lists"]

VALIDATION_FOLD = 0
"""In a fold's own list the validation patients are fold 0, those learnt from fold 1."""


def write_fold_lists(study: StudyDefinition) -> dict[int, Path]:
    """Write `folds/foldK.json` for each held-out fold; the same study writes the same bytes.

    Test patients of the study's data list stay out of it: every patient of a fold is tested on once.

    Returns:
        Fold to its list.

    Raises:
        LiversegError: if the data list has no such fold, a fold is empty, or a part of it lacks one of the lesion
            types.
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
        for part, items in (("held out", held_out), ("validation", validation), ("training", learnt)):
            _check_types(study, fold, part, items)
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
    folder = study.output_dir / "folds"
    return {fold: write_datalist(folder / f"fold{fold}.json", made) for fold, made in lists.items()}


def _check_types(study: StudyDefinition, fold: int, part: str, items: tuple[DataItem, ...]) -> None:
    missing = [name for name in LESION_TYPES if not any(item.lesion_type == name for item in items)]
    if missing:
        raise LiversegError(
            f"{study.datalist}: fold {fold}: no {missing[0]} among the {len(items)} {part} items, so no network can be "
            "scored on all types; make fewer folds, or a larger validation_share"
        )
