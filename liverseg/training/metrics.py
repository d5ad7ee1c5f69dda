"""Scores by volume or slice as an ignite metric."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine
from ignite.metrics import Metric
from monai.utils import CommonKeys

from liverseg.errors import UsageError
from liverseg.evaluation import SCORES, BatchPrediction, UnitScores
from liverseg.networks import SlabOutput
from liverseg.utils.distributed import all_gather
from liverseg.utils.files import write_text

__all__ = [
    "SlabScores",
    "as_prediction",
]


def as_prediction(output: torch.Tensor | SlabOutput) -> BatchPrediction:
    """A network's output in evaluation mode, whatever the strategy, as outlines and names."""
    if isinstance(output, SlabOutput):
        maps = None if output.maps is None else output.maps.detach()
        return BatchPrediction.from_logits(maps, output.types.detach())
    return BatchPrediction.from_logits(output.detach())


class SlabScores(Metric):
    """Counts every batch an evaluator sees and, at the end of its epoch, puts all scores into its metrics.

    Of several processes each counts its own batches, and all end with the scores of all.

    The batch needs `unit` and `lesion_type`, as `SlabDataset` gives them, and the engine must not decollate. Which
    scores there are depends on what the network says, see `UnitScores`.

    Args:
        key: the score that becomes the metric itself, e.g. `lesion_dice`; the others are stored beside it, each under
            its name with `prefix`.
        prefix: begins the names of all scores.

    Raises:
        UsageError: if there is no such score.
    """

    def __init__(self, key: str = "lesion_dice", prefix: str = "val_") -> None:
        if key not in SCORES:
            raise UsageError(f"key_score is {key!r}; it must be one of {', '.join(SCORES)}")
        self.key = key
        self.prefix = prefix
        super().__init__()

    def reset(self) -> None:
        """Forget what was counted."""
        self.counted = UnitScores()

    def update(self, output: Mapping[str, Any]) -> None:
        """Count one batch: `pred` of the network, `label`, `unit`, `lesion_type`."""
        self.counted.add(
            as_prediction(output[CommonKeys.PRED]),
            torch.as_tensor(output[CommonKeys.LABEL]),
            torch.as_tensor(output["unit"]).tolist(),
            torch.as_tensor(output["lesion_type"]).tolist(),
        )

    @torch.no_grad()
    def iteration_completed(self, engine: Engine) -> None:
        """Take predictions from the engine's output and units from its batch."""
        output: Any = engine.state.output
        batch: Any = engine.state.batch
        self.update({**output, "unit": batch["unit"], "lesion_type": batch["lesion_type"]})

    def compute(self) -> float:
        """The key score.

        Raises:
            UsageError: if the network does not say what it would take, naming the scores there are.
        """
        scores = self.counted.scores()
        if self.key not in scores:
            raise UsageError(f"key_score is {self.key!r}, which cannot be had here; there are {', '.join(scores)}")
        return scores[self.key]

    def completed(self, engine: Engine, name: str) -> None:
        """Store the key score under `name` and every score under its own name."""
        parts, self.counted = all_gather(self.counted), UnitScores()
        for part in parts:
            self.counted.merge(part)
        engine.state.metrics[name] = self.compute()
        for score, value in self.counted.scores().items():
            engine.state.metrics[f"{self.prefix}{score}"] = value

    def write_table(self, path: str | Path, units: list[dict[str, Any]]) -> None:
        """Write one row a unit as CSV, `units` telling by number what each is."""
        rows = self.counted.table().reset_index()
        for column in units[0] if units else ():
            rows.insert(1, column, [units[unit][column] for unit in rows["unit"]])
        write_text(path, rows.drop(columns="unit").to_csv(index=False, float_format="%.6g"))
