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
from liverseg.transforms.pixels import points_per_pixel, sample_slices, sampling_grid

__all__ = ["RandSlabViewd", "resample_views"]


class RandSlabViewd(RandomizableTransform):
    """Draw how a slab is seen and add it to its dictionary, whose image and label are cut to what can be seen.

    Adds `view`, float32 (2, 3): (row, column) of the cut slice for (row, column, 1) of the crop, in pixels; `points`,
    how many along rows and columns are averaged for a pixel of the crop, see `points_per_pixel`; `hu_offset`, float32,
    in HU; `noisy`, whether it gets salt and pepper. Kinds and ranges are those of the authors' released code; where a
    crop lies and that zoom keeps proportions is our choice.

    The cut is the smallest rectangle that holds every view of a crop, so that what is moved and resampled is small and
    of one size for all slices of a pixel size; of a slice that is smaller it takes all there is.

    Args:
        crop_size: edge of the square crop, in pixels of the slice or, with `pixel_mm`, in pixels of that size.
        crop_ratios: how often a crop is centred on a pixel of each label, of those the slice has; a liver whose lesions
            are not told apart counts as liver, an untyped lesion as one of the first type. The crop stays inside the
            slice, before it is turned, where the slice is large enough.
        rotation: largest angle in degrees, to either side.
        zoom: largest change of size as a share; or the least and the largest of an uneven range, [-0.3, 0.2] for 0.7 to
            1.2 times the size.
        shift: largest shift along rows and columns as a share of the crop.
        flip: how often left and right change sides.
        hu_offset: largest offset in HU.
        noise: how often a slab gets salt and pepper.
        keys: entries that are cut, (channels, H, W): image, and last the label map.
        pixel_mm: edge of the crop's pixels in mm; the data then needs `spacing`, mm between slices, rows and columns.
            None takes the slice's own pixels, whatever their size.

    Raises:
        UsageError: if a number is not one or beyond what it can be.
    """

    def __init__(
        self,
        crop_size: int,
        crop_ratios: Sequence[float],
        rotation: float = 15.0,
        zoom: float | Sequence[float] = 0.1,
        shift: float = 0.05,
        flip: float = 0.5,
        hu_offset: float = 10.0,
        noise: float = 0.5,
        keys: Sequence[str] = ("image", "label"),
        pixel_mm: float | None = None,
    ) -> None:
        super().__init__(prob=1.0)
        self.zoom, self._least_zoom, self._largest_zoom = _read_zoom(zoom)
        for name, value, most in (
            ("rotation", rotation, 180),
            ("shift", shift, 1),
            ("flip", flip, 1),
            ("hu_offset", hu_offset, 1000),
            ("noise", noise, 1),
        ):
            if not _is_number(value, 0, most):
                raise UsageError(f"augmentation: {name} is {value!r}; it must be a number, 0 to {most:g}")
        self.crop_size = crop_size
        self.crop_ratios = tuple(map(float, crop_ratios))
        self.rotation, self.shift, self.flip = rotation, shift, flip
        self.hu_offset, self.noise = hu_offset, noise
        self.keys = tuple(keys)
        self.pixel_mm = pixel_mm

    def arguments(self) -> dict[str, Any]:
        """What it draws from, as JSON holds it: a resumed training must see the same."""
        names = ("crop_size", "crop_ratios", "rotation", "zoom", "shift", "flip", "hu_offset", "noise")
        return {name: getattr(self, name) for name in names}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        label = np.asarray(out[self.keys[-1]])[0]
        scales, points = (1.0, 1.0), 1
        if self.pixel_mm is not None:
            _, row_mm, column_mm = torch.as_tensor(out["spacing"]).tolist()
            scales = self.pixel_mm / row_mm, self.pixel_mm / column_mm
            points = points_per_pixel((row_mm, column_mm), self.pixel_mm)
        centre = self._centre(label, scales)
        reach = [self._reach(scale, points) for scale in scales]
        start = [_first(*along) for along in zip(centre, label.shape, reach, strict=True)]
        rows, columns = (slice(first, first + edge) for first, edge in zip(start, reach, strict=True))
        for key in self.keys:
            out[key] = out[key][..., rows, columns]
        angle = math.radians(self.R.uniform(-self.rotation, self.rotation))
        size = 1 + self.R.uniform(self._least_zoom, self._largest_zoom)
        shift = self.R.uniform(-self.shift, self.shift, 2) * self.crop_size
        side = -1.0 if self.R.uniform() < self.flip else 1.0
        cosine, sine = math.cos(angle) / size, math.sin(angle) / size
        turn = ((cosine, -side * sine), (sine, side * cosine))
        middle = (self.crop_size - 1) / 2
        out["view"] = torch.tensor(
            [
                (*(scale * part for part in row), place - first + scale * moved - scale * sum(row) * middle)
                for row, place, first, moved, scale in zip(turn, centre, start, shift.tolist(), scales, strict=True)
            ]
        )
        out["points"] = points
        out["hu_offset"] = torch.tensor(self.R.uniform(-self.hu_offset, self.hu_offset), dtype=torch.float32)
        out["noisy"] = bool(self.R.uniform() < self.noise)
        return out

    def _reach(self, scale: float, points: int) -> int:
        """Edge in pixels of the slice of the square around a crop's centre that holds every view of it.

        Args:
            scale: pixels of the slice along one of the crop.
            points: averaged for a pixel of the crop.
        """
        angle = math.radians(min(self.rotation, 45))
        half = self.crop_size / 2 * (math.cos(angle) + math.sin(angle)) / (1 + self._least_zoom)
        beside = 0.5 if points > 1 else 0.0  # points reach farther than the middles of pixels
        return 2 * math.ceil((half + self.shift * self.crop_size) * scale + beside) + 1

    def _centre(self, label: np.ndarray, scales: tuple[float, float]) -> tuple[float, float]:
        """(row, column) a crop is centred on; `scales` are the slice's pixels along one of the crop."""
        height, width = label.shape
        if label.max() >= LIVER_OR_LESION:
            label = np.where(label == LIVER_OR_LESION, LIVER, np.where(label == UNTYPED_LESION, LESION, label))
        ratios = [ratio * bool((label == value).any()) for value, ratio in enumerate(self.crop_ratios)]
        place = (height - 1) / 2, (width - 1) / 2
        if any(ratios):
            pixels = np.flatnonzero(label == self.R.choice(len(ratios), p=np.array(ratios) / sum(ratios)))
            place = divmod(int(pixels[self.R.randint(len(pixels))]), width)
        return self._inside(place[0], height, scales[0]), self._inside(place[1], width, scales[1])

    def _inside(self, place: float, length: int, scale: float) -> float:
        margin = (min(self.crop_size * scale, length) - 1) / 2
        return min(max(place, margin), length - 1 - margin)


