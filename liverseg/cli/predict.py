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
    parser.add_argument("input", type=some_path, help="a CT volume (.nii or .nii.gz) or a folder of them")
    parser.add_argument("output", type=some_path, help="folder for the results, one folder a case")
    parser.add_argument(
        "--weights",
        type=some_path,
        help="trained weights, .safetensors or .pt (default: $LIVERSEG_WEIGHTS, else the bundle's models/model.pt)",
    )
    parser.add_argument("--device", help="auto, cpu, cuda or cuda:N (default auto)")
    parser.add_argument("--batch-size", type=int, help="slices computed at a time (default: the bundle's)")
    parser.add_argument("--min-lesion-ml", type=float, help="smaller lesions are left out (default: the bundle's)")
    parser.add_argument("--bundle", type=some_path, help="another folder of the joint bundle")


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
        min_lesion_ml=args.min_lesion_ml,
    )
    return ExitCode.DONE
