"""Find all defects of a data list and its files before a training stops at the first one."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.contrib.concurrent import thread_map

from liverseg.bundle.validation import check_values
from liverseg.datalists.checks.findings import (
    ERROR,
    WARNING,
    Defect,
    Finding,
    check_report,
    describe_findings,
    findings_table,
    write_findings,
)
from liverseg.datalists.checks.geometry import grid_findings
from liverseg.datalists.checks.images import ImageFacts, check_image
from liverseg.datalists.checks.labels import LabelFacts, check_label
from liverseg.datalists.checks.lists import (
    ListContent,
    against_findings,
    cross_image_findings,
    read_list,
    shared_patient_findings,
)
from liverseg.datalists.checks.placement import placement_findings
from liverseg.datalists.checks.reading import read_file
from liverseg.datalists.model import DataItem, contradicts_labelled
from liverseg.errors import LiversegError, one_line
from liverseg.imageio.nifti import ReusableBuffer
from liverseg.labels import LESION, LESION_TYPES
from liverseg.utils.files import is_dir, is_file, size_or_zero

__all__ = ["check_datalist", "check_report", "describe_findings", "write_findings"]


@dataclass(frozen=True)
class _FileTask:
    """One file to read.

    Attributes:
        name: its path in the data list.
        is_label: a label map, else an image.
        training: for a label, whether a training item has it.
        slices: for a label, the annotated slices.
        clipped_hu: for an image, the range of HU it was clipped to.
    """

    name: str
    is_label: bool
    training: bool = False
    slices: frozenset[int] = frozenset()
    clipped_hu: tuple[float, float] | None = None


@dataclass(frozen=True)
class _FileResult:
    findings: list[Finding]
    image: ImageFacts | None = None
    label: LabelFacts | None = None


def check_datalist(
    path: str | os.PathLike,
    dataset_dir: str | os.PathLike,
    *,
    against: str | os.PathLike | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Find all defects of a data list and of its files. Each file is read completely, once.

    Args:
        path: the list.
        dataset_dir: folder the list's paths are relative to.
        against: a second list that must not share patients with the first, such as the test list of a training. Its
            files are not read.
        workers: number of files read at a time; the number of processors by default. It does not change the findings.
        progress: show a progress bar on stderr.

    Returns:
        One row per defect, sorted, with the columns `file` (as in the list; the list's own name for defects of the
        list), `level` ("error": training would refuse it or learn something wrong, or "warning"), `defect` (a fixed
        word) and `found` (a sentence). No rows if nothing was found. `attrs["files"]` is the number of files checked.

    Raises:
        UsageError: if workers is below 1. All defects of the list and its files are rows, not exceptions.
    """
    check_values(workers=workers)
    path, dataset_dir = Path(path), Path(dataset_dir)
    content = read_list(path)
    findings = [*content.findings, *shared_patient_findings(path.name, content)]
    if against is not None:
        findings += against_findings(path.name, content, Path(against))
    if content.items and not _is_folder(dataset_dir):
        found = f"its folder {dataset_dir} does not exist or is not readable; give the folder its paths begin in"
        findings.append(Finding(path.name, ERROR, "missing", found))
        return findings_table(findings, 0)
    tasks = _tasks(content)
    if _all_missing(tasks, dataset_dir):
        found = (
            f"none of its {len(tasks)} files is below {dataset_dir}; give --dataset-dir, the folder its paths begin in"
        )
        return findings_table([*findings, Finding(path.name, ERROR, "missing", found)], 0)
    results = _check_files(tasks, content, dataset_dir, workers or os.cpu_count() or 1, progress)
    images = {task.name: result.image for task, result in zip(tasks, results, strict=True) if result.image}
    labels = {task.name: result.label for task, result in zip(tasks, results, strict=True) if result.label}
    for result in results:
        findings += result.findings
    for item in content.items:
        findings += _item_findings(item, content, images, labels)
    findings += _misplaced(content.items, images, labels)
    findings += cross_image_findings(path.name, content.items, images)
    return findings_table(findings, len(tasks))


def _is_folder(path: Path) -> bool:
    try:
        return is_dir(path)
    except LiversegError:
        return False


def _all_missing(tasks: list[_FileTask], dataset_dir: Path) -> bool:
    """Whether all of more than two files are missing. Unreadable folders get a finding per file instead."""
    try:
        return len(tasks) > 2 and not any(is_file(dataset_dir / task.name) for task in tasks)
    except LiversegError:
        return False


def _tasks(content: ListContent) -> list[_FileTask]:
    """Return one task per image and per label, however many items share it."""
    images = {os.path.normpath(item.image): item.clipped_hu for item in content.items}
    slices: dict[str, set[int]] = defaultdict(set)
    for item in content.items:
        if item.label is not None:
            slices[os.path.normpath(item.label)] |= set() if item.slice is None else {item.slice}
    training_labels = {os.path.normpath(item.label) for item in content.training if item.label is not None}
    tasks = [_FileTask(name, is_label=False, clipped_hu=clipped) for name, clipped in images.items()]
    return tasks + [
        _FileTask(name, True, name in training_labels, frozenset(annotated)) for name, annotated in slices.items()
    ]


