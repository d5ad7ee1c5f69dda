"""Batches of slabs: prefetching, padding to a common size, and augmentation on the network's device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from monai.data import DataLoader, Dataset
from monai.utils import CommonKeys
from torch.nn import functional
from torch.utils.data import default_collate

from liverseg.transforms import HUWindow, apply_scanner, resample_views, salt_and_pepper
from liverseg.utils.distributed import available_cpus

__all__ = [
    "AugmentedBatch",
    "PrefetchDataLoader",
    "UncroppedBatch",
    "pad_collate",
    "prefetch_factor",
]


def prefetch_factor(device: torch.device) -> int:
    """Return how many batches to prefetch: 2 where a processor is free to load them, else 0.

    Where the network on the CPU uses all processors, it would share one with the loading thread and lose more than it
    wins.
    """
    free = device.type != "cpu" or torch.get_num_threads() < available_cpus()
    return 2 if free else 0


class PrefetchDataLoader(DataLoader):
    """A data loader that loads the next batches while the network computes, with or without worker processes.

    Without worker processes one thread loads the batches in order. The batches are those of `DataLoader`, and an error
    is raised in place of its batch (MONAI's `ThreadDataLoader` ends the epoch silently instead). Worker processes are
    kept from epoch to epoch: a GPU needs less time for an epoch of slices than they take to start.

    Args:
        dataset: as for `DataLoader`.
        prefetch: batches to load ahead, see `prefetch_factor`; 0 loads each batch when it is requested. Ignored with
            worker processes, which load ahead by themselves.
        kwargs: as for `DataLoader`.
    """

    def __init__(self, dataset: Dataset, prefetch: int = 2, **kwargs: Any) -> None:
        kwargs.setdefault("persistent_workers", bool(kwargs.get("num_workers")))
        super().__init__(dataset, **kwargs)
        self.prefetch = prefetch

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch declares a private iterator class
        batches = super().__iter__()
        return batches if self.num_workers or not self.prefetch else _prefetch(batches, self.prefetch)


def _prefetch(batches: Iterator[Any], count: int) -> Iterator[Any]:
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="loading") as pool:
        pending = deque(pool.submit(next, batches, end) for _ in range(count))
        while (batch := pending.popleft().result()) is not end:
            pending.append(pool.submit(next, batches, end))
            yield batch


def pad_collate(batch: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Collate elements of `SlabDataset`, padded below and on the right to the largest height and width.

    Images repeat their edge, since zeros would look like a rim of soft tissue; labels are padded with background. Each
    element also gets `size` and `label_size`, the height and width of its own image and label map; the two differ
    where images were resampled to another pixel size. The padding influences a network a little, because it averages
    over the complete image. `UncroppedBatch` passes the sizes on, so that each slice is scored at its own size.

    Args:
        batch: elements with `image` (slab slices, H, W) and `label` (1, H, W) of any height, width and dtype.
    """
    sizes = {
        key: [max(element[key].shape[axis] for element in batch) for axis in (-2, -1)]
        for key in (CommonKeys.IMAGE, CommonKeys.LABEL)
    }
    return default_collate([_pad(element, sizes[CommonKeys.IMAGE], sizes[CommonKeys.LABEL]) for element in batch])


def _pad(element: Mapping[str, Any], image_size: Sequence[int], label_size: Sequence[int]) -> dict[str, Any]:
    image, label = torch.as_tensor(element[CommonKeys.IMAGE]), torch.as_tensor(element[CommonKeys.LABEL])
    (height, width), (label_height, label_width) = image.shape[-2:], label.shape[-2:]
    padded = {**element, "size": torch.tensor([height, width])}
    padded["label_size"] = torch.tensor([label_height, label_width])
    if [height, width] != [*image_size]:
        # torch's replicate padding does not support integers
        rows, columns = (
            torch.arange(target).clamp(max=current - 1)
            for target, current in zip(image_size, image.shape[-2:], strict=True)
        )
        padded[CommonKeys.IMAGE] = image[..., rows[:, None], columns]
    if [label_height, label_width] != [*label_size]:
        padding = [0, label_size[1] - label_width, 0, label_size[0] - label_height]
        padded[CommonKeys.LABEL] = functional.pad(label, padding)
    return padded


class AugmentedBatch:
    """A trainer's `prepare_batch`: apply the augmentation that was drawn for each slab, on the training device.

    Crop, rotation, zoom, shift and flip are one resampling. The scanner's effects, if drawn, the HU offset, the window
    and noise follow.

    Args:
        crop_size: edge of the square crop in pixels, as in `RandSlabViewd`.
        hu_window: lower and upper HU of the network's input.
        noise: a function like `salt_and_pepper`; `GloballySeededNoise` in distributed training.
        scanner: a function like `apply_scanner`, for batches whose scanner `RandScannerd` has drawn.
        outlines: also pass the label maps to the network, as its argument `outlines`.
    """

    def __init__(
        self,
        crop_size: int,
        hu_window: Sequence[float],
        noise: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = salt_and_pepper,
        scanner: Callable[..., torch.Tensor] = apply_scanner,
        outlines: bool = False,
    ) -> None:
        self.crop_size = crop_size
        self.hu_window = HUWindow(*map(float, hu_window))
        self.noise = noise
        self.scanner = scanner
        self.outlines = outlines

    def __call__(
        self, batch: Mapping[str, Any], device: torch.device | str, non_blocking: bool = False, **_: Any
    ) -> tuple[torch.Tensor, torch.Tensor] | tuple[torch.Tensor, torch.Tensor, tuple[()], dict[str, Any]]:
        """Return image (batch, slab slices, crop, crop) in [-1, 1] and label (batch, 1, crop, crop), on the device.

        With `outlines`, the inferer's further positional and keyword arguments come after them.

        Args:
            batch: `image` (batch, slab slices, H, W) in HU, `label` (batch, 1, H, W), what `RandSlabViewd` has drawn
                and optionally what `RandScannerd` has drawn; `hu_range` (batch, 2) if HU were clipped before.
            device: the network's device.
            non_blocking: passed on to `Tensor.to`.
        """
        image, label, views, offset = (
            batch[key].to(device, non_blocking=non_blocking)
            for key in (CommonKeys.IMAGE, CommonKeys.LABEL, "view", "hu_offset")
        )
        image, label = resample_views(image, label, views, self.crop_size, batch["points"].tolist())
        if "scanner" in batch:
            image = self.scanner(image, batch["scanner"], hu_range=batch.get("hu_range"), hu_offset=offset)
        else:
            image = image + offset[:, None, None, None]
        prepared = self.noise(self.hu_window(image), batch["noisy"]), label
        return (*prepared, (), {"outlines": label}) if self.outlines else prepared


class UncroppedBatch:
    """An evaluator's `prepare_batch`: slices on the network's device, with their own sizes for `SlabBatchInferer`."""

    def __call__(
        self, batch: Mapping[str, Any], device: torch.device | str, non_blocking: bool = False, **_: Any
    ) -> tuple[torch.Tensor, torch.Tensor, tuple[()], dict[str, Any]]:
        """Return image, label, and the inferer's further positional and keyword arguments.

        Args:
            batch: a batch of `pad_collate`.
            device: the network's device.
            non_blocking: passed on to `Tensor.to`.
        """
        image, label = (
            batch[key].to(device, non_blocking=non_blocking) for key in (CommonKeys.IMAGE, CommonKeys.LABEL)
        )
        sizes, label_sizes = batch["size"].tolist(), batch["label_size"].tolist()
        return image, label, (), {"sizes": sizes, **({"label_sizes": label_sizes} if label_sizes != sizes else {})}
