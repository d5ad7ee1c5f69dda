"""Every defect of a data list and its files, before a training finds the first of them."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

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
    read_list,
    together_findings,
    twin_findings,
)
from liverseg.datalists.checks.reading import read_whole
from liverseg.datalists.model import DataItem, contradicts_labelled
from liverseg.errors import LiversegError, UsageError
from liverseg.imageio.nifti import ReusableBuffer
from liverseg.labels import LESION, LESION_TYPES
from liverseg.utils.files import is_dir, is_file, size_or_zero

__all__ = ["check_datalist", "check_report", "describe_findings", "write_findings"]


@dataclass(frozen=True)
class _Task:
    """One file to read: its name, and what its items say of an image or ask of a label."""

    name: str
    is_label: bool
    training: bool = False
    slices: frozenset[int] = frozenset()
    clipped_hu: tuple[float, float] | None = None


@dataclass(frozen=True)
class _Result:
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
    """Find every defect of a data list and of the files it names; each file is read once, to its end.

    Args:
        path: the list.
        dataset_dir: folder the list's paths are relative to.
        against: another list, of the other side of a training and its test: no patient may be in both. Its files are
            not read.
        workers: files read at a time; all processors by default. The findings do not depend on it.
        progress: show a bar on stderr.

    Returns:
        One row a defect, sorted, with columns `file` (as the list names it; the list's own name for defects of the
        list), `level` ("error": training would refuse it or learn something wrong, or "warning"), `defect` (a fixed
        word) and `found` (a sentence). No rows if nothing was found. `attrs["files"]` is the number of files checked.

    Raises:
        UsageError: if workers is below 1. Nothing else: whatever is wrong with list or files is a row.
    """
    if workers is not None and workers < 1:
        raise UsageError(f"workers {workers}: at least 1 is needed")
    path, dataset_dir = Path(path), Path(dataset_dir)
    content = read_list(path)
    findings = [*content.findings, *twin_findings(path.name, content)]
    if against is not None:
        findings += against_findings(path.name, content, Path(against))
    if content.items and not _is_folder(dataset_dir):
        found = f"its folder {dataset_dir} does not exist or cannot be looked at; give the folder its paths begin in"
        findings.append(Finding(path.name, ERROR, "missing", found))
        return findings_table(findings, 0)
    tasks = _tasks(content)
    if _none_is_there(tasks, dataset_dir):
        found = (
            f"none of its {len(tasks)} files is below {dataset_dir}; give --dataset-dir, the folder its paths begin in"
        )
        return findings_table([*findings, Finding(path.name, ERROR, "missing", found)], 0)
    results = _read_all(tasks, content, dataset_dir, workers or os.cpu_count() or 1, progress)
    images = {task.name: result.image for task, result in zip(tasks, results, strict=True) if result.image}
    labels = {task.name: result.label for task, result in zip(tasks, results, strict=True) if result.label}
    for result in results:
        findings += result.findings
    for item in content.items:
        findings += _item_findings(item, content, images, labels)
    findings += together_findings(path.name, content.items, images)
    return findings_table(findings, len(tasks))


def _is_folder(path: Path) -> bool:
    try:
        return is_dir(path)
    except LiversegError:
        return False


def _none_is_there(tasks: list[_Task], dataset_dir: Path) -> bool:
    """Whether no file of several is where the list says; one that may not be looked at is told by name."""
    try:
        return len(tasks) > 2 and not any(is_file(dataset_dir / task.name) for task in tasks)
    except LiversegError:
        return False


def _tasks(content: ListContent) -> list[_Task]:
    """Every image and every label once, however many items name it."""
    images = {os.path.normpath(item.image): item.clipped_hu for item in content.items}
    slices: dict[str, set[int]] = defaultdict(set)
    for item in content.items:
        if item.label is not None:
            slices[os.path.normpath(item.label)] |= set() if item.slice is None else {item.slice}
    trained = {os.path.normpath(item.label) for item in content.training if item.label is not None}
    tasks = [_Task(name, is_label=False, clipped_hu=clipped) for name, clipped in images.items()]
    return tasks + [_Task(name, True, name in trained, frozenset(asked)) for name, asked in slices.items()]


def _read_all(
    tasks: list[_Task], content: ListContent, dataset_dir: Path, workers: int, progress: bool
) -> list[_Result]:
    """The tasks' results in their order; large files are read first, so that no processor waits at the end."""
    order = sorted(range(len(tasks)), key=lambda number: size_or_zero(dataset_dir / tasks[number].name), reverse=True)
    results: dict[int, _Result] = {}
    memory = ReusableBuffer()
    # decompression, hashing and numpy leave the interpreter's lock, so threads keep the processors busy
    with ThreadPoolExecutor(workers) as pool:
        done = pool.map(lambda number: _checked(tasks[number], content, dataset_dir, memory), order)
        for number, result in zip(
            order, tqdm(done, total=len(tasks), desc="checking", unit="file", disable=not progress), strict=True
        ):
            results[number] = result
    return [results[number] for number in range(len(tasks))]


def _checked(task: _Task, content: ListContent, dataset_dir: Path, memory: ReusableBuffer) -> _Result:
    try:
        with np.errstate(all="ignore"):  # numbers of a damaged header overflow; what comes of it is a finding
            file = read_whole(dataset_dir / task.name, memory)
            if task.is_label:
                findings, label = check_label(task.name, file, set(content.labels), task.slices, task.training)
                return _Result(findings, label=label)
            findings, image = check_image(task.name, file, task.clipped_hu)
            return _Result(findings, image=image)
    except Defect as defect:
        return _Result([Finding(task.name, ERROR, defect.word, str(defect))])
    except Exception as error:  # a check must outlive whatever a damaged file makes of it
        logging.getLogger(__name__).debug("%s", task.name, exc_info=True)
        reason = " ".join(str(error).split()) or type(error).__name__
        return _Result([Finding(task.name, ERROR, "unreadable", f"could not be checked ({reason}); export it again")])


def _item_findings(
    item: DataItem, content: ListContent, images: dict[str, ImageFacts], labels: dict[str, LabelFacts]
) -> Iterable[Finding]:
    """What an item's image and label are not to each other, and its slice and type not to both."""
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
    if label.values == {0}:  # told already
        return
    wanted = {name: index for index, name in content.labels.items() if name in LESION_TYPES}.get(item.lesion_type or "")
    values = label.values if item.slice is None else label.on_slice.get(item.slice, label.values)
    contradiction = contradicts_labelled(item, values)
    if contradiction:
        yield Finding(label_name, ERROR, "labelled", contradiction)
    lesions = {value for value in values if value >= LESION}
    if wanted is not None and wanted not in values:
        where = "it" if item.slice is None else f"slice {item.slice}"
        there = ", ".join(f"{value} {content.labels.get(value, '?')}" for value in sorted(lesions)) or "no lesion"
        found = f"{where} is listed as {item.lesion_type}, but {wanted} is not outlined there, only {there}"
        yield Finding(label_name, ERROR, "lesion type", f"{found}; correct type, slice or label map")
    elif item.lesions_are_outlined and not lesions and (item.slice is not None or item.lesion_type is not None):
        # of whole volumes many have no lesion, and are learned from as such
        found = "is annotated as a slice" if item.slice is not None else f"is listed as {item.lesion_type}"
        yield Finding(label_name, WARNING, "no lesion", f"it {found}, but no lesion is outlined there; is that right?")
