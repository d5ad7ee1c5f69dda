"""A small study with artificial results, so that a report's figures can be computed by hand.

Six patients in two folds, seven annotated slices (the first patient has two), two seeds, four rows.
"""

import json

import numpy as np
import pandas as pd
import yaml
from ignite.handlers.tensorboard_logger import TensorboardLogger

from liverseg.datalists import DataItem, DataList, label_table, write_datalist
from liverseg.labels import LESION_TYPES
from liverseg.study import read_study
from liverseg.study.cells import study_cells
from liverseg.study.fingerprint import StudyFingerprint
from liverseg.study.folds import VALIDATION_FOLD, fold_lists

SLICES = [
    ("p1", 1, "cyst"),
    ("p1", 2, "cyst"),
    ("p2", 1, "hemangioma"),
    ("p3", 1, "metastasis"),
    ("p4", 1, "cyst"),
    ("p5", 1, "hemangioma"),
    ("p6", 1, "metastasis"),
]
FOLD = {"p1": 0, "p2": 0, "p3": 0, "p4": 1, "p5": 1, "p6": 1}
WRONG = {
    # row name, seed: slices with wrong types; they become a cyst, or a cyst a hemangioma
    ("joint-lits-none", 0): {("p4", 1)},
    ("joint-lits-none", 1): {("p4", 1), ("p1", 2)},
    ("joint-scratch-none", 0): {("p4", 1), ("p5", 1), ("p6", 1)},
    ("joint-scratch-none", 1): {("p4", 1), ("p5", 1), ("p6", 1)},
    ("ynet-lits-none", 0): {("p1", 1), ("p1", 2), ("p4", 1)},
    ("ynet-lits-none", 1): {("p1", 1), ("p4", 1)},
}
DICE = {"joint-lits-none": 0.8, "joint-scratch-none": 0.5, "ynet-lits-none": 0.7, "segmentation-lits-none": 0.8}
"""Lesion Dice of every slice; with 50 true and 50 predicted pixels it is the share of correct pixels."""
ROWS = [
    {"strategy": ["joint", "ynet", "segmentation"], "initialisation": "lits"},
    {"strategy": "joint", "initialisation": "scratch"},
]


def write_study(folder, *, source="liverseg phantom: synthetic", rows=ROWS, scored="test", overrides=None, peers=()):
    """Write data list and study file, without cells, and return the study."""
    items = [
        DataItem(f"{patient}.nii.gz", f"{patient}-label.nii.gz", patient, FOLD[patient], number, name)
        for patient, number, name in SLICES
    ]
    datalist = DataList("hand-made", "1", source, "CC0-1.0", label_table(5), tuple(items))
    write_datalist(folder / "data" / "datalist.json", datalist)
    (folder / "pretrain.safetensors").touch()
    content = {
        "name": "by hand",
        "configs": ["train", "phantom"],
        "dataset_dir": "data",
        "output_dir": "run",
        "lits_weights": "pretrain.safetensors",
        "seeds": [0, 1],
        "scored": scored,
        "overrides": {"epochs": 3} if overrides is None else overrides,
        "rows": rows,
        "peers": list(peers),
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(content))
    return read_study(folder / "study.yaml")


def cell_folder(study, row, fold, seed):
    return study.output_dir / "cells" / row / f"fold{fold}-seed{seed}"


