"""A whole CT through the 2.5-D network, slab by slab, and back as one label map."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer

from liverseg.errors import UsageError
from liverseg.labels import LESION
from liverseg.networks import SlabInput
from liverseg.precision import autocast, low_precision
from liverseg.transforms import HUWindow, slab_indices

__all__ = ["SlabInferer", "SlabPrediction"]


@dataclass(frozen=True)
class SlabPrediction:
    """What the network says of a volume, without a float volume of every class.

    Attributes:
        labels: label map, uint8, shape (slice, row, column) in axial order.
        type_probabilities: float32, shape (lesion voxels, lesion types): probability of each type given that the voxel
            is lesion, one row for each voxel that `labels` calls lesion, in C order of `labels`.

    Raises:
        ValueError: if there is not one row of probabilities a lesion voxel.
    """

    labels: np.ndarray
    type_probabilities: np.ndarray

    def __post_init__(self) -> None:
        voxels = int(np.count_nonzero(self.labels >= LESION))
        if len(self.type_probabilities) != voxels:
            raise ValueError(f"{len(self.type_probabilities)} rows of probabilities for {voxels} lesion voxels")


class SlabInferer(Inferer):
    """Runs a slab network over every axial slice of a CT.

    Whole slices go through the network at their own resolution: there is no sliding window, no resampling and no worker
    process. HU stay in the file's own number type until a batch of slices is windowed, and only the label map and the
    lesion voxels' type probabilities leave the device.

    Args:
        hu_window: lower and upper HU of the network's input.
        slab_spacing_mm: distance of a slab's slices in mm; None takes adjacent ones, see `slab_indices`.
        batch_size: slabs that go through the network at a time; memory grows with it. On a CPU more than 2 gain
            nothing at 512×512; a GPU wants 16 or so.
        amp: "auto" (bfloat16 where the hardware computes it), True or False.

    Raises:
        UsageError: if the batch size is not a whole number of at least 1.
        ValueError: if the HU window is empty.

    Example:
        >>> network = SEResUNet("small", out_channels=5).eval()
        >>> ct = np.zeros((20, 128, 128), np.int16)
        >>> SlabInferer()(ct, network).labels.shape
        (20, 128, 128)
    """

    def __init__(
        self,
        hu_window: Sequence[float] = (-200.0, 250.0),
        batch_size: int = 2,
        amp: bool | str = "auto",
        slab_spacing_mm: float | None = None,
    ) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise UsageError(f"batch_size is {batch_size!r}; it must be a whole number of at least 1")
        self.hu_window = HUWindow(*map(float, hu_window))
        self.slab_spacing_mm = slab_spacing_mm
        self.batch_size = batch_size
        self.amp = amp

    @property
    def seen(self) -> SlabInput:
        """What the network sees of a CT."""
        return SlabInput((self.hu_window.lower, self.hu_window.upper), self.slab_spacing_mm)

    def precision(self, device: torch.device | str) -> str:
        """The number format the network is computed in on a device: "bfloat16" or "float32".

        Raises:
            UsageError: if `amp` is no known word, or True where the device has no bfloat16.
        """
        dtype = low_precision(device, self.amp)
        return "float32" if dtype is None else str(dtype).removeprefix("torch.")

    def __call__(
        self,
        inputs: torch.Tensor | np.ndarray,
        network: Callable[..., Any],
        *args: Any,
        slice_mm: float | None = None,
        **kwargs: Any,
    ) -> SlabPrediction:
        """Label a CT.

        Args:
            inputs: HU of any number type in axial order, shape (slice, row, column) with any number of leading axes of
                length one. A NumPy view (`Volume.axial`) is copied only a batch at a time.
            network: slabs (batch, 3, row, column) in [-1, 1] to logits (batch, label, row, column), in eval mode; it
                runs on the device its parameters are on.
            slice_mm: distance of neighbouring slices in mm, needed where slabs have a spacing of their own.
            args, kwargs: handed on to the network.

        Raises:
            ValueError: if `inputs` is not one volume, or the distance of its slices is needed and not given.
        """
        volume = inputs.reshape(inputs.shape[-3:]) if inputs.ndim > 3 and set(inputs.shape[:-3]) == {1} else inputs
        if volume.ndim != 3:
            raise ValueError(f"a volume of shape {tuple(inputs.shape)}; (slice, row, column) is needed")
        parameter = next(network.parameters(), None) if isinstance(network, torch.nn.Module) else None
        device = torch.device("cpu") if parameter is None else parameter.device
        labels = np.empty(tuple(volume.shape), np.uint8)
        probabilities = []
        with torch.inference_mode():
            for middles, slabs in self._slabs(volume, device, slice_mm):
                with autocast(device, self.amp):
                    logits = network(slabs, *args, **kwargs)
                best = logits.argmax(dim=1)
                labels[middles] = best.to(torch.uint8).cpu().numpy()
                probabilities.append(_types_given_lesion(logits, best))
        return SlabPrediction(labels, np.concatenate(probabilities))

    def _slabs(
        self, volume: torch.Tensor | np.ndarray, device: torch.device, slice_mm: float | None
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        """Batches of windowed slabs, channels last, with the numbers of their middle slices."""
        depth = volume.shape[0]
        if self.slab_spacing_mm is None:
            slice_mm = 1.0
        elif slice_mm is None:
            raise ValueError(f"slabs of slices {self.slab_spacing_mm} mm apart need the volume's slice_mm")
        for start in range(0, depth, self.batch_size):
            stop = min(start + self.batch_size, depth)
            needed = slab_indices(
                np.arange(start, stop), depth, slice_mm=slice_mm, slab_spacing_mm=self.slab_spacing_mm
            )
            # each slice is moved and windowed once, although up to three slabs hold it
            numbers, places = np.unique(needed, return_inverse=True)
            adjacent = numbers[-1] - numbers[0] < len(numbers)  # and no copy is needed to take them out
            own = volume[numbers[0] : numbers[-1] + 1] if adjacent else volume[numbers]
            slices = self.hu_window(_as_tensor(own).to(device, non_blocking=True))
            slabs = slices[torch.from_numpy(places.reshape(needed.shape)).to(device)]
            yield slice(start, stop), slabs.contiguous(memory_format=torch.channels_last)


def _as_tensor(slices: torch.Tensor | np.ndarray) -> torch.Tensor:
    if isinstance(slices, torch.Tensor):
        return slices
    # always copied, a few slices at most: torch knows no negative strides, big-endian numbers or read-only memory
    return torch.from_numpy(np.array(slices, dtype=slices.dtype.newbyteorder("="), order="C"))


def _types_given_lesion(logits: torch.Tensor, best: torch.Tensor) -> np.ndarray:
    """Rows of type probabilities of the lesion voxels, slice by slice in C order."""
    rows = logits.permute(0, 2, 3, 1)[best >= LESION][:, LESION:]
    return torch.softmax(rows.float(), dim=1).cpu().numpy()
