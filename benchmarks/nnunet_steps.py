"""The steps of nnunet_peer.py that need nnU-Net v2, in its own Python environment. See nnunet_peer.py.

    NNUNET_VENV/bin/python benchmarks/nnunet_steps.py plan
    NNUNET_VENV/bin/python benchmarks/nnunet_steps.py train --minutes 3 --threads 1 --seed 0 --device cpu
    NNUNET_VENV/bin/python benchmarks/nnunet_steps.py predict --threads 1 --device cpu --output FOLDER

The variables nnUNet_raw, nnUNet_preprocessed and nnUNet_results name the folders of data set 1, as for nnU-Net's own
commands. Planner, network, loss, optimiser, augmentation and predictor are nnU-Net's defaults. `WallTimeTrainer` only
replaces the number of epochs by a wall time.
"""

import time

_STARTED = time.time()  # before the imports, which are part of a training's wall time

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import random  # noqa: E402
from collections.abc import Callable  # noqa: E402
from importlib.metadata import version  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from nnunetv2.experiment_planning.plan_and_preprocess_api import (  # noqa: E402
    extract_fingerprints,
    plan_experiments,
    preprocess,
)
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: E402
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw, nnUNet_results  # noqa: E402
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler  # noqa: E402
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # noqa: E402

DATASET = "Dataset001_Study"
_EPOCHS = 20
"""Epochs in which a training's wall time is divided: checkpoints are written and validated this often."""
_VALIDATION = 5
"""Training iterations for each iteration of validation, as nnU-Net's 250 and 50."""


