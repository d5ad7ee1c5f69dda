"""`liverseg phantom`: write synthetic abdomens with liver lesions, as a LiTS-like tree and as a typed cohort."""

from __future__ import annotations

import argparse
import sys

from liverseg.cli.arguments import some_path
from liverseg.errors import ExitCode
from liverseg.phantom import write_cohort, write_lits_tree
from liverseg.phantom.writers import check_cohort_arguments, check_lits_arguments

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument("output", type=some_path, help="folder to write lits/ and cohort/ into")
    parser.add_argument(
        "--kind", choices=("lits", "cohort", "both"), default="both", help="what to write (default both)"
    )
    parser.add_argument("--volumes", type=int, default=30, help="volumes of the LiTS-like tree (default 30)")
    parser.add_argument("--patients", type=int, default=140, help="patients of the cohort (default 140)")
    parser.add_argument("--slices", type=int, default=332, help="annotated slices of the cohort (default 332)")
    parser.add_argument("--matrix", type=int, default=512, help="pixels along a slice's edge (default 512)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default 0)")
    parser.add_argument("--workers", type=int, help="processes (default: all processors)")


def run(args: argparse.Namespace) -> ExitCode:
    """Run the subcommand and return its exit code."""
    common = {"matrix": args.matrix, "seed": args.seed, "workers": args.workers}
    written = []
    # all arguments are checked before anything is written
    if args.kind != "cohort":
        check_lits_arguments(args.volumes, **common)
    if args.kind != "lits":
        check_cohort_arguments(args.patients, args.slices, **common)
    if args.kind != "cohort":
        root = write_lits_tree(args.output / "lits", volumes=args.volumes, **common)
        written.append(f"{args.volumes} volumes in {root}")
    if args.kind != "lits":
        root = write_cohort(args.output / "cohort", patients=args.patients, slices=args.slices, **common)
        written.append(f"{args.patients} patients with {args.slices} annotated slices in {root}")
    print(f"phantoms: {' and '.join(written)}", file=sys.stderr)
    return ExitCode.DONE
