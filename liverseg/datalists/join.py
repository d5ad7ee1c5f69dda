"""Join data lists into one, with paths relative to one folder and the folds of the original lists."""

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
    """Write one list with the training items and the test items of several lists. No images or labels are copied.

    Items keep all their properties, including `labelled` and `clipped_hu`. Sources and licences are joined, each with
    the name of its list. A warning is logged for a fold in which no item can be scored for lesions or types.

    Args:
        lists: two or more lists with the same label table. A list of partial label maps only fits either table.
        output: the list to write.
        name: its name; the names of the lists joined by + by default.
        dataset_dirs: folder that each list's paths are relative to; the folder of the list by default.
        root: folder that the new list's paths are relative to; the folder of the new list by default.
        folds: number of folds for a new split of the training items; None keeps the fold of every item.
        seed: seed of that split.
        prefix_patients: prefix each patient's name with the name of its list, for lists that use the same names for
            different people.
        same_patients: patients of one name are the same people, as in a list and its copies with synthetic lesions;
            they must have the same fold in all lists.

    Returns:
        The path of the new list.

    Raises:
        UsageError: if there are fewer than two lists or not one folder per list; folds or seed are out of range; the
            new list is one of the lists to join; or both `prefix_patients` and `same_patients` are given.
        LiversegError: if a list cannot be read or none of its files exists; if label tables differ; if a patient is in
            two lists or may be in them under two names; or if the list cannot be written.
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
    for (path, datalist), folder in zip(parts, folders, strict=True):
        _check_files(path, datalist, folder)
    channels = _common_channels(parts)
    _check_shared_patients(parts)
    if prefix_patients:
        parts = [(path, _prefix_patients(datalist)) for path, datalist in parts]
    if not same_patients:
        _check_patient_names(parts)
    target = output.parent if root is None else Path(root)
    rebased = [_rebase_paths(datalist, folder, target) for (_, datalist), folder in zip(parts, folders, strict=True)]
    training = tuple(item for datalist in rebased for item in datalist.training)
    if folds is not None:
        training = assign_folds(training, folds, seed, lesion_loads(training, target))
    joined = DataList(
        name=name or "+".join(datalist.name for datalist in rebased),
        version="1",
        source="; ".join(f"{datalist.name}: {datalist.source}" for datalist in rebased),
        licence="; ".join(f"{datalist.name}: {datalist.licence}" for datalist in rebased),
        labels=label_table(channels),
        training=training,
        test=tuple(item for datalist in rebased for item in datalist.test),
    )
    warn_about_similar_names(item.patient for item in (*joined.training, *joined.test))
    if folds is None:
        _warn_about_different_folds(output, parts)
    _warn_about_unscored_folds(output, joined, channels)
    return write_datalist(output, joined)


def _check_files(path: Path, datalist: DataList, folder: Path) -> None:
    if not is_dir(folder):
        raise LiversegError(f"{path}: its folder {folder} does not exist; give --dataset-dirs, one for each list")
    images = [item.image for item in (*datalist.training, *datalist.test)]
    if not any(is_file(folder / image) for image in images):
        raise LiversegError(
            f"{path}: none of its {len(images)} images is below {folder}, such as {images[0]}; give --dataset-dirs, "
            "the folder of each list in their order"
        )


def _common_channels(parts: _Parts) -> int:
    """Return the number of rows of the label table that all lists share."""
    sizes: dict[int, tuple[Path, DataList]] = {}
    for path, datalist in parts:
        channels = len(datalist.labels)
        known = channels in (len(PRETRAIN_LABELS), len(JOINT_LABELS))
        if not known or datalist.labels.keys() != label_table(channels).keys():
            raise LiversegError(
                f"{path}: its labels are {_format_labels(datalist)}; those of the pre-training or the joint bundle "
                "are needed"
            )
        if channels == len(JOINT_LABELS) and datalist.labels != label_table(channels):
            raise LiversegError(f"{path}: its labels are {_format_labels(datalist)}; the joint bundle's differ")
        # a partial label map defines its values itself
        if any(item.labelled is None and item.label is not None for item in (*datalist.training, *datalist.test)):
            sizes.setdefault(channels, (path, datalist))
    if len(sizes) > 1:
        (first_path, first), (second_path, second) = sizes.values()
        raise LiversegError(
            f"{second_path}: its labels are {_format_labels(second)}, those of {first_path} {_format_labels(first)}; "
            "lists of one label table are needed"
        )
    return next(iter(sizes), max(len(datalist.labels) for _, datalist in parts))


def _format_labels(datalist: DataList) -> str:
    return ", ".join(f"{index} {name}" for index, name in datalist.labels.items()) or "none"


def _patients(datalist: DataList) -> set[str]:
    return {item.patient for item in (*datalist.training, *datalist.test)}


def _check_shared_patients(parts: _Parts) -> None:
    """Refuse public sets that share patients, by the names that importers give."""
    for (first_path, first), (second_path, second) in combinations(parts, 2):
        for shared in find_shared_patients(_patients(first), _patients(second)):
            raise LiversegError(
                f"{second_path}: patient {shared.second} may be {shared.first} of {first_path}; {shared.reason}: "
                "leave those of one side out"
            )


def _check_patient_names(parts: _Parts) -> None:
    """Refuse a patient name that is in two lists."""
    for (first_path, first), (second_path, second) in combinations(parts, 2):
        both = sorted(_patients(first) & _patients(second))
        if both:
            more = f" and {len(both) - 1} more" if len(both) > 1 else ""
            raise LiversegError(
                f"{second_path}: patient {both[0]}{more} is in {first_path} as well; if they are different people, "
                "give --prefix-patients and each list another name; if they are the same, --same-patients"
            )


def _prefix_patients(datalist: DataList) -> DataList:
    def prefix(items: Sequence[DataItem]) -> tuple[DataItem, ...]:
        return tuple(replace(item, patient=f"{datalist.name}-{item.patient}") for item in items)

    return replace(datalist, training=prefix(datalist.training), test=prefix(datalist.test))


def _rebase_paths(datalist: DataList, folder: Path, root: Path) -> DataList:
    """Return the list with paths relative to `root` instead of `folder`."""
    # resolve links first, as the operating system does for ".."
    from_root = Path(os.path.relpath(folder.resolve(), root.resolve()))

    def rebase(name: str) -> str:
        return Path(os.path.normpath(from_root / name)).as_posix()

    def rebase_items(items: Sequence[DataItem]) -> tuple[DataItem, ...]:
        return tuple(
            replace(item, image=rebase(item.image), label=None if item.label is None else rebase(item.label))
            for item in items
        )

    return replace(datalist, training=rebase_items(datalist.training), test=rebase_items(datalist.test))


def _warn_about_different_folds(output: Path, parts: _Parts) -> None:
    """Log one warning if the lists do not have the same folds."""
    names = {datalist.folds: datalist.name for _, datalist in reversed(parts) if datalist.folds}
    if len(names) > 1:
        folds_text = "; ".join(f"{name} has {', '.join(map(str, folds))}" for folds, name in reversed(names.items()))
        logging.getLogger(__name__).warning(
            "%s: folds are kept as they are: %s; --folds splits all items again", output, folds_text
        )


def _warn_about_unscored_folds(output: Path, joined: DataList, channels: int) -> None:
    """Log one warning for each fold that cannot be scored for lesions or types."""
    for fold in joined.folds:
        items = [item for item in joined.training if item.fold == fold]
        if channels == len(PRETRAIN_LABELS) and not any(item.lesions_are_outlined for item in items):
            missing, advice = "its lesions outlined", "validate it with --key_score liver_dice, or another fold"
        elif channels == len(JOINT_LABELS) and not any(item.labelled is None for item in items):
            missing, advice = "lesions of known type", "validate another fold"
        else:
            continue
        logging.getLogger(__name__).warning("%s: no item of fold %d has %s; %s", output, fold, missing, advice)
