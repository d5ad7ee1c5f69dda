"""Handlers at epoch start and end: seeding, a progress bar, a warning, and validation scores for TensorBoard."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from tqdm import tqdm

from liverseg.datasets import SlabSampler
from liverseg.networks import read_record
from liverseg.utils.distributed import is_rank_zero

__all__ = ["EpochSeed", "NoLesionWarning", "Progress", "ValidationScalars"]

_NO_LESION_REMEDY = (
    "try a lower learning_rate or head_factor, a higher weight of lesions in class_weights, more epochs, weights to "
    "start from or, in the joint bundle, sum_types True"
)


class EpochSeed:
    """Handler that makes all random numbers of an epoch depend on (seed, epoch) alone, see `liverseg.datasets.slabs`.

    Args:
        sampler: the trainer's sampler.
        seed: the run's seed.
    """

    def __init__(self, sampler: SlabSampler, seed: int) -> None:
        self.sampler = sampler
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        """Seed at the start of each epoch; the engine then iterates its data loader anew."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed the starting epoch."""
        self.sampler.set_epoch(engine.state.epoch)
        torch.manual_seed(self.seed * 100_003 + engine.state.epoch)


class NoLesionWarning:
    """Handler that warns of a network that outlines no lesion: while it is trained, and once more at the end.

    Attach it to the trainer after `BestWeights`, which validates the last epoch. There is nothing to warn of if the
    network has no map, or if the validation data have no outlined lesion. In distributed training the first process
    warns.

    Args:
        validator: engine whose scores are read.
        path: file of the best weights; at the end, the scores in their record decide.
        validations: number of validations in a row without a predicted lesion after which it warns, once until a
            lesion is predicted again. A resumed training starts to count again.
    """

    def __init__(self, validator: Engine, path: str | Path, validations: int = 3) -> None:
        self.validator = validator
        self.path = Path(path)
        self.validations = validations
        self._empty = 0
        self._validated_epoch = 0

    def attach(self, engine: Engine) -> None:
        """Look at the scores of every validated epoch, and at those of the best weights at the end."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.end_epoch)
        engine.add_event_handler(Events.COMPLETED, self.end_training)

    def end_epoch(self, engine: Engine) -> None:
        """Warn if the last validations had no predicted lesion."""
        validated = self.validator.state.epoch  # MONAI's evaluator copies the trainer's epoch when it runs
        if validated != engine.state.epoch or validated == self._validated_epoch:
            return
        self._validated_epoch = validated
        self._empty = self._empty + 1 if _has_no_prediction(self.validator.state.metrics) else 0
        if self._empty == self.validations and engine.state.epoch != engine.state.max_epochs and is_rank_zero():
            logging.getLogger(__name__).warning(
                "warning: after epoch %d of %s, the network has outlined no lesion on the validation data %d times in "
                "a row; if it stays so, %s",
                *(engine.state.epoch, engine.state.max_epochs, self._empty, _NO_LESION_REMEDY),
            )

    def end_training(self, engine: Engine) -> None:
        """Warn if the best weights outline no lesion."""
        record = read_record(self.path) if is_rank_zero() and self.path.exists() else None
        if record is not None and _has_no_prediction(record.metrics):
            logging.getLogger(__name__).warning(
                "warning: the training has ended after epoch %d, and its best weights (epoch %d, %s) outline no lesion "
                "on the validation data; %s",
                *(engine.state.epoch, record.epoch, self.path, _NO_LESION_REMEDY),
            )


def _has_no_prediction(scores: Mapping[str, float]) -> bool:
    return scores.get("val_prediction_rate") == 0 and "val_success_rate" in scores


class Progress:
    """One progress bar for the training: batches done, loss, scores of the last validation, and time left.

    Args:
        name: description before the bar.
        validator: engine whose scores are shown.
        metrics: names of the shown scores.
        enabled: False shows nothing. In distributed training only the first process shows the bar.
    """

    def __init__(
        self, name: str, validator: Engine | None = None, metrics: tuple[str, ...] = (), enabled: bool = True
    ) -> None:
        self.name = name
        self.enabled = enabled
        self.validator = validator
        self.metrics = tuple(metrics)
        self._bar: tqdm | None = None
        self._loss: float | None = None

    def attach(self, engine: Engine) -> None:
        """Show the bar from the trainer's start to its end."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._advance)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._show_scores)
        engine.add_event_handler(Events.COMPLETED | Events.TERMINATE, self._close)

    def _open(self, engine: Engine) -> None:
        if self._bar is None:
            state = engine.state
            total = (state.max_epochs or 0) * (state.epoch_length or 0)
            self._bar = tqdm(
                total=total,
                initial=state.iteration,
                desc=self.name,
                unit="batch",
                file=sys.stderr,
                disable=not (self.enabled and is_rank_zero()),
            )

    def _advance(self, engine: Engine) -> None:
        # smoothed, since the loss of a single small batch fluctuates too much to be read
        output: Any = engine.state.output
        loss = float(output["loss"].detach())
        self._loss = loss if self._loss is None else 0.95 * self._loss + 0.05 * loss
        if self._bar is not None:
            self._bar.update()

    def _show_scores(self, engine: Engine) -> None:
        if self._bar is None:
            return
        values = [f"epoch {engine.state.epoch}/{engine.state.max_epochs}", f"loss {self._loss:.4f}"]
        if self.validator is not None:
            scores = self.validator.state.metrics
            values += [f"{name} {scores[name]:.3f}" for name in self.metrics if name in scores]
        self._bar.set_postfix_str(", ".join(values))

    def _close(self, engine: Engine) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class ValidationScalars:
    """Write a validator's scores at the trainer's epoch, as `epoch_event_writer` of `TensorBoardStatsHandler`.

    Args:
        validator: engine whose scores are written.
    """

    def __init__(self, validator: Engine) -> None:
        self.validator = validator

    def __call__(self, engine: Engine, writer: Any) -> None:
        """Write the scores of the trainer's epoch if it was validated."""
        epoch = engine.state.epoch
        if self.validator.state.epoch != epoch:  # MONAI's evaluator copies the trainer's epoch when it runs
            return
        for name, value in self.validator.state.metrics.items():
            writer.add_scalar(name, value, epoch)
