"""Arguments of subcommands that process CTs, and the bundle's keys they set."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from liverseg.bundle.outputs import OUTPUT_TYPES, check_output_types, parse_output_types
from liverseg.bundle.paths import inference_config, weights_path
from liverseg.bundle.validation import RULES, check_values
from liverseg.bundle.weights_files import check_weights_path
from liverseg.cases.discover import check_series, find_cases
from liverseg.cli.arguments import some_path
from liverseg.imageio.liver_mask import LiverSource

__all__ = [
    "add_inference_arguments",
    "add_network_arguments",
    "check_inference",
    "inference_overrides",
    "network_overrides",
]

_NETWORK_KEYS = ("device", "batch_size", "amp", "series", "phase", "untilt", "keep_identifiers")
_KEYS = (
    *("min_lesion_ml", "min_liver_contact", "min_confidence", "lesion_threshold"),
    *("output_types", "dicom", "preview", "report"),
)


def add_network_arguments(parser: argparse.ArgumentParser, weights: str) -> None:
    """Declare the arguments of a network: weights, bundle, device, and which series of a study is read.

    Args:
        parser: of the subcommand.
        weights: help text of --weights.
    """
    parser.add_argument("--weights", type=some_path, help=weights)
    parser.add_argument("--bundle", type=some_path, help="another folder of the bundle")
    parser.add_argument("--device", help="auto, cpu, cuda or cuda:N (default auto)")
    parser.add_argument("--batch-size", type=int, help="slices computed at a time (default: 4 on a CPU, 16 on a GPU)")
    parser.add_argument(
        "--amp", choices=["auto", "true", "false"], help="bfloat16 (default auto: if the device computes it)"
    )
    parser.add_argument(
        "--series", help="DICOM series, by UID or description; not for NIfTI (default: by phase and number of slices)"
    )
    parser.add_argument(
        "--phase",
        choices=["portal", "arterial", "delayed", "native"],
        help="contrast phase to read of a DICOM study (default: portal is preferred)",
    )
    parser.add_argument(
        "--untilt",
        action="store_true",
        default=None,
        help="move DICOM slices of a tilted gantry onto an upright grid (default: refuse them)",
    )
    parser.add_argument(
        "--keep-identifiers",
        action="store_true",
        default=None,
        help="keep patient, study and series of the DICOM headers (default: only UIDs)",
    )


def add_inference_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of inference: the network's, and further keys of the bundle's config."""
    add_network_arguments(
        parser,
        "trained weights, .safetensors or .pt (default: $LIVERSEG_WEIGHTS, else the bundle's models/model.pt if it was "
        "trained, else those that come with the software)",
    )
    parser.add_argument(
        "--liver",
        help="auto: find the liver first (default); none: process all of the CT; or a mask, or a folder of masks named "
        "after the cases; MASK:5 selects label 5",
    )
    parser.add_argument("--min-lesion-ml", type=float, help="leave out smaller lesions (default: the bundle's)")
    parser.add_argument(
        "--min-liver-contact",
        type=float,
        help="leave out lesions with a smaller share of liver around them, 0 to 1 (default: the bundle's)",
    )
    parser.add_argument(
        "--min-confidence",
        type=float,
        help="call lesions indeterminate if their likeliest type is less likely, 0 to 1 (default: the bundle's)",
    )
    parser.add_argument(
        "--lesion-threshold",
        type=float,
        help="leave out lesions with a lower lesion_score, 0 to 1 (default: that of the weights' record, else 0)",
    )
    outputs = parser.add_mutually_exclusive_group()
    outputs.add_argument(
        "--output-types",
        metavar="TYPE[,TYPE]",
        type=parse_output_types,
        help=f"files to write besides tables and record: {', '.join(OUTPUT_TYPES)} (default: labels, and dicom-seg and "
        "dicom-sr for DICOM input)",
    )
    outputs.add_argument(
        "--dicom",
        action=argparse.BooleanOptionalAction,
        help="write dicom-seg and dicom-sr for DICOM input (default: yes)",
    )
    parser.add_argument(
        "--preview", action=argparse.BooleanOptionalAction, help="draw a picture of each case (default: yes)"
    )
    parser.add_argument("--report", action="store_true", default=None, help="write a page with a viewer for each case")


def check_inference(args: argparse.Namespace, source: Path) -> None:
    """Raise the errors of an inference's arguments that need no network, before torch is imported.

    Args:
        args: of `add_inference_arguments`.
        source: a CT or a folder of CTs.

    Raises:
        LiversegError: if a value is not allowed, or the bundle, the weights, the CT or its liver mask cannot be used.
    """
    given = {name: value for name, value in inference_overrides(args).items() if value is not None}
    check_values(**{name: value for name, value in given.items() if name in RULES})
    check_weights_path(weights_path(inference_config(args.bundle), args.weights))
    cases = find_cases(source, log_skipped=False)
    check_series(args.series, [case["image"] for case in cases])
    check_output_types(args.output_types, [case["image"] for case in cases])
    liver = LiverSource.parse(args.liver or "auto").check(len(cases))
    if len(cases) == 1:  # of several cases, one without a mask does not end the run
        mask = liver.find_mask(cases[0]["case"])
        if mask is not None:
            liver.check_mask(mask, Path(cases[0]["image"]))


def network_overrides(args: argparse.Namespace) -> dict[str, Any]:
    """Return the bundle's keys set by `add_network_arguments`; None leaves the config's value."""
    return {name: getattr(args, name) for name in _NETWORK_KEYS}


def inference_overrides(args: argparse.Namespace) -> dict[str, Any]:
    """Return the bundle's keys set by `add_inference_arguments`; None leaves the config's value."""
    inference = {name: getattr(args, name) for name in _KEYS}
    return {**network_overrides(args), **inference, "liver": _absolute_liver(args.liver)}


def _absolute_liver(liver: str | None) -> str | None:
    """Return a word unchanged and a path as an absolute path, which a config cannot mistake for an expression."""
    return liver if liver is None or LiverSource.parse(liver).path is None else os.path.abspath(liver)
