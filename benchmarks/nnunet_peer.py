"""Train nnU-Net v2 on the folds of a study and score it with the study's code, as a row `nnunet` beside the others.

    python -m benchmarks.nnunet_peer STUDY.yaml --python NNUNET_VENV/bin/python --fold N [--minutes M] [--seed S]

nnU-Net's 2-D configuration is used with its defaults; it is no dependency and runs in an environment of its own (tried
with nnunetv2==2.8.1). The command runs these steps, and a second call continues an interrupted one:

1. Export. Each annotated slice of the fold's training and validation patients is a 2-D case of nnU-Net, and
   `splits_final.json` has these patients as its only split. A case has three channels, the adjacent slices that the
   study's networks see, since a single slice would be less than they have. The held-out slices are in `imagesTs`, where
   planner and fingerprint do not read them. Then nnU-Net plans and preprocesses; this time is not counted.
2. Training for the wall time of a cell, including the start of the process, by a trainer that divides this time instead
   of counting 1000 epochs. The learning rate falls to zero within it, which is fairer than to stop a long schedule.
   Threads are those of a cell; augmentation runs in the training's process, as for a cell.
3. Prediction of the held-out slices with mirroring, nnU-Net's default, and their probabilities.
4. Scoring by the handlers that score a cell, in the same square around the liver. Classes have the study's numbers, so
   a slice's type is the vote of the probabilities, as for `joint`.

The cell's folder is `OUTPUT_DIR/cells/nnunet-scratch-none/foldN-seedS` of the study; `--label` is appended to the row's
name, for a row with another wall time. Wall times only compare if the machine is as busy as it was for the study's
cells. nnU-Net reads complete slices, as its defaults do, and its final weights predict. The networks of the study are
trained on crops.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.data import DataLoader
from monai.utils import CommonKeys

from liverseg.bundle.commands import run_logged
from liverseg.bundle.validation import none_if_null
from liverseg.datalists import DataItem, DataList
from liverseg.datasets import SlabDataset
from liverseg.errors import LiversegError, UsageError
from liverseg.inference import find_bundle
from liverseg.labels import JOINT_LABELS, label_names
from liverseg.networks import package_versions
from liverseg.study import Row, StudyConfig, read_study
from liverseg.study.cells import Cell
from liverseg.study.fingerprint import StudyFingerprint, code_state
from liverseg.study.folds import VALIDATION_FOLD, check_fold_lists, fold_lists
from liverseg.training import EvaluationWriter, SlabScores, pad_collate
from liverseg.transforms import LiverCropd
from liverseg.utils.files import read_json, sha256_text, write_text
from liverseg.utils.locks import FileLock

ROW = "nnunet"
DATASET = "Dataset001_Study"
_STEPS = Path(__file__).absolute().parent / "nnunet_steps.py"
_CHANNELS = len(JOINT_LABELS)
_SCORES = ("lesion_dice", "lesion_recall", "success_rate", "class_aware_dice", "type_accuracy", "liver_dice")


@dataclass(frozen=True)
class Fold:
    """A held-out fold of a study.

    Attributes:
        study: the study.
        number: the fold.
        datalist: its list, from `fold_lists`.
    """

    study: StudyConfig
    number: int
    datalist: DataList

    @property
    def parts(self) -> dict[str, tuple[DataItem, ...]]:
        """Training, validation and scored items. A study that is scored on validation patients has these twice."""
        training, validation = self.datalist.split(VALIDATION_FOLD)
        return {"training": training, "validation": validation, "scored": self.datalist.test or validation}

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Fingerprint of a cell of the study on this fold; it names list and files."""
        cell = Cell(self.study.rows[0], self.number, 0, self.study.output_dir)
        return StudyFingerprint(self.study, {self.number: self.datalist}).of(cell)

    @cached_property
    def folder(self) -> Path:
        """Folder of nnU-Net's data, for all seeds; the name changes with the fold's items, files and slabs."""
        content = [
            self.fingerprint["datalist_sha256"],
            self.fingerprint["files_sha256"],
            self.setting("slab_spacing_mm"),
        ]
        return self.study.output_dir / ROW / f"fold{self.number}-{sha256_text(json.dumps(content))[:12]}"

    def setting(self, key: str) -> Any:
        """Return a setting of the study's bundle, None for null."""
        parser = ConfigParser()
        configs = find_bundle(self.study.bundle) / "configs"
        parser.read_config([configs / f"{name}.yaml" for name in self.study.configs])
        parser.update(dict(self.study.overrides))
        return none_if_null(parser.get_parsed_content(key))

    def dataset(self, part: str, transform: Callable[..., Any] | None = None) -> SlabDataset:
        """Return the slabs of a part as the study's networks get them, before crop and HU window."""
        return SlabDataset(
            self.parts[part],
            self.study.dataset_dir,
            self.study.output_dir / "cache",
            _CHANNELS,
            slab_spacing_mm=self.setting("slab_spacing_mm"),
            transform=transform,
            progress=False,
        )


