"""Score types of lesions in complete CTs, with a study's weights, on the patients that they were not trained on.

    python -m benchmarks.volume_types STUDY.yaml OUTPUT.csv [--rows joint-lits-none regions-lits-none] [--seeds 0 1]

A study scores annotated slices. Here each network labels the complete volumes of its held-out patients as `liverseg
predict` does, with every lesion named (`min_confidence` 0), and lesions are compared in 3-D: a true lesion of a type is
a connected component, found if a predicted lesion overlaps it, and detected if one has an intersection over union above
.5. Its name is that of the predicted lesion with most overlap. Prints shares of lesions, of each type and as means over
the types, with 95 % intervals by patient, and the difference of each row to the first. Lesions of several seeds are
pooled. Volumes need complete label maps, as phantoms have.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import pandas as pd
from tqdm import tqdm

from liverseg.evaluation.intervals import bootstrap, paired_difference, patient_weights
from liverseg.imageio.volume import read_volume
from liverseg.inference.api import Model, load_model
from liverseg.labels import FACE_CONNECTIVITY, LESION, LESION_TYPES
from liverseg.study import read_study
from liverseg.study.cells import study_cells
from liverseg.study.folds import fold_lists

_DETECTED = 0.5
_SHARES = {
    "found": ("found", None),
    "detected": ("detected", None),
    "correct type, of all": ("correct", None),
    "correct type, of found": ("correct", "found"),
    "correct type, of detected": ("correct_detected", "detected"),
}


def main() -> None:
    """Predict, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--rows", nargs="+", default=["joint-lits-none", "regions-lits-none"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    args = parser.parse_args()
    study = read_study(args.study)
    lists = fold_lists(study)
    rows: list[dict[str, Any]] = []
    for cell in study_cells(study, tuple(lists)):
        if cell.row.name not in args.rows or cell.seed not in args.seeds:
            continue
        model = load_model(cell.folder / "model.pt", min_confidence=0)
        items = {(item.image, item.label): item for item in lists[cell.fold].test}
        for item in tqdm(items.values(), desc=cell.name, unit="CT"):
            ct, label = (study.dataset_dir / str(name) for name in (item.image, item.label))
            for lesion in compare(model, ct, label):
                place = {"row": cell.row.name, "seed": cell.seed, "fold": cell.fold, "patient": item.patient}
                rows.append({**place, **lesion})
        pd.DataFrame(rows).to_csv(args.output, index=False)
    report(pd.DataFrame(rows), args.rows)


def compare(model: Model, ct: Path, label: Path) -> list[dict[str, Any]]:
    """Return a row for each true lesion of a volume."""
    volume = read_volume(label)
    true = np.asarray(volume.array)
    prediction = model.predict(ct)
    names = dict(zip(prediction.lesions["id"], prediction.lesions["type"], strict=True))
    sizes = np.bincount(prediction.lesion_ids.ravel())
    rows = []
    for index, kind in enumerate(LESION_TYPES):
        parts = cc3d.connected_components(true == LESION + index, connectivity=FACE_CONNECTIVITY[3])
        for number, box in enumerate(cc3d.statistics(parts)["bounding_boxes"][1:], 1):
            inside = parts[box] == number
            voxels = np.count_nonzero(inside)
            overlaps = np.bincount(prediction.lesion_ids[box][inside], minlength=len(sizes))
            overlaps[0] = 0
            best = int(overlaps.argmax())
            iou = overlaps[best] / (voxels + sizes[best] - overlaps[best])
            found = bool(overlaps[best])
            correct = found and names[best] == kind
            rows.append(
                {
                    "type": kind,
                    "volume_ml": voxels * volume.voxel_ml,
                    "name": names[best] if found else "missed",
                    "iou": float(iou),
                    "found": found,
                    "detected": iou > _DETECTED,
                    "correct": correct,
                    "correct_detected": correct and iou > _DETECTED,
                }
            )
    return rows


def report(table: pd.DataFrame, rows: list[str]) -> None:
    """Print shares of lesions with 95 % intervals by patient, and differences to the first row."""
    patients = sorted(table["patient"].unique())
    weights = patient_weights(len(patients))
    runs = table.groupby(["row", "seed"]).ngroups
    print(f"{len(patients)} patients, {len(table) // runs} lesions, seeds {sorted(table['seed'].unique().tolist())}")
    groups = {"": [[*LESION_TYPES]], **{f", {kind}": [[kind]] for kind in LESION_TYPES}}
    groups[", mean of the types"] = [[kind] for kind in LESION_TYPES]
    for (name, (column, among)), (of_which, kinds) in product(_SHARES.items(), groups.items()):
        sums = {row: _sums(table[table["row"] == row], patients, column, among, kinds) for row in rows}
        for row in rows:
            share = bootstrap(_mean_ratio, sums[row], weights)
            text = f"{share.value:.3f} ({share.lower:.3f} to {share.upper:.3f})"
            if row != rows[0]:
                difference = paired_difference(_mean_ratio, sums[row], sums[rows[0]], weights)
                text += f", {difference.value:+.3f} ({difference.lower:+.3f} to {difference.upper:+.3f}) to {rows[0]}"
            print(f"{name}{of_which}: {row} {text}")


def _sums(
    table: pd.DataFrame, patients: list[str], column: str, among: str | None, kinds: list[list[str]]
) -> np.ndarray:
    """Return each patient's numbers of counted lesions and of all that could be, for each group of types."""
    columns = []
    for of_group in kinds:
        part = table[table["type"].isin(of_group)]
        possible = pd.Series(1.0, part.index) if among is None else part[among].astype(float)
        columns += [part[column].astype(float), possible]
    by_patient = [values.groupby(table["patient"]).sum().reindex(patients, fill_value=0) for values in columns]
    return np.stack(by_patient, axis=1)


def _mean_ratio(sums: np.ndarray) -> np.ndarray:
    return (sums[..., ::2] / sums[..., 1::2]).mean(axis=-1)


if __name__ == "__main__":
    main()
