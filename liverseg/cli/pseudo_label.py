"""`liverseg pseudo-label`: livers outlined by a network on unlabelled CTs, checked and listed for training."""

from __future__ import annotations

import argparse
import os

from liverseg.cli.arguments import some_path
from liverseg.cli.inference_arguments import add_network_arguments, network_overrides
from liverseg.errors import ExitCode, UsageError

__all__ = ["add_arguments", "run"]

_NEEDED = {"output": "-o", "weights": "--weights", "name": "--name", "origin": "--from", "licence": "--licence"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
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
        help="instead of all else: write list and page again from a run's pseudo_labels.csv, in which a person has "
        "filled the column keep",
    )
    parser.add_argument("--name", help="the data list's name")
    parser.add_argument("--from", dest="origin", help="where the CTs come from, written into the list")
    parser.add_argument("--licence", help="the CTs' licence, written into the list")
    parser.add_argument(
        "--labelled",
        choices=["liver"],
        default="liver",
        help="what the masks tell apart: the whole liver, lesions included (the default, and all there is)",
    )
    parser.add_argument(
        "--dataset-dir",
        type=some_path,
        help="folder the list's paths are relative to (default: the innermost that holds CTs and output)",
    )
    parser.add_argument("--fold", type=int, help="fold of the list's items, one that is never held out (default 99)")
    add_network_arguments(parser, "of the network whose outlines become the masks, .safetensors or .pt")
    parser.add_argument("--second-weights", type=some_path, help="another network's, whose outlines must agree")
    checks = parser.add_argument_group("checks", "an outline that fails one is refused; the defaults are our choice")
    checks.add_argument(
        "--min-agreement",
        type=float,
        help="least Dice of the two networks' outlines, and of those on the CT and on its mirror image (default 0.9)",
    )
    checks.add_argument(
        "--min-flip-agreement",
        type=float,
        help="the latter by itself; 0 leaves the mirror image out, for weights that were trained without flips",
    )
    checks.add_argument(
        "--min-largest-part",
        type=float,
        help="least share of the voxels called liver that form one component (default 0.98)",
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
        help="how far right of the body's middle the liver's centroid lies at least (default 0)",
    )
    checks.add_argument(
        "--allow-cut-off", action="store_true", default=None, help="also take livers that the scan cuts off"
    )


def run(args: argparse.Namespace) -> ExitCode:
    """Run the verb; returns its exit code."""
    from liverseg.pseudo_labels.checks import Limits  # these import torch, which is slow
    from liverseg.pseudo_labels.run import FOLD, pseudo_label, rewrite_from_table

    if args.from_table is not None:
        if args.source or any(getattr(args, name) is not None for name in _NEEDED):
            raise UsageError(
                f"--from-table takes no CTs and no {', '.join(_NEEDED.values())}: it is of a run that ended"
            )
        rewrite_from_table(args.from_table)
        return ExitCode.DONE
    missing = [] if args.source else ["source"]
    missing += [option for name, option in _NEEDED.items() if getattr(args, name) is None]
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
        limits=Limits(**{name: value for name, value in limits.items() if value is not None}),
        dataset_dir=args.dataset_dir,
        fold=FOLD if args.fold is None else args.fold,
        **network_overrides(args),
    )
    return ExitCode.DONE
