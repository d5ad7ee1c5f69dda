"""Base classes of the networks: slabs as input, and parts that can be frozen."""

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
    """A network whose parts can be frozen: their parameters and batch norm statistics stay as they are.

    A frozen batch norm normalises with its running statistics during training too. The frozen weights were trained
    with these; the statistics of a few fine-tuning slabs would shift their inputs.
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
        names = {name for name, _ in self.named_modules() if name}
        for part in parts:
            if part not in names:
                children = ", ".join(name for name, _ in self.named_children())
                raise UsageError(f"no part {part!r} of the network to freeze; there are {children} and their parts")
        self.frozen = tuple(parts)
        for name, parameter in self.named_parameters():
            is_frozen = any(name.startswith(f"{part}.") for part in parts)
            parameter.requires_grad_(not is_frozen)
            if is_frozen:
                parameter.grad = None  # with a gradient of zero an optimizer would still apply its momentum
        self.train(self.training)

    def train(self, mode: bool = True) -> Freezable:
        """Set training mode for all but the frozen parts; trainers call this before every batch."""
        super().train(mode)
        for part in self.frozen:
            self.get_submodule(part).eval()
        return self


class SlabNetwork(Freezable):
    """A network that takes slabs: an `encoder` of a given size, and the parts that a strategy adds to it.

    Args:
        size: a key of `SIZES`.
        in_channels: slices of a slab.
        out_channels: labels of its map, the channels; 0 without a map.
        deep_supervision: whether coarser maps are supervised too.

    Attributes:
        float32_parts: names of submodules that compute in float32 even if the others do not.
        classifies_regions: whether all pixels of a connected lesion of a slab get one type.
    """

    float32_parts: tuple[str, ...] = ()
    classifies_regions: bool = False

    def __init__(self, size: str, in_channels: int, out_channels: int, deep_supervision: bool) -> None:
        super().__init__()
        self.size = size
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.deep_supervision = deep_supervision

    def arguments(self) -> dict[str, Any]:
        """Return the constructor arguments that build this network again."""
        return {
            "size": self.size,
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "deep_supervision": self.deep_supervision,
        }
