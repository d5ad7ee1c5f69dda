"""Prepare a trained network for inference on a CPU: fewer passes over the features, which memory bandwidth limits."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import fuse_conv_bn_eval

from liverseg.networks.base import SlabNetwork
from liverseg.networks.blocks import SqueezeExcitation
from liverseg.networks.efficientnet_lite import SamePadding

__all__ = ["FusedConvolution", "fold_batch_norm", "optimize_for_inference"]

_ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
}
"""oneDNN's name and arguments of each activation."""


class FusedConvolution(nn.Module):
    """A convolution and the activation after it in one pass, by oneDNN.

    torch has no public function for this. `torch.compile` uses the same operator, but needs a compiler.

    In bfloat16 with AMX, oneDNN (torch 2.13) reads memory that is not its own if the output of a 3×3 convolution is one
    pixel wide, and the result is arbitrary. Such an output is computed in float32.

    Args:
        convolution: on a CPU, with a bias or without.
        activation: ReLU or ReLU6; None for a convolution without.
    """

    def __init__(self, convolution: nn.Conv2d, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self.geometry = (convolution.padding, convolution.stride, convolution.dilation, convolution.groups)
        self.activation, self.scalars = ("none", []) if activation is None else _ACTIVATIONS[type(activation)]

    @staticmethod
    def is_available() -> bool:
        """Return whether this torch has the operator."""
        return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, in_channels, H, W), in the data type of the weights, to the activated output."""
        weight, bias = self.weight, self.bias
        if x.dtype == torch.bfloat16 and weight.shape[3] > 1 and x.shape[3] <= self.geometry[1][1]:
            weight, bias = weight.float(), None if bias is None else bias.float()
        result: torch.Tensor = torch.ops.mkldnn._convolution_pointwise(
            x.to(weight.dtype), weight, bias, *self.geometry, self.activation, self.scalars, ""
        )
        return result.to(x.dtype)


class _FusedExcitation(nn.Module):
    """A `SqueezeExcitation` that reads the features twice, once for the averages and once for the result."""

    def __init__(self, excitation: SqueezeExcitation) -> None:
        super().__init__()
        self.fc = excitation.fc

    def forward(self, x: torch.Tensor, shortcut: torch.Tensor | None = None) -> torch.Tensor:
        means = functional.avg_pool2d(x, x.shape[2:])  # in bfloat16 a tenth of the time of `nn.AdaptiveAvgPool2d`
        factors = self.fc(means.flatten(1))[..., None, None]
        return x * factors if shortcut is None else torch.addcmul(shortcut, x, factors)


def optimize_for_inference(network: SlabNetwork, dtype: torch.dtype = torch.float32) -> None:
    """Prepare a network for inference, in place. Outputs are equal up to rounding; it cannot be trained any more.

    Batch norm is folded into convolutions on every device. On a CPU, activations and the padding of strided
    convolutions become parts of the convolutions as well, and the weights are converted to `dtype`, except those of
    `network.float32_parts`.

    Args:
        network: in eval mode, on its device.
        dtype: float32, or bfloat16 on a CPU that computes it.

    Raises:
        ValueError: if the network is in training mode.
    """
    fold_batch_norm(network)
    if next(network.parameters()).device.type != "cpu":
        return
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, SqueezeExcitation):
                setattr(module, name, _FusedExcitation(child))
    _fold_padding(network)
    if FusedConvolution.is_available():
        _fuse_activations(network)
    kept = [parameter for name in network.float32_parts for parameter in network.get_submodule(name).parameters()]
    for parameter in network.parameters():
        if not any(parameter is other for other in kept):
            parameter.data = parameter.data.to(dtype)


def fold_batch_norm(network: nn.Module) -> int:
    """Fold batch norm into the convolutions before it, in place; the network can only be used for inference then.

    Outputs are equal up to rounding. Each folded batch norm saves a pass over the features.

    Args:
        network: in eval mode. Where a `Sequential` has a convolution before a batch norm, or before a `Sequential`
            that starts with one, the batch norm becomes an identity.

    Returns:
        The number of folded batch norms.

    Raises:
        ValueError: if the network is in training mode, where batch norm uses the statistics of the batch.
    """
    if network.training:
        raise ValueError("batch norm of a network in training mode cannot be folded; call eval() first")
    folded = 0
    for first, second in _neighbours(network):
        convolution, norm = first.module, second.module
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            first.replace(fuse_conv_bn_eval(convolution, norm))
            second.replace(nn.Identity())
            folded += 1
    return folded


@dataclass(frozen=True)
class _Place:
    """A place in a `Sequential`, whose module can be replaced."""

    parent: nn.Sequential
    index: int

    @property
    def module(self) -> nn.Module:
        return self.parent[self.index]

    def replace(self, module: nn.Module) -> None:
        self.parent[self.index] = module


def _neighbours(network: nn.Module) -> Iterator[tuple[_Place, _Place]]:
    """Yield the places of modules that follow each other in a `Sequential` and those in it, identities left out."""
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential):
            yield from itertools.pairwise(_places(module))


def _places(sequential: nn.Sequential) -> list[_Place]:
    places = []
    for index, module in enumerate(sequential):
        if isinstance(module, nn.Sequential):
            places += _places(module)
        elif not isinstance(module, nn.Identity):
            places.append(_Place(sequential, index))
    return places


def _fold_padding(network: nn.Module) -> None:
    """Let convolutions pad for themselves.

    A convolution pads all sides equally. Where one pixel more is needed below and on the right, the kernel gets a first
    row and column of zeros, so that the same padding above and on the left has no effect.
    """
    for first, second in _neighbours(network):
        padding, convolution = first.module, second.module
        if isinstance(padding, SamePadding) and isinstance(convolution, nn.Conv2d):
            before, after = padding.padding[:2]
            kernel = functional.pad(convolution.weight.detach(), [after - before, 0, after - before, 0])
            convolution.weight = nn.Parameter(kernel.contiguous(memory_format=torch.channels_last))
            convolution.kernel_size = (kernel.shape[2], kernel.shape[3])
            convolution.padding = (after, after)
            first.replace(nn.Identity())


def _fuse_activations(network: nn.Module) -> None:
    """Make activations parts of the convolutions before them, and replace convolutions without activation too."""
    for first, second in _neighbours(network):
        convolution, activation = first.module, second.module
        if isinstance(convolution, nn.Conv2d) and type(activation) in _ACTIVATIONS:
            first.replace(FusedConvolution(convolution, activation))
            second.replace(nn.Identity())
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d):
                setattr(module, name, FusedConvolution(child))
