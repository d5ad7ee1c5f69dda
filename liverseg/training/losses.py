"""Deep supervision of the stacked outputs a SEResUNet gives while training."""

from __future__ import annotations

import torch
from monai.losses import DeepSupervisionLoss
from torch import nn

__all__ = ["StackedDeepSupervisionLoss"]


class StackedDeepSupervisionLoss(nn.Module):
    """A loss on every map of a deep-supervised output, weighted 1, 1/2, 1/4, 1/8 from the final map down.

    The released training code supervises strides 8, 4, 2 and 1; how it weighs them is not printed, the halving is
    MONAI's `DeepSupervisionLoss`.

    Args:
        loss: a loss of logits (batch, channels, H, W) and labels (batch, 1, H, W).
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = DeepSupervisionLoss(loss)  # type: ignore[arg-type]

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Loss of (batch, maps, channels, H, W), or of one plain map (batch, channels, H, W)."""
        return self.loss(list(logits.unbind(1)) if logits.ndim == 5 else logits, labels)
