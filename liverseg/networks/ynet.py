"""Networks that joint learning is compared with: they classify a slab separately from outlining its lesions."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from liverseg.errors import UsageError
from liverseg.labels import LESION_TYPES
from liverseg.networks.base import SlabNetwork
from liverseg.networks.blocks import SEResidualBlock
from liverseg.networks.se_resunet import SEResUNet, get_size, initialise, make_encoder, pad_to_stride

__all__ = ["BRANCHES", "SlabClassifier", "SlabOutput", "YNet"]

BRANCHES = ("plain", "strong")
"""Classification branches. `plain` is the paper's, a fully connected layer on the bottleneck. `strong` follows the
original Y-Net (Mehta et al. 2018): one more stage that halves height and width, then two hidden layers."""


class SlabOutput(NamedTuple):
    """Output of a network that predicts lesion types separately from the map.

    Attributes:
        maps: logits as those of `SEResUNet`; None for a network without a map.
        types: logits of the lesion types of each slab, (batch, lesion types); of each pixel, (batch, lesion types, H,
            W); or of each pixel's region for several sets of outlines, (batch, sets, lesion types, H, W).
        weights: for regions, weight of each pixel in the loss, (batch, sets, H, W); None otherwise.
    """

    maps: torch.Tensor | None
    types: torch.Tensor
    weights: torch.Tensor | None = None


def _type_head(channels: int, branch: str) -> nn.Sequential:
    """Build the branch from the bottleneck (batch, channels, H, W) to type logits (batch, lesion types)."""
    if branch not in BRANCHES:
        raise UsageError(f"branch {branch!r} is not known; there are {' and '.join(BRANCHES)}")
    pooling: list[nn.Module] = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if branch == "plain":
        return nn.Sequential(*pooling, nn.Linear(channels, len(LESION_TYPES)))
    hidden = channels // 2
    return nn.Sequential(
        SEResidualBlock(channels, channels, stride=2),
        *pooling,
        nn.Linear(channels, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, len(LESION_TYPES)),
    )


class YNet(SEResUNet):
    """Multi-task network: a map of background, liver and lesion, and the slab's type from the bottleneck.

    Encoder, decoder and their tensor names are those of `SEResUNet`; the branch is `type_head.*`.

    Args:
        size: a key of `SIZES`.
        in_channels: slices of a slab.
        out_channels: channels of the map.
        deep_supervision: also supervise maps at strides 2, 4 and 8.
        branch: one of `BRANCHES`.
        sum_types: ignored, since the map has no types.

    Raises:
        UsageError: if size or branch is unknown.
    """

    def __init__(
        self,
        size: str = "full",
        in_channels: int = 3,
        out_channels: int = 3,
        deep_supervision: bool = False,
        branch: str = "plain",
        sum_types: bool = False,
    ) -> None:
        super().__init__(size, in_channels, out_channels, deep_supervision)
        self.branch = branch
        self.type_head = _type_head(get_size(size).encoder[-1], branch)
        self.type_head.apply(initialise)

    def arguments(self) -> dict[str, Any]:
        """Return the constructor arguments that build this network again."""
        return {**super().arguments(), "branch": self.branch}

    def forward(self, x: torch.Tensor) -> SlabOutput:  # type: ignore[override]
        """Return maps as those of `SEResUNet`, and the slab's type logits (batch, lesion types)."""
        slab = pad_to_stride(x)
        bottleneck = self.encoder(slab)
        features = self.decoder(slab, bottleneck)
        maps = self._maps(self.head(features[0]), features, x.shape[2], x.shape[3])
        return SlabOutput(maps, self.type_head(bottleneck[-1]))


class SlabClassifier(SlabNetwork):
    """Classification network: the encoder and a fully connected layer predict the slab's type, without a map.

    Args:
        size: a key of `SIZES`.
        in_channels: slices of a slab.
        out_channels: 0, since there is no map; kept so that all networks have the same arguments.
        deep_supervision: ignored, for the same reason.
        sum_types: ignored, for the same reason.

    Raises:
        UsageError: if the size is unknown.
    """

    def __init__(
        self,
        size: str = "full",
        in_channels: int = 3,
        out_channels: int = 0,
        deep_supervision: bool = False,
        sum_types: bool = False,
    ) -> None:
        super().__init__(size, in_channels, out_channels, deep_supervision=False)
        network_size = get_size(size)
        self.encoder = make_encoder(network_size, in_channels)
        self.type_head = _type_head(network_size.encoder[-1], "plain")
        self.apply(initialise)

    def forward(self, x: torch.Tensor) -> SlabOutput:
        """Return type logits (batch, lesion types) of slabs (batch, in_channels, H, W), HU windowed to [-1, 1]."""
        return SlabOutput(None, self.type_head(self.encoder(pad_to_stride(x))[-1]))
