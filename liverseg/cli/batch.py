"""`liverseg batch`: inference over many CTs without supervision."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from liverseg.batch.run import ENGINES, run_batch
from liverseg.batch.workers import TimeLimits
from liverseg.cli.arguments import path_or_url, read_shard, seconds, some_path
from liverseg.cli.inference_arguments import add_inference_arguments, inference_overrides
from liverseg.errors import ExitCode

__all__ = ["add_arguments", "run"]

FETCHED = Path(".liverseg") / "dicomweb"
"""Folder of studies from DICOMweb servers, in the output folder."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument(
        "source",
        type=path_or_url,
        help="a folder tree of CTs (.nii, .nii.gz, DICOM, .zip), a data list, or a manifest (.csv or .json with case "
        "and image, and optionally series, study, liver, prior_cyst, prior_hemangioma, prior_metastasis), or a "
        "DICOMweb URL of a study or of a query for studies; images of a manifest may be such URLs",
    )
    parser.add_argument("output", type=some_path, help="folder for the results; an interrupted batch is resumed there")
    parser.add_argument(
        "--dataset-dir", type=some_path, help="folder a list's paths are relative to (default: the list's)"
    )
    parser.add_argument(
        "--shard", metavar="I/N", help="only the I-th of N parts, such as 2/8; parts may share the output"
    )
    parser.add_argument(
        "--retry-failed", action="store_true", help="retry cases that failed before with the same input"
    )
    limits = TimeLimits()
    parser.add_argument(
        "--case-timeout",
        type=seconds,
        default=limits.case,
        help="seconds after which a case counts as failed (default %(default)g)",
    )
    parser.add_argument(
        "--grace",
        type=seconds,
        default=limits.grace,
        help="seconds that running cases may take to finish after a signal to stop (default %(default)g)",
    )
    parser.add_argument("--engine", choices=ENGINES, default=ENGINES[0], help="local processes (default) or Ray actors")
    parser.add_argument("--workers", type=int, help="cases at a time (default 1; with Ray what the cluster can run)")
    parser.add_argument("--cpus", type=float, help="processors of each worker (default: an equal share; with Ray 1)")
    parser.add_argument("--gpus", type=float, default=0.0, help="with Ray: GPUs of each worker, such as 0.5")
    parser.add_argument(
        "--store-to", metavar="URL", help="also store the SEG and SR of DICOM studies on this DICOMweb server"
    )
    add_inference_arguments(parser)


def run(args: argparse.Namespace) -> ExitCode:
    """Run the subcommand and return its exit code."""
    if args.debug:
        os.environ["LIVERSEG_DEBUG"] = "1"
    from liverseg.pacs.dicomweb import fetch_cases, store_batch

    # the relative paths of a manifest stay relative to its own folder
    source = fetch_cases(args.source, args.output / FETCHED, args.series)
    dataset_dir = args.dataset_dir
    if source != args.source and isinstance(args.source, Path):
        dataset_dir = dataset_dir or args.source.absolute().parent
    with store_batch(args.output, args.store_to):
        _run_batch(args, source, dataset_dir)
    return ExitCode.DONE


def _run_batch(args: argparse.Namespace, source: Path, dataset_dir: Path | None) -> None:
    run_batch(
        source,
        args.output,
        weights=args.weights,
        bundle=args.bundle,
        dataset_dir=dataset_dir,
        shard=(1, 1) if args.shard is None else read_shard(args.shard),
        retry_failed=args.retry_failed,
        engine=args.engine,
        workers=args.workers,
        cpus=args.cpus,
        gpus=args.gpus,
        limits=TimeLimits(case=args.case_timeout, grace=args.grace),
        **inference_overrides(args),
    )
