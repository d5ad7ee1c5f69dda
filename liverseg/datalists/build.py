"""From a folder to its data list, in one call."""

from __future__ import annotations

from pathlib import Path

from liverseg.datalists.cohort import cohort_items
from liverseg.datalists.lits import LICENCE as LITS_LICENCE
from liverseg.datalists.lits import SOURCE as LITS_SOURCE
from liverseg.datalists.lits import lits_items
from liverseg.datalists.model import DataItem, DataList, label_table, write_datalist
from liverseg.datalists.splits import assign_folds, hold_out

__all__ = ["SOURCES", "build_datalist"]

SOURCES = ("lits", "cohort")
"""Layouts that can be imported."""


def build_datalist(
    source: str,
    root: Path,
    *,
    output: Path | None = None,
    name: str | None = None,
    folds: int = 5,
    test: float = 0.0,
    seed: int = 0,
    origin: str | None = None,
    licence: str | None = None,
) -> Path:
    """Import a folder and write its data list.

    Args:
        source: the folder's layout, one of `SOURCES`.
        root: the folder; paths in the list are relative to it.
        output: the list to write; ROOT/datalist.json when not given.
        name: the list's name; the folder's when not given.
        folds: validation folds, at least 2.
        test: share of the labelled items held out as test list, whole patients at a time, 0 to below 1.
        seed: seed of both splits.
        origin: where the data come from; the source's own reference when not given.
        licence: the data's licence, likewise.

    Returns:
        The list's path.

    Raises:
        UsageError: if folds, test or seed are out of range.
        LiversegError: what importer, split or writing find wrong.
    """
    unlabelled: tuple[DataItem, ...] = ()
    if source == "lits":
        labelled, unlabelled = lits_items(root)
        defaults = (LITS_SOURCE, LITS_LICENCE)
    else:
        labelled = cohort_items(root)
        defaults = (f"typed slices of {Path(root).absolute().name}", "not stated")
    kept, held_out = hold_out(labelled, test, seed)
    datalist = DataList(
        name=name or Path(root).absolute().name,
        version="1",
        source=origin or defaults[0],
        licence=licence or defaults[1],
        labels=label_table(3 if source == "lits" else 5),
        training=assign_folds(kept, folds, seed),
        test=held_out + unlabelled,
    )
    return write_datalist(output or Path(root) / "datalist.json", datalist)
