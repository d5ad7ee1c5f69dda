"""Marginal loss for partial label maps: probabilities of labels that a map does not distinguish are added."""

from __future__ import annotations

from typing import Any

import torch
from monai.losses import DiceCELoss, DiceLoss
from torch import nn

from liverseg.labels import LESION, LIVER, LIVER_OR_LESION, UNTYPED_LESION
from liverseg.training.losses import merge_lesions

__all__ = ["MarginalDiceCELoss"]


class MarginalDiceCELoss(nn.Module):
    """MONAI's `DiceCELoss`, extended to partial targets by adding the probabilities of undistinguished labels.

    The cross entropy of a pixel with `LIVER_OR_LESION` is that of the summed probabilities of liver and all lesions,
    with `UNTYPED_LESION` that of all lesion types. This is the marginal loss of Shi et al. (Medical Image Analysis
    2021), which prefers none of these labels. Every pixel keeps the weight of its label in the mean over the batch.

    Dice is computed separately for slabs without partial target, with untyped lesions and with liver or lesion, each in
    the channels that the target distinguishes, and averaged over slabs (ours). A batch without a partial target has the
    value of `DiceCELoss`.

    Args:
        weight: weights of the channels. Summed lesion types have the mean of their weights, liver or lesion the liver's
            weight (ours).
        lambda_dice: weight of Dice.
        lambda_ce: weight of the cross entropy.
        arguments: keyword arguments for `DiceLoss`.
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
        self.liver_dice = DiceLoss(**arguments)  # MONAI ignores the weight of a single foreground channel
        self.register_buffer("weight", weight)
        self.register_buffer("untyped_weight", untyped[LESION])

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss of logits (batch, channels, H, W) against targets (batch, 1, H, W)."""
        if not ((target == LIVER_OR_LESION) | (target == UNTYPED_LESION)).any():
            return self.full(logits, target)
        loss = self.lambda_ce * self._cross_entropy(logits, target[:, 0].long())
        return loss + self.lambda_dice * self._dice(logits, target) if self.lambda_dice else loss

    def _cross_entropy(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        log_probabilities = torch.log_softmax(logits.float(), dim=1)
        liver, untyped = target == LIVER_OR_LESION, target == UNTYPED_LESION
        channel = torch.where(liver | untyped, LIVER, target)
        of_pixels = log_probabilities.gather(1, channel[:, None])[:, 0]
        of_pixels = torch.where(liver, log_probabilities[:, LIVER:].logsumexp(dim=1), of_pixels)
        of_pixels = torch.where(untyped, log_probabilities[:, LESION:].logsumexp(dim=1), of_pixels)
        weights = torch.where(untyped, self.untyped_weight, self.weight[channel])
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
                merged = merge_lesions(logits[rows], channels)
                total = total + rows.float().mean() * factor * loss(merged, target[rows].clamp(max=channels - 1))
        return total
