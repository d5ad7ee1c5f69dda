"""Save the best weights of a training, and stop it early when they no longer improve."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.engines import Evaluator

from liverseg.networks import WeightsRecord, save_state, without_aux_heads
from liverseg.utils.distributed import barrier, is_rank_zero

__all__ = ["BestWeights"]


class BestWeights:
    """Handler that saves the network after each validation with the best score so far, and stops early.

    Attach it to the trainer after the handler that validates. In distributed training all processes decide alike, and
    the first one saves.

    Args:
        network: the trained network.
        path: `.pt` file for the best state_dict, without auxiliary heads; its record is written beside it.
        record: record of the run; epoch and metrics are filled in here.
        validator: engine that validates; provides the metrics.
        interval: epochs from one validation to the next.
        metric: name of the score, higher is better.
        patience: validations without a better score before the trainer is stopped, counted from `best_from`; None to
            never stop.
        patience_from: first epoch whose validation counts for it, so that a plan of stages reaches its last one.
        best_from: first epoch whose weights are compared; the last epoch, if it is earlier. Weights from before are
            kept only until then, since on few validation patients an early epoch, whose learning rate is high, often
            has the best score by chance.
    """

    def __init__(
        self,
        network: Any,
        path: str | Path,
        record: WeightsRecord,
        validator: Evaluator,
        interval: int = 1,
        metric: str = "val_lesion_dice",
        patience: int | None = None,
        patience_from: int = 1,
        best_from: int = 1,
    ) -> None:
        self.network = network
        self.path = Path(path)
        self.record = record
        self.validator = validator
        self.interval = interval
        self.metric = metric
        self.patience = patience
        self.patience_from = patience_from
        self.best_from = best_from
        self.best: float | None = None
        self.best_epoch = 0
        self.validations_without_improvement = 0
        self.validated_epoch = 0

    def attach(self, engine: Engine) -> None:
        """Update after every validated epoch and after the last one."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.end_epoch)
        engine.add_event_handler(Events.COMPLETED, self.validate_last)

    def end_epoch(self, engine: Engine) -> None:
        """Update if the epoch was validated, and validate the last one, before the epoch's checkpoint is saved."""
        if engine.state.epoch % self.interval == 0:
            self.update(engine)
        elif engine.state.epoch == engine.state.max_epochs:
            self.validate_last(engine)

    def validate_last(self, engine: Engine) -> None:
        """Validate the last epoch if the interval skipped it, so that every training ends with weights."""
        if engine.state.epoch % self.interval and self.validated_epoch != engine.state.epoch:
            self.validator.run(engine.state.epoch)
            self.update(engine)

    def update(self, engine: Engine) -> None:
        """Compare the last validation with the best one; save the weights if it is better.

        Raises:
            KeyError: if the validator has no such score.
        """
        metrics = self.validator.state.metrics
        if self.metric not in metrics:
            raise KeyError(f"no validation score {self.metric!r}; there are {', '.join(metrics)}")
        score, epoch = float(metrics[self.metric]), engine.state.epoch
        self.validated_epoch = epoch
        best_from = min(self.best_from, engine.state.max_epochs or self.best_from)
        if self.best is None or score > self.best or self.best_epoch < best_from <= epoch:
            self.best, self.best_epoch, self.validations_without_improvement = score, epoch, 0
            scores = {name: float(value) for name, value in metrics.items()}
            if is_rank_zero():
                # MONAI's export loads strictly into the network for inference, which has no auxiliary heads
                state = without_aux_heads(self.network.state_dict())
                save_state(self.path, state, replace(self.record, epoch=epoch, metrics=scores))
            barrier()  # the other processes read the weights only after they are written
        elif epoch >= max(self.patience_from, best_from):
            self.validations_without_improvement += 1
        self.stop_if_due(engine)

    def stop_if_due(self, engine: Engine) -> None:
        """Stop the trainer if patience has run out."""
        if self.patience is not None and self.validations_without_improvement >= self.patience:
            logging.getLogger(__name__).info(
                "early stop: %s has not passed %.4f (epoch %d) in %d validations",
                self.metric,
                self.best,
                self.best_epoch,
                self.validations_without_improvement,
            )
            engine.terminate()

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed training continues from."""
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "waited": self.validations_without_improvement,
            "validated": self.validated_epoch,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of an interrupted training."""
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.validations_without_improvement = state["waited"]
        self.validated_epoch = state.get("validated", 0)  # earlier versions did not save it
