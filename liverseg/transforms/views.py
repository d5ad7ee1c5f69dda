"""Geometric augmentation: crop, rotation, zoom, shift and flip as one affine map from the crop to the slice.

The data set only draws the map, at almost no cost. The training device applies the maps of a batch in one resampling,
so HU are interpolated once and no crop has corners from outside the image.
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
    """Draw the view of a slab and cut image and label to the region that views can reach.

    The transform adds `view`, float32 (2, 3), mapping (row, column, 1) of the crop to (row, column) of the cut slice,
    in pixels; `points`, the number of points along rows and columns whose mean is a pixel of the crop, see
    `points_per_pixel`; `hu_offset`, float32, in HU; `noisy`, whether the slab gets salt-and-pepper noise. Kinds and
    ranges are those of the authors' released code. The choice of the crop's centre and the zoom that keeps proportions
    are ours.

    The cut is the smallest rectangle that contains every view of a crop, or the full slice if that is smaller. It keeps
    copying and resampling small, and it has one size for all slices of a pixel size.

    Args:
        crop_size: edge of the square crop, in pixels of the slice or, with `pixel_mm`, in pixels of that size.
        crop_ratios: relative frequency of each label, among those of the slice, for the pixel that a crop is centred
            on. A liver whose lesions are not distinguished counts as liver, an untyped lesion as the first type. Before
            rotation the crop is inside the slice if the slice is large enough.
        rotation: largest angle in degrees, in both directions.
        zoom: largest relative change of size; or lower and upper limit of it, [-0.3, 0.2] for 0.7 to 1.2 times the
            size.
        shift: largest shift along rows and columns as a share of the crop.
        flip: probability of flipping left and right.
        hu_offset: largest offset in HU.
        noise: probability of salt-and-pepper noise.
        keys: entries to cut, (channels, H, W); the last one is the label map.
        pixel_mm: edge of the crop's pixels in mm; the data then needs `spacing`, mm between slices, rows and columns.
            None takes the slice's own pixels.

    Raises:
        UsageError: if an argument is of the wrong type or out of range.
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
        self.zoom, self._min_zoom, self._max_zoom = _read_zoom(zoom)
        for name, value, highest in (
            ("rotation", rotation, 180),
            ("shift", shift, 1),
            ("flip", flip, 1),
            ("hu_offset", hu_offset, 1000),
            ("noise", noise, 1),
        ):
            if not _is_number(value, 0, highest):
                raise UsageError(f"augmentation: {name} is {value!r}; it must be a number, 0 to {highest:g}")
        self.crop_size = crop_size
        self.crop_ratios = tuple(map(float, crop_ratios))
        self.rotation, self.shift, self.flip = rotation, shift, flip
        self.hu_offset, self.noise = hu_offset, noise
        self.keys = tuple(keys)
        self.pixel_mm = pixel_mm

    def arguments(self) -> dict[str, Any]:
        """Return the arguments as JSON values for the checkpoint's settings: a resumed training must have the same."""
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
        center = self._draw_center(label, scales)
        edges = [self._cut_edge(scale, points) for scale in scales]
        starts = [
            _cut_start(position, length, edge)
            for position, length, edge in zip(center, label.shape, edges, strict=True)
        ]
        rows, columns = (slice(start, start + edge) for start, edge in zip(starts, edges, strict=True))
        for key in self.keys:
            out[key] = out[key][..., rows, columns]
        angle = math.radians(self.R.uniform(-self.rotation, self.rotation))
        zoom = 1 + self.R.uniform(self._min_zoom, self._max_zoom)
        shifts = self.R.uniform(-self.shift, self.shift, 2) * self.crop_size
        flip = -1.0 if self.R.uniform() < self.flip else 1.0
        cosine, sine = math.cos(angle) / zoom, math.sin(angle) / zoom
        matrix = ((cosine, -flip * sine), (sine, flip * cosine))
        crop_center = (self.crop_size - 1) / 2
        out["view"] = torch.tensor(
            [
                (*(scale * factor for factor in row), position - start + scale * shift - scale * sum(row) * crop_center)
                for row, position, start, shift, scale in zip(
                    matrix, center, starts, shifts.tolist(), scales, strict=True
                )
            ]
        )
        out["points"] = points
        out["hu_offset"] = torch.tensor(self.R.uniform(-self.hu_offset, self.hu_offset), dtype=torch.float32)
        out["noisy"] = bool(self.R.uniform() < self.noise)
        return out

    def _cut_edge(self, scale: float, points: int) -> int:
        """Return the edge, in pixels of the slice, of the square around a crop's centre that contains all its views.

        Args:
            scale: size of a pixel of the crop in pixels of the slice.
            points: number of points along each axis whose mean is a pixel of the crop.
        """
        angle = math.radians(min(self.rotation, 45))
        half = self.crop_size / 2 * (math.cos(angle) + math.sin(angle)) / (1 + self._min_zoom)
        margin = 0.5 if points > 1 else 0.0  # points extend beyond the centres of pixels
        return 2 * math.ceil((half + self.shift * self.crop_size) * scale + margin) + 1

    def _draw_center(self, label: np.ndarray, scales: tuple[float, float]) -> tuple[float, float]:
        """Return (row, column) of the crop's centre; `scales` is the size of its pixels in pixels of the slice."""
        height, width = label.shape
        if label.max() >= LIVER_OR_LESION:
            label = np.where(label == LIVER_OR_LESION, LIVER, np.where(label == UNTYPED_LESION, LESION, label))
        ratios = [ratio * bool((label == value).any()) for value, ratio in enumerate(self.crop_ratios)]
        row, column = (height - 1) / 2, (width - 1) / 2
        if any(ratios):
            pixels = np.flatnonzero(label == self.R.choice(len(ratios), p=np.array(ratios) / sum(ratios)))
            row, column = divmod(int(pixels[self.R.randint(len(pixels))]), width)
        return self._clamp_center(row, height, scales[0]), self._clamp_center(column, width, scales[1])

    def _clamp_center(self, position: float, length: int, scale: float) -> float:
        margin = (min(self.crop_size * scale, length) - 1) / 2
        return min(max(position, margin), length - 1 - margin)


