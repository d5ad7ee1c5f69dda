"""What the networks of all strategies have in common."""

from __future__ import annotations

from typing import Any

from liverseg.networks.freezing import Freezable

__all__ = ["SlabNetwork"]


class SlabNetwork(Freezable):
    """A network of slabs: an `encoder` of some size, and whatever a strategy builds on it.

    Args:
        size: a key of `SIZES`.
        in_channels: slices of a slab.
        out_channels: rows of the label table its map speaks; 0 without a map.
        deep_supervision: whether it also learns from coarser maps.
    """

    def __init__(self, size: str, in_channels: int, out_channels: int, deep_supervision: bool) -> None:
        super().__init__()
        self.size = size
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.deep_supervision = deep_supervision

    def arguments(self) -> dict[str, Any]:
        """What the network was built with; its class called with them builds it again."""
        return {
            "size": self.size,
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "deep_supervision": self.deep_supervision,
        }
