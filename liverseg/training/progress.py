"""Handlers at epoch start and end: seeding, a progress bar, and validation scores for TensorBoard."""

from __future__ import annotations

import sys
from typing import Any

import torch
from ignite.engine import Engine, Events
from tqdm import tqdm

from liverseg.datasets import SlabSampler
from liverseg.utils.distributed import is_rank_zero

__all__ = ["EpochSeed", "Progress", "ValidationScalars"]


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
