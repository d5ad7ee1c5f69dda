"""`liverseg predict`: the joint bundle's inference, behind one verb."""

from __future__ import annotations

import argparse
import os

from liverseg.cli.arguments import some_path
from liverseg.errors import ExitCode
from liverseg.inference.workflow import run_inference

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "input", type=some_path, help="a CT (.nii, .nii.gz, a folder of DICOM files, a .zip of one) or a folder of CTs"
    )
    parser.add_argument("output", type=some_path, help="folder for the results, one folder a case")
    parser.add_argument(
        "--weights",
        type=some_path,
        help="trained weights, .safetensors or .pt (default: $LIVERSEG_WEIGHTS, else the bundle's models/model.pt)",
    )
    parser.add_argument("--device", help="auto, cpu, cuda or cuda:N (default auto)")
    parser.add_argument("--batch-size", type=int, help="slices computed at a time (default: 2 on a CPU, 16 on a GPU)")
    parser.add_argument("--amp", choices=["auto", "true", "false"], help="bfloat16 (default auto: where it is quick)")
    parser.add_argument(
        "--liver",
        help="auto: found first (default); none: all of the CT is computed; or a mask, or a folder of masks named as "
        "the cases; MASK:5 takes label 5",
    )
    parser.add_argument("--min-lesion-ml", type=float, help="smaller lesions are left out (default: the bundle's)")
    parser.add_argument(
        "--min-confidence",
        type=float,
        help="lesions whose likeliest type is less likely are indeterminate (default: the bundle's)",
    )
    parser.add_argument("--series", help="which DICOM series: UID or description (default: axial CT, most slices)")
    parser.add_argument(
        "--dicom", action=argparse.BooleanOptionalAction, help="for DICOM a DICOM SEG and SR as well (default: yes)"
    )
    parser.add_argument(
        "--keep-identifiers",
        action="store_true",
        default=None,
        help="keep what DICOM headers say of patient, study and series (default: UIDs alone)",
    )
    parser.add_argument(
        "--preview", action=argparse.BooleanOptionalAction, help="a picture for each case (default: yes)"
    )
    parser.add_argument("--report", action="store_true", default=None, help="a page with a viewer for each case")
    parser.add_argument(
        "--statistics", action="store_true", default=None, help="also summary.csv and lesions.csv over all cases"
    )
    parser.add_argument("--bundle", type=some_path, help="another folder of the joint bundle")


def _liver(given: str | None) -> str | None:
    """A word as it is; of a path the absolute one, which no config takes for an expression."""
    return given if given is None or given.strip().lower() in ("", "auto", "none") else os.path.abspath(given)


def run(args: argparse.Namespace) -> ExitCode:
    """Run the verb; returns its exit code."""
    if args.debug:
        os.environ["LIVERSEG_DEBUG"] = "1"  # failing cases of a folder, which do not end the run, tell theirs as well
    run_inference(
        args.input,
        args.output,
        weights=args.weights,
        bundle=args.bundle,
        device=args.device,
        batch_size=args.batch_size,
        amp=args.amp,
        liver=_liver(args.liver),
        min_lesion_ml=args.min_lesion_ml,
        min_confidence=args.min_confidence,
        series=args.series,
        dicom=args.dicom,
        keep_identifiers=args.keep_identifiers,
        preview=args.preview,
        report=args.report,
        statistics=args.statistics,
    )
    return ExitCode.DONE
