"""`liverseg datalist`: from a folder of images and labels to a data list with patients kept apart."""

from __future__ import annotations

import argparse

from liverseg.cli.arguments import some_path
from liverseg.datalists import SOURCES, build_datalist
from liverseg.errors import ExitCode

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("source", choices=SOURCES, help="the folder's layout")
    parser.add_argument("root", type=some_path, help="the folder; paths in the list are relative to it")
    parser.add_argument("-o", "--output", type=some_path, help="the list to write (default: ROOT/datalist.json)")
    parser.add_argument("--name", help="the list's name (default: the folder's)")
    parser.add_argument("--folds", type=int, default=5, help="validation folds (default 5)")
    parser.add_argument(
        "--test",
        type=float,
        default=0.0,
        help="share of the labelled items held out as test list, whole patients at a time (default 0)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the split (default 0)")
    parser.add_argument("--from", dest="origin", help="where the data come from, written into the list")
    parser.add_argument("--licence", help="the data's licence, written into the list")


def run(args: argparse.Namespace) -> ExitCode:
    """Run the verb; returns its exit code."""
    path = build_datalist(
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
