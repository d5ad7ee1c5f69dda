"""What a network says of a batch of slabs, in one form whatever the strategy, to be scored."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from liverseg.labels import JOINT_LABELS, LESION

__all__ = ["BatchPrediction"]


@dataclass(frozen=True)
class BatchPrediction:
    """Outlines and names of a batch of slabs.

    Attributes:
        labels: label map (batch, H, W); a lesion whose type is not told has the value `LESION`. None where the network
            outlines nothing.
        type_weights: how much each pixel speaks for each lesion type, (batch, lesion types, H, W); only predicted
            lesion pixels are asked. None where there is no map, or it has no types.
        slab_types: probability of each type for the slab as a whole, (batch, lesion types); None where the types are
            read off the map.
        lesion_probabilities: probability that a pixel is lesion, of whatever type, (batch, H, W); None without a map.
    """

    labels: torch.Tensor | None
    type_weights: torch.Tensor | None
    slab_types: torch.Tensor | None
    lesion_probabilities: torch.Tensor | None = None

    @classmethod
    def from_logits(cls, maps: torch.Tensor | None, types: torch.Tensor | None = None) -> BatchPrediction:
        """Read logits as their strategy means them.

        A joint map names its pixels itself. In a map of one lesion class the slab's type vector names every lesion
        pixel; without one there are no types.

        Args:
            maps: (batch, channels, H, W), 5 channels for the joint label table, 3 for background, liver and lesion.
            types: (batch, lesion types).
        """
        slab_types = None if types is None else torch.softmax(types.float(), dim=1)
        if maps is None:
            return cls(None, None, slab_types)
        probabilities = torch.softmax(maps.float(), dim=1)
        labels = probabilities.argmax(dim=1)
        lesion = probabilities[:, LESION:].sum(dim=1)
        if maps.shape[1] == len(JOINT_LABELS):
            return cls(labels, probabilities[:, LESION:], slab_types, lesion)
        if slab_types is None:
            return cls(labels, None, None, lesion)
        named = LESION + slab_types.argmax(dim=1)
        labels = torch.where(labels >= LESION, named[:, None, None], labels)
        return cls(labels, slab_types[:, :, None, None].expand(-1, -1, *labels.shape[1:]), slab_types, lesion)
