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
    gets `size` and `label_size`, the height and width that are its image's and its label map's own; they differ where
    images have been brought to another pixel size. A network sees the rim where it is given whole batches: it takes
    averages over everything. `WholeSlices` has each slice scored at its own size.

    Args:
        batch: elements with `image` (slab slices, H, W) and `label` (1, H, W) of any height, width and number type.
    """
    sizes = {
        key: [max(element[key].shape[axis] for element in batch) for axis in (-2, -1)]
        for key in (CommonKeys.IMAGE, CommonKeys.LABEL)
    }
    return default_collate([_enlarged(element, sizes[CommonKeys.IMAGE], sizes[CommonKeys.LABEL]) for element in batch])


def _enlarged(element: Mapping[str, Any], image_size: Sequence[int], label_size: Sequence[int]) -> dict[str, Any]:
    image, label = torch.as_tensor(element[CommonKeys.IMAGE]), torch.as_tensor(element[CommonKeys.LABEL])
    (own_height, own_width), (label_height, label_width) = image.shape[-2:], label.shape[-2:]
    enlarged = {**element, "size": torch.tensor([own_height, own_width])}
    enlarged["label_size"] = torch.tensor([label_height, label_width])
    if [own_height, own_width] != [*image_size]:
        # torch's own padding with the edge does not know whole numbers
        rows, columns = (
            torch.arange(wanted).clamp(max=own - 1) for wanted, own in zip(image_size, image.shape[-2:], strict=True)
        )
        enlarged[CommonKeys.IMAGE] = image[..., rows[:, None], columns]
    if [label_height, label_width] != [*label_size]:
        beside = [0, label_size[1] - label_width, 0, label_size[0] - label_height]
        enlarged[CommonKeys.LABEL] = functional.pad(label, beside)
    return enlarged