def _check_files(
    tasks: list[_FileTask], content: ListContent, dataset_dir: Path, workers: int, progress: bool
) -> list[_FileResult]:
    """Return the results in the order of the tasks. Large files are read first, so no processor idles at the end."""
    order = sorted(range(len(tasks)), key=lambda number: size_or_zero(dataset_dir / tasks[number].name), reverse=True)
    memory = ReusableBuffer()
    # decompression, hashing and numpy release the interpreter's lock, so threads keep the processors busy
    results = thread_map(
        lambda number: _check_file(tasks[number], content, dataset_dir, memory),
        order,
        max_workers=workers,
        desc="checking",
        unit="file",
        disable=not progress,
    )
    by_number = dict(zip(order, results, strict=True))
    return [by_number[number] for number in range(len(tasks))]


def _check_file(task: _FileTask, content: ListContent, dataset_dir: Path, memory: ReusableBuffer) -> _FileResult:
    try:
        with np.errstate(all="ignore"):  # numbers of a damaged header overflow; the checks report the result
            file = read_file(dataset_dir / task.name, memory)
            if task.is_label:
                findings, label = check_label(task.name, file, set(content.labels), task.slices, task.training)
                return _FileResult(findings, label=label)
            findings, image = check_image(task.name, file, task.clipped_hu)
            return _FileResult(findings, image=image)
    except Defect as defect:
        return _FileResult([Finding(task.name, ERROR, defect.word, str(defect))])
    except Exception as error:  # a damaged file must not end the check
        logging.getLogger(__name__).debug("%s", task.name, exc_info=True)
        found = f"could not be checked ({one_line(error)}); export it again"
        return _FileResult([Finding(task.name, ERROR, "unreadable", found)])


def _misplaced(
    items: Iterable[DataItem], images: dict[str, ImageFacts], labels: dict[str, LabelFacts]
) -> Iterable[Finding]:
    """Check that each label map with a liver lies on the anatomy of its image, once for all items that share them."""
    pairs = {(os.path.normpath(item.label), os.path.normpath(item.image)) for item in items if item.label is not None}
    for label_name, image_name in pairs:
        label, image = labels.get(label_name), images.get(image_name)
        if label is None or image is None or label.liver is None:
            continue
        if image.tissue is None or image.grid.affine is None:
            continue
        if not grid_findings(label_name, label.grid, image_name, image.grid):  # else it lies elsewhere by its header
            yield from placement_findings(label_name, label.liver, image_name, image.tissue, image.grid.affine)


def _item_findings(
    item: DataItem, content: ListContent, images: dict[str, ImageFacts], labels: dict[str, LabelFacts]
) -> Iterable[Finding]:
    """Check an item's image and label against each other, and its slice and type against both."""
    image_name = os.path.normpath(item.image)
    image = images.get(image_name)
    if image and item.slice is not None:
        depth = image.grid.shape[image.grid.slice_axis]
        if item.slice >= depth:
            found = f"slice {item.slice} is annotated, but the volume has 0 to {depth - 1}; correct the number"
            yield Finding(image_name, ERROR, "annotated slice", found)
            return
    label_name = os.path.normpath(item.label or "")
    label = labels.get(label_name)
    if not label:
        return
    if image:
        yield from grid_findings(label_name, label.grid, image_name, image.grid)
    if label.values == {0}:  # check_label has reported it
        return
    type_values = {name: index for index, name in content.labels.items() if name in LESION_TYPES}
    expected = type_values.get(item.lesion_type or "")
    values = label.values if item.slice is None else label.on_slice.get(item.slice, label.values)
    contradiction = contradicts_labelled(item, values)
    if contradiction:
        yield Finding(label_name, ERROR, "labelled", contradiction)
    lesions = {value for value in values if value >= LESION}
    if expected is not None and expected not in values:
        where = "it" if item.slice is None else f"slice {item.slice}"
        outlined = ", ".join(f"{value} {content.labels.get(value, '?')}" for value in sorted(lesions)) or "no lesion"
        found = f"{where} is listed as {item.lesion_type}, but {expected} is not outlined there, only {outlined}"
        yield Finding(label_name, ERROR, "lesion type", f"{found}; correct type, slice or label map")
    elif item.lesions_are_outlined and not lesions and (item.slice is not None or item.lesion_type is not None):
        # volumes without a lesion are common and useful for training, so only slices and typed items are reported
        found = "is annotated as a slice" if item.slice is not None else f"is listed as {item.lesion_type}"
        yield Finding(label_name, WARNING, "no lesion", f"it {found}, but no lesion is outlined there; is that right?")
