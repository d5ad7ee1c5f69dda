"""`liverseg datalist`: from a folder of images and labels to a data list with patients kept apart."""

from __future__ import annotations

import argparse
from pathlib import Path

from liverseg.datalists import (
    DataItem,
    DataList,
    assign_folds,
    cohort_items,
    hold_out,
    label_table,
    lits_items,
    write_datalist,
)
from liverseg.datalists.lits import LICENCE as LITS_LICENCE
from liverseg.datalists.lits import SOURCE as LITS_SOURCE
from liverseg.errors import ExitCode

__all__ = ["add_arguments", "run", "write_list"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("source", choices=("lits", "cohort"), help="the folder's layout")
    parser.add_argument("root", type=Path, help="the folder; paths in the list are relative to it")
    parser.add_argument("-o", "--output", type=Path, help="the list to write (default: ROOT/datalist.json)")
    parser.add_argument("--name", help="the list's name (default: the folder's)")
    parser.add_argument("--folds", type=int, default=5, help="validation folds (default 5)")
    parser.add_argument("--test", type=float, default=0.0, help="share of patients held out as test list (default 0)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split (default 0)")
    parser.add_argument("--from", dest="origin", help="where the data come from, written into the list")
    parser.add_argument("--licence", help="the data's licence, written into the list")


def run(args: argparse.Namespace) -> ExitCode:
    """Run the verb; returns its exit code."""
    path = write_list(
        args.source,
        args.root,
        output=args.output,
        name=args.name,
        folds=args.folds,
        test=args.test,
        seed=args.seed,
        origin=args.origin,
        licence=args.licence,
    )
    print(path)
    return ExitCode.DONE


def write_list(
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
    """Import a folder and write its data list: see the verb's arguments. Returns the list's path."""
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