class WallTimePolyLR(PolyLRScheduler):
    """nnU-Net's polynomial schedule of the learning rate over wall time instead of epochs.

    Args:
        optimizer: the optimiser.
        initial_lr: learning rate at the start.
        share: returns the share of the wall time that has passed.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, initial_lr: float, share: Callable[[], float]) -> None:
        self.share = share
        super().__init__(optimizer, initial_lr, max_steps=1)

    def step(self, current_step: float | None = None) -> None:
        """Set the learning rate for the present time; the number of the epoch is ignored."""
        super().step(min(max(self.share(), 0.0), 1.0))


class WallTimeTrainer(nnUNetTrainer):
    """nnU-Net's default trainer with a wall time instead of 1000 epochs of 250 iterations.

    The learning rate falls to zero within that time, as it would in a complete training. nnU-Net passes the
    constructor's arguments on by their names, so this class has no constructor of its own: set `seconds` before the
    training.

    Attributes:
        seconds: wall time of the training, from the start of the process.
    """

    seconds = 0.0
    _earlier = _earlier_processor = 0.0  # of this training's interrupted processes, up to their last checkpoint
    _iterations = 0

    def elapsed(self) -> float:
        """Return the training's wall time until now in seconds."""
        return self._earlier + time.time() - _STARTED

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, PolyLRScheduler]:
        """Return nnU-Net's optimiser, with the schedule over wall time."""
        optimizer, _ = super().configure_optimizers()
        return optimizer, WallTimePolyLR(optimizer, self.initial_lr, lambda: self.elapsed() / self.seconds)

    def run_training(self) -> None:
        """Train until the wall time is over; each iteration and each epoch are nnU-Net's."""
        self.save_every = 1
        self._best_ema = np.inf  # no checkpoint_best.pth: predictions use the final one by default
        self.on_train_start()
        self.logger.plot_progress_png = lambda folder: None  # takes seconds in each of these short epochs
        step_seconds = end_seconds = 0.0
        while not self._iterations or self.elapsed() + step_seconds + end_seconds < self.seconds:
            limit = min(self.elapsed() + self.seconds / _EPOCHS, self.seconds) - end_seconds
            self.on_epoch_start()
            self.on_train_epoch_start()
            losses = []
            while not losses or self.elapsed() + step_seconds < limit:
                start = time.time()
                self.lr_scheduler.step()
                losses.append(self.train_step(next(self.dataloader_train)))
                step_seconds = time.time() - start
                self._iterations += 1
            self.on_train_epoch_end(losses)
            start = time.time()
            with torch.no_grad():
                self.on_validation_epoch_start()
                count = max(1, len(losses) // _VALIDATION)
                self.on_validation_epoch_end([self.validation_step(next(self.dataloader_val)) for _ in range(count)])
            self.on_epoch_end()
            end_seconds = time.time() - start
        self.on_train_end()

    def save_checkpoint(self, filename: str) -> None:
        """Write a checkpoint atomically, with the wall time and the number of iterations beside it."""
        super().save_checkpoint(f"{filename}.part")
        state = {
            "seconds": self.elapsed(),
            # far fewer than the wall time and its threads allow: the machine had other work
            "processor_seconds": self._earlier_processor + time.process_time(),
            "iterations": self._iterations,
            "epochs": self.current_epoch + 1,
        }
        Path(f"{filename}.json").write_text(json.dumps(state))
        os.replace(f"{filename}.part", filename)

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        """Read a checkpoint and the wall time that the training has had."""
        super().load_checkpoint(filename_or_checkpoint)
        state = json.loads(Path(f"{filename_or_checkpoint}.json").read_text())
        self._earlier, self._earlier_processor = state["seconds"], state["processor_seconds"]
        self._iterations = state["iterations"]


def plan() -> None:
    """Run nnU-Net's fingerprint, planner and preprocessing for the 2-D configuration."""
    extract_fingerprints([1], num_processes=1, check_dataset_integrity=True)
    plan_experiments([1])
    preprocess([1], configurations=["2d"], num_processes=[1])


def trainer(device: str) -> WallTimeTrainer:
    """Return the trainer of the planned data set; its only split is the study's fold."""
    folder = Path(nnUNet_preprocessed) / DATASET
    plans = {**json.loads((folder / "nnUNetPlans.json").read_text()), "continue_training": False}
    dataset = json.loads((folder / "dataset.json").read_text())
    return WallTimeTrainer(
        plans=plans, configuration="2d", fold=0, dataset_json=dataset, device=torch.device(device)
    )  # fmt: skip


def train(minutes: float, seed: int, device: str) -> None:
    """Train, or continue an interrupted training, and write `training.json`."""
    training = trainer(device)
    training.seconds = minutes * 60
    folder = Path(training.output_folder)
    final, latest = folder / "checkpoint_final.pth", folder / "checkpoint_latest.pth"
    if not final.is_file():
        epochs = 0
        if latest.is_file():
            training.load_checkpoint(str(latest))
            epochs = training.current_epoch
        for set_seed in (random.seed, np.random.seed, torch.manual_seed):
            set_seed(1000 * seed + epochs)  # nnU-Net sets no seed; a continued training draws other numbers
        training.run_training()
    network = training.network or _restored(training, final).network
    facts = {
        **json.loads(Path(f"{final}.json").read_text()),
        "batch_size": training.configuration_manager.batch_size,
        "patch_size": list(training.configuration_manager.patch_size),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "versions": {name: version(name) for name in ("nnunetv2", "torch", "numpy")},
    }
    (Path(nnUNet_results) / "training.json").write_text(json.dumps(facts, indent=1) + "\n")


def predict(output: Path, device: str) -> None:
    """Predict the slices of imagesTs with nnU-Net's defaults, mirroring included, and save their probabilities."""
    training = trainer(device)
    training = _restored(training, Path(training.output_folder) / "checkpoint_final.pth")
    training.set_deep_supervision_enabled(False)
    predictor = nnUNetPredictor(device=training.device, allow_tqdm=False)
    predictor.manual_initialization(
        training.network, training.plans_manager, training.configuration_manager, [training.network.state_dict()],
        training.dataset_json, type(training).__name__, training.inference_allowed_mirroring_axes,
    )  # fmt: skip
    output.mkdir(parents=True, exist_ok=True)
    source = Path(nnUNet_raw) / DATASET / "imagesTs"
    predictor.predict_from_files_sequential(str(source), str(output), save_probabilities=True)


def _restored(training: WallTimeTrainer, checkpoint: Path) -> WallTimeTrainer:
    training.seconds = training.seconds or 1.0  # the schedule is made with the network
    training.load_checkpoint(str(checkpoint))
    return training


def main() -> None:
    """Run a step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["plan", "train", "predict"])
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.step == "plan":
        plan()
    elif args.step == "train":
        train(args.minutes, args.seed, args.device)
    else:
        predict(args.output, args.device)


if __name__ == "__main__":
    main()