def case_name(part: str, number: int) -> str:
    """Return nnU-Net's name of a case: the part and the number of its item there."""
    return f"{part}{number:05d}"


def export(fold: Fold) -> None:
    """Write a fold in nnU-Net's raw format, and its split.

    Raises:
        LiversegError: if an item is a volume, or has a partial label map, which nnU-Net would take for a complete one.
    """
    parts = fold.parts
    for item in (*parts["training"], *parts["validation"], *parts["scored"]):
        if item.slice is None or item.labelled is not None:
            what = "a volume" if item.slice is None else f"labelled {' and '.join(item.labelled or ())} only"
            raise LiversegError(
                f"{fold.study.datalist}: {item.image} is {what}; this comparison needs annotated slices with complete "
                "label maps"
            )
    raw, preprocessed = (fold.folder / name / DATASET for name in ("raw", "preprocessed"))
    for folder in (raw / "imagesTr", raw / "labelsTr", raw / "imagesTs", preprocessed):
        folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        dataset = fold.dataset(part)
        for number in range(len(dataset)):
            _write_case(raw, part, number, dataset[number])
    counts = len(parts["training"]) + len(parts["validation"])
    description = {
        "channel_names": {"0": "CT", "1": "CT", "2": "CT"},  # by this name, nnU-Net normalises as CT
        "labels": {name: number for number, name in enumerate(label_names(JOINT_LABELS))},
        "numTraining": counts,
        "file_ending": ".nii.gz",
    }
    split = {
        key: [case_name(part, number) for number in range(len(parts[part]))]
        for key, part in (("train", "training"), ("val", "validation"))
    }
    cases = {
        case_name(part, number): {"patient": item.patient, "image": item.image, "slice": item.slice}
        for part, items in parts.items()
        for number, item in enumerate(items)
    }
    write_text(preprocessed / "splits_final.json", json.dumps([split], indent=1) + "\n")
    write_text(fold.folder / "cases.json", json.dumps(cases, indent=1) + "\n")
    write_text(raw / "dataset.json", json.dumps(description, indent=1) + "\n")  # last: with it, the export is complete


def _write_case(raw: Path, part: str, number: int, element: dict[str, Any]) -> None:
    """Write the slices of a slab as 2-D files: rows from front to back, columns from right to left of the patient."""
    name = case_name(part, number)
    _, row_mm, column_mm = element["spacing"].tolist()
    files = {
        raw / ("imagesTs" if part == "scored" else "imagesTr") / f"{name}_{channel:04d}.nii.gz": pixels
        for channel, pixels in enumerate(element[CommonKeys.IMAGE].numpy())
    }
    if part != "scored":
        files[raw / "labelsTr" / f"{name}.nii.gz"] = element[CommonKeys.LABEL][0].numpy()
    for path, pixels in files.items():
        image = sitk.GetImageFromArray(pixels)
        image.SetSpacing((column_mm, row_mm))
        sitk.WriteImage(image, str(path), useCompression=True)


def read_probabilities(folder: Path, number: int) -> np.ndarray:
    """Read nnU-Net's probabilities of a scored slice, (labels, rows, columns).

    Raises:
        LiversegError: if a file is missing or damaged, or the label map beside the probabilities is not their maximum.
    """
    path = folder / f"{case_name('scored', number)}.npz"
    try:
        with np.load(path) as content:
            probabilities: np.ndarray = content["probabilities"].astype(np.float32)
        labels = sitk.GetArrayFromImage(sitk.ReadImage(str(path.with_suffix(".nii.gz"))))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise LiversegError(f"{path}: cannot be read ({error}); remove the folder to predict again") from error
    probabilities = probabilities.reshape(len(probabilities), *probabilities.shape[-2:])  # nnU-Net adds a slice axis
    if len(probabilities) != _CHANNELS or labels.shape != probabilities.shape[1:]:
        raise LiversegError(
            f"{path}: shape {probabilities.shape} with a label map of {labels.shape}; {_CHANNELS} labels are needed"
        )
    chosen = np.take_along_axis(probabilities, labels[None].astype(int), axis=0)[0]
    if (chosen < probabilities.max(axis=0)).any():
        raise LiversegError(f"{path}: the label map beside it has other labels than the highest probabilities")
    return probabilities


