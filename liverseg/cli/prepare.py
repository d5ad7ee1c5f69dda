"""`liverseg prepare`: write a data list's volumes into a cache, from which training reads slabs."""

from __future__ import annotations

import argparse
import sys

from liverseg.cli.arguments import add_list_arguments, some_path
from liverseg.errors import ExitCode

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    add_list_arguments(parser)
    parser.add_argument(
        "-o", "--output", type=some_path, required=True, help="the cache folder, for the bundles' --cache_dir"
    )


def run(args: argparse.Namespace) -> ExitCode:
    """Run the subcommand and return its exit code."""
    from liverseg.datasets.prepare import prepare_datalist  # torch is slow to import

    prepared = prepare_datalist(args.list, args.dataset_dir or args.list.parent, args.output, workers=args.workers)
    for failure in prepared.failures:
        print(f"liverseg: {failure}", file=sys.stderr)
    print(prepared.describe())
    if prepared.failures:
        print(
            f"liverseg: {len(prepared.failures)} failed, see above; `liverseg datalist check {args.list}` lists all "
            "defects of a list's files",
            file=sys.stderr,
        )
        return ExitCode.FAILED
    print(f"train with --cache_dir {args.output.absolute()}")
    return ExitCode.DONE
