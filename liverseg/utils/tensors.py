"""Tensor operations that are faster than torch's usual ones on a CPU."""

from __future__ import annotations

import torch

__all__ = ["channel_argmax"]


def channel_argmax(maps: torch.Tensor) -> torch.Tensor:
    """Return the index of the largest channel, as `maps.argmax(dim=1)`.

    `argmax` takes over twenty times as long on a CPU if the channels are not the last axis in memory.

    Args:
        maps: (batch, channels, ...).

    Returns:
        int64, (batch, ...).
    """
    return maps.max(dim=1).indices
