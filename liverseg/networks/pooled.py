"""Ours: one map of five channels whose types are decided for lesions, not for pixels."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from liverseg.labels import JOINT_LABELS, LESION, LESION_TYPES
from liverseg.networks.se_resunet import SEResUNet, initialise, numbers_of, padded
from liverseg.networks.typed import SlabOutput

__all__ = ["LesionTypeHead", "PooledTypeUNet"]

_STRIDE = 4
"""The type head works at a quarter of the slab's height and width: types do not change within a few pixels."""

_RIM = 2
"""Pixels of the rim inside and outside an outline, where types differ: the enhancing rim of a metastasis, the nodules of
a hemangioma, the sharp margin of a cyst."""

_FLOOR = 1e-3
_SPREAD = 5.0


class LesionTypeHead(nn.Module):
    """Type logits from what is averaged over the lesion around each pixel.

    The lesion is the network's own outline, as soft as it is. Averaged over it, within a window, are the decoder's
    features, and mean and spread of the slab's HU in the lesion's core, inner rim and outer rim: what a radiologist goes
    by, and few enough numbers to learn from few lesions. Every pixel of a lesion that fits into the window sees nearly
    the same averages, so that a lesion gets one type without having to be cut out; only convolutions and pooling are
    used.

    Args:
        channels: of the decoder's features at stride 4.
        in_channels: slices of a slab.
        window: edge of the window in pixels, an odd multiple of 4.
        hidden: channels of the hidden layer.
    """

    def __init__(self, channels: int, in_channels: int, window: int = 60, hidden: int = 64) -> None:
        super().__init__()
        self.window = window
        measured = 3 * 2 * in_channels + 1
        self.layers = nn.Sequential(
            nn.Conv2d(channels + measured, hidden, kernel_size=1),
            nn.ReLU(inplace=True),
            nn.Dropout(0.2),
            nn.Conv2d(hidden, len(LESION_TYPES), kernel_size=1),
        )

    def forward(self, slab: torch.Tensor, features: torch.Tensor, lesion: torch.Tensor) -> torch.Tensor:
        """Type logits (batch, lesion types, H/4, W/4).

        Args:
            slab: (batch, in_channels, H, W), HU windowed.
            features: the decoder's at stride 4.
            lesion: probability of lesion (batch, 1, H, W).
        """
        wide = 2 * _RIM + 1
        grown = functional.max_pool2d(lesion, wide, stride=1, padding=_RIM)
        core = -functional.max_pool2d(-lesion, wide, stride=1, padding=_RIM)
        seen = [self._averages(features, functional.avg_pool2d(lesion, _STRIDE))]
        both = torch.cat([slab, slab * slab], dim=1)
        for part in (core, lesion - core, grown - lesion):
            weight = functional.avg_pool2d(part, _STRIDE)
            # averages weighted by the part: weighted pixels are averaged down before the window is
            weighted = functional.avg_pool2d(both * part, _STRIDE) / (weight + _FLOOR)
            mean, square = self._averages(weighted, weight).chunk(2, dim=1)
            seen += [mean, _SPREAD * (square - mean * mean).clamp(min=0).add(1e-6).sqrt()]
        seen.append(self._around(functional.avg_pool2d(lesion, _STRIDE)).add(_FLOOR).log() / 4)
        return self.layers(torch.cat(seen, dim=1))

    def _averages(self, values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return self._around(values * weight) / (self._around(weight) + _FLOOR * _FLOOR)

    def _around(self, values: torch.Tensor) -> torch.Tensor:
        edge = self.window // _STRIDE
        return functional.avg_pool2d(values, edge, stride=1, padding=edge // 2)


class PooledTypeUNet(SEResUNet):
    """A SEResUNet that outlines lesions of any type and names them by a `LesionTypeHead`, in one pass.

    In evaluation mode it gives what the joint network gives, five channels, so all that reads those reads these.

    Args:
        size: a key of `SIZES`.
        in_channels: slices of a slab.
        out_channels: 5, the joint label table; the argument stands beside those of the other networks.
        deep_supervision: also learn from maps made at strides 2, 4 and 8.

    Raises:
        UsageError: if the size is not known.
    """

    def __init__(
        self, size: str = "full", in_channels: int = 3, out_channels: int = 5, deep_supervision: bool = False
    ) -> None:
        super().__init__(size, in_channels, LESION + 1, deep_supervision)
        self.out_channels = len(JOINT_LABELS)
        self.type_head = LesionTypeHead(numbers_of(size).decoder[2], in_channels)
        self.type_head.apply(initialise)

    def arguments(self) -> dict[str, Any]:
        """What the network was built with."""
        return {**super().arguments(), "out_channels": self.out_channels}

    def forward(self, x: torch.Tensor) -> torch.Tensor | SlabOutput:  # type: ignore[override]
        """Logits (batch, 5, H, W); in training the map of three channels and the types of its pixels apart.

        A pixel is a lesion where lesion of any type is likelier than liver and background; the likeliest type keeps the
        lesion's logit, so that doubt between types never makes an outline smaller.
        """
        slab = padded(x)
        height, width = x.shape[2], x.shape[3]
        features = self.decoder(slab, self.encoder(slab))
        maps = self._maps(slab, features, height, width)
        final = maps[:, 0] if maps.ndim == 5 else maps
        lesion = torch.softmax(self.head(features[0]).detach().float(), dim=1)[:, LESION:]
        coarse = self.type_head(slab, features[2], lesion.to(slab.dtype))
        types = functional.interpolate(coarse, scale_factor=float(_STRIDE), mode="bilinear", align_corners=False)
        types = types[:, :, :height, :width]
        if self.training:
            return SlabOutput(maps, types)
        relative = types - types.amax(dim=1, keepdim=True)
        return torch.cat([final[:, :LESION], final[:, LESION:] + relative], dim=1)
