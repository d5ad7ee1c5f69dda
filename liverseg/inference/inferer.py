"""Run the 2.5-D network over a CT, slab by slab, and assemble the label map."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from liverseg.bundle.validation import check_values
from liverseg.imageio.boxes import Box, box_shape, full_box
from liverseg.inference.prediction import SlabPrediction
from liverseg.labels import LESION, LIVER
from liverseg.networks import SlabInput
from liverseg.transforms import HUWindow, back_to_slice, slab_indices, to_pixel_mm
from liverseg.utils.precision import autocast, autocast_dtype
from liverseg.utils.tensors import channel_argmax

__all__ = ["SlabInferer", "resolve_batch_size"]

_BATCH_SIZES = {"cpu": 4, "cuda": 16}


class SlabInferer:
    """Run a slab network over axial slices of a CT, or over a box of it.

    There is no sliding window and no worker process. Slices go through the network at their own resolution, or with
    `pixel_mm` at that of the training, to which each batch is resampled. Labels are on the CT's own grid in either
    case. HU keep the file's number type until then, and only the label map and the probabilities of lesion voxels leave
    the device.

    Args:
        hu_window: lower and upper HU of the network's input.
        slab_spacing_mm: distance of a slab's slices in mm; None takes adjacent slices, see `slab_indices`.
        batch_size: slabs that go through the network at a time, see `resolve_batch_size`; memory grows with it. With
            `pixel_mm` it is scaled so that the network sees as many pixels at a time: small maps need large batches.
        amp: "auto" (bfloat16 if the hardware computes it), True or False.
        type_temperature: divides the type logits before their softmax; from the weights record.
        pixel_mm: edge in mm of the pixels the network was trained with; None for the slices' own pixels.
        voxel_threshold: smallest probability of lesion of any type, given liver or lesion, for a voxel of the liver to
            be lesion. None takes the likeliest label; then several types of similar probability lose to the liver.

    Raises:
        UsageError: if a value is not allowed, see `liverseg.bundle.validation.RULES`.
        ValueError: if the HU window is empty.

    Example:
        >>> from liverseg.networks import SEResUNet
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
        type_temperature: float = 1.0,
        pixel_mm: float | None = None,
        voxel_threshold: float | None = None,
    ) -> None:
        check_values(batch_size=batch_size, type_temperature=type_temperature, voxel_threshold=voxel_threshold)
        self.type_temperature = type_temperature
        self.voxel_threshold = voxel_threshold
        self.hu_window = HUWindow(*map(float, hu_window))
        self.slab_spacing_mm = slab_spacing_mm
        self.pixel_mm = pixel_mm
        self.batch_size = batch_size
        self.amp = amp

    @property
    def input_spec(self) -> SlabInput:
        """The network's input: HU window, slab spacing and pixel size."""
        return SlabInput((self.hu_window.lower, self.hu_window.upper), self.slab_spacing_mm, pixel_mm=self.pixel_mm)

    def precision(self, device: torch.device | str) -> str:
        """Return the number format of the computation on a device: "bfloat16" or "float32".

        Raises:
            UsageError: if `amp` has another value, or is True and the device has no bfloat16.
        """
        dtype = autocast_dtype(device, self.amp)
        return "float32" if dtype is None else str(dtype).removeprefix("torch.")

    @contextmanager
    def inference(self, network: Callable[..., Any]) -> Iterator[None]:
        """Compute the block without gradients, in the precision of `amp`, or in that of weights that were converted.

        Autocast converts float32 weights once for the block, so enter it around several calls.
        """
        amp = self.amp if _dtype_of(network) == torch.float32 else False
        with torch.inference_mode(), autocast(_device_of(network), amp):
            yield

    def __call__(
        self,
        inputs: torch.Tensor | np.ndarray,
        network: Callable[..., Any],
        *args: Any,
        slice_mm: float | None = None,
        in_plane_mm: Sequence[float] | None = None,
        box: Box | None = None,
        on_batch: Callable[[int], None] | None = None,
        **kwargs: Any,
    ) -> SlabPrediction:
        """Label a CT.

        Args:
            inputs: HU of any number type in axial order, shape (slice, row, column) with any number of leading axes of
                length one. A NumPy view (`Volume.axial`) is copied only a batch at a time.
            network: slabs (batch, 3, row, column) in [-1, 1] to logits (batch, label, row, column), in eval mode; it
                runs on the device its parameters are on.
            slice_mm: distance of neighbouring slices in mm; needed with a slab spacing.
            in_plane_mm: distance of neighbouring rows and columns in mm; needed with a pixel size.
            box: the part to label; by default all of the volume. The network sees slices outside it as neighbours.
            on_batch: called after each batch with its number of voxels.
            args, kwargs: passed to the network.

        Raises:
            ValueError: if `inputs` is not one volume, or a distance of its voxels is needed and missing.
        """
        volume = _one_volume(inputs)
        box = full_box(volume.shape) if box is None else box
        labels = np.empty(box_shape(box), np.uint8)
        types, lesion = [], []
        slices = np.arange(box[0].start, box[0].stop)
        with self.inference(network):
            maps = self._logits(volume, network, slices, box[1:], 1, slice_mm, in_plane_mm, *args, **kwargs)
            for middles, logits in maps:
                best = _labels(logits, self.voxel_threshold)
                labels[middles[0] - slices[0] : middles[-1] - slices[0] + 1] = best.to(torch.uint8).cpu().numpy()
                of_types, of_lesion = _lesion_voxels(logits, best, self.type_temperature)
                types.append(of_types)
                lesion.append(of_lesion)
                if on_batch is not None:
                    on_batch(best.numel())
        depth, rows, columns = volume.shape
        shape = (depth, rows, columns)
        return SlabPrediction(
            labels,
            np.concatenate(types),
            box,
            shape,
            lesion_probabilities=np.concatenate(lesion),
            typed_regions=getattr(network, "classifies_regions", False),
        )

    def liver(
        self,
        inputs: torch.Tensor | np.ndarray,
        network: Callable[..., Any],
        slices: np.ndarray,
        reduction: int = 1,
        slice_mm: float | None = None,
        in_plane_mm: Sequence[float] | None = None,
    ) -> np.ndarray:
        """Label the liver, lesions included, on some slices at a lower resolution.

        Args:
            inputs, network, slice_mm, in_plane_mm: as for `__call__`.
            slices: indices of the slices, increasing.
            reduction: edge of an averaged pixel in pixels of the volume. A network with a pixel size sees averaged
                pixels or its own, whichever are larger; the mask has averaged pixels in either case.

        Returns:
            Mask of shape (slices, rows / reduction, columns / reduction), without the last pixels of a row or column
            that make no full averaged pixel.
        """
        volume = _one_volume(inputs)
        plane = (slice(0, volume.shape[1]), slice(0, volume.shape[2]))
        with self.inference(network):
            maps = self._logits(volume, network, np.asarray(slices), plane, reduction, slice_mm, in_plane_mm)
            return np.concatenate([(channel_argmax(logits) >= LIVER).cpu().numpy() for _, logits in maps])

    def _logits(
        self,
        volume: torch.Tensor | np.ndarray,
        network: Callable[..., Any],
        slices: np.ndarray,
        plane: tuple[slice, slice],
        reduction: int,
        slice_mm: float | None,
        in_plane_mm: Sequence[float] | None,
        *args: Any,
        **kwargs: Any,
    ) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Yield the indices of each batch's middle slices and their logits; iterate within `inference`.

        Logits are on the grid of the plane, reduced as for `liver`.
        """
        device = _device_of(network)
        if self.slab_spacing_mm is None:
            slice_mm = 1.0
        elif slice_mm is None:
            raise ValueError(f"slabs of slices {self.slab_spacing_mm} mm apart need the volume's slice_mm")
        if self.pixel_mm is not None and in_plane_mm is None:
            raise ValueError(f"pixels of {self.pixel_mm} mm need the volume's in_plane_mm")
        lengths = [(side.stop - side.start) // reduction for side in plane]
        network_mm, batch_size = None, self.batch_size
        if self.pixel_mm is not None and in_plane_mm is not None:
            network_mm = self.pixel_mm if reduction == 1 else max(self.pixel_mm, reduction * min(in_plane_mm))
            # 0.1 against rounding: the quotient may be an integer
            batch_size = max(1, int(batch_size * network_mm**2 / math.prod(in_plane_mm) + 0.1))
        if reduction > 1:
            sides = zip(plane, lengths, strict=True)
            rows, columns = (slice(side.start, side.start + length * reduction) for side, length in sides)
            plane = rows, columns
        for middles in np.array_split(slices, math.ceil(len(slices) / batch_size)):  # batches of equal size
            needed = slab_indices(middles, volume.shape[0], slice_mm=slice_mm, slab_spacing_mm=self.slab_spacing_mm)
            # each slice is moved and windowed once, although up to three slabs contain it
            numbers, places = np.unique(needed, return_inverse=True)
            adjacent = numbers[-1] - numbers[0] < len(numbers)  # a view suffices
            cropped = volume[(slice(None), *plane)]
            own = cropped[numbers[0] : numbers[-1] + 1] if adjacent else cropped[numbers]
            hu = _as_tensor(own).to(device, non_blocking=True)
            if network_mm is None or in_plane_mm is None:
                windowed = self.hu_window(hu)
                if reduction > 1:
                    windowed = functional.avg_pool2d(windowed[:, None], reduction)[:, 0]
            else:
                windowed = self.hu_window(to_pixel_mm(hu, in_plane_mm, network_mm))
            slabs = windowed[torch.from_numpy(places.reshape(needed.shape)).to(device)]
            slabs = slabs.to(_dtype_of(network), memory_format=torch.channels_last)
            logits = network(slabs, *args, **kwargs)
            yield middles, back_to_slice(logits, lengths)


def resolve_batch_size(batch_size: int | str, device: torch.device | str) -> int | str:
    """Return the batch size; for "auto" 4 on a CPU and 16 on a GPU, where more are no faster.

    Example:
        >>> resolve_batch_size("auto", "cpu")
        4
    """
    return _BATCH_SIZES.get(torch.device(device).type, 4) if str(batch_size).lower() == "auto" else batch_size


def _device_of(network: Callable[..., Any]) -> torch.device:
    parameter = next(network.parameters(), None) if isinstance(network, torch.nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device


def _dtype_of(network: Callable[..., Any]) -> torch.dtype:
    parameter = next(network.parameters(), None) if isinstance(network, torch.nn.Module) else None
    return torch.float32 if parameter is None else parameter.dtype


def _one_volume(inputs: torch.Tensor | np.ndarray) -> torch.Tensor | np.ndarray:
    volume = inputs.reshape(inputs.shape[-3:]) if inputs.ndim > 3 and set(inputs.shape[:-3]) == {1} else inputs
    if volume.ndim != 3:
        raise ValueError(f"a volume of shape {tuple(inputs.shape)}; (slice, row, column) is needed")
    return volume


def _as_tensor(slices: torch.Tensor | np.ndarray) -> torch.Tensor:
    if isinstance(slices, torch.Tensor):
        return slices
    # always a copy, of a few slices: torch accepts no negative strides, big-endian numbers or read-only memory
    return torch.from_numpy(np.array(slices, dtype=slices.dtype.newbyteorder("="), order="C"))


def _labels(logits: torch.Tensor, voxel_threshold: float | None) -> torch.Tensor:
    """Return each voxel's likeliest label; with a threshold, voxels of liver or lesion are split by it instead."""
    best = channel_argmax(logits)
    if voxel_threshold is None:
        return best
    inside = best >= LIVER
    rows = logits.permute(0, 2, 3, 1)[inside].float()
    lesion = rows[:, LESION:]
    odds = torch.logsumexp(lesion, dim=1) - rows[:, LIVER]
    is_lesion = odds >= math.log(voxel_threshold / (1 - voxel_threshold))
    best[inside] = torch.where(is_lesion, lesion.argmax(dim=1) + LESION, LIVER)
    return best


def _lesion_voxels(logits: torch.Tensor, best: torch.Tensor, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the lesion voxels' probabilities of each type given lesion, and of lesion, in C order."""
    rows = logits.permute(0, 2, 3, 1)[best >= LESION].float()
    types = torch.softmax(rows[:, LESION:] / temperature, dim=1)
    lesion = torch.softmax(rows, dim=1)[:, LESION:].sum(dim=1)
    return types.cpu().numpy(), lesion.cpu().numpy()
