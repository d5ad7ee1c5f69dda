"""Learning from label maps that do not tell everything apart: the probabilities that are not told apart are added."""

from __future__ import annotations

from typing import Any

import torch
from monai.losses import DiceCELoss, DiceLoss
from torch import nn

from liverseg.labels import LESION, LIVER, LIVER_OR_LESION, UNTYPED_LESION

__all__ = ["MarginalDiceCELoss"]


class MarginalDiceCELoss(nn.Module):
    """MONAI's `DiceCELoss`, and where a target is partial that of the probabilities it does not tell apart.

    A pixel with `LIVER_OR_LESION` has the cross entropy of the sum of the probabilities of liver and all lesions, one
    with `UNTYPED_LESION` that of all lesion types: the marginal loss of Shi et al. (Medical Image Analysis 2021), which
    says nothing about which of them it is. Every pixel keeps the weight of its label in the mean over the batch.

    Dice is taken over slabs of one kind at a time, each in the channels that it tells apart, and averaged over slabs
    (ours). A batch without a partial target has the value of `DiceCELoss`.

    Args:
        weight: one for each channel. The sum of lesion types has the mean of their weights, that of liver and lesions
            the liver's (ours).
        lambda_dice: weight of Dice.
        lambda_ce: weight of the cross entropy.
        arguments: of `DiceLoss`.
    """

    weight: torch.Tensor
    untyped_weight: torch.Tensor

    def __init__(
        self, weight: torch.Tensor, lambda_dice: float = 1.0, lambda_ce: float = 1.0, **arguments: Any
    ) -> None:
        super().__init__()
        self.lambda_dice, self.lambda_ce = lambda_dice, lambda_ce
        self.full = DiceCELoss(weight=weight, lambda_dice=lambda_dice, lambda_ce=lambda_ce, **arguments)
        untyped = torch.cat([weight[:LESION], weight[LESION:].mean()[None]])
        self.dice = DiceLoss(weight=weight[1:], **arguments)
        self.untyped_dice = DiceLoss(weight=untyped[1:], **arguments)
        self.liver_dice = DiceLoss(**arguments)  # of one foreground channel MONAI ignores the weight
        self.register_buffer("weight", weight)
        self.register_buffer("untyped_weight", untyped[LESION])

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of logits (batch, channels, H, W) against targets (batch, 1, H, W)."""
        if not ((target == LIVER_OR_LESION) | (target == UNTYPED_LESION)).any():
            return self.full(logits, target)
        loss = self.lambda_ce * self._cross_entropy(logits, target[:, 0].long())
        return loss + self.lambda_dice * self._dice(logits, target) if self.lambda_dice else loss

    def _cross_entropy(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        likely = torch.log_softmax(logits.float(), dim=1)
        liver, untyped = target == LIVER_OR_LESION, target == UNTYPED_LESION
        told = torch.where(liver | untyped, LIVER, target)
        of_pixels = likely.gather(1, told[:, None])[:, 0]
        of_pixels = torch.where(liver, likely[:, LIVER:].logsumexp(dim=1), of_pixels)
        of_pixels = torch.where(untyped, likely[:, LESION:].logsumexp(dim=1), of_pixels)
        weights = torch.where(untyped, self.untyped_weight, self.weight[told])
        return -(weights * of_pixels).sum() / weights.sum()

    def _dice(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        liver = (target == LIVER_OR_LESION).flatten(1).any(dim=1)
        untyped = (target == UNTYPED_LESION).flatten(1).any(dim=1) & ~liver
        total = logits.new_zeros(())
        for rows, channels, loss, factor in (
            (~(liver | untyped), logits.shape[1], self.dice, 1.0),
            (untyped, LESION + 1, self.untyped_dice, 1.0),
            (liver, LIVER + 1, self.liver_dice, self.weight[LIVER]),
        ):
            if rows.any():
                merged = _merged(logits[rows], channels)
                total = total + rows.float().mean() * factor * loss(merged, target[rows].clamp(max=channels - 1))
        return total


def _merged(logits: torch.Tensor, channels: int) -> torch.Tensor:
    """Logits (batch, channels, H, W) whose last channel has the probability of all the channels from there on."""
    if logits.shape[1] == channels:
        return logits
    return torch.cat([logits[:, : channels - 1], logits[:, channels - 1 :].logsumexp(dim=1, keepdim=True)], dim=1)
