"""Crop to a square around the liver, on which the networks are scored as in the paper."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import Transform
from monai.utils import CommonKeys

from liverseg.labels import LIVER, LIVER_OR_LESION

__all__ = ["LiverCropd", "liver_box"]

_STEP = 32
"""Step in pixels of larger squares: the stride of the networks, and few different sizes allow full batches."""


def liver_box(label: torch.Tensor, size: int, scales: tuple[float, float] = (1.0, 1.0)) -> tuple[int, int, int, int]:
    """Return first row, first column, height and width of a square of `size` pixels around a slice's liver.

    The square is enlarged in steps of 32 pixels to contain liver and lesions, and ends at the slice's edges. For a
    slice without labelled liver the box is the full slice: a square around its lesions would reveal their position.

    Args:
        label: label map of one slice, (H, W).
        size: edge in pixels.
        scales: size of these pixels in rows and columns of the slice.
    """
    if not ((label == LIVER) | (label == LIVER_OR_LESION)).any():
        return 0, 0, label.shape[0], label.shape[1]
    foreground = torch.nonzero(label >= LIVER)
    starts, lengths = [], []
    for axis, (full_length, scale) in enumerate(zip(label.shape, scales, strict=True)):
        low, high = int(foreground[:, axis].min()), int(foreground[:, axis].max()) + 1
        pixels = (high - low) / scale
        edge = size if pixels <= size else math.ceil(pixels / _STEP) * _STEP
        length = min(full_length, math.floor(edge * scale + 0.5))
        starts.append(min(max((low + high - length) // 2, 0), full_length - length))
        lengths.append(length)
    return starts[0], starts[1], lengths[0], lengths[1]


class LiverCropd(Transform):
    """Crop image and label of a slab to the square around its liver.

    The liver is that of the annotation, not of the liver network that comes first in the paper's cascade, since the
    compared networks are those for lesions. A lesion network that is trained on crops is then also scored on crops;
    full slices contain three times the air, which changes every average the network computes.

    The element gets `box`: first row, first column, height and width in the full slice.

    Args:
        size: edge in pixels of the slice or, with `pixel_mm`, in pixels of that size; None keeps the full slice.
        pixel_mm: edge of these pixels in mm; the data then needs `spacing`, mm between slices, rows and columns.
    """

    def __init__(self, size: int | None, pixel_mm: float | None = None) -> None:
        self.size = size
        self.pixel_mm = pixel_mm

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Crop `image` (slices, H, W) and `label` (1, H, W)."""
        label = torch.as_tensor(data[CommonKeys.LABEL])
        scales = (1.0, 1.0)
        if self.pixel_mm is not None:
            _, row_mm, column_mm = torch.as_tensor(data["spacing"]).tolist()
            scales = self.pixel_mm / row_mm, self.pixel_mm / column_mm
        full_box = (0, 0, label.shape[-2], label.shape[-1])
        row, column, height, width = full_box if self.size is None else liver_box(label[0], self.size, scales)
        crop = (..., slice(row, row + height), slice(column, column + width))
        return {
            **data,
            CommonKeys.IMAGE: data[CommonKeys.IMAGE][crop],
            CommonKeys.LABEL: label[crop],
            "box": torch.tensor([row, column, height, width]),
        }
