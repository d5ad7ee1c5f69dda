"""Losses of the networks' training outputs: stacked maps, lesion types, or both."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.losses import DeepSupervisionLoss
from torch import nn
from torch.nn import functional

from liverseg.labels import LESION, LESION_TYPES, LIVER_OR_LESION, UNTYPED_LESION, is_lesion
from liverseg.networks import SlabOutput
from liverseg.networks.lesion_regions import typed_regions

__all__ = ["SlabLoss", "StackedDeepSupervisionLoss", "map_weights", "merge_lesions", "slab_types"]

_NO_TYPE = -100
"""PyTorch's default `ignore_index`."""
_LEAST_SHARE = 0.1
"""Of a region; below it, a few pixels of a region would have the weight of a type."""


class StackedDeepSupervisionLoss(nn.Module):
    """A loss on every map of a deeply supervised output, weighted 1, 1/2, 1/4, 1/8 from the final map down.

    The paper's released training code supervises strides 8, 4, 2 and 1. Its weights are not published; the halving is
    that of MONAI's `DeepSupervisionLoss`.

    Args:
        loss: a loss of logits (batch, channels, H, W) and labels (batch, 1, H, W).
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = DeepSupervisionLoss(loss)  # type: ignore[arg-type]

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss of maps (batch, maps, channels, H, W), or of a single map (batch, channels, H, W)."""
        return self.loss(list(logits.unbind(1)) if logits.ndim == 5 else logits, labels)


