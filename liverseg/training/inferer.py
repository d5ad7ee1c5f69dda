"""A MONAI inferer for batches of slabs."""

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
    """Run a network on a batch of slabs in mixed precision and channels-last memory format.

    Args:
        amp: "auto", True or False, see `liverseg.utils.precision.autocast_dtype`.
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
        """Return float32 logits: a map, or the `SlabOutput` of a network that returns one.

        Args:
            inputs: (batch, slab slices, H, W).
            network: network to run.
            args: positional arguments for the network.
            sizes: height and width of each slab's own slice, its first rows and columns; the rest is padding. Slabs of
                one size are run together without their padding, so that the logits of a slab do not depend on the
                batch; the logits of the padding are 0. None for slabs without padding.
            label_sizes: height and width of each slab's label map, if they differ from `sizes`. Maps are resampled to
                them, see `back_to_slice`, and padded to the largest.
            kwargs: keyword arguments for the network.
        """
        target_sizes = sizes if label_sizes is None else label_sizes
        groups: dict[tuple[tuple[int, ...], tuple[int, ...]], list[int]] = {}
        for row, (size, target_size) in enumerate(zip(sizes or (), target_sizes or (), strict=True)):
            groups.setdefault((tuple(size), tuple(target_size)), []).append(row)
        full_size = tuple(inputs.shape[-2:])
        if {*groups} <= {(full_size, full_size)}:
            return self._logits(inputs, network, *args, **kwargs)
        outputs = [
            (
                rows,
                _resample_maps(self._logits(inputs[rows, :, :height, :width], network, *args, **kwargs), target_size),
            )
            for ((height, width), target_size), rows in groups.items()
        ]
        height, width = full_size if label_sizes is None else map(max, zip(*label_sizes, strict=True))
        shape = (len(inputs), height, width)
        only_maps = [(rows, output) for rows, output in outputs if isinstance(output, torch.Tensor)]
        if only_maps:
            return _merge(only_maps, shape)
        slab_outputs = [(rows, output) for rows, output in outputs if isinstance(output, SlabOutput)]
        maps = [(rows, output.maps) for rows, output in slab_outputs if output.maps is not None]
        types = _merge([(rows, output.types) for rows, output in slab_outputs], shape)
        return SlabOutput(_merge(maps, shape) if maps else None, types)

    def _logits(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> torch.Tensor | SlabOutput:
        with autocast(inputs.device, self.amp):
            output = network(inputs.contiguous(memory_format=torch.channels_last), *args, **kwargs)
        if isinstance(output, SlabOutput):
            return SlabOutput(
                None if output.maps is None else output.maps.float(), output.types.float(), output.weights
            )
        return output.float()


def _resample_maps(output: torch.Tensor | SlabOutput, size: tuple[int, ...]) -> torch.Tensor | SlabOutput:
    """Return the output with its maps resampled to slices of a size."""
    if isinstance(output, SlabOutput):
        return SlabOutput(None if output.maps is None else back_to_slice(output.maps, size), output.types)
    return back_to_slice(output, size)


def _merge(parts: Sequence[tuple[list[int], torch.Tensor]], batch_shape: tuple[int, int, int]) -> torch.Tensor:
    """Merge parts of a batch into a tensor of its length, height and width; maps are padded below and on the right."""
    shape = list(parts[0][1].shape)
    shape[0] = batch_shape[0]
    if len(shape) > 2:
        shape[-2:] = batch_shape[1:]
    merged = parts[0][1].new_zeros(shape)
    for rows, part in parts:
        index: tuple[Any, ...] = (rows, *(slice(length) for length in part.shape[1:]))
        merged[index] = part
    return merged
