"""The forward pass of a batch of slabs, as a MONAI inferer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer

from liverseg.networks import SlabOutput
from liverseg.precision import autocast

__all__ = ["SlabBatchInferer"]


class SlabBatchInferer(Inferer):
    """Runs a network on a batch of slabs in mixed precision and channels-last memory.

    Args:
        amp: "auto", True or False: see `liverseg.precision.low_precision`.
    """

    def __init__(self, amp: bool | str = "auto") -> None:
        self.amp = amp

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> torch.Tensor | SlabOutput:
        """(batch, slab slices, H, W) in, float32 logits out: a map, or a `SlabOutput` where the network gives one."""
        with autocast(inputs.device, self.amp):
            output = network(inputs.contiguous(memory_format=torch.channels_last), *args, **kwargs)
        if isinstance(output, SlabOutput):
            return SlabOutput(None if output.maps is None else output.maps.float(), output.types.float())
        return output.float()
