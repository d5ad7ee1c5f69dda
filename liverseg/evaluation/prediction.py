"""Predictions of a batch of slabs in one form for all networks, for scoring."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from liverseg.labels import JOINT_LABELS, LESION
from liverseg.utils.tensors import channel_argmax

__all__ = ["BatchPrediction"]


@dataclass(frozen=True)
class BatchPrediction:
    """Outlines and lesion types of a batch of slabs.

    Attributes:
        labels: label map (batch, H, W); lesions without type have the value `LESION`. None without a map.
        type_weights: vote of each pixel for each lesion type, (batch, lesion types, H, W), used for predicted lesion
            pixels only. None without a map, or if the map has no types.
        slab_types: probability of each type for the slab, (batch, lesion types); None if the types are those of the
            map.
        lesion_probabilities: probability of lesion of any type for each pixel, (batch, H, W); None without a map.
    """

    labels: torch.Tensor | None
    type_weights: torch.Tensor | None
    slab_types: torch.Tensor | None
    lesion_probabilities: torch.Tensor | None = None

    @classmethod
    def from_logits(cls, maps: torch.Tensor | None, types: torch.Tensor | None = None) -> BatchPrediction:
        """Convert logits of any network.

        The pixels of a joint map have types. In a map with one lesion class all lesion pixels get the slab's type, or
        none without `types`.

        Args:
            maps: logits (batch, channels, H, W), 5 channels for the joint label table, 3 for background, liver and
                lesion; None for a network without a map.
            types: logits (batch, lesion types) of the slabs; None for a network without them.
        """
        slab_types = None if types is None else torch.softmax(types.float(), dim=1)
        if maps is None:
            return cls(None, None, slab_types)
        probabilities = torch.softmax(maps.float(), dim=1)
        labels = channel_argmax(probabilities)
        lesion = probabilities[:, LESION:].sum(dim=1)
        if maps.shape[1] == len(JOINT_LABELS):
            return cls(labels, probabilities[:, LESION:], slab_types, lesion)
        if slab_types is None:
            return cls(labels, None, None, lesion)
        type_labels = LESION + channel_argmax(slab_types)
        labels = torch.where(labels >= LESION, type_labels[:, None, None], labels)
        return cls(labels, slab_types[:, :, None, None].expand(-1, -1, *labels.shape[1:]), slab_types, lesion)