def _cut_start(center: float, length: int, edge: int) -> int:
    """Return the first row or column of the cut, moved inside the slice."""
    return max(0, min(round(center) - edge // 2, length - edge))


def _read_zoom(zoom: Any) -> tuple[float | tuple[float, float], float, float]:
    """Return a zoom for `arguments`, and its lower and upper limit."""
    if isinstance(zoom, Sequence) and not isinstance(zoom, str):
        if len(zoom) != 2 or not all(_is_number(limit, -0.9, 0.9) for limit in zoom) or zoom[0] > zoom[1]:
            raise UsageError(f"augmentation: zoom is {zoom!r}; it must be two numbers, -0.9 to 0.9, the lower first")
        lower, upper = map(float, zoom)
        return (lower, upper), lower, upper
    if not _is_number(zoom, 0, 0.9):
        raise UsageError(f"augmentation: zoom is {zoom!r}; it must be a number, 0 to 0.9")
    return zoom, -zoom, zoom


def _is_number(value: Any, lowest: float, highest: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and lowest <= value <= highest


def resample_views(
    images: torch.Tensor,
    labels: torch.Tensor,
    views: torch.Tensor,
    size: int,
    points: Sequence[int] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Resample the slices of a batch to their views, on their device.

    Args:
        images: (batch, channels, H, W) of any dtype.
        labels: (batch, 1, H, W) of any dtype.
        views: (batch, 2, 3), see `RandSlabViewd`.
        size: edge of the crop in pixels.
        points: for each element the number of points along rows and columns whose mean is a pixel of its image; 1 by
            default.

    Returns:
        Images as float32 (batch, channels, size, size), bilinear, their edge repeated outside the slice; labels in
        their own dtype (batch, 1, size, size), nearest pixel, 0 outside.
    """
    shape, edges = images.shape[-2:], (size, size)
    grid = sampling_grid(views, edges, shape)
    counts = {*(points or ())}
    if counts <= {1}:
        crops = sample_slices(images, grid)
    else:  # each element with its own number of points, so that the result does not depend on the batch
        crops = images.new_empty((*images.shape[:2], *edges), dtype=torch.float32)
        for count in counts:
            rows = [row for row, element_count in enumerate(points or ()) if element_count == count]
            fine_grid = sampling_grid(views[rows], edges, shape, count)
            crops[rows] = sample_slices(images[rows], fine_grid, count)
    label_crops = functional.grid_sample(labels.float(), grid, mode="nearest", padding_mode="zeros", align_corners=True)
    return crops, label_crops.to(labels.dtype)
