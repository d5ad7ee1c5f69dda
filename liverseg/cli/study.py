"""`liverseg study`: run a comparison of trainings on a data list, and report it."""

from __future__ import annotations

import argparse

from liverseg.cli.arguments import read_shard, some_path
from liverseg.errors import ExitCode

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's tasks and arguments."""
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    running = tasks.add_parser("run", help="train and score every cell that is not complete yet", allow_abbrev=False)
    running.add_argument(
        "study", type=some_path, metavar="STUDY.yaml", help="strategies, initialisations, plans, seeds"
    )
    running.add_argument("--workers", type=int, help="cells at a time (default: one per device, or per CPU core)")
    running.add_argument("--devices", default="", help="such as cuda:0,cuda:1 (default: the bundle's)")
    running.add_argument("--shard", default="1/1", metavar="i/n", help="run only the i-th of n parts, for clusters")
    running.add_argument("--dry-run", action="store_true", help="print the cells that would be run")
    running.set_defaults(task=_run)
    report = tasks.add_parser("report", help="write tables and pictures of the complete cells", allow_abbrev=False)
    report.add_argument("study", type=some_path, metavar="STUDY.yaml", help="as for run")
    report.add_argument("-o", "--output", type=some_path, help="folder (default: report in the study's output_dir)")
    report.set_defaults(task=_report)


def run(args: argparse.Namespace) -> ExitCode:
    """Run the subcommand and return its exit code."""
    args.task(args)
    return ExitCode.DONE


def _run(args: argparse.Namespace) -> None:
    from liverseg.study import read_study
    from liverseg.study.run import run_study

    devices = [name for name in args.devices.split(",") if name]
    shard = read_shard(args.shard)
    run_study(read_study(args.study), shard=shard, workers=args.workers, devices=devices, dry_run=args.dry_run)


def _report(args: argparse.Namespace) -> None:
    from liverseg.study import read_study
    from liverseg.study.report import write_report

    study = read_study(args.study)
    for path in write_report(study, args.output or study.output_dir / "report"):
        print(path)