def score(fold: Fold, read: Callable[[int], np.ndarray], folder: Path) -> dict[str, float]:
    """Score predictions with the handlers that score a cell, and write a cell's files.

    Args:
        fold: the held-out fold.
        read: returns the probabilities of a scored slice by its number, (labels, rows, columns) of the complete slice.
        folder: existing folder for `evaluation.csv`, `lesions.csv`, `predictions.npz` and `evaluation.json`.

    Returns:
        The scores of the slices.
    """
    dataset = fold.dataset("scored", LiverCropd(fold.setting("liver_crop"), fold.setting("pixel_mm")))
    loader = DataLoader(dataset, batch_size=1, collate_fn=pad_collate)

    def predict(engine: Engine, batch: dict[str, Any]) -> dict[str, Any]:
        ((row, column, height, width),) = batch["box"].tolist()
        box = read(int(batch["unit"][0]))[:, row : row + height, column : column + width]
        logits = torch.log(torch.from_numpy(np.ascontiguousarray(box)).clamp_min(1e-12))  # their softmax is the input
        return {CommonKeys.PRED: logits[None], CommonKeys.LABEL: batch[CommonKeys.LABEL]}

    engine, scores = Engine(predict), SlabScores()
    scores.attach(engine, "val_score")
    EvaluationWriter(folder, dataset, scores, ROW).attach(engine)
    engine.run(loader)
    return scores.counted.scores()


def wall_time_and_threads(study: StudyConfig, row: str, fold: int) -> tuple[float, int]:
    """Return the mean wall time of a row's trainings on a fold in seconds, and the threads of the first.

    Raises:
        UsageError: if no cell of the row is complete.
    """
    paths = sorted((study.output_dir / "cells" / row).glob(f"fold{fold}-seed*/cell.json"))
    records = [read_json(path) for path in paths]
    if not records:
        raise UsageError(f"no cell of {row} is complete for fold {fold}; run the study first, or give --minutes")
    return float(np.mean([record["seconds"]["training"] for record in records])), int(records[0]["threads"])


def run_peer(
    fold: Fold, python: Path, *, seconds: float, seed: int, threads: int, device: str, label: str = ""
) -> dict[str, float]:
    """Run all steps that are not complete. Returns the scores.

    Args:
        fold: the held-out fold.
        python: Python of the environment with nnU-Net.
        seconds: wall time of the training.
        seed: of the training. nnU-Net sets none itself.
        threads: of torch.
        device: cpu or cuda.
        label: of the row; may be empty.

    Raises:
        LiversegError: if the fold cannot be exported, a step fails or another run works on the cell.
    """
    study = fold.study
    settings = {"seconds": round(seconds, 1), "threads": threads, "device": device}
    row = Row(ROW, "scratch", "none", label, (seed,), tuple(settings.items()))
    cell = Cell(row, fold.number, seed, study.output_dir / "cells" / row.name / f"fold{fold.number}-seed{seed}")
    with cell.lock() as lock:
        if lock is None:
            raise LiversegError(f"{cell.folder}: another run works on this cell")
        fingerprint = _fingerprint(fold, cell, settings)
        if (cell.read("cell.json") or {}).get("ingredients") == fingerprint:
            return dict(read_json(cell.folder / "evaluation.json"))
        codes = cell.prepare(fingerprint, code_state())
        steps = _Steps(fold, cell, python, threads, lock)
        with _data_lock(fold):
            if not (fold.folder / "raw" / DATASET / "dataset.json").exists():
                export(fold)
            if not (fold.folder / "planned").exists():
                steps.run("plan")
                write_text(fold.folder / "planned", "")
        steps.run("train", "--minutes", f"{seconds / 60:.4f}", "--seed", str(seed), "--device", device)
        start = time.monotonic()
        predictions = cell.folder / "predictions"
        steps.run("predict", "--device", device, "--output", str(predictions))
        scores = score(fold, lambda number: read_probabilities(predictions, number), cell.folder)
        training = dict(read_json(cell.folder / "training" / "training.json"))
        record = {
            "ingredients": fingerprint,
            "code": codes,
            "versions": {**package_versions(), **training.pop("versions")},
            "best_epoch": None,
            "seconds": {
                "training": round(training.pop("seconds"), 1), "evaluating": round(time.monotonic() - start, 1)
            },
            "device": device,
            "threads": threads,
            "training": training,
        }  # fmt: skip
        cell.write("cell.json", record)
    return scores


