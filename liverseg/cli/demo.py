"""`liverseg demo`: train, compare and run both bundles on phantoms, down to a table and a picture."""

from __future__ import annotations

import argparse
from pathlib import Path

from liverseg.cli.arguments import some_path
from liverseg.demo import DemoSize, run_demo
from liverseg.errors import ExitCode

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    defaults = DemoSize()
    parser.add_argument(
        "output", type=some_path, nargs="?", default=Path("runs/demo"), help="folder (default runs/demo)"
    )
    parser.add_argument("--volumes", type=int, default=defaults.volumes, help="LiTS-like volumes (default %(default)s)")
    parser.add_argument("--patients", type=int, default=defaults.patients, help="typed patients (default %(default)s)")
    parser.add_argument("--slices", type=int, default=defaults.slices, help="annotated slices (default %(default)s)")
    parser.add_argument("--matrix", type=int, default=defaults.matrix, help="pixels per row (default %(default)s)")
    parser.add_argument("--pretrain-epochs", type=int, help="default: those of the phantom overlay")
    parser.add_argument("--joint-epochs", type=int, help="default: those of the phantom overlay")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="of phantoms, splits and training (default 0)")


def run(args: argparse.Namespace) -> ExitCode:
    """Run the subcommand and return its exit code."""
    size = DemoSize(
        volumes=args.volumes,
        patients=args.patients,
        slices=args.slices,
        matrix=args.matrix,
        pretrain_epochs=args.pretrain_epochs,
        joint_epochs=args.joint_epochs,
        seed=args.seed,
    )
    run_demo(args.output, size)
    return ExitCode.DONE
