"""Pseudo-labelling: liver masks of unlabelled CTs that pass checks, a data list, and a page for review."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from liverseg.cases.discover import check_series
from liverseg.errors import LiversegError, OutputError, SomeCasesFailed, UnreadableError, UsageError, user_error
from liverseg.inference import find_cases
from liverseg.pseudo_labels.cases import CaseOutliner, label_path, read_network
from liverseg.pseudo_labels.checks import OutlineLimits
from liverseg.pseudo_labels.results import (
    ACCEPTED,
    FAILED,
    PAGE,
    REFUSED,
    TABLE,
    PseudoLabelMetadata,
    copy_decisions,
    is_kept,
    read_metadata,
    read_table,
    relative_path,
    results_table,
    write_metadata,
    write_results,
)
from liverseg.utils.files import ensure_writable, is_file, write_text
from liverseg.utils.locks import FileLock

__all__ = ["FOLD", "pseudo_label", "rewrite_from_table"]

FOLD = 99
"""Fold of the items, higher than in any real split, so that no training validates on pseudo-labels."""


def pseudo_label(
    sources: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    *,
    weights: str | os.PathLike,
    name: str,
    origin: str,
    licence: str,
    second_weights: str | os.PathLike | None = None,
    bundle: str | os.PathLike | None = None,
    limits: OutlineLimits | None = None,
    dataset_dir: str | os.PathLike | None = None,
    fold: int = FOLD,
    progress: bool = True,
    **overrides: Any,
) -> Path:
    """Outline the liver on CTs, check the outlines, and list those that pass as partial labels.

    CTs that were outlined before with the same weights and settings are not computed again; limits may change. A
    person's decisions in the table are kept for masks that have not changed.

    Args:
        sources: CTs, each as for `find_cases`.
        output: folder for `labels/`, `cases/`, the table, the list and the page.
        weights: weights of the network whose masks are written.
        name: name of the list, and prefix of the names of its patients.
        origin: where the CTs come from.
        licence: licence of the CTs.
        second_weights: weights of another network, whose outlines must agree.
        bundle: folder of the bundle for all weights; by default the bundle of each weights' record.
        limits: limits of accepted outlines.
        dataset_dir: folder that the list's paths are relative to; the common folder of CTs and output by default.
        fold: fold of all items.
        progress: show a progress bar if stderr is a terminal.
        overrides: values of further keys of the bundles' inference; None keeps the value of the config.

    Returns:
        The path of the data list.

    Raises:
        UsageError: if an argument is out of range, or a CT or the output is outside `dataset_dir`.
        LiversegError: if inputs, weights or output cannot be used, all CTs failed, or no outline is kept.
        SomeCasesFailed: if some CTs failed; the others are listed.
    """
    limits = OutlineLimits() if limits is None else limits
    if fold < 0:
        raise UsageError(f"fold {fold}; it must be a whole number from 0")
    for option, text in (("name", name), ("from", origin), ("licence", licence)):
        if not text.strip():
            raise UsageError(f"{option} is empty; give it, because the data list needs it")
    items = _items(sources)
    check_series(overrides.get("series"), [item["image"] for item in items])
    folder = Path(os.path.abspath(output))
    images = [Path(os.path.abspath(item["image"])) for item in items]
    root = _dataset_dir(images, folder, dataset_dir)
    for image in images:
        relative_path(image, root)
    relative_path(folder, root)
    bundle = None if bundle is None else Path(bundle).absolute()
    weights_paths = [Path(weights)] + ([] if second_weights is None else [Path(second_weights)])
    networks = [read_network(path, bundle, overrides) for path in weights_paths]
    if len({network.spec.weights_sha256 for network in networks}) < len(networks):
        raise UsageError(
            f"{second_weights}: the same weights as {weights}; two networks are needed to see if they agree"
        )
    _earlier_table(folder)  # raises an error for an unreadable table before hours of computing
    outliner = CaseOutliner(
        items,
        folder,
        networks,
        mirrored=limits.min_flip_agreement > 0,
        limits=limits,
        overrides=overrides,
        progress=progress,
    )
    outliner.prepare()
    ensure_writable(folder)
    lock = _lock(folder)
    try:
        outliner.run()
        names = [item["case"] for item in items]
        labels = {case: label_path(folder, case) for case in names}
        table = results_table(names, outliner.done, outliner.failures, limits, root, labels)
        if (earlier := _earlier_table(folder)) is not None:  # read again: a person may have edited it meanwhile
            table = copy_decisions(table, earlier)
        metadata = PseudoLabelMetadata(
            name=name,
            source=f"{origin}; livers outlined by a network, {networks[0].name}",
            licence=licence,
            dataset_dir=str(root),
            fold=fold,
            networks=tuple(network.name for network in networks),
            limits=asdict(limits),
        )
        write_metadata(folder, metadata)
        write_text(folder / TABLE, table.to_csv(index=False))
        path = write_results(folder, table, metadata)
    finally:
        lock.remove()
    print(_describe(table, len(outliner.computed)))
    _print_paths(folder, path, metadata)
    return _checked_path(path, folder, names, outliner)


def rewrite_from_table(table: str | os.PathLike) -> Path:
    """Write list and page of a run again, after a person has filled the column `keep` of its table.

    Args:
        table: `pseudo_labels.csv` in the run's folder.

    Returns:
        The path of the data list.

    Raises:
        LiversegError: if the table is not in the folder of a run, a kept mask or its CT is missing, or no case is kept.
    """
    path = Path(os.path.abspath(table))
    folder = path.parent
    edited = read_table(path)
    metadata = read_metadata(folder)
    for row in edited[is_kept(edited)].to_dict("records"):
        for file in (Path(metadata.dataset_dir, row[name]) for name in ("image", "label")):
            if not is_file(file):
                raise UnreadableError(f"{file}: no such file; case {row['case']} is kept in {path}")
    lock = _lock(folder)
    try:
        written = write_results(folder, edited, metadata)
    finally:
        lock.remove()
    print(f"{is_kept(edited).sum()} of {len(edited)} kept")
    _print_paths(folder, written, metadata)
    if written is None:
        raise LiversegError(f"{path}: no case is kept, so no data list is written")
    return written


def _items(sources: Sequence[str | os.PathLike]) -> list[dict[str, str]]:
    """List the CTs of all sources, sorted by name within each."""
    items: dict[str, dict[str, str]] = {}
    for source in sources:
        for item in find_cases(source):
            other = items.setdefault(item["case"], item)
            if other["image"] != item["image"]:
                raise UnreadableError(
                    f"{other['image']} and {item['image']}: both would be case {item['case']}; rename one"
                )
    return list(items.values())


def _dataset_dir(images: Sequence[Path], output: Path, given: str | os.PathLike | None) -> Path:
    """Return the absolute folder that paths are relative to."""
    for image in images:
        if image.is_dir() and output.is_relative_to(image):
            raise UsageError(f"{output}: within the DICOM study {image}, which must not change; choose another output")
    root = Path(os.path.commonpath([*(image.parent for image in images), output]) if given is None else given)
    root = Path(os.path.abspath(root))
    for path in (output, *images):
        if not path.is_relative_to(root):
            raise UsageError(f"{path}: not within dataset_dir {root}, which must hold the CTs and the output")
    return root


def _earlier_table(folder: Path) -> pd.DataFrame | None:
    return read_table(folder / TABLE) if is_file(folder / TABLE) else None


def _lock(folder: Path) -> FileLock:
    try:
        lock = FileLock.try_acquire(folder / ".pseudo-label.lock", required=False)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error})") from error
    if lock is None:
        raise OutputError(f"{folder}: another run writes there; wait for it, or choose another output folder")
    return lock


def _describe(table: pd.DataFrame, computed: int) -> str:
    counts = table["status"].value_counts()
    texts = [f"{counts[status]} {status}" for status in (ACCEPTED, REFUSED, FAILED) if status in counts]
    earlier = len(table) - computed - int(counts.get(FAILED, 0))
    texts += [f"{earlier} of them outlined by an earlier run"] if earlier else []
    return f"{', '.join(texts)}; {is_kept(table).sum()} kept"


def _print_paths(folder: Path, path: Path | None, metadata: PseudoLabelMetadata) -> None:
    """Print the paths of page and list, and on stderr the option that further commands need."""
    print(f"{folder / PAGE}: look at every outline before training on it")
    if path is not None:
        print(path)
        if Path(metadata.dataset_dir) != folder:
            option = f"--dataset-dir {shlex.quote(metadata.dataset_dir)}"
            print(f"its paths are relative to {metadata.dataset_dir}: give {option} with it", file=sys.stderr)


def _checked_path(path: Path | None, folder: Path, names: Sequence[str], outliner: CaseOutliner) -> Path:
    """Return the path of the list, or raise an error if cases failed or none is kept."""
    failed = [name for name in names if name in outliner.failures]
    failed_text = ", ".join(failed[:5]) + (", ..." if len(failed) > 5 else "")
    if len(failed) == len(names):
        error = outliner.error
        if len(names) == 1 and error is not None:
            raise (user_error(error) or LiversegError(f"{names[0]}: {outliner.failures[names[0]]}")) from error
        raise LiversegError(f"all {len(names)} CTs failed: {failed_text}; the reasons are in {folder / TABLE}")
    if path is None:
        raise LiversegError(
            f"none of {len(names)} outlines is kept, so no data list is written; the reasons are in {folder / TABLE}"
        )
    if failed:
        raise SomeCasesFailed(
            f"{len(failed)} of {len(names)} CTs failed: {failed_text}; the reasons are in {folder / TABLE}"
        )
    return path
