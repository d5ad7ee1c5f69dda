"""Scores of volumes and slices as an ignite metric."""

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

__all__ = ["SlabScores", "as_prediction"]


def as_prediction(output: torch.Tensor | SlabOutput) -> BatchPrediction:
    """Convert the output of any network in evaluation mode to outlines and lesion types."""
    if isinstance(output, SlabOutput):
        maps = None if output.maps is None else output.maps.detach()
        return BatchPrediction.from_logits(maps, output.types.detach())
    return BatchPrediction.from_logits(output.detach())


class SlabScores(Metric):
    """Count the batches of an evaluator and store all scores in its metrics at the end of the epoch.

    In distributed training each process counts its own batches, and all get the scores of all batches.

    The batch needs `unit` and `lesion_type` of `SlabDataset`, and the engine must not decollate. The available scores
    depend on the network's output, see `UnitScores`.

    Args:
        key: score that is the value of the metric, such as `lesion_dice`; all scores are also stored under their names
            with `prefix`.
        prefix: prefix of the names of all scores.

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
        """Clear all counts."""
        self.counted = UnitScores()

    def update(self, output: Mapping[str, Any]) -> None:
        """Count a batch: the network's `pred`, `label`, `unit` and `lesion_type`."""
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
        """Return the key score.

        Raises:
            UsageError: if the score is not available for the network; names the available ones.
        """
        scores = self.counted.scores()
        if self.key not in scores:
            raise UsageError(f"key_score is {self.key!r}, which this network does not have; it has {', '.join(scores)}")
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
        """Write a CSV table with one row per unit, described by the columns that `units` has at the unit's number."""
        rows = self.counted.table().reset_index()
        for column in units[0] if units else ():
            rows.insert(1, column, [units[unit][column] for unit in rows["unit"]])
        write_text(path, rows.drop(columns="unit").to_csv(index=False, float_format="%.6g"))
