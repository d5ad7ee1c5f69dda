"""The demo's stages: the bundle commands a user would type, on phantoms made for them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from liverseg.datalists import build_datalist
from liverseg.demo.stages import Stages, run_bundle, run_side_by_side
from liverseg.demo.summary import write_summary
from liverseg.errors import UsageError
from liverseg.phantom import write_cohort, write_lits_tree
from liverseg.phantom.writers import check_cohort_arguments, check_lits_arguments

__all__ = ["DemoSize", "run_demo"]

_TEST_SHARE = 0.25
_FEWEST = 8
_ORIGIN = "liverseg phantom: synthetic volumes, no patients"
_LICENCE = "CC0-1.0"


@dataclass(frozen=True)
class DemoSize:
    """How much the demo makes and trains.

    Attributes:
        volumes: LiTS-like volumes for pre-training; a quarter is held out for testing.
        patients: typed patients for the joint network, likewise.
        slices: annotated slices of theirs.
        matrix: pixels along a row and a column of a slice.
        pretrain_epochs: epochs of pre-training; None for the phantom overlay's number.
        joint_epochs: epochs of each of the two joint trainings; None likewise.
        seed: of phantoms, splits and trainings.
    """

    volumes: int = 80
    patients: int = 140
    slices: int = 332
    matrix: int = 256
    pretrain_epochs: int | None = None
    joint_epochs: int | None = None
    seed: int = 0


def run_demo(output: Path, size: DemoSize) -> None:
    """Make phantoms, pre-train, hand over, train jointly with and without the hand-over, score, infer, summarise.

    An interrupted demo goes on where it stopped; a finished one is made anew, its phantoms kept if they are the same.

    Args:
        output: folder for everything, made if missing.
        size: how much of it.

    Raises:
        UsageError: if the size cannot be made.
        LiversegError: if the folder holds phantoms of another size, or a stage fails; its output is in `logs/`.
    """
    _check_size(size)
    output = Path(output).absolute()
    finished = (output / "summary.json").exists()
    stages = Stages(output, anew=finished)
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

    if finished:  # only now: a demo of another size has been refused and lost nothing
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
    starts = {"joint_transfer": str(weights), "joint_scratch": "null"}
    runs = {
        name: {"dataset_dir": cohort, "output_dir": output / name, "ckpt_dir": output / name, "cache_dir": cache}
        for name in starts
    }
    with stages.stage("joint trainings, from exported weights and from scratch side by side"):
        run_side_by_side(
            stages,
            "liver_lesion_joint",
            "training",
            ["train", "phantom"],
            {name: {**runs[name], **common, **epochs, "pretrain_weights": start} for name, start in starts.items()},
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
    """Everything about the size that would be found wrong only minutes later."""
    check_lits_arguments(size.volumes, size.matrix, size.seed, None)
    check_cohort_arguments(size.patients, size.slices, size.matrix, size.seed, None)
    for name, count in (("volumes", size.volumes), ("patients", size.patients)):
        if count < _FEWEST:
            raise UsageError(f"{name} {count}: the demo needs {_FEWEST}, for five folds and test patients")


def _typical_case(cohort: Path, evaluation: Path, folder: Path) -> Path:
    """A folder with one test patient's volume in it: the one whose class-aware Dice is the median, so a typical one."""
    scores = pd.read_csv(evaluation).groupby("image")["class_aware_dice"].mean().sort_values(kind="stable")
    image = cohort / str(scores.index[len(scores) // 2])
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / image.name
    if not target.exists():
        shutil.copyfile(image, target)
    return target