@contextmanager
def _data_lock(fold: Fold) -> Iterator[None]:
    """Lock nnU-Net's data of a fold, which all seeds share."""
    fold.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock.try_acquire(fold.folder / ".lock")
    if lock is None:
        raise LiversegError(f"{fold.folder}: another run prepares the data of this fold; start again when it trains")
    try:
        yield
    finally:
        lock.release()


def _fingerprint(fold: Fold, cell: Cell, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the fingerprint of nnU-Net's cell: that of a cell of the study, with nnU-Net's own settings.

    `configs_sha256` is the hash of the keys of the study's bundle that concern nnU-Net too.
    """
    row = cell.row
    shared = {key: fold.setting(key) for key in ("slab_spacing_mm", "liver_crop", "pixel_mm")}
    return {
        **fold.fingerprint,
        "strategy": row.strategy, "initialisation": row.initialisation, "plan": row.plan, "label": row.label,
        "seed": cell.seed, "overrides": settings, "configs": [], "weights_sha256": None,
        "configs_sha256": sha256_text(json.dumps(shared)),
    }  # fmt: skip


class _Steps:
    """Runs the steps of `nnunet_steps.py` with nnU-Net's Python."""

    def __init__(self, fold: Fold, cell: Cell, python: Path, threads: int, lock: int) -> None:
        self._cell, self._python, self._threads, self._lock = cell, python, threads, lock
        self._environment = {
            "nnUNet_raw": str(fold.folder / "raw"),
            "nnUNet_preprocessed": str(fold.folder / "preprocessed"),
            "nnUNet_results": str(cell.folder / "training"),
            "nnUNet_def_n_proc": "1",
            "OMP_NUM_THREADS": str(threads),
            "PYTHONPATH": "",
        }

    def run(self, step: str, *arguments: str) -> None:
        """Run a step; its output is appended to a file in the cell.

        Raises:
            LiversegError: if it fails.
        """
        print(f"{self._cell.name}: {step}", file=sys.stderr, flush=True)
        log = self._cell.folder / f"{step}.log"
        command = [str(self._python), str(_STEPS), step, "--threads", str(self._threads), *arguments]
        # augmentation has no processes of its own, nor has it in a cell; the planner does not accept 0
        environment = {**self._environment, "nnUNet_n_proc_DA": "1" if step == "plan" else "0"}
        code = run_logged(command, self._cell.folder, log, environment, errors_too=True, kept_open=[self._lock])
        if code:
            raise LiversegError(f"nnU-Net's {step} ended with exit code {code}; its output is in {log}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the comparison and print the scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--python", type=Path, required=True, help="Python of the environment with nnunetv2")
    parser.add_argument("--fold", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, help="wall time of the training; by default that of --like's cells")
    parser.add_argument("--like", default="joint-scratch-none", help="row with the wall time and threads (%(default)s)")
    parser.add_argument("--label", default="", help="end of the row's name")
    parser.add_argument("--threads", type=int, help="of torch; by default those of --like's cells, 1 with --minutes")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    args = parser.parse_args(arguments)
    try:
        study = read_study(args.study)
        lists = fold_lists(study)
        check_fold_lists(study, lists)
        if args.fold not in lists:
            raise UsageError(f"--fold {args.fold}: the study has the folds {', '.join(map(str, lists))}")
        if args.minutes is not None and not args.minutes > 0:
            raise UsageError(f"--minutes {args.minutes}: a number above 0 is needed")
        if not re.fullmatch(r"[A-Za-z0-9_.]*", args.label):
            raise UsageError(f"--label {args.label!r}: letters, digits, dots and underlines are allowed")
        seconds, threads = (
            wall_time_and_threads(study, args.like, args.fold) if args.minutes is None else (args.minutes * 60, 1)
        )
        fold = Fold(study, args.fold, lists[args.fold])
        scores = run_peer(
            fold,
            args.python.absolute(),
            seconds=seconds,
            seed=args.seed,
            threads=args.threads or threads,
            device=args.device,
            label=args.label,
        )
    except LiversegError as error:
        sys.exit(f"liverseg: {error}")
    print(", ".join(f"{name} {scores[name]:.3f}" for name in _SCORES if name in scores))


if __name__ == "__main__":
    main()
