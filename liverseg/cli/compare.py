"""`liverseg compare`: what has changed in the liver since an earlier CT."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from liverseg.cli.arguments import some_path
from liverseg.cli.inference_arguments import add_network_arguments, network_overrides
from liverseg.errors import ExitCode, UnreadableError
from liverseg.utils.files import refuse_special
from liverseg.utils.torch_imports import torch_imports

if TYPE_CHECKING:
    from liverseg.followup.comparison import LiverComparison

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument(
        "baseline", type=some_path, help="the earlier examination: a case folder of liverseg predict, or a CT"
    )
    parser.add_argument("followup", type=some_path, help="the later examination, likewise")
    parser.add_argument("output", type=some_path, help="folder for the comparison")
    parser.add_argument("--baseline-ct", type=some_path, help="CT of the baseline's case folder, if it was moved")
    parser.add_argument("--followup-ct", type=some_path, help="CT of the follow-up's case folder, if it was moved")
    parser.add_argument(
        "--targets",
        type=_ids,
        metavar="ID,ID",
        help="target lesions, at most two ids of the baseline (default: the largest measurable metastases)",
    )
    parser.add_argument(
        "--indeterminate-targets",
        action="store_true",
        help="lesions of indeterminate type can be targets and count as new ones",
    )
    parser.add_argument(
        "--baseline-report",
        type=some_path,
        help="DICOM SR with the baseline's tracking UIDs (default: measurements.dcm in its case folder)",
    )
    parser.add_argument(
        "--report", action=argparse.BooleanOptionalAction, default=True, help="write a page with viewers (default: yes)"
    )
    parser.add_argument(
        "--dicom",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="write a DICOM SR of the follow-up for DICOM input (default: yes)",
    )
    add_network_arguments(parser, "weights for examinations that are CTs, as for liverseg predict")


def run(args: argparse.Namespace) -> ExitCode:
    """Run the subcommand and return its exit code."""
    for path in (args.baseline, args.followup, args.baseline_ct, args.followup_ct, args.baseline_report):
        if path is None:
            continue
        refuse_special(path)
        if not path.exists():
            raise UnreadableError(f"{path}: no such file or folder")
    with torch_imports():
        from liverseg.followup.api import compare

    overrides = network_overrides(args)
    keep_identifiers = bool(overrides.pop("keep_identifiers"))
    comparison = compare(
        args.baseline,
        args.followup,
        args.output,
        baseline_ct=args.baseline_ct,
        followup_ct=args.followup_ct,
        targets=args.targets,
        indeterminate_targets=args.indeterminate_targets,
        baseline_report=args.baseline_report,
        keep_identifiers=keep_identifiers,
        report=args.report,
        dicom=args.dicom,
        weights=args.weights,
        bundle=args.bundle,
        on_progress=_show_stage if sys.stderr.isatty() else None,
        **overrides,
    )
    _print(comparison)
    return ExitCode.DONE


def _ids(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: ids of lesions are needed, such as 1 or 1,4")
    return numbers


def _show_stage(stage: str, share: float) -> None:
    print(f"liverseg compare: {stage} ...", file=sys.stderr)


def _print(comparison: LiverComparison) -> None:
    """Print warnings on stderr, and on stdout a line for each lesion and the sums."""
    from liverseg.followup.pictures import describe_change

    for warning in comparison.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for change in comparison.changes:
        ids = [" + ".join(map(str, numbers)) or "-" for numbers in (change.match.baseline, change.match.followup)]
        print(f"lesion {change.number} ({ids[0]} -> {ids[1]}): {describe_change(change)}")
    if not comparison.changes:
        print("no lesion at either examination")
    for reason in comparison.recist.reasons:
        print(f"RECIST 1.1, arithmetic only: {reason}")
    print(f"written to {comparison.folder}")
