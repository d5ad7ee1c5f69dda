"""`liverseg pseudo-label`: segment livers on unlabelled CTs, check the masks, and list them for training."""

from __future__ import annotations

import argparse
import os

from liverseg.cli.arguments import some_path
from liverseg.cli.inference_arguments import add_network_arguments, network_overrides
from liverseg.errors import ExitCode, UsageError

__all__ = ["add_arguments", "run"]

_REQUIRED = {"output": "-o", "weights": "--weights", "name": "--name", "origin": "--from", "licence": "--licence"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument(
        "source",
        type=some_path,
        nargs="*",
        help="CTs (.nii, .nii.gz, a folder of DICOM files, a .zip of one) or folders of CTs",
    )
    parser.add_argument("-o", "--output", type=some_path, help="folder for masks, data list, table and page")
    parser.add_argument(
        "--from-table",
        type=some_path,
        metavar="TABLE",
        help="instead of all other arguments: write list and page again from a run's pseudo_labels.csv, with the "
        "column keep filled in by a person",
    )
    parser.add_argument("--name", help="the data list's name")
    parser.add_argument("--from", dest="origin", help="origin of the CTs, written into the list")
    parser.add_argument("--licence", help="the CTs' licence, written into the list")
    parser.add_argument(
        "--labelled",
        choices=["liver"],
        default="liver",
        help="what the masks hold: the liver including lesions (default, and the only choice)",
    )
    parser.add_argument(
        "--dataset-dir",
        type=some_path,
        help="folder the list's paths are relative to (default: the innermost that contains CTs and output)",
    )
    parser.add_argument("--fold", type=int, help="fold of the list's items, which is never held out (default 99)")
    add_network_arguments(parser, "weights of the network whose outlines become the masks, .safetensors or .pt")
    parser.add_argument("--second-weights", type=some_path, help="weights of another network that must agree")
    checks = parser.add_argument_group("checks", "outlines that fail a check are refused; the defaults are our choice")
    checks.add_argument(
        "--min-agreement",
        type=float,
        help="minimum Dice of the two networks' outlines, and of those on the CT and on its mirror image (default 0.9)",
    )
    checks.add_argument(
        "--min-flip-agreement",
        type=float,
        help="the latter alone; 0 omits the mirror image, for weights that were trained without flips",
    )
    checks.add_argument(
        "--min-largest-part",
        type=float,
        help="minimum share of liver voxels in the largest component (default 0.98)",
    )
    checks.add_argument(
        "--volume-ml", type=float, nargs=2, metavar=("LOW", "HIGH"), help="volume of the liver (default 600 4000)"
    )
    checks.add_argument(
        "--median-hu", type=float, nargs=2, metavar=("LOW", "HIGH"), help="median HU of the liver (default 40 160)"
    )
    checks.add_argument(
        "--min-right-mm",
        type=float,
        help="minimum distance of the liver's centroid to the right of the body's middle (default 0)",
    )
    checks.add_argument(
        "--allow-cut-off", action="store_true", default=None, help="also accept livers that the scan cuts off"
    )


def run(args: argparse.Namespace) -> ExitCode:
    """Run the subcommand and return its exit code."""
    from liverseg.pseudo_labels.checks import OutlineLimits  # imported here because torch is slow to import
    from liverseg.pseudo_labels.run import FOLD, pseudo_label, rewrite_from_table

    if args.from_table is not None:
        if args.source or any(getattr(args, name) is not None for name in _REQUIRED):
            raise UsageError(
                f"--from-table takes no CTs and no {', '.join(_REQUIRED.values())}: it reads a finished run's table"
            )
        rewrite_from_table(args.from_table)
        return ExitCode.DONE
    missing = [] if args.source else ["source"]
    missing += [option for name, option in _REQUIRED.items() if getattr(args, name) is None]
    if missing:
        raise UsageError(f"pseudo-label: the following arguments are required: {', '.join(missing)}")
    if args.debug:
        os.environ["LIVERSEG_DEBUG"] = "1"
    flips = args.min_agreement if args.min_flip_agreement is None else args.min_flip_agreement
    limits = {
        "min_largest_part": args.min_largest_part,
        "volume_ml": args.volume_ml and tuple(args.volume_ml),
        "allow_cut_off": args.allow_cut_off,
        "min_right_mm": args.min_right_mm,
        "median_hu": args.median_hu and tuple(args.median_hu),
        "min_flip_agreement": flips,
        "min_network_agreement": args.min_agreement,
    }
    pseudo_label(
        args.source,
        args.output,
        weights=args.weights,
        second_weights=args.second_weights,
        name=args.name,
        origin=args.origin,
        licence=args.licence,
        bundle=args.bundle,
        limits=OutlineLimits(**{name: value for name, value in limits.items() if value is not None}),
        dataset_dir=args.dataset_dir,
        fold=FOLD if args.fold is None else args.fold,
        **network_overrides(args),
    )
    return ExitCode.DONE
