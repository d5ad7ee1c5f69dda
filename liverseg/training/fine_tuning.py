"""Fine-tuning plans: which parts of a network are trained in which epochs, and at which learning rates."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ignite.engine import Engine, Events
from torch.optim import Optimizer

from liverseg.errors import UsageError
from liverseg.networks import Freezable

__all__ = ["FineTuning", "PlanStage", "first_epoch_of_last_stage", "read_plan"]

_KEYS = ("epochs", "frozen", "learning_rate_factor")


@dataclass(frozen=True)
class PlanStage:
    """A stage of a plan.

    Attributes:
        epochs: number of epochs; None for all remaining ones.
        frozen: frozen parts of the network, see `Freezable.freeze`.
        learning_rate_factor: factor of all learning rates during the stage.
    """

    epochs: int | None
    frozen: tuple[str, ...]
    learning_rate_factor: float = 1.0


def read_plan(plans: Mapping[str, Any], name: str, epochs: int) -> tuple[PlanStage, ...]:
    """Return a named plan of a config's `plans`.

    Args:
        plans: list of stages by name. A stage is a mapping with `epochs` (null in the last stage only), `frozen` (a
            list) and optionally `learning_rate_factor`.
        name: name of the plan.
        epochs: epochs of the training.

    Raises:
        UsageError: if there is no such plan, its stages are invalid, or the training ends before its last stage.
    """
    if name not in plans:
        raise UsageError(f"fine_tuning is {name!r}; it must be one of {', '.join(plans)}")
    rows = plans[name]
    key = f"plans::{name}"
    if not isinstance(rows, Sequence) or isinstance(rows, str) or not rows:
        raise UsageError(f"{key} is {rows!r}; a list of stages is needed")
    plan = tuple(_read_stage(f"{key}::{number}", row, number == len(rows) - 1) for number, row in enumerate(rows))
    before_last = first_epoch_of_last_stage(plan) - 1
    if before_last >= epochs:
        raise UsageError(
            f"{key}: its last stage starts after epoch {before_last}, and epochs is {epochs}; shorten the stages "
            "(stage_epochs) or train longer"
        )
    return plan


def first_epoch_of_last_stage(plan: Sequence[PlanStage]) -> int:
    """Return the first epoch, counted from 1, of a plan's last stage."""
    return 1 + sum(stage.epochs or 0 for stage in plan)


def _read_stage(key: str, row: Any, is_last: bool) -> PlanStage:
    if not isinstance(row, Mapping) or not {"epochs", "frozen"} <= {*row} <= {*_KEYS}:
        raise UsageError(f"{key} is {row!r}; a stage has the keys epochs, frozen and optionally {_KEYS[-1]}")
    epochs, frozen, factor = row["epochs"], row["frozen"], row.get("learning_rate_factor", 1.0)
    is_count = isinstance(epochs, int) and not isinstance(epochs, bool) and epochs > 0
    if is_count == is_last or (is_last and epochs is not None):
        raise UsageError(f"{key}::epochs is {epochs!r}; an integer, 1 or more, is needed, and null in the last stage")
    if not isinstance(frozen, Sequence) or isinstance(frozen, str) or not all(isinstance(part, str) for part in frozen):
        raise UsageError(f"{key}::frozen is {frozen!r}; a list of the network's parts is needed")
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not factor > 0:
        raise UsageError(f"{key}::{_KEYS[-1]} is {factor!r}; a number above 0 is needed")
    return PlanStage(epochs, tuple(frozen), float(factor))


class FineTuning:
    """Handler that freezes and unfreezes a network's parts according to a plan, and logs each epoch's stage.

    Attach it to the trainer. The stage depends only on the epoch's number, so a resumed training continues unchanged;
    the checkpoint has the factor that is already in the optimizer's learning rates.

    Args:
        network: the trained network.
        optimizer: its optimizer; schedules that multiply learning rates, as torch's do, keep the factor.
        plan: stages in order.
    """

    def __init__(self, network: Freezable, optimizer: Optimizer, plan: Sequence[PlanStage]) -> None:
        self.network = network
        self.optimizer = optimizer
        self.plan = tuple(plan)
        self.factor = 1.0
        for stage in self.plan:
            network.freeze(stage.frozen)  # raises for an unknown part, before the first epoch
        network.freeze(())

    def attach(self, engine: Engine) -> None:
        """Apply the plan at each epoch's start."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def stage(self, epoch: int) -> PlanStage:
        """Return the stage of an epoch, counted from 1."""
        for stage in self.plan:
            if stage.epochs is None or epoch <= stage.epochs:
                return stage
            epoch -= stage.epochs
        return self.plan[-1]

    def __call__(self, engine: Engine) -> None:
        """Apply the stage of the starting epoch."""
        stage = self.stage(engine.state.epoch)
        self.network.freeze(stage.frozen)
        for group in self.optimizer.param_groups:
            group["lr"] *= stage.learning_rate_factor / self.factor
        self.factor = stage.learning_rate_factor
        if len(self.plan) > 1 or stage.frozen:
            rates = ", ".join(f"{group['lr']:.3g}" for group in self.optimizer.param_groups)
            frozen = ", ".join(stage.frozen) or "nothing"
            logging.getLogger(__name__).info(
                "epoch %d: frozen %s; learning rates %s", engine.state.epoch, frozen, rates
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the factor of the saved learning rates."""
        return {"factor": self.factor}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the factor of the loaded learning rates."""
        self.factor = float(state["factor"])
