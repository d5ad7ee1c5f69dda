"""Tensor operations that are faster than torch's usual ones on a CPU."""

from __future__ import annotations

import functools

import torch
from torch.nn import functional

__all__ = ["channel_argmax", "window_maximum"]


def channel_argmax(maps: torch.Tensor) -> torch.Tensor:
    """Return the index of the largest channel, as `maps.argmax(dim=1)`.

    `argmax` takes over twenty times as long on a CPU if the channels are not the last axis in memory.

    Args:
        maps: (batch, channels, ...).

    Returns:
        int64, (batch, ...).
    """
    return maps.max(dim=1).indices


def window_maximum(values: torch.Tensor, margin: int) -> torch.Tensor:
    """Return the maximum over a square around each pixel, as far as it is in the image.

    Shifted maxima take a tenth of the time of `max_pool2d`, which also returns where each maximum is.

    Args:
        values: floating point, without gradient, (..., H, W).
        margin: pixels on each side of the centre.
    """
    for dim in (-2, -1):
        padding = [0, 0, margin, margin] if dim == -2 else [margin, margin]
        padded = functional.pad(values, padding, value=-torch.inf)
        shifted = [padded.narrow(dim, start, values.shape[dim]) for start in range(2 * margin + 1)]
        values = functools.reduce(torch.maximum, shifted)
    return values
