"""`liverseg predict`: the joint bundle's inference for a CT or a folder of CTs."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from liverseg.cli.arguments import path_or_url, some_path
from liverseg.cli.inference_arguments import add_inference_arguments, check_inference, inference_overrides
from liverseg.errors import ExitCode
from liverseg.utils.torch_imports import torch_imports

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument(
        "input",
        type=path_or_url,
        help="a CT (.nii, .nii.gz, a folder of DICOM files, a .zip of one), a folder of CTs, or a study's DICOMweb URL "
        "(https://server/dicom-web/studies/UID)",
    )
    parser.add_argument("output", type=some_path, help="folder for the results, one folder per case")
    add_inference_arguments(parser)
    parser.add_argument(
        "--statistics", action="store_true", default=None, help="also write summary.csv and lesions.csv over all cases"
    )
    parser.add_argument(
        "--store-to", metavar="URL", help="also store the SEG and SR of a DICOM study on this DICOMweb server"
    )


def run(args: argparse.Namespace) -> ExitCode:
    """Run the subcommand and return its exit code."""
    if args.debug:
        os.environ["LIVERSEG_DEBUG"] = "1"  # also for cases of a folder, whose failure does not end the run
    if isinstance(args.input, str) or args.store_to is not None:
        return _run_dicomweb(args)
    _predict(args, args.input)
    return ExitCode.DONE


def _predict(args: argparse.Namespace, source: Path) -> None:
    check_inference(args, source)
    with torch_imports():
        from liverseg.inference.predict import run_inference  # with torch, a second

    run_inference(
        source,
        args.output,
        weights=args.weights,
        bundle=args.bundle,
        statistics=args.statistics,
        **inference_overrides(args),
    )


def _run_dicomweb(args: argparse.Namespace) -> ExitCode:
    """Fetch the study if the input is a URL, compute it, and store its results if wanted."""
    from liverseg.pacs.dicomweb import predict_and_store

    return predict_and_store(args.input, args.output, args.series, args.store_to, lambda source: _predict(args, source))
