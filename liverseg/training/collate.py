"""Slices of several volumes in one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.utils import CommonKeys
from torch.nn import functional
from torch.utils.data import default_collate

__all__ = ["collate_whole_slices"]


def collate_whole_slices(batch: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Batch elements of `SlabDataset` whose slices differ in size, enlarged to the largest below and on the right.

    Images repeat their edge, since zeros would be a rim of soft tissue; labels get background there. Each element also
    gets `size`, the height and width that are its own. A network sees the rim where it is given whole batches: it takes
    averages over everything. `WholeSlices` has each slice scored at its own size.

    Args:
        batch: elements with `image` (slab slices, H, W) and `label` (1, H, W) of any height, width and number type.
    """
    height = max(element[CommonKeys.IMAGE].shape[-2] for element in batch)
    width = max(element[CommonKeys.IMAGE].shape[-1] for element in batch)
    return default_collate([_enlarged(element, height, width) for element in batch])


def _enlarged(element: Mapping[str, Any], height: int, width: int) -> dict[str, Any]:
    image, label = torch.as_tensor(element[CommonKeys.IMAGE]), torch.as_tensor(element[CommonKeys.LABEL])
    own_height, own_width = image.shape[-2:]
    told = {**element, "size": torch.tensor([own_height, own_width])}
    if (own_height, own_width) == (height, width):
        return told
    # torch's own padding with the edge does not know whole numbers
    rows, columns = torch.arange(height).clamp(max=own_height - 1), torch.arange(width).clamp(max=own_width - 1)
    enlarged = functional.pad(label, [0, width - own_width, 0, height - own_height])
    return {**told, CommonKeys.IMAGE: image[..., rows[:, None], columns], CommonKeys.LABEL: enlarged}
