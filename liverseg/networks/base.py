"""What all networks of this project share: slabs in, parts that can be frozen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from liverseg.errors import UsageError

__all__ = [
    "Freezable",
    "SlabNetwork",
]


class Freezable(nn.Module):
    """A network whose parts can be frozen: their parameters do not learn, and their batch norm keeps its statistics.

    A frozen batch norm normalises with its running statistics, in training too: those of a few fine-tuning slabs would
    move what the frozen weights were made for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.frozen: tuple[str, ...] = ()

    def freeze(self, parts: Sequence[str]) -> None:
        """Freeze these parts and no others.

        Args:
            parts: names of submodules, e.g. `encoder` or `encoder.layer0`; none unfreezes everything.

        Raises:
            UsageError: if the network has no such part.
        """
        there = {name for name, _ in self.named_modules() if name}
        for part in parts:
            if part not in there:
                own = ", ".join(name for name, _ in self.named_children())
                raise UsageError(f"no part {part!r} of the network to freeze; there are {own} and their parts")
        self.frozen = tuple(parts)
        for name, parameter in self.named_parameters():
            inside = any(name.startswith(f"{part}.") for part in parts)
            parameter.requires_grad_(not inside)
            if inside:
                parameter.grad = None  # an optimizer would go on with a gradient of zero and its momentum
        self.train(self.training)

    def train(self, mode: bool = True) -> Freezable:
        """Training mode for all but the frozen parts; trainers ask for it before every batch."""
        super().train(mode)
        for part in self.frozen:
            self.get_submodule(part).eval()
        return self


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
