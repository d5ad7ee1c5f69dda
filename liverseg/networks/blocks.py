"""Building blocks: squeeze-and-excitation, residual block, decoder stages, and folding of batch norm."""

from __future__ import annotations

import torch
from monai.networks.blocks import ADN, ChannelSELayer, Convolution
from torch import nn
from torch.nn import functional
from torch.nn.utils import fuse_conv_bn_eval

__all__ = [
    "SE_REDUCTION",
    "DecoderStage",
    "LastStage",
    "SEResidualBlock",
    "fold_batch_norm",
    "squeeze_and_excitation",
]


SE_REDUCTION = 16
"""Channels over channels of the squeezed layer, as in SE-ResNet-50."""

_MIN_SQUEEZED = 8
_RELU = ("relu", {"inplace": True})


def squeeze_and_excitation(channels: int) -> ChannelSELayer:
    """Return MONAI's squeeze-and-excitation layer with a reduction of 16, but at least 8 squeezed channels.

    A squeezed layer of two or three is often dead at the start: its ReLUs see nearly the same averages in every batch.
    """
    return ChannelSELayer(2, channels, r=max(1, min(SE_REDUCTION, channels // _MIN_SQUEEZED)))


class SEResidualBlock(nn.Module):
    """Two 3×3 convolutions with batch norm, then squeeze-and-excitation, added to the shortcut.

    The basic residual block of He et al. 2016 with the excitation before the addition, as in Hu et al. 2018.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: 1, or 2 to halve height and width.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = Convolution(2, in_channels, out_channels, strides=stride, act=_RELU, norm="batch", bias=False)
        self.conv2 = Convolution(2, out_channels, out_channels, act=None, norm="batch", bias=False)
        self.se_layer = squeeze_and_excitation(out_channels)
        self.project: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.project = Convolution(
                2, in_channels, out_channels, strides=stride, kernel_size=1, act=None, norm="batch", bias=False
            )
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, in_channels, H, W) to (batch, out_channels, H/stride, W/stride)."""
        excited = self.se_layer(self.conv2(self.conv1(x)))
        excited += self.project(x)  # in place, since memory bandwidth limits a CPU and nothing else reads the tensor
        return self.act(excited)


class DecoderStage(nn.Module):
    """Double height and width, concatenate the skip connection, apply a residual block with squeeze-and-excitation.

    Args:
        in_channels: channels from the stage below.
        skip_channels: channels of the skip connection.
        out_channels: channels of the output.
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.block = SEResidualBlock(in_channels + skip_channels, out_channels)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Map (batch, in_channels, H, W) and (batch, skip_channels, 2H, 2W) to (batch, out_channels, 2H, 2W)."""
        enlarged = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        return self.block(torch.cat([enlarged, skip], dim=1))


class LastStage(nn.Module):
    """Decoder stage from stride 2 to full resolution, with the slab itself as the skip connection.

    Operations at full resolution are expensive. A sub-pixel convolution (Shi et al. 2016) therefore enlarges the
    features, and a single 3×3 convolution with batch norm and squeeze-and-excitation joins them to the slab.

    Args:
        in_channels: channels at stride 2.
        skip_channels: slices of the slab.
        out_channels: channels of the output.
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.enlarge = nn.Sequential(
            nn.Conv2d(in_channels, 4 * out_channels, kernel_size=1, bias=False), nn.PixelShuffle(2)
        )
        self.conv = Convolution(2, out_channels + skip_channels, out_channels, act=_RELU, norm="batch", bias=False)
        self.se_layer = squeeze_and_excitation(out_channels)

    def forward(self, x: torch.Tensor, slab: torch.Tensor) -> torch.Tensor:
        """Map (batch, in_channels, H, W) and (batch, skip_channels, 2H, 2W) to (batch, out_channels, 2H, 2W)."""
        return self.se_layer(self.conv(torch.cat([self.enlarge(x), slab], dim=1)))


def fold_batch_norm(network: nn.Module) -> int:
    """Fold batch norm into the convolutions before it, in place; the network can only be used for inference then.

    Outputs are equal up to rounding. Each folded batch norm saves a pass over the features.

    Args:
        network: in eval mode. Where a `Sequential` has a convolution before a batch norm, or before MONAI's ADN that
            starts with one, the batch norm becomes an identity.

    Returns:
        The number of folded batch norms.

    Raises:
        ValueError: if the network is in training mode, where batch norm uses the statistics of the batch.
    """
    if network.training:
        raise ValueError("batch norm of a network in training mode cannot be folded; call eval() first")
    folded = 0
    for module in list(network.modules()):
        if not isinstance(module, nn.Sequential):
            continue
        for index in range(len(module) - 1):
            convolution, follower = module[index], module[index + 1]
            parent, position = (follower, 0) if isinstance(follower, ADN) else (module, index + 1)
            norm = parent[position] if len(parent) else None
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module[index] = fuse_conv_bn_eval(convolution, norm)
                parent[position] = nn.Identity()
                folded += 1
    return folded
