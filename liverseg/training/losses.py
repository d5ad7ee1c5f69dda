"""Losses of what the networks give while training: stacked maps, type vectors, or both."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.losses import DeepSupervisionLoss
from torch import nn
from torch.nn import functional

from liverseg.labels import LESION, LESION_TYPES, LIVER_OR_LESION, UNTYPED_LESION, is_lesion
from liverseg.networks import SlabOutput

__all__ = ["SlabLoss", "StackedDeepSupervisionLoss", "map_weights", "types_of_slabs"]


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


class SlabLoss(nn.Module):
    """The loss of any strategy: of the map where there is one, plus that of the type vector where there is one.

    Args:
        map_loss: of logits (batch, [maps,] channels, H, W) and labels (batch, 1, H, W).
        type_weight: of the cross entropy of the type vector beside the map's loss. The paper does not print
            its weights.
        balanced_types: where types are told pixel by pixel, whether each type of a batch weighs the same.
    """

    def __init__(self, map_loss: nn.Module, type_weight: float = 1.0, balanced_types: bool = False) -> None:
        super().__init__()
        self.map_loss = map_loss
        self.type_weight = type_weight
        self.balanced_types = balanced_types

    def forward(self, output: torch.Tensor | SlabOutput, labels: torch.Tensor) -> torch.Tensor:
        """Loss of a network's output against label maps (batch, 1, H, W) of the joint table."""
        if not isinstance(output, SlabOutput):
            return self._of_maps(output, labels)
        if output.types.ndim == 4:
            of_types = _of_pixels(output, labels, self.balanced_types)
        else:
            of_types = _of_slabs(output.types, labels)
        if output.maps is None:
            return of_types
        return self._of_maps(output.maps, labels) + self.type_weight * of_types

    def _of_maps(self, maps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        highest = maps.shape[-3] - 1
        told = labels.clamp(max=highest)  # a map without types has one channel for all lesions
        partial = labels == LIVER_OR_LESION
        if highest > LESION:
            partial = partial | (labels == UNTYPED_LESION)
        return self.map_loss(maps, torch.where(partial, labels, told))


_NO_TYPE = -100


def map_weights(class_weights: Sequence[float], network: nn.Module) -> torch.Tensor:
    """One weight for each channel of a network's map, from those of the joint label table.

    A map of three channels has one lesion, which weighs as the first type does.

    Args:
        class_weights: one for each of the joint labels.
        network: its `head` makes the map; without one all weights are given, for a loss that is never asked.
    """
    head = getattr(network, "head", None)
    channels = len(class_weights) if head is None else head.out_channels
    return torch.tensor(class_weights[:channels], dtype=torch.float32)


def _of_slabs(types: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy of one type a slab; a batch without a lesion has none to learn and gives 0."""
    true = types_of_slabs(labels)
    named = functional.cross_entropy(types, true, ignore_index=_NO_TYPE, reduction="sum")
    return named / (true != _NO_TYPE).sum().clamp(min=1)


def _of_pixels(output: SlabOutput, labels: torch.Tensor, balanced: bool) -> torch.Tensor:
    """Cross entropy of the types of the lesion's pixels that are found: a mean over each slab's, then over slabs.

    A pixel weighs as much as the map holds it for lesion: what is not outlined will not be named either. Slabs where
    next to nothing is found count for as little. Balanced, each type that a batch shows weighs the same, however much
    of it is found; a slab then has a mean for each type.
    """
    assert output.maps is not None
    final = output.maps[:, 0] if output.maps.ndim == 5 else output.maps
    found = torch.softmax(final.detach(), dim=1)[:, LESION]
    typed = is_lesion(labels[:, 0]) & (labels[:, 0] != UNTYPED_LESION)
    true = torch.where(typed, labels[:, 0].long() - LESION, _NO_TYPE)
    pixels = functional.cross_entropy(output.types, true, ignore_index=_NO_TYPE, reduction="none")
    groups = [true == index for index in range(len(LESION_TYPES))] if balanced else [true != _NO_TYPE]
    losses, present = [], []
    for group in groups:
        weight = torch.where(group, found, 0.0)
        areas = weight.flatten(1).sum(1)
        of_slabs = (pixels * weight).flatten(1).sum(1) / areas.clamp(min=1)
        seen = (areas > 1).sum()
        losses.append(of_slabs.sum() / seen.clamp(min=1))
        present.append(seen > 0)
    return torch.stack(losses).sum() / torch.stack(present).sum().clamp(min=1)


def types_of_slabs(labels: torch.Tensor) -> torch.Tensor:
    """The lesion type that has most pixels in each map (batch, 1, H, W): index in `LESION_TYPES`, -100 without lesion.

    Read off the map that is seen, not off the data list: a crop may have lost the lesion its slice is listed for.
    """
    areas = torch.stack([(labels == LESION + index).flatten(1).sum(1) for index in range(len(LESION_TYPES))], dim=1)
    return torch.where(areas.sum(dim=1) > 0, areas.argmax(dim=1), _NO_TYPE)
