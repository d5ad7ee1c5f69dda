"""The residual block with squeeze-and-excitation, and the decoder stage made of it."""

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


def fold_batch_norm(network: nn.Module) -> int:
    """Let convolutions do the batch norm that follows them, in place; the network is for inference from then on.

    Outputs are the same but for rounding. It saves a pass over the features for each.

    Args:
        network: in eval mode; where a `Sequential` has a convolution before a batch norm, or before MONAI's ADN that
            begins with one, the norm becomes an identity.

    Returns:
        How many were folded.

    Raises:
        ValueError: if the network is in training mode, where a batch norm follows the batch.
    """
    if network.training:
        raise ValueError("batch norm of a network in training mode cannot be folded; call eval() first")
    folded = 0
    for module in list(network.modules()):
        if not isinstance(module, nn.Sequential):
            continue
        for index in range(len(module) - 1):
            convolution, follower = module[index], module[index + 1]
            holder, place = (follower, 0) if isinstance(follower, ADN) else (module, index + 1)
            norm = holder[place] if len(holder) else None
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module[index] = fuse_conv_bn_eval(convolution, norm)
                holder[place] = nn.Identity()
                folded += 1
    return folded


SE_REDUCTION = 16
"""Channels over channels of the squeezed layer, as in SE-ResNet-50."""

_LEAST_SQUEEZED = 8
_RELU = ("relu", {"inplace": True})


def squeeze_and_excitation(channels: int) -> ChannelSELayer:
    """MONAI's squeeze-and-excitation layer with a reduction of 16, but never fewer than 8 squeezed channels.

    A squeezed layer of two or three is often dead at the start: its ReLUs see nearly the same averages in every batch.
    """
    return ChannelSELayer(2, channels, r=max(1, min(SE_REDUCTION, channels // _LEAST_SQUEEZED)))


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
        """(batch, in_channels, H, W) to (batch, out_channels, H/stride, W/stride)."""
        excited = self.se_layer(self.conv2(self.conv1(x)))
        excited += self.project(x)  # in place: nothing else needs it, and memory is what a CPU waits for
        return self.act(excited)


class DecoderStage(nn.Module):
    """Double height and width, join the skip connection, then a residual block with squeeze-and-excitation.

    Args:
        in_channels: channels from the stage below.
        skip_channels: channels of the skip connection.
        out_channels: channels of the output.
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.block = SEResidualBlock(in_channels + skip_channels, out_channels)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """(batch, in_channels, H, W) and (batch, skip_channels, 2H, 2W) to (batch, out_channels, 2H, 2W)."""
        enlarged = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        return self.block(torch.cat([enlarged, skip], dim=1))


class LastStage(nn.Module):
    """From stride 2 to full resolution, with the slab itself as the skip connection.

    Everything at full resolution is dear, so the enlargement is a sub-pixel convolution (Shi et al. 2016) and a single
    3×3 convolution with batch norm and squeeze-and-excitation then joins it to the slab.

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
        """(batch, in_channels, H, W) and (batch, skip_channels, 2H, 2W) to (batch, out_channels, 2H, 2W)."""
        return self.se_layer(self.conv(torch.cat([self.enlarge(x), slab], dim=1)))
