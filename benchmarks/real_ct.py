"""Evaluate weights on patients' CTs: liver outline, found and false lesions, and pictures.

    python benchmarks/real_ct.py cases.csv OUTPUT [--weights model.safetensors] [--bundle FOLDER]

cases.csv has the columns `case`, `image` (CT) and, for cases with a reference, `label` (label map on the CT's grid),
`liver` and `lesion` (its values, separated by spaces; lesions are part of the liver). Paths are relative to the table.
For a case without a reference, lesions are only counted and drawn.

Each CT goes through `liverseg predict` with its defaults. Prints one row per case and writes `real_ct.csv`, and for
each case a montage of twelve slices with outlines of the liver and lesions, those of the reference in white.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from scipy import ndimage

from liverseg.evaluation.lesions import compare_lesions
from liverseg.evaluation.scores import dice
from liverseg.imageio.volume import case_name, read_volume
from liverseg.inference.predict import run_inference
from liverseg.labels import INDETERMINATE, JOINT_LABELS, LESION, LIVER

_SLICES = 12
_COLOURS = {label.index: label.color for label in (*JOINT_LABELS, INDETERMINATE)}


def main() -> None:
    """Run the cases and print their scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--bundle", type=Path, help="folder of the bundle (default: the joint bundle)")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    rows = []
    for case in pd.read_csv(args.cases, dtype=str, keep_default_na=False).to_dict("records"):
        rows.append(row := evaluate(case, args))
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    pd.DataFrame(rows).to_csv(args.output / "real_ct.csv", index=False)


def evaluate(case: dict[str, str], args: argparse.Namespace) -> dict[str, Any]:
    """Segment a case and return its row of counts and, if it has a reference, scores."""
    folder, output = args.cases.parent, args.output
    run_inference(
        folder / case["image"],
        output / "cases",
        weights=args.weights,
        bundle=args.bundle,
        preview=False,
        progress=False,
    )
    ct = read_volume(folder / case["image"])
    found = output / "cases" / case_name(folder / case["image"]) / "labels.nii.gz"
    pred = read_volume(found).axial
    record = json.loads((found.parent / "lesions.json").read_text(encoding="utf-8"))
    lesions = record["lesions"] if isinstance(record, dict) else record
    row: dict[str, Any] = {
        "case": case["case"],
        "liver_ml": round(float((pred >= LIVER).sum()) * ct.voxel_ml),
        "lesions": len(lesions),
    }
    truth = None
    if case.get("label"):
        own = read_volume(folder / case["label"]).axial
        truth = np.isin(own, _values(case["liver"])).astype(np.uint8)
        row["liver_dice"] = overlap(pred >= LIVER, (truth > 0) | np.isin(own, _values(case["lesion"])))
        if case["lesion"]:
            truth[np.isin(own, _values(case["lesion"]))] = LESION
            compared = compare_lesions(
                np.where(pred >= LESION, LESION, pred), truth, ct.axial_spacing, typed=False, true_typed=False
            )
            true, predicted = compared[compared["side"] == "true"], compared[compared["side"] == "predicted"]
            row |= {
                "true_lesions": len(true),
                "found": int(true["hit"].sum()),
                "false": int((~predicted["hit"]).sum()),
                "lesion_dice": overlap(pred >= LESION, truth == LESION),
            }
    montage(ct.axial, pred, truth).save(output / f"{case['case']}.png")
    return row


def overlap(pred: np.ndarray, truth: np.ndarray) -> float:
    """Return the Dice coefficient of two masks."""
    return round(float(dice((pred & truth).sum(), pred.sum(), truth.sum())), 3)


def _values(text: str) -> list[int]:
    return [int(value) for value in text.split()]


def montage(hu: np.ndarray, pred: np.ndarray, truth: np.ndarray | None) -> Image.Image:
    """Draw slices at even intervals of the liver, with outlines."""
    shown = np.flatnonzero((pred >= LIVER).any(axis=(1, 2))) if (pred >= LIVER).any() else np.arange(len(hu))
    numbers = shown[np.linspace(0, len(shown) - 1, _SLICES + 2).round().astype(int)[1:-1]]
    tiles = [_tile(hu[number], pred[number], None if truth is None else truth[number]) for number in numbers]
    rows = [np.concatenate(tiles[start : start + 4], axis=1) for start in range(0, _SLICES, 4)]
    return Image.fromarray(np.concatenate(rows))


def _tile(hu: np.ndarray, pred: np.ndarray, truth: np.ndarray | None) -> np.ndarray:
    grey = np.clip((hu + 50) / 250 * 255, 0, 255).astype(np.uint8)
    picture = np.repeat(grey[..., None], 3, axis=2)
    if truth is not None:
        for value in np.unique(truth[truth > 0]):
            picture[_outline(truth >= value)] = (255, 255, 255)
    picture[_outline(pred >= LIVER)] = _COLOURS[LIVER]
    for value in np.unique(pred[pred >= LESION]):
        picture[_outline(pred == value)] = _COLOURS[int(value)]
    return picture


def _outline(mask: np.ndarray) -> np.ndarray:
    edge: np.ndarray = mask & ~ndimage.binary_erosion(mask)
    return edge


if __name__ == "__main__":
    main()
