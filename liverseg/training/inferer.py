"""The forward pass of a batch of slabs, as a MONAI inferer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.inferers import Inferer

from liverseg.networks import SlabOutput
from liverseg.transforms import back_to_slice
from liverseg.utils.precision import autocast

__all__ = ["SlabBatchInferer"]


class SlabBatchInferer(Inferer):
    """Runs a network on a batch of slabs in mixed precision and channels-last memory.

    Args:
        amp: "auto", True or False: see `liverseg.utils.precision.autocast_dtype`.
    """

    def __init__(self, amp: bool | str = "auto") -> None:
        self.amp = amp

    def __call__(
        self,
        inputs: torch.Tensor,
        network: Callable[..., Any],
        *args: Any,
        sizes: Sequence[Sequence[int]] | None = None,
        label_sizes: Sequence[Sequence[int]] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor | SlabOutput:
        """Float32 logits: a map, or a `SlabOutput` where the network gives one.

        Args:
            inputs: (batch, slab slices, H, W).
            network: what to run.
            args: for the network.
            sizes: height and width of each slab's own part, its first rows and columns. The network is run on these
                parts, all of one size at a time, so that what it says of a slab does not depend on the others; outside
                them logits are 0. None for slabs that fill the batch.
            label_sizes: height and width of each slab's label map, where they are not `sizes`: maps are brought back to
                them, see `back_to_slice`, and to the largest of them as a batch.
            kwargs: for the network.
        """
        own_sizes = sizes if label_sizes is None else label_sizes
        groups: dict[tuple[tuple[int, ...], tuple[int, ...]], list[int]] = {}
        for row, (size, own) in enumerate(zip(sizes or (), own_sizes or (), strict=True)):
            groups.setdefault((tuple(size), tuple(own)), []).append(row)
        whole = tuple(inputs.shape[-2:])
        if {*groups} <= {(whole, whole)}:
            return self._logits(inputs, network, *args, **kwargs)
        outputs = [
            (rows, _on_grid(self._logits(inputs[rows, :, :height, :width], network, *args, **kwargs), own))
            for ((height, width), own), rows in groups.items()
        ]
        height, width = whole if label_sizes is None else map(max, zip(*label_sizes, strict=True))
        shape = (len(inputs), height, width)
        plain = [(rows, one) for rows, one in outputs if isinstance(one, torch.Tensor)]
        if plain:
            return _together(plain, shape)
        named = [(rows, one) for rows, one in outputs if isinstance(one, SlabOutput)]
        maps = [(rows, one.maps) for rows, one in named if one.maps is not None]
        types = _together([(rows, one.types) for rows, one in named], shape)
        return SlabOutput(_together(maps, shape) if maps else None, types)

    def _logits(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> torch.Tensor | SlabOutput:
        with autocast(inputs.device, self.amp):
            output = network(inputs.contiguous(memory_format=torch.channels_last), *args, **kwargs)
        if isinstance(output, SlabOutput):
            return SlabOutput(None if output.maps is None else output.maps.float(), output.types.float())
        return output.float()


def _on_grid(output: torch.Tensor | SlabOutput, size: tuple[int, ...]) -> torch.Tensor | SlabOutput:
    """The output with its maps on slices of a size."""
    if isinstance(output, SlabOutput):
        return SlabOutput(None if output.maps is None else back_to_slice(output.maps, size), output.types)
    return back_to_slice(output, size)


def _together(parts: Sequence[tuple[list[int], torch.Tensor]], whole_shape: tuple[int, int, int]) -> torch.Tensor:
    """One tensor of all rows of a batch of that length, height and width; maps lie in the first rows and columns."""
    shape = list(parts[0][1].shape)
    shape[0] = whole_shape[0]
    if len(shape) > 2:
        shape[-2:] = whole_shape[1:]
    whole = parts[0][1].new_zeros(shape)
    for rows, part in parts:
        place: tuple[Any, ...] = (rows, *(slice(length) for length in part.shape[1:]))
        whole[place] = part
    return whole
