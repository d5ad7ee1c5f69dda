"""The square around the liver that the networks are scored on, as the paper's crops are."""

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
"""Larger squares come in these steps of pixels: the networks halve five times, and few sizes make full batches."""


def liver_box(label: torch.Tensor, size: int, scales: tuple[float, float] = (1.0, 1.0)) -> tuple[int, int, int, int]:
    """First row, first column, height and width of a square of `size` pixels around a slice's liver.

    It is larger where liver and lesions are, in steps of 32 pixels, so that nothing is lost, and ends at the slice's
    edges. A slice whose liver is not labelled is left whole: a square around its lesions would tell where they are.

    Args:
        label: label map of one slice, (H, W).
        size: edge in pixels.
        scales: rows and columns of the slice along one of these pixels.
    """
    if not ((label == LIVER) | (label == LIVER_OR_LESION)).any():
        return 0, 0, label.shape[0], label.shape[1]
    found = torch.nonzero(label >= LIVER)
    starts, lengths = [], []
    for axis, (whole, scale) in enumerate(zip(label.shape, scales, strict=True)):
        low, high = int(found[:, axis].min()), int(found[:, axis].max()) + 1
        pixels = (high - low) / scale
        wanted = size if pixels <= size else math.ceil(pixels / _STEP) * _STEP
        length = min(whole, math.floor(wanted * scale + 0.5))
        starts.append(min(max((low + high - length) // 2, 0), whole - length))
        lengths.append(length)
    return starts[0], starts[1], lengths[0], lengths[1]


class LiverCropd(Transform):
    """Cut image and label of a slab to the square around its liver.

    The liver is that of the annotation, in place of the liver network that finds it first in the paper's cascade: what
    is compared are networks for lesions. A lesion network that is trained on crops also sees crops then; whole slices
    hold three times the air, which moves every average it takes.

    The element gets `box`: first row and column, height and width in the whole slice.

    Args:
        size: edge in pixels, of the slice or with `pixel_mm` of that size; None leaves the slab as it is, with
            a box that says so.
        pixel_mm: edge of these pixels in mm; the data then needs `spacing`, mm between slices, rows and columns.
    """

    def __init__(self, size: int | None, pixel_mm: float | None = None) -> None:
        self.size = size
        self.pixel_mm = pixel_mm

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Cut `image` (slices, H, W) and `label` (1, H, W)."""
        label = torch.as_tensor(data[CommonKeys.LABEL])
        scales = (1.0, 1.0)
        if self.pixel_mm is not None:
            _, row_mm, column_mm = torch.as_tensor(data["spacing"]).tolist()
            scales = self.pixel_mm / row_mm, self.pixel_mm / column_mm
        whole = (0, 0, label.shape[-2], label.shape[-1])
        row, column, height, width = whole if self.size is None else liver_box(label[0], self.size, scales)
        cut = (..., slice(row, row + height), slice(column, column + width))
        return {
            **data,
            CommonKeys.IMAGE: data[CommonKeys.IMAGE][cut],
            CommonKeys.LABEL: label[cut],
            "box": torch.tensor([row, column, height, width]),
        }
