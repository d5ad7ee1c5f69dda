"""What a network gives, as the scores want it."""

from __future__ import annotations

import torch

from liverseg.evaluation import BatchPrediction
from liverseg.networks import SlabOutput

__all__ = ["as_prediction"]


def as_prediction(output: torch.Tensor | SlabOutput) -> BatchPrediction:
    """A network's output in evaluation mode, whatever the strategy, as outlines and names."""
    if isinstance(output, SlabOutput):
        maps = None if output.maps is None else output.maps.detach()
        return BatchPrediction.from_logits(maps, output.types.detach())
    return BatchPrediction.from_logits(output.detach())
