"""Learning from label maps that do not tell everything apart: the probabilities that are not told apart are added."""

from __future__ import annotations

from typing import Any

import torch
from monai.losses import DiceCELoss
from torch import nn

from liverseg.labels import LESION, LIVER, LIVER_OR_LESION, UNTYPED_LESION

__all__ = ["MarginalDiceCELoss"]


class MarginalDiceCELoss(nn.Module):
    """MONAI's `DiceCELoss`, each slab in the channels that its label map tells apart.

    A slab with `LIVER_OR_LESION` is learnt from in two channels, background and the sum of all others; one with
    `UNTYPED_LESION` in three, background, liver and the sum of the lesion types. This is the marginal loss of Shi et
    al. (Medical Image Analysis 2021): it says nothing about which of the summed labels a pixel has. A slab with neither
    value is learnt from in all channels, and a batch of such slabs has the value of `DiceCELoss`.

    The loss of a mixed batch is the mean of its kinds' losses, weighted by their numbers of slabs (ours).

    Args:
        weight: one for each channel. The sum of lesion types has the mean of their weights, liver or lesion that of
            liver (ours).
        arguments: of `DiceCELoss`.
    """

    def __init__(self, weight: torch.Tensor, **arguments: Any) -> None:
        super().__init__()
        self.loss = DiceCELoss(weight=weight, **arguments)
        untyped = torch.cat([weight[:LESION], weight[LESION:].mean()[None]])
        self.untyped_loss = DiceCELoss(weight=untyped, **arguments)
        self.liver_loss = DiceCELoss(weight=weight[:LESION], **arguments)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of logits (batch, channels, H, W) against targets (batch, 1, H, W)."""
        liver = (target == LIVER_OR_LESION).flatten(1).any(dim=1)
        untyped = (target == UNTYPED_LESION).flatten(1).any(dim=1) & ~liver
        told = ~(liver | untyped)
        if told.all():
            return self.loss(logits, target)
        total = logits.new_zeros(())
        for rows, channels, loss in (
            (told, logits.shape[1], self.loss),
            (untyped, LESION + 1, self.untyped_loss),
            (liver, LIVER + 1, self.liver_loss),
        ):
            if rows.any():
                merged = _merged(logits[rows], channels)
                total = total + rows.float().mean() * loss(merged, target[rows].clamp(max=channels - 1))
        return total


def _merged(logits: torch.Tensor, channels: int) -> torch.Tensor:
    """Logits (batch, channels, H, W) whose last channel has the probability of all the channels from there on."""
    if logits.shape[1] == channels:
        return logits
    return torch.cat([logits[:, : channels - 1], logits[:, channels - 1 :].logsumexp(dim=1, keepdim=True)], dim=1)
