"""`liverseg synthesize`: write copies of a data list's volumes with synthetic lesions in their livers."""

from __future__ import annotations

import argparse
import sys

from liverseg.cli.arguments import add_list_arguments, some_path
from liverseg.errors import ExitCode

__all__ = ["add_arguments", "run"]

_MAX_FAILURES = 20
"""Volumes left out that get a line each."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    add_list_arguments(parser)
    parser.add_argument("-o", "--output", type=some_path, required=True, help="folder for the copies and their list")
    parser.add_argument("--fold", type=int, help="copy only this fold (default: all items)")
    parser.add_argument(
        "--untyped", action="store_true", help="label every lesion 2, as in the pre-training's label table"
    )
    parser.add_argument(
        "--cohort",
        action="store_true",
        help="write a typed cohort of sections: slices.csv, types by patient, no section that may show a real lesion",
    )
    parser.add_argument("--test-fold", type=int, metavar="K", help="patients of fold K become the test list")
    parser.add_argument("--copies", type=int, default=1, help="copies of each volume, with other lesions (default 1)")
    parser.add_argument(
        "--outline-margin-mm",
        type=float,
        default=0.0,
        metavar="MM",
        help="outline lesions so far outside the contour of half contrast, as readers do (default 0)",
    )
    parser.add_argument(
        "--min-detectability",
        type=float,
        default=0.0,
        metavar="D",
        help="draw lesions again whose contrast is less than D times the noise of their mean; readers see a uniform "
        "disc from about 4 on (default 0)",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed (default 0)")


def run(args: argparse.Namespace) -> ExitCode:
    """Run the subcommand and return its exit code."""
    from liverseg.synthesis.writer import synthesize_datalist  # scipy is slow to import

    result = synthesize_datalist(
        args.list,
        args.dataset_dir or args.list.parent,
        args.output,
        fold=args.fold,
        untyped=args.untyped,
        copies=args.copies,
        seed=args.seed,
        outline_margin_mm=args.outline_margin_mm,
        min_detectability=args.min_detectability,
        cohort=args.cohort,
        test_fold=args.test_fold,
        workers=args.workers,
    )
    for failure in result.failures[:_MAX_FAILURES]:
        print(f"liverseg: {failure}", file=sys.stderr)
    if len(result.failures) > _MAX_FAILURES:
        print(f"liverseg: {len(result.failures) - _MAX_FAILURES} more volumes were left out", file=sys.stderr)
    print(result.datalist)
    print(f"{result.lesions} lesions in {result.volumes} volumes", file=sys.stderr)
    return ExitCode.SOME_CASES_FAILED if result.failures else ExitCode.DONE
