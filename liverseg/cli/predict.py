"""`liverseg predict`: the joint bundle's inference for a CT or a folder of CTs."""

from __future__ import annotations

import argparse
import os

from liverseg.cli.arguments import some_path
from liverseg.cli.inference_arguments import add_inference_arguments, check_inference, inference_overrides
from liverseg.errors import ExitCode
from liverseg.utils.torch_imports import torch_imports

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument(
        "input", type=some_path, help="a CT (.nii, .nii.gz, a folder of DICOM files, a .zip of one) or a folder of CTs"
    )
    parser.add_argument("output", type=some_path, help="folder for the results, one folder per case")
    add_inference_arguments(parser)
    parser.add_argument(
        "--statistics", action="store_true", default=None, help="also write summary.csv and lesions.csv over all cases"
    )


def run(args: argparse.Namespace) -> ExitCode:
    """Run the subcommand and return its exit code."""
    if args.debug:
        os.environ["LIVERSEG_DEBUG"] = "1"  # also for cases of a folder, whose failure does not end the run
    check_inference(args, args.input)
    with torch_imports():
        from liverseg.inference.predict import run_inference  # with torch, a second

    run_inference(
        args.input,
        args.output,
        weights=args.weights,
        bundle=args.bundle,
        statistics=args.statistics,
        **inference_overrides(args),
    )
    return ExitCode.DONE
