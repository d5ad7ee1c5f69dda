"""The share of one process in what several learn from: its slabs of each batch, its noise, its part of a fold.

`batch_size` is that of one process. Batches are those of a single process with as many times the size, in the same
order, and each process takes its rows of them; what a slab looks like depends on (seed, epoch, slab) alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

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
    """Batches of all processes together, of which each takes its rows: a loader's `batch_sampler`.

    A last batch that is smaller is shared out as evenly as can be. One of fewer slabs than there are processes is
    computed by each of them whole, since a network cannot learn from none; their gradients are then equal, and so is
    their mean. Attach it to the trainer: loss, batch norm and noise ask it how the batch in work is shared.

    Args:
        sampler: order of the epoch's slabs.
        batch_size: slabs of a full batch in each process.

    Attributes:
        sizes: rows of the batch in work that each process has.
        shared: False where each has all of them.
    """

    def __init__(self, sampler: SlabSampler, batch_size: int) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.sizes, self.shared = self._shared_out(0)

    @property
    def together(self) -> int:
        """Slabs of a full batch in all processes."""
        return self.batch_size * world_size()

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.together)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = iter(self.sampler)
        while batch := list(islice(order, self.together)):
            sizes, shared = _shared_out(len(batch))
            first = sum(sizes[: rank()]) if shared else 0
            yield batch[first : first + sizes[rank()]]

    def attach(self, engine: Engine) -> None:
        """Say before each step how its batch is shared."""
        engine.add_event_handler(Events.STARTED, self.check)
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def check(self, engine: Engine) -> None:
        """See that an epoch is one round through the batches.

        Raises:
            UsageError: if the trainer was told otherwise.
        """
        if engine.state.epoch_length != len(self):
            raise UsageError(
                f"train::trainer::epoch_length is {engine.state.epoch_length}; several processes go through all "
                f"{len(self)} batches of an epoch, so leave it out"
            )

    def __call__(self, engine: Engine) -> None:
        """The step that begins."""
        self.sizes, self.shared = self._shared_out((engine.state.iteration - 1) % len(self))

    def _shared_out(self, step: int) -> tuple[list[int], bool]:
        return _shared_out(min(self.together, len(self.sampler) - step * self.together))


def _shared_out(rows: int) -> tuple[list[int], bool]:
    """How many of a batch's rows each process has, and whether it is shared."""
    count = world_size()
    if rows < count:
        return [rows] * count, False
    return [(number + 1) * rows // count - number * rows // count for number in range(count)], True


class GloballySeededNoise:
    """Salt and pepper as a single process would draw it for the whole batch, of which this one takes its rows.

    Args:
        shares: how the batch in work is shared.
    """

    def __init__(self, shares: DistributedBatchSampler) -> None:
        self.shares = shares

    def __call__(self, images: torch.Tensor, noisy: torch.Tensor) -> torch.Tensor:
        """As `salt_and_pepper`; every process must call it."""
        if not self.shares.shared:
            return salt_and_pepper(images, noisy)
        own = noisy.sum(dtype=torch.long).to(images.device)
        counts = [torch.zeros_like(own) for _ in self.shares.sizes]
        distributed.all_gather(counts, own)
        drawn = [int(count) for count in counts]
        return salt_and_pepper(images, noisy, before=sum(drawn[: rank()]), among=sum(drawn))


class DistributedFoldSampler(Sampler[int]):
    """Every n-th element of a data set for the n-th process, to validate on; `SlabScores` puts the counts together.

    Args:
        dataset: of all processes.

    Raises:
        UsageError: if there are fewer elements than processes.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.own = range(rank(), len(dataset), world_size())
        if len(dataset) < world_size():
            raise UsageError(
                f"{world_size()} processes to validate on {len(dataset)} slabs; say --nproc_per_node="
                f"{max(1, len(dataset))} or fewer"
            )

    def __len__(self) -> int:
        return len(self.own)

    def __iter__(self) -> Iterator[int]:
        return iter(self.own)


def fill_cache_once(
    items: Sequence[DataItem],
    dataset_dir: str | os.PathLike,
    cache_dir: str | os.PathLike | None,
    labels: int,
    progress: bool = True,
) -> None:
    """Write the slices of volumes that are not in the cache yet, each process those of its share, and wait for all.

    Args:
        items: whatever will be read.
        dataset_dir: folder the items' paths are relative to.
        cache_dir: folder of the `SliceCache`, which all processes must see; None for none, then each reads by itself.
        labels: rows of the label table.
        progress: show the first process's bar.

    Raises:
        LiversegError: what `VolumeStore` finds wrong.
    """
    if cache_dir is None:
        return
    # by image, since one may have several label maps
    images = list(dict.fromkeys(os.path.normpath(item.image) for item in items))
    own = {*images[rank() :: world_size()]}
    share: list[Any] = [item for item in items if os.path.normpath(item.image) in own]
    if share:
        VolumeStore(share, dataset_dir, cache_dir, labels, progress and is_rank_zero())
    barrier()
