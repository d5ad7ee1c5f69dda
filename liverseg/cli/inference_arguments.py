"""Arguments of the verbs that compute CTs, and what they are among a bundle's keys."""

from __future__ import annotations

import argparse
import os
from typing import Any

from liverseg.cli.arguments import some_path
from liverseg.imageio.liver_mask import LiverSource

__all__ = ["add_inference_arguments", "add_network_arguments", "inference_overrides", "network_overrides"]

_NETWORK_KEYS = ("device", "batch_size", "amp", "series", "keep_identifiers")
_KEYS = ("min_lesion_ml", "min_liver_contact", "min_confidence", "lesion_threshold", "dicom", "preview", "report")


def add_network_arguments(parser: argparse.ArgumentParser, weights: str) -> None:
    """Declare what a network's outlines depend on: weights, bundle, device, and which of a study's CTs is read.

    Args:
        parser: of the verb.
        weights: help text of --weights.
    """
    parser.add_argument("--weights", type=some_path, help=weights)
    parser.add_argument("--bundle", type=some_path, help="another folder of the bundle")
    parser.add_argument("--device", help="auto, cpu, cuda or cuda:N (default auto)")
    parser.add_argument("--batch-size", type=int, help="slices computed at a time (default: 2 on a CPU, 16 on a GPU)")
    parser.add_argument("--amp", choices=["auto", "true", "false"], help="bfloat16 (default auto: where it is quick)")
    parser.add_argument("--series", help="which DICOM series: UID or description (default: axial CT, most slices)")
    parser.add_argument(
        "--keep-identifiers",
        action="store_true",
        default=None,
        help="keep what DICOM headers say of patient, study and series (default: UIDs alone)",
    )


def add_inference_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what a computed CT depends on: the network's arguments, and further keys of the bundle's config."""
    add_network_arguments(
        parser,
        "trained weights, .safetensors or .pt (default: $LIVERSEG_WEIGHTS, else the bundle's models/model.pt if it has "
        "been trained, else those that come with the software)",
    )
    parser.add_argument(
        "--liver",
        help="auto: found first (default); none: all of the CT is computed; or a mask, or a folder of masks named as "
        "the cases; MASK:5 takes label 5",
    )
    parser.add_argument("--min-lesion-ml", type=float, help="smaller lesions are left out (default: the bundle's)")
    parser.add_argument(
        "--min-liver-contact",
        type=float,
        help="lesions with a smaller share of liver around them, 0 to 1, are left out (default: the bundle's)",
    )
    parser.add_argument(
        "--min-confidence",
        type=float,
        help="lesions whose likeliest type is less likely are indeterminate (default: the bundle's)",
    )
    parser.add_argument(
        "--lesion-threshold",
        type=float,
        help="lesions that the network is less sure of, 0 to 1, are left out (default: what the weights' record "
        "recommends, else 0)",
    )
    parser.add_argument(
        "--dicom", action=argparse.BooleanOptionalAction, help="for DICOM a DICOM SEG and SR as well (default: yes)"
    )
    parser.add_argument(
        "--preview", action=argparse.BooleanOptionalAction, help="a picture for each case (default: yes)"
    )
    parser.add_argument("--report", action="store_true", default=None, help="a page with a viewer for each case")


def network_overrides(args: argparse.Namespace) -> dict[str, Any]:
    """Of what `add_network_arguments` declares, the bundles' keys; None where the config's value is to stand."""
    return {name: getattr(args, name) for name in _NETWORK_KEYS}


def inference_overrides(args: argparse.Namespace) -> dict[str, Any]:
    """Of what `add_inference_arguments` declares, the bundle's keys; None where the config's value is to stand."""
    own = {name: getattr(args, name) for name in _KEYS}
    return {**network_overrides(args), **own, "liver": _absolute_liver(args.liver)}


def _absolute_liver(liver: str | None) -> str | None:
    """Return a word unchanged and a path as an absolute path, which a config cannot mistake for an expression."""
    return liver if liver is None or LiverSource.parse(liver).path is None else os.path.abspath(liver)
