"""In-plane resampling of slices to a network's pixel size, and of its maps back to the slice's grid.

Training, validation and inference all use `sample_slices`, so a network gets the same pixels. HU are resampled before
windowing, so a pixel that is half air has the HU of a scanner. Coordinates are those of `align_corners=False`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn import functional

__all__ = ["back_to_slice", "points_per_pixel", "sample_slices", "sampling_grid", "to_pixel_mm"]

_MAX_RATIO_FOR_ONE_POINT = 1.3
"""Largest ratio of pixel sizes for which a single bilinear value still covers nearly all pixels of the slice."""


def points_per_pixel(in_plane_mm: Sequence[float], pixel_mm: float) -> int:
    """Return the number of points along rows and columns whose mean is the value of a pixel of `pixel_mm`.

    The points are dense enough to cover every pixel of the slice. A single bilinear value covers two along each axis;
    for a larger pixel it would alias and have more noise than a slice of this resolution.

    Args:
        in_plane_mm: distance of the slice's rows and columns in mm.
        pixel_mm: edge of the target pixels in mm.

    Example:
        >>> [points_per_pixel((mm, mm), 1.5) for mm in (1.7, 1.5, 0.75, 0.6)]
        [1, 1, 2, 3]
    """
    ratio = pixel_mm / min(in_plane_mm)
    return 1 if ratio <= _MAX_RATIO_FOR_ONE_POINT else math.ceil(ratio - 0.01)  # 1.5 / 0.75 may be rounded above 2


def sampling_grid(views: torch.Tensor, size: Sequence[int], shape: Sequence[int], points: int = 1) -> torch.Tensor:
    """Return the grid for `grid_sample` with `align_corners=True` that samples slices in their views.

    Args:
        views: float32 (batch, 2, 3), mapping (row, column, 1) of the output to (row, column) of the slice, in pixels
            whose centres have integer coordinates.
        size: rows and columns of the output.
        shape: rows and columns of the slices.
        points: number of points along each axis, spread evenly over every pixel of the output.

    Returns:
        float32 (batch, rows * points, columns * points, 2).
    """
    height, width = shape
    # grid_sample's coordinates are -1 to 1, columns first; on an axis of one pixel all coordinates are that pixel
    scale = views.new_tensor([2 / max(height - 1, 1), 2 / max(width - 1, 1)])
    axes = [
        (torch.arange(length * points, device=views.device, dtype=views.dtype) + 0.5) / points - 0.5 for length in size
    ]
    rows, columns = torch.meshgrid(*axes, indexing="ij")
    pixels = torch.stack([rows, columns, torch.ones_like(rows)], dim=-1)
    return ((pixels @ views[:, None].transpose(-1, -2)) * scale - 1).flip(-1)


def sample_slices(images: torch.Tensor, grid: torch.Tensor, points: int = 1) -> torch.Tensor:
    """Sample slices on a grid of `sampling_grid`: means of bilinear values; outside the slice its edge is repeated.

    Args:
        images: (batch, channels, H, W) of any dtype.
        grid: (batch, rows * points, columns * points, 2).
        points: number of points of the grid.

    Returns:
        float32 (batch, channels, rows, columns).
    """
    values = functional.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=True)
    return functional.avg_pool2d(values, points) if points > 1 else values


def to_pixel_mm(images: torch.Tensor, in_plane_mm: Sequence[float], pixel_mm: float) -> torch.Tensor:
    """Resample slices to a pixel size, as closely as integer numbers of rows and columns allow.

    The resampled slice has the same extent, from edge to edge.

    Args:
        images: (..., H, W) of any dtype, all of one pixel size.
        in_plane_mm: distance of their rows and columns in mm.
        pixel_mm: edge of the target pixels in mm.

    Returns:
        float32 (..., H * row_mm / pixel_mm, W * column_mm / pixel_mm), rounded, at least one row and column; `images`
        itself if it has this size already.

    Example:
        >>> to_pixel_mm(torch.zeros(3, 512, 512, dtype=torch.int16), (0.75, 0.75), 1.5).shape
        torch.Size([3, 256, 256])
    """
    shape = images.shape[-2:]
    size = [max(1, math.floor(length * mm / pixel_mm + 0.5)) for length, mm in zip(shape, in_plane_mm, strict=True)]
    if size == [*shape]:
        return images
    rows, columns = (length / target for length, target in zip(shape, size, strict=True))
    points = points_per_pixel(in_plane_mm, pixel_mm)
    with torch.autocast(images.device.type, enabled=False):  # coordinates in bfloat16 would be wrong by pixels
        view = torch.tensor([[rows, 0, (rows - 1) / 2], [0, columns, (columns - 1) / 2]], device=images.device)
        grid = sampling_grid(view[None], size, shape, points)
        resampled = sample_slices(images.reshape(1, -1, *shape), grid, points)
    return resampled.reshape(*images.shape[:-2], *size)


def back_to_slice(maps: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Resample a network's maps to the grid of the slices before `to_pixel_mm`, bilinear at the centre of each pixel.

    Args:
        maps: logits (batch, labels, rows, columns).
        size: height and width of the slices.

    Returns:
        float32 (batch, labels, H, W); `maps` itself if it has this size already.
    """
    if [*maps.shape[-2:]] == [*size]:
        return maps
    return functional.interpolate(maps.float(), size=[*size], mode="bilinear", align_corners=False)