class SlabLoss(nn.Module):
    """Loss of any strategy: the sum of the map's loss and the cross entropy of lesion types, as far as they exist.

    Args:
        map_loss: loss of logits (batch, [maps,] channels, H, W) and labels (batch, 1, H, W).
        type_weight: weight of the cross entropy of types that the network predicts separately from the map. The paper
            does not publish its weights.
        balanced_types: for types of pixels, whether all types in a batch have the same weight.
        pixel_type_weight: for a map with types: `map_loss` sees lesions of any type as one label, by the summed
            probability of the types, and the types of lesion pixels have a cross entropy of this weight (ours). None
            for one loss of all labels, as in the paper.
    """

    def __init__(
        self,
        map_loss: nn.Module,
        type_weight: float = 1.0,
        balanced_types: bool = False,
        pixel_type_weight: float | None = None,
    ) -> None:
        super().__init__()
        self.map_loss = map_loss
        self.type_weight = type_weight
        self.balanced_types = balanced_types
        self.pixel_type_weight = pixel_type_weight

    def forward(self, output: torch.Tensor | SlabOutput, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss of a network's output against label maps (batch, 1, H, W) of the joint table."""
        if not isinstance(output, SlabOutput):
            return self._map_loss(output, labels)
        if output.weights is not None:
            sets = zip(output.types.unbind(1), output.weights.unbind(1), strict=True)
            type_loss = torch.stack([_region_type_loss(types, weights, labels) for types, weights in sets]).sum()
        elif output.types.ndim == 4:
            type_loss = _pixel_type_loss(output, labels, self.balanced_types)
        else:
            type_loss = _slab_type_loss(output.types, labels)
        if output.maps is None:
            return type_loss
        return self._map_loss(output.maps, labels) + self.type_weight * type_loss

    def _map_loss(self, maps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        highest = maps.shape[-3] - 1
        if self.pixel_type_weight is not None and highest > LESION:
            separate = self.pixel_type_weight * _lesion_type_loss(maps.narrow(-3, LESION, len(LESION_TYPES)), labels)
            return self._map_loss(merge_lesions(maps), labels) + separate
        target = labels.clamp(max=highest)  # a map without types has one channel for all lesions
        partial = labels == LIVER_OR_LESION
        if highest > LESION:
            partial = partial | (labels == UNTYPED_LESION)
        return self.map_loss(maps, torch.where(partial, labels, target))


def merge_lesions(logits: torch.Tensor, channels: int = LESION + 1) -> torch.Tensor:
    """Return logits (..., channels, H, W) whose last channel has the summed probability of it and all after it."""
    if logits.shape[-3] == channels:
        return logits
    others, merged = logits[..., : channels - 1, :, :], logits[..., channels - 1 :, :, :]
    return torch.cat([others, merged.logsumexp(dim=-3, keepdim=True)], dim=-3)


def map_weights(
    class_weights: Sequence[float], network: nn.Module, pixel_type_weight: float | None = None
) -> torch.Tensor:
    """Return the weight of each channel of a network's map from those of the joint label table.

    The single lesion channel of a map with three channels has the weight of the first type, and so have all lesions
    together if their types have a loss of their own.

    Args:
        class_weights: weights of the joint labels.
        network: network whose `head` computes the map; without one all weights are returned, for a loss without use.
        pixel_type_weight: as for `SlabLoss`.
    """
    head = getattr(network, "head", None)
    channels = len(class_weights) if head is None else head.out_channels
    if head is not None and pixel_type_weight is not None:
        channels = min(channels, LESION + 1)
    return torch.tensor(class_weights[:channels], dtype=torch.float32)


def _slab_type_loss(types: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the cross entropy of the type of each slab with a lesion; 0 for a batch without lesions."""
    true = slab_types(labels)
    total = functional.cross_entropy(types, true, ignore_index=_NO_TYPE, reduction="sum")
    return total / (true != _NO_TYPE).sum().clamp(min=1)


def _pixel_type_loss(output: SlabOutput, labels: torch.Tensor, balanced: bool) -> torch.Tensor:
    """Return the cross entropy of the types of lesion pixels: a weighted mean over each slab, then a mean over slabs.

    The weight of a pixel is its predicted probability of lesion, since a pixel that is not outlined gets no type
    either. Slabs whose weights sum up to one pixel or less hardly count. With `balanced`, all types in a batch have the
    same weight, and a slab has a mean for each type.
    """
    assert output.maps is not None
    final = output.maps[:, 0] if output.maps.ndim == 5 else output.maps
    probability = torch.softmax(final.detach(), dim=1)[:, LESION]
    true = _pixel_types(labels)
    pixels = functional.cross_entropy(output.types, true, ignore_index=_NO_TYPE, reduction="none")
    groups = [true == index for index in range(len(LESION_TYPES))] if balanced else [true != _NO_TYPE]
    losses, present = [], []
    for group in groups:
        weight = torch.where(group, probability, 0.0)
        areas = weight.flatten(1).sum(1)
        slab_means = (pixels * weight).flatten(1).sum(1) / areas.clamp(min=1)
        count = (areas > 1).sum()
        losses.append(slab_means.sum() / count.clamp(min=1))
        present.append(count > 0)
    return torch.stack(losses).sum() / torch.stack(present).sum().clamp(min=1)


def _pixel_types(labels: torch.Tensor) -> torch.Tensor:
    """Return the true type of each pixel, (batch, H, W): index in `LESION_TYPES`, -100 for none or an unknown one."""
    typed = is_lesion(labels[:, 0]) & (labels[:, 0] != UNTYPED_LESION)
    return torch.where(typed, labels[:, 0].long() - LESION, _NO_TYPE)


def _lesion_type_loss(types: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the cross entropy of the types of lesion pixels, for every map of a deeply supervised output.

    Args:
        types: (batch, [maps,] lesion types, H, W); maps have the weights of `StackedDeepSupervisionLoss`.
        labels: (batch, 1, H, W).
    """
    weights = typed_regions(labels[:, 0]).weights()
    maps = types.unbind(1) if types.ndim == 5 else (types,)
    losses = [_region_type_loss(of_map, weights, labels) / 2**level for level, of_map in enumerate(maps)]
    return torch.stack(losses).sum()


def _region_type_loss(types: torch.Tensor, weights: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the cross entropy of lesion types, weighted by regions.

    The types that occur in the batch have the same weight. A type occurs if at least a tenth of a region is a lesion of
    it. Of a region, the pixels that are a lesion of known type count.

    Args:
        types: logits (batch, lesion types, H, W).
        weights: of pixels, which add up to 1 in each region, whatever its area, (batch, H, W).
        labels: (batch, 1, H, W).
    """
    true = _pixel_types(labels)
    pixels = functional.cross_entropy(types, true, ignore_index=_NO_TYPE, reduction="none")
    of_types = [torch.where(true == index, weights, 0.0) for index in range(len(LESION_TYPES))]
    totals = torch.stack([weight.sum() for weight in of_types])
    means = torch.stack([(pixels * weight).sum() for weight in of_types]) / totals.clamp(min=_LEAST_SHARE)
    present = totals >= _LEAST_SHARE
    return torch.where(present, means, 0.0).sum() / present.sum().clamp(min=1)


def slab_types(labels: torch.Tensor) -> torch.Tensor:
    """Return the lesion type with most pixels in each map (batch, 1, H, W): index in `LESION_TYPES`, -100 for none.

    It is computed from the label map, not read from the data list, because a crop may have lost the slice's lesion.
    """
    areas = torch.stack([(labels == LESION + index).flatten(1).sum(1) for index in range(len(LESION_TYPES))], dim=1)
    return torch.where(areas.sum(dim=1) > 0, areas.argmax(dim=1), _NO_TYPE)
