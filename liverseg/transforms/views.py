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

from liverseg.errors import UsageError
from liverseg.labels import LESION, LIVER, LIVER_OR_LESION, UNTYPED_LESION

__all__ = ["RandSlabViewd", "resample_views"]


class RandSlabViewd(RandomizableTransform):
    """Draw how a slab is seen and add it to its dictionary, whose image and label are cut to what can be seen.

    Adds `view`, float32 (2, 3): (row, column) of the cut slice for (row, column, 1) of the crop, in pixels;
    `hu_offset`, float32, in HU; `noisy`, whether it gets salt and pepper. Kinds and ranges are those of the authors'
    released code; where a crop lies and that zoom keeps proportions is our choice.

    The cut is the smallest square that holds every view of a crop, so that what is moved and resampled is small and
    of one size; of a slice that is smaller it takes all there is.

    Args:
        crop_size: edge of the square crop in pixels.
        crop_ratios: how often a crop is centred on a pixel of each label, of those the slice has; a liver whose lesions
            are not told apart counts as liver, an untyped lesion as one of the first type. The crop stays inside the
            slice, before it is turned, where the slice is large enough.
        rotation: largest angle in degrees, to either side.
        zoom: largest change of size as a share.
        shift: largest shift along rows and columns as a share of the crop.
        flip: how often left and right change sides.
        hu_offset: largest offset in HU.
        noise: how often a slab gets salt and pepper.
        keys: entries that are cut, (channels, H, W): image, and last the label map.

    Raises:
        UsageError: if a number is not one or beyond what it can be.
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
        keys: Sequence[str] = ("image", "label"),
    ) -> None:
        super().__init__(prob=1.0)
        for name, value, most in (
            ("rotation", rotation, 180),
            ("zoom", zoom, 0.9),
            ("shift", shift, 1),
            ("flip", flip, 1),
            ("hu_offset", hu_offset, 1000),
            ("noise", noise, 1),
        ):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
                raise UsageError(f"augmentation: {name} is {value!r}; it must be a number, 0 to {most:g}")
        self.crop_size = crop_size
        self.crop_ratios = tuple(map(float, crop_ratios))
        self.rotation, self.zoom, self.shift, self.flip = rotation, zoom, shift, flip
        self.hu_offset, self.noise = hu_offset, noise
        self.keys = tuple(keys)

    def arguments(self) -> dict[str, Any]:
        """What it draws from, as JSON holds it: a resumed training must see the same."""
        names = ("crop_size", "crop_ratios", "rotation", "zoom", "shift", "flip", "hu_offset", "noise")
        return {name: getattr(self, name) for name in names}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        label = np.asarray(out[self.keys[-1]])[0]
        centre = self._centre(label)
        start = [self._start(place, length) for place, length in zip(centre, label.shape, strict=True)]
        rows, columns = (slice(first, first + self._reach) for first in start)
        for key in self.keys:
            out[key] = out[key][..., rows, columns]
        angle = math.radians(self.R.uniform(-self.rotation, self.rotation))
        size = 1 + self.R.uniform(-self.zoom, self.zoom)
        shift = self.R.uniform(-self.shift, self.shift, 2) * self.crop_size
        side = -1.0 if self.R.uniform() < self.flip else 1.0
        cosine, sine = math.cos(angle) / size, math.sin(angle) / size
        turn = ((cosine, -side * sine), (sine, side * cosine))
        middle = (self.crop_size - 1) / 2
        out["view"] = torch.tensor(
            [
                (*row, place - first + moved - sum(row) * middle)
                for row, place, first, moved in zip(turn, centre, start, shift.tolist(), strict=True)
            ]
        )
        out["hu_offset"] = torch.tensor(self.R.uniform(-self.hu_offset, self.hu_offset), dtype=torch.float32)
        out["noisy"] = bool(self.R.uniform() < self.noise)
        return out

    @property
    def _reach(self) -> int:
        """Edge in pixels of the square around a crop's centre that holds every view of it."""
        angle = math.radians(min(self.rotation, 45))
        half = self.crop_size / 2 * (math.cos(angle) + math.sin(angle)) / (1 - self.zoom)
        return 2 * math.ceil(half + self.shift * self.crop_size) + 1

    def _start(self, centre: float, length: int) -> int:
        """First row or column of the cut; it is pushed inside the slice, where its edge is the slice's."""
        return max(0, min(round(centre) - self._reach // 2, length - self._reach))

    def _centre(self, label: np.ndarray) -> tuple[float, float]:
        """(row, column) a crop is centred on."""
        height, width = label.shape
        if label.max() >= LIVER_OR_LESION:
            label = np.where(label == LIVER_OR_LESION, LIVER, np.where(label == UNTYPED_LESION, LESION, label))
        ratios = [ratio * bool((label == value).any()) for value, ratio in enumerate(self.crop_ratios)]
        place = (height - 1) / 2, (width - 1) / 2
        if any(ratios):
            pixels = np.flatnonzero(label == self.R.choice(len(ratios), p=np.array(ratios) / sum(ratios)))
            place = divmod(int(pixels[self.R.randint(len(pixels))]), width)
        return self._inside(place[0], height), self._inside(place[1], width)

    def _inside(self, place: float, length: int) -> float:
        margin = (min(self.crop_size, length) - 1) / 2
        return min(max(place, margin), length - 1 - margin)


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
