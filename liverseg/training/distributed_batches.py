"""Data of distributed training: each process's rows of a batch, its noise, its part of a fold, and the slice cache.

`batch_size` is that of one process. The global batches equal those of a single process with the global batch size, in
the same order, and the augmentation of a slab depends only on (seed, epoch, slab).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from ignite.engine import Engine, Events
from monai.data import Dataset
from torch import distributed
from torch.utils.data import Sampler

from liverseg.datalists import DataItem
from liverseg.datasets import SlabSampler, VolumeStore
from liverseg.errors import UsageError
from liverseg.transforms import salt_and_pepper
from liverseg.utils.distributed import barrier, is_rank_zero, rank, world_size

__all__ = ["DistributedBatchSampler", "DistributedFoldSampler", "GloballySeededNoise", "fill_cache_once"]


class DistributedBatchSampler(Sampler[list[tuple[int, int]]]):
    """Batch sampler that gives each process its rows of the global batch.

    A smaller last batch is split as evenly as possible. A batch with fewer slabs than processes is not split: a network
    cannot train on an empty batch, so every process computes all of it, and the mean of the equal gradients is correct.
    Attach the sampler to the trainer: loss, batch norm and noise use its attributes for the current batch.

    Args:
        sampler: order of the epoch's slabs.
        batch_size: slabs of a full batch in each process.

    Attributes:
        sizes: rows of the current batch in each process.
        is_split: False if each process has all rows.
    """

    def __init__(self, sampler: SlabSampler, batch_size: int) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.sizes, self.is_split = self._split_step(0)

    @property
    def global_batch_size(self) -> int:
        """Slabs of a full batch in all processes."""
        return self.batch_size * world_size()

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.global_batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = iter(self.sampler)
        while batch := list(islice(order, self.global_batch_size)):
            sizes, is_split = _split_rows(len(batch))
            first = sum(sizes[: rank()]) if is_split else 0
            yield batch[first : first + sizes[rank()]]

    def attach(self, engine: Engine) -> None:
        """Update the attributes before each step."""
        engine.add_event_handler(Events.STARTED, self.check)
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def check(self, engine: Engine) -> None:
        """Check that an epoch of the trainer has all batches.

        Raises:
            UsageError: if the trainer's epoch_length differs.
        """
        if engine.state.epoch_length != len(self):
            raise UsageError(
                f"train::trainer::epoch_length is {engine.state.epoch_length}; several processes go through all "
                f"{len(self)} batches of an epoch, so leave it out"
            )

    def __call__(self, engine: Engine) -> None:
        """Set the attributes for the starting step."""
        self.sizes, self.is_split = self._split_step((engine.state.iteration - 1) % len(self))

    def _split_step(self, step: int) -> tuple[list[int], bool]:
        return _split_rows(min(self.global_batch_size, len(self.sampler) - step * self.global_batch_size))


def _split_rows(rows: int) -> tuple[list[int], bool]:
    """Return the number of a batch's rows in each process, and whether the batch is split."""
    count = world_size()
    if rows < count:
        return [rows] * count, False
    return [(number + 1) * rows // count - number * rows // count for number in range(count)], True


class GloballySeededNoise:
    """Salt-and-pepper noise as a single process would draw it for the global batch.

    Args:
        batch_sampler: the trainer's batch sampler, which has the rows of each process.
    """

    def __init__(self, batch_sampler: DistributedBatchSampler) -> None:
        self.batch_sampler = batch_sampler

    def __call__(self, images: torch.Tensor, noisy: torch.Tensor) -> torch.Tensor:
        """Apply `salt_and_pepper`; every process must call it."""
        if not self.batch_sampler.is_split:
            return salt_and_pepper(images, noisy)
        local = noisy.sum(dtype=torch.long).to(images.device)
        gathered = [torch.zeros_like(local) for _ in self.batch_sampler.sizes]
        distributed.all_gather(gathered, local)
        counts = [int(count) for count in gathered]
        return salt_and_pepper(images, noisy, before=sum(counts[: rank()]), among=sum(counts))


class DistributedFoldSampler(Sampler[int]):
    """Sampler of every n-th element for validation, starting at the process's rank; `SlabScores` merges the counts.

    Args:
        dataset: data set of all processes.

    Raises:
        UsageError: if there are fewer elements than processes.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.indices = range(rank(), len(dataset), world_size())
        if len(dataset) < world_size():
            raise UsageError(
                f"{world_size()} processes to validate on {len(dataset)} slabs; use --nproc_per_node="
                f"{max(1, len(dataset))} or fewer"
            )

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)


def fill_cache_once(
    items: Sequence[DataItem],
    dataset_dir: str | os.PathLike,
    cache_dir: str | os.PathLike | None,
    labels: int,
    progress: bool = True,
) -> None:
    """Write volumes that are not in the slice cache yet, divided among the processes, and wait for all of them.

    Args:
        items: all items that will be read.
        dataset_dir: folder that the items' paths are relative to.
        cache_dir: folder of the `SliceCache`, accessible to all processes. With None nothing is written, and each
            process reads the original files.
        labels: rows of the label table.
        progress: show a bar in the first process.

    Raises:
        LiversegError: as `VolumeStore`.
    """
    if cache_dir is None:
        return
    # divided by image, since an image may have several label maps
    images = list(dict.fromkeys(os.path.normpath(item.image) for item in items))
    local_images = {*images[rank() :: world_size()]}
    local_items = [item for item in items if os.path.normpath(item.image) in local_images]
    if local_items:
        VolumeStore(local_items, dataset_dir, cache_dir, labels, progress and is_rank_zero())
    barrier()
