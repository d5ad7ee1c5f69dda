"""The stages of the demo: the bundle commands that a user would type, on phantoms."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from liverseg.datalists import build_datalist
from liverseg.demo.stages import StageSeconds, run_bundle, run_side_by_side
from liverseg.demo.summary import write_summary
from liverseg.errors import UsageError
from liverseg.phantom import write_cohort, write_lits_tree
from liverseg.phantom.writers import check_cohort_arguments, check_lits_arguments

__all__ = ["DemoSize", "run_demo"]

_TEST_SHARE = 0.25
_MIN_PATIENTS = 8
_ORIGIN = "liverseg phantom: synthetic volumes, no patients"
_LICENCE = "CC0-1.0"


@dataclass(frozen=True)
class DemoSize:
    """Amount of data and training of the demo.

    Attributes:
        volumes: number of LiTS-like volumes for pre-training; a quarter is held out for testing.
        patients: number of typed patients for the joint network; a quarter is held out for testing.
        slices: number of their annotated slices.
        matrix: pixels along a row and a column of a slice.
        pretrain_epochs: epochs of pre-training; None for the number in the phantom overlay.
        joint_epochs: epochs of each of the two joint trainings; None for the number in the phantom overlay.
        seed: seed of phantoms, splits and trainings.
    """

    volumes: int = 80
    patients: int = 140
    slices: int = 332
    matrix: int = 256
    pretrain_epochs: int | None = None
    joint_epochs: int | None = None
    seed: int = 0


def run_demo(output: Path, size: DemoSize) -> None:
    """Make phantoms, pre-train, train jointly with and without transferred weights, evaluate, infer, summarise.

    An interrupted demo continues where it stopped. A finished demo is run again; its phantoms are kept if their
    settings are the same.

    Args:
        output: folder for all files, created if needed.
        size: amount of data and training.

    Raises:
        UsageError: if a number is out of range.
        LiversegError: if the folder holds phantoms of another size, or a stage fails; its output is in `logs/`.
    """
    _check_size(size)
    output = Path(output).absolute()
    finished = (output / "summary.json").exists()
    stages = StageSeconds(output, reset=finished)
    lits, cohort = output / "data" / "lits", output / "data" / "cohort"

    with stages.stage("phantoms"):
        write_lits_tree(lits, volumes=size.volumes, matrix=size.matrix, seed=size.seed)
        write_cohort(cohort, patients=size.patients, slices=size.slices, matrix=size.matrix, seed=size.seed + 1)
        for source, root in (("lits", lits), ("cohort", cohort)):
            build_datalist(
                source,
                root,
                name=f"phantom-{source}",
                test=_TEST_SHARE,
                seed=size.seed,
                origin=_ORIGIN,
                licence=_LICENCE,
            )

    if finished:  # after the phantoms, so that a demo of another size is refused before anything is deleted
        for name in ("pretrain", "joint_transfer", "joint_scratch", "predictions", "input"):
            shutil.rmtree(output / name, ignore_errors=True)
        for name in ("summary.json", "summary.md"):
            (output / name).unlink(missing_ok=True)

    weights, cache = output / "pretrain.safetensors", output / "cache"
    common = {"seed": size.seed}
    epochs = {} if size.pretrain_epochs is None else {"epochs": size.pretrain_epochs}
    folder = output / "pretrain"
    run = {"dataset_dir": lits, "output_dir": folder, "ckpt_dir": folder, "cache_dir": cache}
    with stages.stage("pretrain"):
        run_bundle(stages, "liver_lesion_pretrain", "training", ["train", "phantom"], {**run, **common, **epochs})
    with stages.stage("pretrain evaluation"):
        run_bundle(stages, "liver_lesion_pretrain", "evaluating", ["train", "phantom", "evaluate"], run)
        run_bundle(stages, "liver_lesion_pretrain", "export", ["export"], {"ckpt_dir": folder, "output_dir": output})

    epochs = {} if size.joint_epochs is None else {"epochs": size.joint_epochs}
    initial_weights = {"joint_transfer": str(weights), "joint_scratch": "null"}
    runs = {
        name: {"dataset_dir": cohort, "output_dir": output / name, "ckpt_dir": output / name, "cache_dir": cache}
        for name in initial_weights
    }
    with stages.stage("joint trainings, from exported weights and from scratch side by side"):
        run_side_by_side(
            stages,
            "liver_lesion_joint",
            "training",
            ["train", "phantom"],
            {
                name: {**runs[name], **common, **epochs, "pretrain_weights": start}
                for name, start in initial_weights.items()
            },
        )
    with stages.stage("joint evaluations"):
        run_side_by_side(stages, "liver_lesion_joint", "evaluating", ["train", "phantom", "evaluate"], runs)

    joint = output / "joint.safetensors"
    case = _typical_case(cohort, output / "joint_transfer" / "evaluation.csv", output / "input")
    with stages.stage("inference"):
        folder = output / "joint_transfer"
        run_bundle(stages, "liver_lesion_joint", "export", ["export"], {"ckpt_dir": folder, "output_dir": output})
        overrides = {"dataset_dir": case.parent, "output_dir": output / "predictions", "weights": joint}
        run_bundle(stages, "liver_lesion_joint", "inference", ["inference"], overrides)
    print(write_summary(output, stages.seconds, case))


def _check_size(size: DemoSize) -> None:
    """Check all numbers before the first stage, which takes minutes."""
    check_lits_arguments(size.volumes, size.matrix, size.seed, None)
    check_cohort_arguments(size.patients, size.slices, size.matrix, size.seed, None)
    for name, count in (("volumes", size.volumes), ("patients", size.patients)):
        if count < _MIN_PATIENTS:
            raise UsageError(f"{name} {count}: the demo needs {_MIN_PATIENTS}, for five folds and test patients")


def _typical_case(cohort: Path, evaluation: Path, folder: Path) -> Path:
    """Copy the volume of the test patient with the median class-aware Dice into a folder; return its path."""
    scores = pd.read_csv(evaluation).groupby("image")["class_aware_dice"].mean().sort_values(kind="stable")
    image = cohort / str(scores.index[len(scores) // 2])
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / image.name
    if not target.exists():
        shutil.copyfile(image, target)
    return target
