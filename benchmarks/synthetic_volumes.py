"""Count the synthetic lesions found in complete CTs and their predicted types, by true type and size.

    python -m benchmarks.synthetic_volumes LIST OUTPUT [--weights model.safetensors]

LIST is a data list that `liverseg synthesize` wrote, without --untyped, from CTs with outlined livers. Each copy goes
through `liverseg predict` with its defaults. Cases that OUTPUT already contains are not computed again. A lesion is
found if any predicted lesion overlaps it. Its predicted type is that of most of the overlap. Prints a table and writes
`lesions.csv`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cc3d
import numpy as np
import pandas as pd

from liverseg.imageio.volume import case_name, read_volume
from liverseg.inference.predict import run_inference
from liverseg.labels import INDETERMINATE, JOINT_LABELS, LESION

_NAMES = {label.index: label.name for label in (*JOINT_LABELS, INDETERMINATE)}
_SIZES_ML = (0, 1, 4, np.inf)


def main() -> None:
    """Segment the missing cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--weights", type=Path)
    args = parser.parse_args()
    rows = []
    for item in json.loads(args.list.read_text(encoding="utf-8"))["training"]:
        image = args.list.parent / item["image"]
        found = args.output / "cases" / case_name(image) / "labels.nii.gz"
        if not found.exists():
            run_inference(image, args.output / "cases", weights=args.weights, preview=False, progress=False)
        truth = read_volume(args.list.parent / item["label"])
        rows += lesions(truth.axial, read_volume(found).axial, truth.voxel_ml, item["patient"])
    table = pd.DataFrame(rows)
    table.to_csv(args.output / "lesions.csv", index=False)
    table["ml"] = pd.cut(table["volume_ml"], _SIZES_ML, right=False)
    print(pd.crosstab([table["type"], table["ml"]], table["named"], margins=True))


def lesions(truth: np.ndarray, pred: np.ndarray, voxel_ml: float, patient: str) -> list[dict[str, object]]:
    """Return a row for each true lesion: type, volume in ml, and type of the predicted lesion that overlaps it.

    Args:
        truth: label map with types (Z, Y, X).
        pred: label map of the results, on the same grid.
        voxel_ml: volume of a voxel in ml.
        patient: patient of the CT.
    """
    rows: list[dict[str, object]] = []
    for index in np.unique(truth[truth >= LESION]):
        numbers = cc3d.connected_components(truth == index, connectivity=6)
        for number in range(1, int(numbers.max()) + 1):
            lesion = numbers == number
            overlap = pred[lesion & (pred >= LESION)]
            named = _NAMES[int(np.bincount(overlap).argmax())] if overlap.size else "missed"
            volume = float(lesion.sum()) * voxel_ml
            rows.append({"patient": patient, "type": _NAMES[int(index)], "volume_ml": volume, "named": named})
    return rows


if __name__ == "__main__":
    main()
