"""Augmentation's geometry: where a network looks at a slice, drawn for each slab and computed once for a whole batch.

Crop, rotation, zoom, shift and flip are one affine map from the pixels of the crop to those of the slice. The data set
draws it, which costs next to nothing; the training device applies it to the batch in a single resampling, so that HU
are interpolated once and no crop has corners that were never in the image.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import RandomizableTransform
from torch.nn import functional

__all__ = ["RandSlabViewd", "resample_views"]


class RandSlabViewd(RandomizableTransform):
    """Draw how a slab is seen and add it to its dictionary; image and label stay as they are.

    Adds `view`, float32 (2, 3): (row, column) of the slice for (row, column, 1) of the crop, in pixels; `hu_offset`,
    float32, in HU; `noisy`, whether it gets salt and pepper. Kinds and ranges are those of the authors' released code;
    where a crop lies and that zoom keeps proportions is our choice.

    Args:
        crop_size: edge of the square crop in pixels.
        crop_ratios: how often a crop is centred on a pixel of each label, of those the slice has. The crop stays inside
            the slice, before it is turned, where the slice is large enough.
        rotation: largest angle in degrees, to either side.
        zoom: largest change of size as a share.
        shift: largest shift along rows and columns as a share of the crop.
        flip: how often left and right change sides.
        hu_offset: largest offset in HU.
        noise: how often a slab gets salt and pepper.
        label_key: entry with the label map, (1, H, W).
    """

    def __init__(
        self,
        crop_size: int,
        crop_ratios: Sequence[float],
        rotation: float = 15.0,
        zoom: float = 0.1,
        shift: float = 0.05,
        flip: float = 0.5,
        hu_offset: float = 10.0,
        noise: float = 0.5,
        label_key: str = "label",
    ) -> None:
        super().__init__(prob=1.0)
        self.crop_size = crop_size
        self.crop_ratios = tuple(map(float, crop_ratios))
        self.rotation, self.zoom, self.shift, self.flip = rotation, zoom, shift, flip
        self.hu_offset, self.noise = hu_offset, noise
        self.label_key = label_key

    def arguments(self) -> dict[str, Any]:
        """What it draws from, as JSON holds it: a resumed training must see the same."""
        names = ("crop_size", "crop_ratios", "rotation", "zoom", "shift", "flip", "hu_offset", "noise")
        return {name: getattr(self, name) for name in names}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        label = np.asarray(out[self.label_key])[0]
        centre = self._centre(label)
        angle = math.radians(self.R.uniform(-self.rotation, self.rotation))
        size = 1 + self.R.uniform(-self.zoom, self.zoom)
        shift = self.R.uniform(-self.shift, self.shift, 2) * self.crop_size
        side = -1.0 if self.R.uniform() < self.flip else 1.0
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        to_slice = turn @ np.diag([1.0, side]) / size
        middle = np.full(2, (self.crop_size - 1) / 2)
        out["view"] = torch.tensor(np.column_stack([to_slice, centre + shift - to_slice @ middle]), dtype=torch.float32)
        out["hu_offset"] = torch.tensor(self.R.uniform(-self.hu_offset, self.hu_offset), dtype=torch.float32)
        out["noisy"] = bool(self.R.uniform() < self.noise)
        return out

    def _centre(self, label: np.ndarray) -> np.ndarray:
        """(row, column) a crop is centred on."""
        pixels = [np.flatnonzero(label == value) for value in range(len(self.crop_ratios))]
        ratios = np.array([ratio if len(own) else 0.0 for own, ratio in zip(pixels, self.crop_ratios, strict=True)])
        shape = np.array(label.shape)
        place = (shape - 1) / 2
        if ratios.any():
            own = pixels[self.R.choice(len(ratios), p=ratios / ratios.sum())]
            place = np.array(divmod(own[self.R.randint(len(own))], label.shape[1]))
        margin = np.minimum((self.crop_size - 1) / 2, (shape - 1) / 2)
        return np.clip(place, margin, shape - 1 - margin)


def resample_views(
    images: torch.Tensor, labels: torch.Tensor, views: torch.Tensor, size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Slices of a batch as their views show them, on the device they are on.

    Args:
        images: (batch, channels, H, W) of any number type.
        labels: (batch, 1, H, W) of any number type.
        views: (batch, 2, 3), see `RandSlabViewd`.
        size: edge of the crop in pixels.

    Returns:
        Images as float32 (batch, channels, size, size), bilinear, their edge repeated outside the slice; labels in
        their own type (batch, 1, size, size), nearest pixel, 0 outside.
    """
    height, width = images.shape[-2:]
    # grid_sample counts from -1 to 1, columns first; half a pixel up or down of an axis of one pixel is that pixel
    scale = views.new_tensor([2 / max(height - 1, 1), 2 / max(width - 1, 1)])
    place = torch.arange(size, device=views.device, dtype=views.dtype)
    rows, columns = torch.meshgrid(place, place, indexing="ij")
    pixels = torch.stack([rows, columns, torch.ones_like(rows)], dim=-1)
    grid = ((pixels @ views[:, None].transpose(-1, -2)) * scale - 1).flip(-1)
    seen = functional.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=True)
    named = functional.grid_sample(labels.float(), grid, mode="nearest", padding_mode="zeros", align_corners=True)
    return seen, named.to(labels.dtype)
