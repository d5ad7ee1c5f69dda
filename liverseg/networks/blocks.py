"""Building blocks: squeeze-and-excitation, residual blocks and decoder stages."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional

__all__ = [
    "SE_REDUCTION",
    "Convolution",
    "DecoderStage",
    "LastStage",
    "SEBottleneck",
    "SEResidualBlock",
    "SqueezeExcitation",
]


SE_REDUCTION = 16
"""Channels over channels of the squeezed layer, as in SE-ResNet-50."""

_MIN_SQUEEZED = 8


class Convolution(nn.Sequential):
    """A convolution without bias, batch norm, and optionally ReLU.

    Tensors have the names of MONAI's `Convolution`, whose weights it loads. MONAI itself is not used here, because its
    import takes longer than the inference of a small CT.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: odd; the input is padded so that stride 1 keeps height and width.
        stride: of the convolution.
        act: whether ReLU follows.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, act: bool = True
    ) -> None:
        norm_and_act = OrderedDict[str, nn.Module](N=nn.BatchNorm2d(out_channels))
        if act:
            norm_and_act["A"] = nn.ReLU(inplace=True)
        convolution = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2, bias=False
        )
        super().__init__(OrderedDict(conv=convolution, adn=nn.Sequential(norm_and_act)))


class SqueezeExcitation(nn.Module):
    """Scale each channel by a factor computed from the averages of all channels (Hu et al. 2018).

    Tensors have the names of MONAI's `ChannelSELayer`.

    Args:
        channels: channels of the input.
        reduction: channels over channels of the squeezed layer. By default 16, but with at least 8 squeezed channels:
            a layer of two or three is often dead at the start, since its ReLUs see nearly the same averages in every
            batch.
    """

    def __init__(self, channels: int, reduction: int | None = None) -> None:
        super().__init__()
        if reduction is None:
            reduction = max(1, min(SE_REDUCTION, channels // _MIN_SQUEEZED))
        squeezed = channels // reduction
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(
            nn.Linear(channels, squeezed), nn.ReLU(inplace=True), nn.Linear(squeezed, channels), nn.Sigmoid()
        )

    def forward(self, x: torch.Tensor, shortcut: torch.Tensor | None = None) -> torch.Tensor:
        """Map (batch, channels, H, W) to the same shape, and add a shortcut of that shape."""
        batch, channels = x.shape[:2]
        factors = self.fc(self.avg_pool(x).view(batch, channels)).view(batch, channels, 1, 1)
        if shortcut is None:
            return x * factors
        scaled = x * factors
        scaled += shortcut  # in place, since memory bandwidth limits a CPU and nothing else reads the tensor
        return scaled


class SEBottleneck(nn.Module):
    """Bottleneck of SE-ResNet-50: convolutions 1×1, 3×3, 1×1, squeeze-and-excitation, added to the shortcut.

    The stride is that of the first convolution, as in the published weights. Tensors have the names of MONAI's
    `SEResNetBottleneck`.

    Args:
        in_channels: channels of the input.
        width: channels of the first two convolutions; the output has four times as many.
        stride: 1, or 2 to halve height and width.
    """

    def __init__(self, in_channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        out_channels = 4 * width
        self.conv1 = Convolution(in_channels, width, kernel_size=1, stride=stride)
        self.conv2 = Convolution(width, width)
        self.conv3 = Convolution(width, out_channels, kernel_size=1, act=False)
        self.se_layer = SqueezeExcitation(out_channels, SE_REDUCTION)
        self.project: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.project = Convolution(in_channels, out_channels, kernel_size=1, stride=stride, act=False)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, in_channels, H, W) to (batch, 4 width, H/stride, W/stride)."""
        shortcut = self.project(x)
        return self.act(self.se_layer(self.conv3(self.conv2(self.conv1(x))), shortcut))


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
        self.conv1 = Convolution(in_channels, out_channels, stride=stride)
        self.conv2 = Convolution(out_channels, out_channels, act=False)
        self.se_layer = SqueezeExcitation(out_channels)
        self.project: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.project = Convolution(in_channels, out_channels, kernel_size=1, stride=stride, act=False)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, in_channels, H, W) to (batch, out_channels, H/stride, W/stride)."""
        return self.act(self.se_layer(self.conv2(self.conv1(x)), self.project(x)))


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
        self.conv = Convolution(out_channels + skip_channels, out_channels)
        self.se_layer = SqueezeExcitation(out_channels)

    def forward(self, x: torch.Tensor, slab: torch.Tensor) -> torch.Tensor:
        """Map (batch, in_channels, H, W) and (batch, skip_channels, 2H, 2W) to (batch, out_channels, 2H, 2W)."""
        return self.se_layer(self.conv(torch.cat([self.enlarge(x), slab], dim=1)))
