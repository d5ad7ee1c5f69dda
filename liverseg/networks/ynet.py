"""The strategies joint learning is compared with: networks that name a slab apart from outlining its lesions."""

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
"""`plain` is the paper's branch, a fully connected layer on the bottleneck. `strong` follows the original Y-Net (Mehta
et al. 2018): one more stage that halves height and width, then two hidden layers."""


class SlabOutput(NamedTuple):
    """What a network says of a batch of slabs where it names them apart from the map.

    Attributes:
        maps: logits as `SEResUNet` gives them; None where the network outlines nothing.
        types: logits of the lesion types of each slab, (batch, lesion types).
    """

    maps: torch.Tensor | None
    types: torch.Tensor


def _type_head(channels: int, branch: str) -> nn.Sequential:
    """From the bottleneck (batch, channels, H, W) to type logits (batch, lesion types)."""
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
    """Multi-task learning: a map of background, liver and lesion, and the slab's type from the bottleneck.

    Encoder, decoder and their tensor names are those of `SEResUNet`; the branch is `type_head.*`.

    Args:
        size: a key of `SIZES`.
        in_channels: slices of a slab.
        out_channels: of the map.
        deep_supervision: also learn from maps made at strides 2, 4 and 8.
        branch: one of `BRANCHES`.

    Raises:
        UsageError: if size or branch are not known.
    """

    def __init__(
        self,
        size: str = "full",
        in_channels: int = 3,
        out_channels: int = 3,
        deep_supervision: bool = False,
        branch: str = "plain",
    ) -> None:
        super().__init__(size, in_channels, out_channels, deep_supervision)
        self.branch = branch
        self.type_head = _type_head(get_size(size).encoder[-1], branch)
        self.type_head.apply(initialise)

    def arguments(self) -> dict[str, Any]:
        """What the network was built with."""
        return {**super().arguments(), "branch": self.branch}

    def forward(self, x: torch.Tensor) -> SlabOutput:  # type: ignore[override]
        """Maps as `SEResUNet` gives them, and the slab's type logits (batch, lesion types)."""
        slab = pad_to_stride(x)
        bottleneck = self.encoder(slab)
        features = self.decoder(slab, bottleneck)
        maps = self._maps(self.head(features[0]), features, x.shape[2], x.shape[3])
        return SlabOutput(maps, self.type_head(bottleneck[-1]))


class SlabClassifier(SlabNetwork):
    """Classification alone: the encoder and a fully connected layer name the slab; nothing is outlined.

    Args:
        size: a key of `SIZES`.
        in_channels: slices of a slab.
        out_channels: 0, since there is no map; the argument stands beside those of the other networks.
        deep_supervision: nothing to supervise, likewise.

    Raises:
        UsageError: if the size is not known.
    """

    def __init__(
        self, size: str = "full", in_channels: int = 3, out_channels: int = 0, deep_supervision: bool = False
    ) -> None:
        super().__init__(size, in_channels, out_channels, deep_supervision=False)
        numbers = get_size(size)
        self.encoder = make_encoder(numbers, in_channels)
        self.type_head = _type_head(numbers.encoder[-1], "plain")
        self.apply(initialise)

    def forward(self, x: torch.Tensor) -> SlabOutput:
        """Type logits (batch, lesion types) of slabs (batch, in_channels, H, W), HU windowed to [-1, 1]."""
        return SlabOutput(None, self.type_head(self.encoder(pad_to_stride(x))[-1]))
