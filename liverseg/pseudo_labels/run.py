"""From unlabelled CTs to liver masks that passed checks, a data list of them, and a page to look at first."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from liverseg.bundle.setup import ensure_writable
from liverseg.errors import LiversegError, OutputError, SomeCasesFailed, UnreadableError, UsageError, user_error
from liverseg.inference import find_cases
from liverseg.pseudo_labels.cases import OutlinedCases, label_path, read_network
from liverseg.pseudo_labels.checks import Limits
from liverseg.pseudo_labels.results import (
    ACCEPTED,
    FAILED,
    PAGE,
    REFUSED,
    TABLE,
    RunFacts,
    is_kept,
    read_facts,
    read_table,
    relative_path,
    table_of,
    with_decisions,
    write_facts,
    write_results,
)
from liverseg.utils.files import is_file, write_text
from liverseg.utils.locks import FileLock

__all__ = ["FOLD", "pseudo_label", "rewrite_from_table"]

FOLD = 99
"""Fold of the items: no list is split into so many, so that no training holds them out to be scored on them."""


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
    limits: Limits | None = None,
    dataset_dir: str | os.PathLike | None = None,
    fold: int = FOLD,
    progress: bool = True,
    **overrides: Any,
) -> Path:
    """Outline the liver on CTs, check each outline, and list those that pass, as partial labels.

    A CT that was outlined before with the same weights and settings is not computed again; limits may change. What a
    person decided in the table stays, for masks that stay the same.

    Args:
        sources: each what `find_cases` takes.
        output: folder for `labels/`, `cases/`, the table, the list and the page.
        weights: of the network whose masks are written.
        name: the list's name, which also begins the names of its patients.
        origin: where the CTs come from.
        licence: the CTs' licence.
        second_weights: of another network, whose outlines must agree.
        bundle: folder of the bundle that both weights are for; by default what the record of each says.
        limits: what an outline must keep.
        dataset_dir: folder that the list's paths are relative to; by default the one that holds CTs and output.
        fold: of all items.
        progress: show a bar where stderr is a terminal.
        overrides: further keys of the bundles' inference; those that are None keep the config's value.

    Returns:
        The data list.

    Raises:
        UsageError: if an argument is out of range, or a CT or the output lies outside `dataset_dir`.
        LiversegError: if inputs, weights or output cannot be used, every CT failed, or no outline is kept.
        SomeCasesFailed: if part of the CTs failed; the others are done and listed.
    """
    limits = Limits() if limits is None else limits
    if fold < 0:
        raise UsageError(f"fold {fold}; it must be a whole number from 0")
    for what, text in (("name", name), ("from", origin), ("licence", licence)):
        if not text.strip():
            raise UsageError(f"{what} is empty; say it, the data list is of no use without")
    items = _items(sources)
    folder = Path(os.path.abspath(output))
    images = [Path(os.path.abspath(item["image"])) for item in items]
    root = _dataset_dir(images, folder, dataset_dir)
    for image in images:
        relative_path(image, root)
    relative_path(folder, root)
    chosen = None if bundle is None else Path(bundle).absolute()
    files = [Path(weights)] + ([] if second_weights is None else [Path(second_weights)])
    networks = [read_network(file, chosen, overrides) for file in files]
    if len({network.spec.weights_sha256 for network in networks}) < len(networks):
        raise UsageError(
            f"{second_weights}: the same weights as {weights}; two networks are needed to see if they agree"
        )
    _earlier_table(folder)  # one that cannot be read is told of before hours of computing
    cases = OutlinedCases(
        items,
        folder,
        networks,
        mirrored=limits.min_flip_agreement > 0,
        limits=limits,
        overrides=overrides,
        progress=progress,
    )
    cases.prepare()
    ensure_writable(folder)
    lock = _lock(folder)
    try:
        cases.run()
        names = [item["case"] for item in items]
        labels = {case: label_path(folder, case) for case in names}
        table = table_of(names, cases.done, cases.failures, limits, root, labels)
        if (earlier := _earlier_table(folder)) is not None:  # as it is now: a person may be at work in it
            table = with_decisions(table, earlier)
        facts = RunFacts(
            name=name,
            source=f"{origin}; livers outlined by a network, {networks[0].name}",
            licence=licence,
            dataset_dir=str(root),
            fold=fold,
            networks=tuple(network.name for network in networks),
            limits=asdict(limits),
        )
        write_facts(folder, facts)
        write_text(folder / TABLE, table.to_csv(index=False))
        path = write_results(folder, table, facts)
    finally:
        lock.remove()
    print(_describe(table, len(cases.computed)))
    _tell(folder, path, facts)
    return _outcome(path, folder, names, cases)


def rewrite_from_table(table: str | os.PathLike) -> Path:
    """Write list and page of a run again, after a person has filled the column `keep` of its table.

    Args:
        table: `pseudo_labels.csv` in the run's folder.

    Returns:
        The data list.

    Raises:
        LiversegError: if the table is not one of a run, a kept mask or its CT is not there, or nothing is kept.
    """
    path = Path(os.path.abspath(table))
    folder = path.parent
    edited = read_table(path)
    facts = read_facts(folder)
    for row in edited[is_kept(edited)].to_dict("records"):
        for file in (Path(facts.dataset_dir, row[name]) for name in ("image", "label")):
            if not is_file(file):
                raise UnreadableError(f"{file}: no such file; case {row['case']} is kept in {path}")
    lock = _lock(folder)
    try:
        written = write_results(folder, edited, facts)
    finally:
        lock.remove()
    print(f"{is_kept(edited).sum()} of {len(edited)} kept")
    _tell(folder, written, facts)
    if written is None:
        raise LiversegError(f"{path}: no case is kept, so no data list is written")
    return written


def _items(sources: Sequence[str | os.PathLike]) -> list[dict[str, str]]:
    """The CTs of all sources, sorted by name within each."""
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
    """The folder that paths are relative to, absolute."""
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
    told = [f"{counts[status]} {status}" for status in (ACCEPTED, REFUSED, FAILED) if status in counts]
    earlier = len(table) - computed - int(counts.get(FAILED, 0))
    told += [f"{earlier} of them outlined by an earlier run"] if earlier else []
    return f"{', '.join(told)}; {is_kept(table).sum()} kept"


def _tell(folder: Path, path: Path | None, facts: RunFacts) -> None:
    """Where page and list are, and on stderr what the next command needs."""
    print(f"{folder / PAGE}: look at every outline before training on it")
    if path is not None:
        print(path)
        if Path(facts.dataset_dir) != folder:
            option = f"--dataset-dir {shlex.quote(facts.dataset_dir)}"
            print(f"its paths are relative to {facts.dataset_dir}: give {option} with it", file=sys.stderr)


def _outcome(path: Path | None, folder: Path, names: Sequence[str], cases: OutlinedCases) -> Path:
    """The list's path; raises what keeps the command from ending well, if anything does."""
    failed = [name for name in names if name in cases.failures]
    which = ", ".join(failed[:5]) + (", ..." if len(failed) > 5 else "")
    if len(failed) == len(names):
        if len(names) == 1 and cases.error is not None:
            raise (user_error(cases.error) or LiversegError(f"{which}: {cases.failures[which]}")) from cases.error
        raise LiversegError(f"all {len(names)} CTs failed: {which}; the reasons are in {folder / TABLE}")
    if path is None:
        raise LiversegError(
            f"none of {len(names)} outlines is kept, so no data list is written; the reasons are in {folder / TABLE}"
        )
    if failed:
        raise SomeCasesFailed(f"{len(failed)} of {len(names)} CTs failed: {which}; the reasons are in {folder / TABLE}")
    return path
