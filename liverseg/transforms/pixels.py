"""In-plane resampling: slices at the pixel size a network was trained at, and its maps on the slice's own grid again.

Training (`resample_views`), validation (`ResamplePixelsd`) and inference (`to_pixel_mm`) sample slices by the one
function `sample_slices`, so that a network sees the same pixels in each of them. HU are resampled before they are
windowed: a pixel that is half air has the HU that a scanner would give it.

Places are in pixels, whole numbers at the centres of pixels. A resampled slice covers what the slice covers, edge to
edge, which is what torch calls `align_corners=False`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch.nn import functional

__all__ = ["ResamplePixelsd", "back_to_slice", "points_per_pixel", "sample_slices", "sampling_grid", "to_pixel_mm"]

_MOST_FOR_ONE_POINT = 1.3
"""Pixels of the slice along a larger one: up to so many, a single bilinear value leaves hardly any of them out."""


def points_per_pixel(in_plane_mm: Sequence[float], pixel_mm: float) -> int:
    """How many points along rows and columns are averaged for a pixel of `pixel_mm`.

    They are close enough to take in every pixel of the slice. A single bilinear value takes in two along each axis: for
    a larger pixel it would alias, and show noise that a slice of this resolution does not have.

    Args:
        in_plane_mm: distance of the slice's rows and columns in mm.
        pixel_mm: edge of the wanted pixels in mm.

    Example:
        >>> [points_per_pixel((mm, mm), 1.5) for mm in (1.7, 1.5, 0.75, 0.6)]
        [1, 1, 2, 3]
    """
    ratio = pixel_mm / min(in_plane_mm)
    return 1 if ratio <= _MOST_FOR_ONE_POINT else math.ceil(ratio - 0.01)  # 1.5 / 0.75 may come out above 2


def sampling_grid(views: torch.Tensor, size: Sequence[int], shape: Sequence[int], points: int = 1) -> torch.Tensor:
    """Where `grid_sample` with `align_corners=True` is to look at slices, as views of them say.

    Args:
        views: float32 (batch, 2, 3): (row, column) of the slice for (row, column, 1) of what is made, in pixels.
        size: rows and columns of what is made.
        shape: rows and columns of the slices.
        points: along each axis, spread evenly over every pixel that is made.

    Returns:
        float32 (batch, rows * points, columns * points, 2).
    """
    height, width = shape
    # grid_sample counts from -1 to 1, columns first; half a pixel up or down of an axis of one pixel is that pixel
    scale = views.new_tensor([2 / max(height - 1, 1), 2 / max(width - 1, 1)])
    along = [
        (torch.arange(length * points, device=views.device, dtype=views.dtype) + 0.5) / points - 0.5 for length in size
    ]
    rows, columns = torch.meshgrid(*along, indexing="ij")
    pixels = torch.stack([rows, columns, torch.ones_like(rows)], dim=-1)
    return ((pixels @ views[:, None].transpose(-1, -2)) * scale - 1).flip(-1)


def sample_slices(images: torch.Tensor, grid: torch.Tensor, points: int = 1) -> torch.Tensor:
    """Slices as a grid of `sampling_grid` shows them: means of bilinear values, the slice's edge repeated outside it.

    Args:
        images: (batch, channels, H, W) of any number type.
        grid: (batch, rows * points, columns * points, 2).
        points: as for the grid.

    Returns:
        float32 (batch, channels, rows, columns).
    """
    seen = functional.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=True)
    return functional.avg_pool2d(seen, points) if points > 1 else seen


def to_pixel_mm(images: torch.Tensor, in_plane_mm: Sequence[float], pixel_mm: float) -> torch.Tensor:
    """Slices with pixels of the wanted size, as nearly as whole rows and columns allow.

    Args:
        images: (..., H, W) of any number type, all of one pixel size.
        in_plane_mm: distance of their rows and columns in mm.
        pixel_mm: edge of the wanted pixels in mm.

    Returns:
        float32 (..., H * row_mm / pixel_mm, W * column_mm / pixel_mm), rounded, at least one row and column; the very
        tensor where that is its size already.

    Example:
        >>> to_pixel_mm(torch.zeros(3, 512, 512, dtype=torch.int16), (0.75, 0.75), 1.5).shape
        torch.Size([3, 256, 256])
    """
    shape = images.shape[-2:]
    size = [max(1, math.floor(length * mm / pixel_mm + 0.5)) for length, mm in zip(shape, in_plane_mm, strict=True)]
    if size == [*shape]:
        return images
    rows, columns = (own / wanted for own, wanted in zip(shape, size, strict=True))
    points = points_per_pixel(in_plane_mm, pixel_mm)
    with torch.autocast(images.device.type, enabled=False):  # places in bfloat16 would be off by pixels
        view = torch.tensor([[rows, 0, (rows - 1) / 2], [0, columns, (columns - 1) / 2]], device=images.device)
        grid = sampling_grid(view[None], size, shape, points)
        seen = sample_slices(images.reshape(1, -1, *shape), grid, points)
    return seen.reshape(*images.shape[:-2], *size)


def back_to_slice(maps: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """A network's maps on the grid of the slices that `to_pixel_mm` took: bilinear, at the middle of each pixel.

    Args:
        maps: logits (batch, labels, rows, columns).
        size: height and width of the slices.

    Returns:
        float32 (batch, labels, H, W); the very tensor where that is its size already.
    """
    if [*maps.shape[-2:]] == [*size]:
        return maps
    return functional.interpolate(maps.float(), size=[*size], mode="bilinear", align_corners=False)


class ResamplePixelsd(MapTransform):
    """Dictionary form of `to_pixel_mm`, for slabs that go through a network without a view of their own.

    Args:
        keys: entries to resample, (channels, H, W) in HU. The label map is left alone: scores are computed on the
            slice's own grid.
        pixel_mm: edge of the wanted pixels in mm; None leaves slices as they are.

    Its data needs `spacing`: mm between slices, rows and columns.
    """

    def __init__(self, keys: KeysCollection, pixel_mm: float | None = None, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.pixel_mm = pixel_mm

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        if self.pixel_mm is not None:
            in_plane_mm = torch.as_tensor(out["spacing"]).tolist()[1:]
            for key in self.key_iterator(out):
                out[key] = to_pixel_mm(torch.as_tensor(out[key]), in_plane_mm, self.pixel_mm)
        return out
