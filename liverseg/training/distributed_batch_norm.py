"""Batch norm over the batch of all processes, on the CPU too, where torch's own `SyncBatchNorm` does not work."""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed, nn
from torch.nn import functional

from liverseg.training.distributed_batches import DistributedBatchSampler

__all__ = ["CPUSyncBatchNorm", "synchronise_batch_norm"]


class CPUSyncBatchNorm(nn.BatchNorm2d):
    """Batch norm of images whose statistics are those of the whole batch, whichever process has its rows.

    Args:
        layer: what it replaces; its parameters and statistics are taken over, not copied.
        shares: how the batch in work is shared.
    """

    def __init__(self, layer: nn.BatchNorm2d, shares: DistributedBatchSampler) -> None:
        super().__init__(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
        _take_over(self, layer)
        self.shares = shares

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(batch, channels, H, W) normalised by channel; frozen, or where the batch is not shared, like any other."""
        if not self.training or not self.shares.shared:
            return super().forward(input)
        normalised, mean, variance, count = _Normalised.apply(input, self.weight, self.bias, self.eps)
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * float(count / (count - 1)), momentum)  # the unbiased one, as torch keeps
        return normalised


class GPUSyncBatchNorm(nn.SyncBatchNorm):
    """The same on GPUs: torch's own, but for batches that are not shared; arguments as for `CPUSyncBatchNorm`."""

    def __init__(self, layer: nn.BatchNorm2d, shares: DistributedBatchSampler) -> None:
        super().__init__(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
        _take_over(self, layer)
        self.shares = shares

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As `CPUSyncBatchNorm`."""
        return super().forward(input) if self.shares.shared else super(nn.SyncBatchNorm, self).forward(input)


def _take_over(new: nn.Module, layer: nn.Module) -> None:
    new._parameters.update(layer._parameters)
    new._buffers.update(layer._buffers)
    new.training = layer.training


class _Normalised(torch.autograd.Function):
    """Normalisation with the statistics of all processes, and its derivative (Ioffe & Szegedy 2015)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: Any, bias: Any, eps: float) -> tuple[torch.Tensor, ...]:
        channels = x.shape[1]
        own_variance, own_mean = torch.var_mean(_wide(x), dim=(0, 2, 3), correction=0)
        own = torch.cat([own_mean, own_variance, own_mean.new_tensor([x.numel() // channels])])
        parts = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, own)
        means, variances, counts = torch.stack(parts).double().split([channels, channels, 1], dim=1)
        count = counts.sum()
        mean = (counts * means).sum(0) / count
        # Chan et al. 1979: no small difference of large squares
        variance = (counts * (variances + (means - mean) ** 2)).sum(0) / count
        mean, variance = mean.to(own.dtype), variance.to(own.dtype)
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt(), count)
        ctx.mark_non_differentiable(mean, variance, count)
        return functional.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps), mean, variance, count

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, *_: Any) -> tuple[Any, ...]:
        x, weight, mean, deviation_inverse, count = ctx.saved_tensors
        shape = (1, -1, 1, 1)
        grad, hat = _wide(grad), (_wide(x) - mean.view(shape)) * deviation_inverse.view(shape)
        own = torch.stack([grad.sum(dim=(0, 2, 3)), (grad * hat).sum(dim=(0, 2, 3))])
        whole = own.clone()
        distributed.all_reduce(whole)
        of_mean, of_deviation = (whole / count).to(own.dtype).view(2, *shape)
        scale = deviation_inverse if weight is None else deviation_inverse * weight
        grad_x = (grad - of_mean - hat * of_deviation) * scale.view(shape)
        grad_weight, grad_bias = (None, None) if weight is None else (own[1], own[0])
        return grad_x.to(x.dtype), grad_weight, grad_bias, None


def _wide(numbers: torch.Tensor) -> torch.Tensor:
    """Half precision as float32, since sums are taken."""
    return numbers if numbers.dtype == torch.float64 else numbers.float()


def synchronise_batch_norm(network: nn.Module, shares: DistributedBatchSampler) -> None:
    """Replace every batch norm of a network, whose names, parameters and statistics stay as they are.

    Args:
        network: changed in place.
        shares: how the batch in work is shared.
    """
    for module in [*network.modules()]:
        for name, layer in [*module.named_children()]:
            if isinstance(layer, nn.BatchNorm2d):
                on_gpu = next(network.parameters()).device.type == "cuda"
                setattr(module, name, (GPUSyncBatchNorm if on_gpu else CPUSyncBatchNorm)(layer, shares))
