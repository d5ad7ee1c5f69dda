"""Several data lists as one: their items side by side, with paths from one folder and the folds that they had."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from liverseg.datalists.duplicate_patients import find_shared_patients
from liverseg.datalists.lesion_load import lesion_loads
from liverseg.datalists.model import DataItem, DataList, label_table, read_datalist, write_datalist
from liverseg.datalists.similar_names import warn_about_similar_names
from liverseg.datalists.splits import assign_folds, check_split
from liverseg.errors import LiversegError, UsageError
from liverseg.labels import JOINT_LABELS, PRETRAIN_LABELS
from liverseg.utils.files import is_dir, is_file

__all__ = ["join_datalists"]

_Parts = list[tuple[Path, DataList]]


def join_datalists(
    lists: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    *,
    name: str | None = None,
    dataset_dirs: Sequence[str | os.PathLike] | None = None,
    root: str | os.PathLike | None = None,
    folds: int | None = None,
    seed: int = 0,
    prefix_patients: bool = False,
    same_patients: bool = False,
) -> Path:
    """Write the list of all items of several lists, test items apart; no file of theirs is copied.

    What the lists say of an item stays, `labelled` and `clipped_hu` among it. Sources and licences are joined, each
    with its list's name. A fold in which no item has the labels of the whole table is told in the log.

    Args:
        lists: two or more, of one label table. A list of partial label maps alone fits either.
        output: the list to write.
        name: its name; that of the lists with + between when not given.
        dataset_dirs: folder each list's paths are relative to; the list's own when not given.
        root: folder the new list's paths are relative to; that of the new list when not given.
        folds: number of folds to split the training items into anew; None keeps the fold of every item.
        seed: seed of that split.
        prefix_patients: begin every patient's name with that of its list, for lists whose numbers are of other people.
        same_patients: patients of one name are the same people, as in a list and its copies with synthetic lesions;
            they must have the same fold in all lists.

    Returns:
        The new list's path.

    Raises:
        UsageError: if there are fewer than two lists, not a folder for each, a number of folds or a seed that no split
            can have, the new list is one of the old, or patients are to be both the same and renamed.
        LiversegError: if a list cannot be read, or none of its files is where it should be; if label tables differ,
            a patient is in two lists or may be under two names, or the list cannot be written.
    """
    paths, output = [Path(path) for path in lists], Path(output)
    if len(paths) < 2:
        raise UsageError(f"{len(paths)} data lists to join; at least 2 are needed")
    folders = [path.parent for path in paths] if dataset_dirs is None else [Path(folder) for folder in dataset_dirs]
    if len(folders) != len(paths):
        raise UsageError(f"{len(folders)} dataset_dirs for {len(paths)} data lists; give one for each, in their order")
    if output.resolve() in [path.resolve() for path in paths]:
        raise UsageError(f"{output}: is one of the lists to join; give another name to the new one")
    if prefix_patients and same_patients:
        raise UsageError("prefix_patients and same_patients given; patients of one name are other people or the same")
    check_split(2 if folds is None else folds, seed=seed)
    parts = [(path, read_datalist(path)) for path in paths]
    for (path, listed), folder in zip(parts, folders, strict=True):
        _check_files(path, listed, folder)
    rows = _label_rows(parts)
    _check_twins(parts)
    if prefix_patients:
        parts = [(path, _prefixed(listed)) for path, listed in parts]
    if not same_patients:
        _check_patients(parts)
    target = output.parent if root is None else Path(root)
    moved = [_moved(listed, folder, target) for (_, listed), folder in zip(parts, folders, strict=True)]
    training = tuple(item for listed in moved for item in listed.training)
    if folds is not None:
        training = assign_folds(training, folds, seed, lesion_loads(training, target))
    joined = DataList(
        name=name or "+".join(listed.name for listed in moved),
        version="1",
        source="; ".join(f"{listed.name}: {listed.source}" for listed in moved),
        licence="; ".join(f"{listed.name}: {listed.licence}" for listed in moved),
        labels=label_table(rows),
        training=training,
        test=tuple(item for listed in moved for item in listed.test),
    )
    warn_about_similar_names(item.patient for item in (*joined.training, *joined.test))
    if folds is None:
        _tell_folds(output, parts)
    _tell_partial_folds(output, joined, rows)
    return write_datalist(output, joined)


def _check_files(path: Path, listed: DataList, folder: Path) -> None:
    if not is_dir(folder):
        raise LiversegError(f"{path}: its folder {folder} does not exist; give --dataset-dirs, one for each list")
    images = [item.image for item in (*listed.training, *listed.test)]
    if not any(is_file(folder / image) for image in images):
        raise LiversegError(
            f"{path}: none of its {len(images)} images is below {folder}, {images[0]} for one; give --dataset-dirs, "
            "the folder of each list in their order"
        )


def _label_rows(parts: _Parts) -> int:
    """Rows of the label table that all lists have."""
    sizes: dict[int, tuple[Path, DataList]] = {}
    for path, listed in parts:
        own = len(listed.labels)
        if own not in (len(PRETRAIN_LABELS), len(JOINT_LABELS)) or listed.labels.keys() != label_table(own).keys():
            raise LiversegError(
                f"{path}: its labels are {_labels(listed)}; those of the pre-training or the joint bundle are needed"
            )
        if own == len(JOINT_LABELS) and listed.labels != label_table(own):
            raise LiversegError(f"{path}: its labels are {_labels(listed)}; other types than the joint bundle's")
        # what is partial says itself which values there are
        if any(item.labelled is None and item.label is not None for item in (*listed.training, *listed.test)):
            sizes.setdefault(own, (path, listed))
    if len(sizes) > 1:
        (one, first), (other, second) = sizes.values()
        raise LiversegError(
            f"{other}: its labels are {_labels(second)}, those of {one} {_labels(first)}; lists of one label table are "
            "needed"
        )
    return next(iter(sizes), max(len(listed.labels) for _, listed in parts))


def _labels(listed: DataList) -> str:
    return ", ".join(f"{index} {name}" for index, name in listed.labels.items()) or "none"


def _patients(listed: DataList) -> set[str]:
    return {item.patient for item in (*listed.training, *listed.test)}


def _check_twins(parts: _Parts) -> None:
    """Refuse public sets that share patients, by the names that importers give."""
    for (one, first), (other, second) in combinations(parts, 2):
        for twins in find_shared_patients(_patients(first), _patients(second)):
            raise LiversegError(
                f"{other}: patient {twins.second} may be {twins.first} of {one}; {twins.reason}: "
                "leave those of one side out"
            )


def _check_patients(parts: _Parts) -> None:
    for (one, first), (other, second) in combinations(parts, 2):
        both = sorted(_patients(first) & _patients(second))
        if both:
            more = f" and {len(both) - 1} more" if len(both) > 1 else ""
            raise LiversegError(
                f"{other}: patient {both[0]}{more} is in {one} as well; if they are different people, give "
                "--prefix-patients and each list another name; if they are the same, --same-patients"
            )


def _prefixed(listed: DataList) -> DataList:
    def named(items: Sequence[DataItem]) -> tuple[DataItem, ...]:
        return tuple(replace(item, patient=f"{listed.name}-{item.patient}") for item in items)

    return replace(listed, training=named(listed.training), test=named(listed.test))


def _moved(listed: DataList, folder: Path, root: Path) -> DataList:
    """A list with paths from another folder."""
    # links are followed, as the system does for every ..
    way = Path(os.path.relpath(folder.resolve(), root.resolve()))

    def seen(name: str) -> str:
        return Path(os.path.normpath(way / name)).as_posix()

    def moved(items: Sequence[DataItem]) -> tuple[DataItem, ...]:
        return tuple(
            replace(item, image=seen(item.image), label=None if item.label is None else seen(item.label))
            for item in items
        )

    return replace(listed, training=moved(listed.training), test=moved(listed.test))


def _tell_folds(output: Path, parts: _Parts) -> None:
    """One line in the log where the lists have other folds."""
    kinds = {listed.folds: listed.name for _, listed in reversed(parts) if listed.folds}
    if len(kinds) > 1:
        told = "; ".join(f"{name} has {', '.join(map(str, folds))}" for folds, name in reversed(kinds.items()))
        logging.getLogger(__name__).warning(
            "%s: folds are kept as they are: %s; --folds splits all items anew", output, told
        )


def _tell_partial_folds(output: Path, joined: DataList, rows: int) -> None:
    """One line in the log for each fold that cannot be scored for lesions, or types."""
    for fold in joined.folds:
        items = [item for item in joined.training if item.fold == fold]
        if rows == len(PRETRAIN_LABELS) and not any(item.lesions_are_outlined for item in items):
            told, instead = "its lesions outlined", "validate it with --key_score liver_dice, or another fold"
        elif rows == len(JOINT_LABELS) and not any(item.labelled is None for item in items):
            told, instead = "lesions of known type", "validate another fold"
        else:
            continue
        logging.getLogger(__name__).warning("%s: no item of fold %d has %s; %s", output, fold, told, instead)
