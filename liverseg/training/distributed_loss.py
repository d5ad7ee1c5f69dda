"""A network and its loss in several processes, each with its rows of a batch; the gradient is the whole batch's."""

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
    network: SlabNetwork, device: torch.device, shares: DistributedBatchSampler, some_frozen: bool = False
) -> DistributedDataParallel:
    """A network as the trainer of one of several processes runs it.

    Whatever looks at the network, saves or validates it goes on with the network itself.

    Args:
        network: its batch norm is made one of the whole batch, in place.
        device: of this process.
        shares: how the batch in work is shared.
        some_frozen: whether parts of it will not learn in some epochs, which takes a search at every step.
    """
    synchronise_batch_norm(network, shares)
    wrapped = DistributedDataParallel(
        network, device_ids=[device] if device.type == "cuda" else None, find_unused_parameters=some_frozen
    )
    # statistics are the same everywhere; set here, since the argument's name is not the same in every torch
    wrapped.broadcast_buffers = False
    return wrapped


class GlobalBatchLoss(nn.Module):
    """A loss of the whole batch, of which this process has its rows.

    Weighted cross entropy and Dice are quotients of sums over a batch, so the mean of each process's loss would be
    another one. Here every process has the outputs of all, computes the one loss, and learns from its own rows. The
    gradients of all processes add up to that of the batch; DistributedDataParallel takes their mean, so each is
    multiplied by their number first.

    Args:
        loss: of a network's output and labels (batch, 1, H, W).
        shares: how the batch in work is shared.
    """

    def __init__(self, loss: nn.Module, shares: DistributedBatchSampler) -> None:
        super().__init__()
        self.loss = loss
        self.shares = shares

    def forward(self, output: torch.Tensor | SlabOutput, labels: torch.Tensor) -> torch.Tensor:
        """The loss of the whole batch, the same in every process; every process must call it."""
        if not self.shares.shared:
            return self.loss(output, labels)
        if isinstance(output, SlabOutput):
            maps = None if output.maps is None else self._of_all(output.maps)
            return self.loss(SlabOutput(maps, self._of_all(output.types)), self._of_all(labels))
        return self.loss(self._of_all(output), self._of_all(labels))

    def _of_all(self, own: torch.Tensor) -> torch.Tensor:
        """The rows of all processes, of which this one's own can be learnt from."""
        sizes = self.shares.sizes
        sent = own.new_zeros((max(sizes), *own.shape[1:]))  # gathering takes equal shapes
        sent[: len(own)] = own.detach()
        rows = [torch.empty_like(sent) for _ in sizes]
        distributed.all_gather(rows, sent)
        rows = [part[:size] for part, size in zip(rows, sizes, strict=True)]
        if own.requires_grad:
            own.register_hook(lambda gradient: gradient * world_size())
        rows[rank()] = own
        return torch.cat(rows)