def _first(centre: float, length: int, reach: int) -> int:
    """First row or column of the cut; it is pushed inside the slice, where its edge is the slice's."""
    return max(0, min(round(centre) - reach // 2, length - reach))


def _read_zoom(zoom: Any) -> tuple[float | tuple[float, float], float, float]:
    """A zoom as it is kept, and the least and the largest change of size it stands for."""
    if isinstance(zoom, Sequence) and not isinstance(zoom, str):
        if len(zoom) != 2 or not all(_is_number(one, -0.9, 0.9) for one in zoom) or zoom[0] > zoom[1]:
            raise UsageError(f"augmentation: zoom is {zoom!r}; it must be two numbers, -0.9 to 0.9, the lower first")
        least, largest = map(float, zoom)
        return (least, largest), least, largest
    if not _is_number(zoom, 0, 0.9):
        raise UsageError(f"augmentation: zoom is {zoom!r}; it must be a number, 0 to 0.9")
    return zoom, -zoom, zoom


def _is_number(value: Any, least: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def resample_views(
    images: torch.Tensor,
    labels: torch.Tensor,
    views: torch.Tensor,
    size: int,
    points: Sequence[int] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Slices of a batch as their views show them, on the device they are on.

    Args:
        images: (batch, channels, H, W) of any number type.
        labels: (batch, 1, H, W) of any number type.
        views: (batch, 2, 3), see `RandSlabViewd`.
        size: edge of the crop in pixels.
        points: of each element, how many along rows and columns are averaged for a pixel of its image; one by default.

    Returns:
        Images as float32 (batch, channels, size, size), bilinear, their edge repeated outside the slice; labels in
        their own type (batch, 1, size, size), nearest pixel, 0 outside.
    """
    shape, edges = images.shape[-2:], (size, size)
    grid = sampling_grid(views, edges, shape)
    counts = {*(points or ())}
    if counts <= {1}:
        seen = sample_slices(images, grid)
    else:  # each element with its own number, whatever it is batched with
        seen = images.new_empty((*images.shape[:2], *edges), dtype=torch.float32)
        for count in counts:
            rows = [row for row, own in enumerate(points or ()) if own == count]
            finer = sampling_grid(views[rows], edges, shape, count)
            seen[rows] = sample_slices(images[rows], finer, count)
    named = functional.grid_sample(labels.float(), grid, mode="nearest", padding_mode="zeros", align_corners=True)
    return seen, named.to(labels.dtype)
