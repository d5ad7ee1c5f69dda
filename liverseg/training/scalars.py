"""Validation scores in TensorBoard."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine

__all__ = ["ValidationScalars"]


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
