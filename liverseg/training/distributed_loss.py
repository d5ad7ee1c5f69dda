"""Network and loss of distributed training whose gradient is that of the global batch."""

from __future__ import annotations

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from liverseg.networks import SlabNetwork, SlabOutput
from liverseg.training.distributed_batch_norm import synchronise_batch_norm
from liverseg.training.distributed_batches import DistributedBatchSampler
from liverseg.utils.distributed import rank, world_size

__all__ = ["GlobalBatchLoss", "sum_over_ranks"]


def sum_over_ranks(
    network: SlabNetwork, device: torch.device, batch_sampler: DistributedBatchSampler, some_frozen: bool = False
) -> DistributedDataParallel:
    """Wrap a network for the trainer of one of several processes.

    Handlers, checkpoints and validation use the network itself.

    Args:
        network: its batch norm is synchronised, in place.
        device: device of this process.
        batch_sampler: the trainer's batch sampler, which has the rows of each process.
        some_frozen: whether parts of the network are frozen in some epochs, which needs a search at every step.
    """
    synchronise_batch_norm(network, batch_sampler)
    wrapped = DistributedDataParallel(
        network, device_ids=[device] if device.type == "cuda" else None, find_unused_parameters=some_frozen
    )
    # the statistics are equal in all processes; set here, since the argument's name depends on torch's version
    wrapped.broadcast_buffers = False
    return wrapped


class GlobalBatchLoss(nn.Module):
    """The loss of the global batch, of which this process has some rows.

    Weighted cross entropy and Dice are quotients of sums over a batch, so they differ from the mean of the losses of
    the processes. Here every process gathers all outputs, computes the loss of the global batch, and propagates the
    gradient to its own rows. The gradient of the batch is the sum over processes; DistributedDataParallel takes the
    mean, so each gradient is multiplied by the number of processes first.

    Args:
        loss: loss of a network's output and labels (batch, 1, H, W).
        batch_sampler: the trainer's batch sampler, which has the rows of each process.
    """

    def __init__(self, loss: nn.Module, batch_sampler: DistributedBatchSampler) -> None:
        super().__init__()
        self.loss = loss
        self.batch_sampler = batch_sampler

    def forward(self, output: torch.Tensor | SlabOutput, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss of the global batch, equal in all processes; every process must call it."""
        if not self.batch_sampler.is_split:
            return self.loss(output, labels)
        if isinstance(output, SlabOutput):
            maps, weights = (None if part is None else self._gather(part) for part in (output.maps, output.weights))
            return self.loss(SlabOutput(maps, self._gather(output.types), weights), self._gather(labels))
        return self.loss(self._gather(output), self._gather(labels))

    def _gather(self, local: torch.Tensor) -> torch.Tensor:
        """Return the rows of all processes; only those of this process propagate gradients."""
        sizes = self.batch_sampler.sizes
        padded = local.new_zeros((max(sizes), *local.shape[1:]))  # all_gather needs equal shapes
        padded[: len(local)] = local.detach()
        parts = [torch.empty_like(padded) for _ in sizes]
        distributed.all_gather(parts, padded)
        parts = [part[:size] for part, size in zip(parts, sizes, strict=True)]
        if local.requires_grad:
            local.register_hook(lambda gradient: gradient * world_size())
        parts[rank()] = local
        return torch.cat(parts)
