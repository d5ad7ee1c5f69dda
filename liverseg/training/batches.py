"""From what a data set gives to what a network is trained on: loaded ahead, moved, and augmented on its device."""

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


def pad_collate(batch: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Batch elements of `SlabDataset` whose slices differ in size, enlarged to the largest below and on the right.

    Images repeat their edge, since zeros would be a rim of soft tissue; labels get background there. Each element also
    gets `size` and `label_size`, the height and width that are its image's and its label map's own; they differ where
    images have been brought to another pixel size. A network sees the rim where it is given whole batches: it takes
    averages over everything. `UncroppedBatch` has each slice scored at its own size.

    Args:
        batch: elements with `image` (slab slices, H, W) and `label` (1, H, W) of any height, width and number type.
    """
    sizes = {
        key: [max(element[key].shape[axis] for element in batch) for axis in (-2, -1)]
        for key in (CommonKeys.IMAGE, CommonKeys.LABEL)
    }
    return default_collate([_enlarged(element, sizes[CommonKeys.IMAGE], sizes[CommonKeys.LABEL]) for element in batch])


def _enlarged(element: Mapping[str, Any], image_size: Sequence[int], label_size: Sequence[int]) -> dict[str, Any]:
    image, label = torch.as_tensor(element[CommonKeys.IMAGE]), torch.as_tensor(element[CommonKeys.LABEL])
    (own_height, own_width), (label_height, label_width) = image.shape[-2:], label.shape[-2:]
    enlarged = {**element, "size": torch.tensor([own_height, own_width])}
    enlarged["label_size"] = torch.tensor([label_height, label_width])
    if [own_height, own_width] != [*image_size]:
        # torch's own padding with the edge does not know whole numbers
        rows, columns = (
            torch.arange(wanted).clamp(max=own - 1) for wanted, own in zip(image_size, image.shape[-2:], strict=True)
        )
        enlarged[CommonKeys.IMAGE] = image[..., rows[:, None], columns]
    if [label_height, label_width] != [*label_size]:
        beside = [0, label_size[1] - label_width, 0, label_size[0] - label_height]
        enlarged[CommonKeys.LABEL] = functional.pad(label, beside)
    return enlarged


class AugmentedBatch:
    """A trainer's `prepare_batch`: a batch of whole slices, seen as its views say, on the training device.

    One resampling for crop, rotation, zoom, shift and flip; then the scanner where one was drawn, HU offset, window and
    noise.

    Args:
        crop_size: edge of the square crop in pixels, as `RandSlabViewd` has it.
        hu_window: lower and upper HU of the network's input.
        noise: as `salt_and_pepper`; where several processes train, `GloballySeededNoise`.
        scanner: as `apply_scanner`, for batches whose slabs `RandScannerd` has drawn a scanner for.
    """

    def __init__(
        self,
        crop_size: int,
        hu_window: Sequence[float],
        noise: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = salt_and_pepper,
        scanner: Callable[..., torch.Tensor] = apply_scanner,
    ) -> None:
        self.crop_size = crop_size
        self.hu_window = HUWindow(*map(float, hu_window))
        self.noise = noise
        self.scanner = scanner

    def __call__(
        self, batch: Mapping[str, Any], device: torch.device | str, non_blocking: bool = False, **_: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Image (batch, slab slices, crop, crop) in [-1, 1] and label (batch, 1, crop, crop), on the device.

        Args:
            batch: `image` (batch, slab slices, H, W) in HU, `label` (batch, 1, H, W), what `RandSlabViewd` drew, and
                if wanted what `RandScannerd` drew; `hu_range` (batch, 2) where HU were clipped before.
            device: the network's.
            non_blocking: passed on to the moves.
        """
        image, label, views, offset = (
            batch[key].to(device, non_blocking=non_blocking)
            for key in (CommonKeys.IMAGE, CommonKeys.LABEL, "view", "hu_offset")
        )
        seen, named = resample_views(image, label, views, self.crop_size, batch["points"].tolist())
        if "scanner" in batch:
            seen = self.scanner(seen, batch["scanner"], hu_range=batch.get("hu_range"), hu_offset=offset)
        else:
            seen = seen + offset[:, None, None, None]
        return self.noise(self.hu_window(seen), batch["noisy"]), named


class UncroppedBatch:
    """An evaluator's `prepare_batch`: slices on the network's device, with their own sizes for `SlabBatchInferer`."""

    def __call__(
        self, batch: Mapping[str, Any], device: torch.device | str, non_blocking: bool = False, **_: Any
    ) -> tuple[torch.Tensor, torch.Tensor, tuple[()], dict[str, Any]]:
        """Image, label, and the inferer's further arguments.

        Args:
            batch: what `pad_collate` gives.
            device: the network's.
            non_blocking: passed on to the moves.
        """
        image, label = (
            batch[key].to(device, non_blocking=non_blocking) for key in (CommonKeys.IMAGE, CommonKeys.LABEL)
        )
        sizes, label_sizes = batch["size"].tolist(), batch["label_size"].tolist()
        return image, label, (), {"sizes": sizes, **({"label_sizes": label_sizes} if label_sizes != sizes else {})}


def prefetch_factor(device: torch.device) -> int:
    """How many batches to load beside the network: 2 where a processor is free for that, else 0.

    A network on the CPU that has all of them would wait for the one thread that shares its processor, and lose more
    than it wins.
    """
    free = device.type != "cpu" or torch.get_num_threads() < available_cpus()
    return 2 if free else 0


class PrefetchDataLoader(DataLoader):
    """A data loader that loads the next batches while the network works on this one, with or without worker processes.

    Without them one thread does so, in order: what comes out is what `DataLoader` gives, and an error in it is raised
    where its batch was to come (MONAI's `ThreadDataLoader` ends the epoch silently instead). Worker processes are kept
    from epoch to epoch: a GPU is through an epoch of slices in less time than they take to start.

    Args:
        dataset: as for `DataLoader`.
        ahead: batches that are loaded ahead; 0 loads each when it is asked for, see `prefetch_factor`. Worker processes
            load ahead by themselves.
        kwargs: as for `DataLoader`.
    """

    def __init__(self, dataset: Dataset, ahead: int = 2, **kwargs: Any) -> None:
        kwargs.setdefault("persistent_workers", bool(kwargs.get("num_workers")))
        super().__init__(dataset, **kwargs)
        self.ahead = ahead

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch names a class of its own
        batches = super().__iter__()
        return batches if self.num_workers or not self.ahead else _loaded_ahead(batches, self.ahead)


def _loaded_ahead(batches: Iterator[Any], ahead: int) -> Iterator[Any]:
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="loading") as pool:
        waiting = deque(pool.submit(next, batches, end) for _ in range(ahead))
        while (batch := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, batches, end))
            yield batch