def fill_cell(study, row, fold, seed):
    """Write a complete cell; rows that are not in `DICE` have .5."""
    folder = cell_folder(study, row, fold, seed)
    folder.mkdir(parents=True)
    lists = fold_lists(study)
    items = lists[fold].test if study.scored == "test" else lists[fold].split(VALIDATION_FOLD)[1]
    scored = {(item.patient, item.slice) for item in items}
    slices = [example for example in SLICES if example[:2] in scored]
    units = pd.DataFrame([_unit(row, seed, *example) for example in slices])
    lesions = pd.DataFrame([line for example in slices for line in _lesions(row, seed, *example)])
    if row.startswith("segmentation"):
        types = [name for name in units.columns if name.startswith(("probability_", "pred_", "true_type"))]
        units = units.drop(columns=[*types, "typed_hit", "class_aware_dice"])
        lesions["pred_type"] = ""
    units.to_csv(folder / "evaluation.csv", index=False)
    lesions.to_csv(folder / "lesions.csv", index=False)
    predicted = np.ones([16, 16], dtype=np.uint8)
    predicted[4:9, 4:9] = 2
    np.savez_compressed(folder / "predictions.npz", **{str(number): predicted for number in range(len(slices))})
    (cell,) = (cell for cell in study_cells(study, tuple(lists)) if cell.folder == folder)
    record = {
        "ingredients": StudyFingerprint(study, lists).of(cell),
        "versions": {"torch": "2.13.0"},
        "code": ["commit 0123456789ab"],
        "seconds": {"training": 1800.0},
        "device": "auto",
        "threads": 1,
    }
    (folder / "cell.json").write_text(json.dumps(record))


def fill_peer(study, row, fold, seed):
    """Store results of other software that outlines as joint from LiTS weights does and has no types."""
    folder = cell_folder(study, row, fold, seed)
    folder.mkdir(parents=True)
    slices = [example for example in SLICES if FOLD[example[0]] == fold]
    units = pd.DataFrame([_unit("joint-lits-none", seed, *example) for example in slices])
    kept = ["slice", "image", "patient", "lesion_hit", "lesion_pred", "lesion_true", "lesion_dice", "lesion_recall"]
    units[kept].to_csv(folder / "evaluation.csv", index=False)
    record = {"peer": "other software 2.0", "training": {"iterations": 18}, "seconds": {"training": 180 + 61 * fold}}
    (folder / "cell.json").write_text(json.dumps(record))


def write_events(study, row, fold, seed, **curves):
    """Write TensorBoard events as a training does: by name, scores by epoch."""
    logger = TensorboardLogger(log_dir=str(cell_folder(study, row, fold, seed) / "tensorboard"))
    for name, values in curves.items():
        for epoch, value in values.items():
            logger.writer.add_scalar(name, value, epoch)
    logger.close()


def fill_study(study):
    """Write every cell of the four rows."""
    for row in DICE:
        for fold in (0, 1):
            for seed in (0, 1):
                fill_cell(study, row, fold, seed)


def _names(row, seed, patient, number, name):
    wrong = (patient, number) in WRONG.get((row, seed), ())
    called = name if not wrong else "hemangioma" if name == "cyst" else "cyst"
    return called, {f"probability_{kind}": 0.8 if kind == called else 0.1 for kind in LESION_TYPES}


def _unit(row, seed, patient, number, name):
    hit = round(50 * DICE.get(row, 0.5))
    called, probabilities = _names(row, seed, patient, number, name)
    typed = hit if called == name else 0
    return {
        "slice": number,
        "image": f"{patient}.nii.gz",
        "patient": patient,
        "lesion_hit": hit,
        "lesion_pred": 50,
        "lesion_true": 50,
        "typed_hit": typed,
        "lesion_dice": hit / 50,
        "lesion_recall": hit / 50,
        "class_aware_dice": typed / 50,
        "true_type": name,
        "pred_type": called,
        **probabilities,
    }


def _lesions(row, seed, patient, number, name):
    """Return a matched true lesion, and, with seed 1 on p2, a false predicted lesion."""
    called, probabilities = _names(row, seed, patient, number, name)
    common = {"patient": patient, "image": f"{patient}.nii.gz", "slice": number}
    pair = {
        "lesion": 1,
        "iou": 0.6,
        "hit": True,
        "matched": 1,
        "diameter_mm": 15.0,
        "dice": 0.75,
        "assd_mm": 1.5,
        "mssd_mm": 4.0,
    }
    typed = {"true_type": name, "pred_type": called, **probabilities}
    lines = [{**common, "side": side, **pair, **typed} for side in ("true", "predicted")]
    if patient == "p2" and seed == 1:
        none = {"lesion": 2, "iou": 0.0, "hit": False, "matched": 0, "diameter_mm": 5.0}
        lines.append({**common, "side": "predicted", **none, "true_type": "", "pred_type": "cyst", **probabilities})
    return lines
