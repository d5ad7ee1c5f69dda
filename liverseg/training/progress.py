"""What happens at the borders of an epoch: seeding, and a line for the person who waits."""

from __future__ import annotations

import sys
from typing import Any

import torch
from ignite.engine import Engine, Events
from tqdm import tqdm

from liverseg.datasets import SlabSampler
from liverseg.utils.distributed import is_rank_zero

__all__ = [
    "EpochSeed",
    "Progress",
    "ValidationScalars",
]


class ValidationScalars:
    """Writes a validator's scores against the trainer's epoch: the `epoch_event_writer` of `TensorBoardStatsHandler`.

    Args:
        validator: engine whose scores are written, after the epochs it was run for.
    """

    def __init__(self, validator: Engine) -> None:
        self.validator = validator

    def __call__(self, engine: Engine, writer: Any) -> None:
        """Write what the validation of the trainer's epoch gave, if there was one."""
        epoch = engine.state.epoch
        if self.validator.state.epoch != epoch:  # MONAI's evaluator takes over the trainer's epoch when it is run
            return
        for name, value in self.validator.state.metrics.items():
            writer.add_scalar(name, value, epoch)


class EpochSeed:
    """Tie order, choice and every random number of an epoch to (seed, epoch).

    Args:
        sampler: the trainer's sampler.
        seed: the run's seed.
    """

    def __init__(self, sampler: SlabSampler, seed: int) -> None:
        self.sampler = sampler
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        """Seed at the start of each epoch; the engine asks its data loader for a new order after that."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed the epoch that begins."""
        self.sampler.set_epoch(engine.state.epoch)
        torch.manual_seed(self.seed * 100_003 + engine.state.epoch)


class Progress:
    """One bar over a whole training: batches done, loss, last validation, time left.

    Args:
        name: what is being trained, shown before the bar.
        validator: engine whose scores are shown.
        metrics: which of them, by name.
        enabled: False shows nothing; of several processes the first one shows it.
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
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._tell)
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
        # a smoothed loss can be read; that of a single batch of a few slabs jumps about
        output: Any = engine.state.output
        loss = float(output["loss"].detach())
        self._loss = loss if self._loss is None else 0.95 * self._loss + 0.05 * loss
        if self._bar is not None:
            self._bar.update()

    def _tell(self, engine: Engine) -> None:
        if self._bar is None:
            return
        told = [f"epoch {engine.state.epoch}/{engine.state.max_epochs}", f"loss {self._loss:.4f}"]
        if self.validator is not None:
            scores = self.validator.state.metrics
            told += [f"{name} {scores[name]:.3f}" for name in self.metrics if name in scores]
        self._bar.set_postfix_str(", ".join(told))

    def _close(self, engine: Engine) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
