"""Keep the best weights of a training, and end it when they stop getting better."""

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
    """After each validation, save the network if its score is the best so far; stop after too many that are not.

    Attach it to the trainer, behind the handler that validates. Several processes judge alike; the first one saves.

    Args:
        network: what is trained.
        path: `.pt` file for the best state_dict, auxiliary heads left out; its record goes beside it.
        record: record of the run; epoch and metrics are filled in here.
        validator: engine that validates; its metrics are judged.
        interval: epochs from one validation to the next.
        metric: name of the score, higher is better.
        patience: validations without a better score before the trainer is stopped; None for never.
        patience_from: epoch before which none counts, so that a plan of stages comes to its last one.
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
    ) -> None:
        self.network = network
        self.path = Path(path)
        self.record = record
        self.validator = validator
        self.interval = interval
        self.metric = metric
        self.patience = patience
        self.patience_from = patience_from
        self.best: float | None = None
        self.best_epoch = 0
        self.waited = 0

    def attach(self, engine: Engine) -> None:
        """Judge after every epoch that was validated, and after the last one in any case."""
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval), self)
        engine.add_event_handler(Events.COMPLETED, self.judge_last)

    def judge_last(self, engine: Engine) -> None:
        """Validate and judge the last epoch where the interval passed it over: no training ends without weights."""
        if engine.state.epoch % self.interval:
            self.validator.run(engine.state.epoch)
            self(engine)

    def __call__(self, engine: Engine) -> None:
        """Judge the validation of the trainer's epoch.

        Raises:
            KeyError: if the validator has no such score.
        """
        metrics = self.validator.state.metrics
        if self.metric not in metrics:
            raise KeyError(f"no validation score {self.metric!r}; there are {', '.join(metrics)}")
        score, epoch = float(metrics[self.metric]), engine.state.epoch
        if self.best is None or score > self.best:
            self.best, self.best_epoch, self.waited = score, epoch, 0
            scores = {name: float(value) for name, value in metrics.items()}
            if is_rank_zero():
                # MONAI's export loads strictly, into the network that inference builds
                state = without_aux_heads(self.network.state_dict())
                save_state(self.path, state, replace(self.record, epoch=epoch, metrics=scores))
            barrier()  # whoever reads the weights at the end finds these
        elif epoch >= self.patience_from:
            self.waited += 1
        self.stop_if_due(engine)

    def stop_if_due(self, engine: Engine) -> None:
        """Stop the trainer when patience has run out."""
        if self.patience is not None and self.waited >= self.patience:
            logging.getLogger(__name__).info(
                "early stop: %s has not passed %.4f (epoch %d) in %d validations",
                self.metric,
                self.best,
                self.best_epoch,
                self.waited,
            )
            engine.terminate()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs to judge as this one would have."""
        return {"best": self.best, "best_epoch": self.best_epoch, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the judgement of an interrupted training."""
        self.best, self.best_epoch, self.waited = state["best"], state["best_epoch"], state["waited"]
