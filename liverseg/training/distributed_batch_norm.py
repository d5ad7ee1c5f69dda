"""Synchronised batch norm over all processes, also on the CPU, which torch's `SyncBatchNorm` does not support."""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed, nn
from torch.nn import functional

from liverseg.training.distributed_batches import DistributedBatchSampler

__all__ = ["CPUSyncBatchNorm", "synchronise_batch_norm"]


class CPUSyncBatchNorm(nn.BatchNorm2d):
    """Batch norm of images with the statistics of the global batch of all processes.

    Args:
        layer: layer to replace; its parameters and statistics are shared, not copied.
        batch_sampler: the trainer's batch sampler, which has the rows of each process.
    """

    def __init__(self, layer: nn.BatchNorm2d, batch_sampler: DistributedBatchSampler) -> None:
        super().__init__(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
        _share_parameters(self, layer)
        self.batch_sampler = batch_sampler

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalise (batch, channels, H, W) by channel; without synchronisation if frozen or the batch is not split."""
        if not self.training or not self.batch_sampler.is_split:
            return super().forward(input)
        normalised, mean, variance, count = _SyncNormalisation.apply(input, self.weight, self.bias, self.eps)
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * float(count / (count - 1)), momentum)  # unbiased, as in torch
        return normalised


class GPUSyncBatchNorm(nn.SyncBatchNorm):
    """Torch's `SyncBatchNorm`, without synchronisation if the batch is not split; arguments as `CPUSyncBatchNorm`."""

    def __init__(self, layer: nn.BatchNorm2d, batch_sampler: DistributedBatchSampler) -> None:
        super().__init__(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
        _share_parameters(self, layer)
        self.batch_sampler = batch_sampler

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalise (batch, channels, H, W) by channel."""
        return super().forward(input) if self.batch_sampler.is_split else super(nn.SyncBatchNorm, self).forward(input)


def _share_parameters(module: nn.Module, layer: nn.Module) -> None:
    module._parameters.update(layer._parameters)
    module._buffers.update(layer._buffers)
    module.training = layer.training


class _SyncNormalisation(torch.autograd.Function):
    """Normalisation with the statistics of all processes, and its derivative (Ioffe & Szegedy 2015)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: Any, bias: Any, eps: float) -> tuple[torch.Tensor, ...]:
        channels = x.shape[1]
        local_variance, local_mean = torch.var_mean(_at_least_float32(x), dim=(0, 2, 3), correction=0)
        local = torch.cat([local_mean, local_variance, local_mean.new_tensor([x.numel() // channels])])
        gathered = [torch.empty_like(local) for _ in range(distributed.get_world_size())]
        distributed.all_gather(gathered, local)
        means, variances, counts = torch.stack(gathered).double().split([channels, channels, 1], dim=1)
        count = counts.sum()
        mean = (counts * means).sum(0) / count
        # Chan et al. 1979 avoids a small difference of large squares
        variance = (counts * (variances + (means - mean) ** 2)).sum(0) / count
        mean, variance = mean.to(local.dtype), variance.to(local.dtype)
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt(), count)
        ctx.mark_non_differentiable(mean, variance, count)
        return functional.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps), mean, variance, count

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, *_: Any) -> tuple[Any, ...]:
        x, weight, mean, inverse_std, count = ctx.saved_tensors
        shape = (1, -1, 1, 1)
        grad = _at_least_float32(grad)
        normalised = (_at_least_float32(x) - mean.view(shape)) * inverse_std.view(shape)
        local = torch.stack([grad.sum(dim=(0, 2, 3)), (grad * normalised).sum(dim=(0, 2, 3))])
        total = local.clone()
        distributed.all_reduce(total)
        mean_term, std_term = (total / count).to(local.dtype).view(2, *shape)
        scale = inverse_std if weight is None else inverse_std * weight
        grad_x = (grad - mean_term - normalised * std_term) * scale.view(shape)
        grad_weight, grad_bias = (None, None) if weight is None else (local[1], local[0])
        return grad_x.to(x.dtype), grad_weight, grad_bias, None


def _at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """Convert half precision to float32 for sums."""
    return values if values.dtype == torch.float64 else values.float()


def synchronise_batch_norm(network: nn.Module, batch_sampler: DistributedBatchSampler) -> None:
    """Replace every batch norm of a network; names, parameters and statistics stay the same.

    Args:
        network: changed in place.
        batch_sampler: the trainer's batch sampler, which has the rows of each process.
    """
    for module in [*network.modules()]:
        for name, layer in [*module.named_children()]:
            if isinstance(layer, nn.BatchNorm2d):
                on_gpu = next(network.parameters()).device.type == "cuda"
                setattr(module, name, (GPUSyncBatchNorm if on_gpu else CPUSyncBatchNorm)(layer, batch_sampler))
