"""Fine-tuning plans: which parts of a network learn in which epochs, and how fast."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ignite.engine import Engine, Events
from torch.optim import Optimizer

from liverseg.errors import UsageError
from liverseg.networks import Freezable

__all__ = ["FineTuning", "PlanStage", "last_stage_begins", "read_plan"]

_KEYS = ("epochs", "frozen", "learning_rate_factor")


@dataclass(frozen=True)
class PlanStage:
    """Some epochs of a plan.

    Attributes:
        epochs: how many; None for all that are left.
        frozen: parts of the network that do not learn, see `Freezable.freeze`.
        learning_rate_factor: of every learning rate while the stage lasts.
    """

    epochs: int | None
    frozen: tuple[str, ...]
    learning_rate_factor: float = 1.0


def read_plan(plans: Mapping[str, Any], name: str, epochs: int) -> tuple[PlanStage, ...]:
    """A named plan from a config's `plans`.

    Args:
        plans: name to a list of stages, each a mapping with `epochs` (null in the last stage alone), `frozen` (a list)
            and, if it is not 1, `learning_rate_factor`.
        name: which of them.
        epochs: of the training.

    Raises:
        UsageError: if there is no such plan, it is not written like that, or the training ends before its last stage.
    """
    if name not in plans:
        raise UsageError(f"fine_tuning is {name!r}; it must be one of {', '.join(plans)}")
    rows = plans[name]
    where = f"plans::{name}"
    if not isinstance(rows, Sequence) or isinstance(rows, str) or not rows:
        raise UsageError(f"{where} is {rows!r}; a list of stages is needed")
    plan = tuple(_stage(f"{where}::{number}", row, number == len(rows) - 1) for number, row in enumerate(rows))
    before_last = last_stage_begins(plan) - 1
    if before_last >= epochs:
        raise UsageError(
            f"{where}: its last stage begins after epoch {before_last}, and epochs is {epochs}; shorten the stages "
            "(stage_epochs) or train longer"
        )
    return plan


def last_stage_begins(plan: Sequence[PlanStage]) -> int:
    """The first epoch, counted from 1, of a plan's last stage."""
    return 1 + sum(stage.epochs or 0 for stage in plan)


def _stage(where: str, row: Any, last: bool) -> PlanStage:
    if not isinstance(row, Mapping) or not {"epochs", "frozen"} <= {*row} <= {*_KEYS}:
        raise UsageError(f"{where} is {row!r}; a stage has epochs, frozen and at most {_KEYS[-1]}")
    epochs, frozen, factor = row["epochs"], row["frozen"], row.get("learning_rate_factor", 1.0)
    counted = isinstance(epochs, int) and not isinstance(epochs, bool) and epochs > 0
    if counted == last or (last and epochs is not None):
        raise UsageError(f"{where}::epochs is {epochs!r}; a whole number, 1 or more, and null in the last stage")
    if not isinstance(frozen, Sequence) or isinstance(frozen, str) or not all(isinstance(part, str) for part in frozen):
        raise UsageError(f"{where}::frozen is {frozen!r}; a list of the network's parts is needed")
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not factor > 0:
        raise UsageError(f"{where}::{_KEYS[-1]} is {factor!r}; a number above 0 is needed")
    return PlanStage(epochs, tuple(frozen), float(factor))


class FineTuning:
    """Freezes and thaws a network's parts as a plan says, epoch by epoch, and logs the plan in force.

    Attach it to the trainer. It depends on the epoch's number alone, so that a resumed training goes on as it was; the
    factor that is already in the optimizer's learning rates is kept in the checkpoint with them.

    Args:
        network: what is trained.
        optimizer: its optimizer; a schedule that multiplies learning rates, as torch's do, keeps the factor.
        plan: stages in order.
    """

    def __init__(self, network: Freezable, optimizer: Optimizer, plan: Sequence[PlanStage]) -> None:
        self.network = network
        self.optimizer = optimizer
        self.plan = tuple(plan)
        self.factor = 1.0
        for stage in self.plan:
            network.freeze(stage.frozen)  # a part that is not there is told before the first epoch
        network.freeze(())

    def attach(self, engine: Engine) -> None:
        """Apply the plan at the start of each epoch."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def stage(self, epoch: int) -> PlanStage:
        """The stage an epoch, counted from 1, is in."""
        for stage in self.plan:
            if stage.epochs is None or epoch <= stage.epochs:
                return stage
            epoch -= stage.epochs
        return self.plan[-1]

    def __call__(self, engine: Engine) -> None:
        """Apply the stage of the epoch that begins."""
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
        """The factor that the saved learning rates hold."""
        return {"factor": self.factor}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the factor of the learning rates that are loaded beside it."""
        self.factor = float(state["factor"])
