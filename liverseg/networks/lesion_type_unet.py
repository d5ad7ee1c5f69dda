"""Ours: one map of five channels whose types are measured on lesions, not learnt pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from liverseg.errors import UsageError
from liverseg.labels import JOINT_LABELS, LESION, LESION_TYPES
from liverseg.networks.se_resunet import SEResUNet, get_size, initialise, pad_to_stride
from liverseg.networks.ynet import SlabOutput

__all__ = ["EVIDENCE", "LesionTypeHead", "LesionTypeUNet"]

EVIDENCE = ("measurements", "features", "both")
"""What types are decided from. Measurements are ours; the decoder's features, averaged over the lesion in the same way,
are there to be compared with (studies/ablation.yaml)."""

_STRIDE = 4
"""The type head works at a quarter of the slab's height and width: types do not change within a few pixels."""

_RIM = 2
"""Pixels of the rims inside and outside an outline, where types differ: the enhancing rim of a metastasis, the nodules
of a hemangioma, the sharp margin of a cyst."""

_WINDOWS = (15,)
"""Edges of the averaging windows at stride 4, so 60 pixels: most lesions fit in."""

# what brings measurements of lesions near zero mean and unit spread, in the units of the windowed slab
_USUAL_MEAN, _SPREAD_OF_MEANS = 0.3, 0.25
_SPREAD_OF_SPREADS = 0.1
_USUAL_LOG_AREA, _SPREAD_OF_LOG_AREAS = -2.5, 1.2

_NOTHING = 1e-6


class LesionTypeHead(nn.Module):
    """Type logits from what is measured on the lesion around each pixel.

    The lesion is the network's own outline, as soft as it is. Within windows are measured: mean and spread of each
    slice's HU in the lesion's core, in the rim inside its outline and in the rim outside, and its area. That is what a
    radiologist goes by, and few enough numbers to learn from a few hundred lesions. Every pixel of a lesion that fits
    into a window sees nearly the same numbers there, so a lesion gets one type without being cut out; a small window
    keeps neighbours of other types apart. It takes only pooling and 1×1 convolutions.

    Args:
        in_channels: slices of a slab.
        features: channels of the decoder's features at stride 4.
        evidence: one of `EVIDENCE`.
        windows: edges of the averaging windows at stride 4, odd.
        hidden: channels of the hidden layer.

    Raises:
        UsageError: if the evidence is not known, or windows are not odd numbers.
    """

    def __init__(
        self,
        in_channels: int,
        features: int,
        evidence: str = "measurements",
        windows: Sequence[int] = _WINDOWS,
        hidden: int = 64,
    ) -> None:
        super().__init__()
        if evidence not in EVIDENCE:
            raise UsageError(f"evidence {evidence!r} is not known; there are {', '.join(EVIDENCE)}")
        if not windows or not all(type(edge) is int and edge > 0 and edge % 2 for edge in windows):
            raise UsageError(f"windows {windows!r}: odd numbers of pixels at stride {_STRIDE} are needed, as [5, 11]")
        self.evidence, self.windows = evidence, tuple(windows)
        channels = {"measurements": 3 * 2 * in_channels + 1, "features": features}
        each = channels.get(evidence) or sum(channels.values())
        self.layers = nn.Sequential(
            nn.Conv2d(each * len(self.windows), hidden, kernel_size=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, len(LESION_TYPES), kernel_size=1),
        )

    def forward(self, slab: torch.Tensor, lesion: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Type logits (batch, lesion types, H/4, W/4).

        Args:
            slab: (batch, in_channels, H, W), HU windowed to [-1, 1].
            lesion: probability of lesion (batch, 1, H, W).
            features: the decoder's at stride 4 (batch, features, H/4, W/4).
        """
        seen = []
        if self.evidence != "features":
            seen += self._measured(slab, lesion)
        if self.evidence != "measurements":
            weight = functional.avg_pool2d(lesion, _STRIDE)
            weighted = features * weight
            seen += [_window(weighted, edge) / (_window(weight, edge) + _NOTHING) for edge in self.windows]
        return self.layers(torch.cat(seen, dim=1))

    def _measured(self, slab: torch.Tensor, lesion: torch.Tensor) -> list[torch.Tensor]:
        wide = 2 * _RIM + 1
        grown = functional.max_pool2d(lesion, wide, stride=1, padding=_RIM)
        core = -functional.max_pool2d(-lesion, wide, stride=1, padding=_RIM)
        values = torch.cat([slab, slab * slab], dim=1)
        sums = [
            (functional.avg_pool2d(values * part, _STRIDE), functional.avg_pool2d(part, _STRIDE))
            for part in (core, lesion - core, grown - lesion)
        ]
        filled = functional.avg_pool2d(lesion, _STRIDE)
        measured = []
        for edge in self.windows:
            for of_values, of_part in sums:
                mean, square = (_window(of_values, edge) / (_window(of_part, edge) + _NOTHING)).chunk(2, dim=1)
                spread = (square - mean * mean).clamp(min=_NOTHING).sqrt()
                measured += [(mean - _USUAL_MEAN) / _SPREAD_OF_MEANS, spread / _SPREAD_OF_SPREADS]
            area = (_window(filled, edge) + _NOTHING).log()
            measured.append((area - _USUAL_LOG_AREA) / _SPREAD_OF_LOG_AREAS)
        return measured


def _window(values: torch.Tensor, edge: int) -> torch.Tensor:
    """Averages over the window around each place, at stride 4."""
    return functional.avg_pool2d(values, edge, stride=1, padding=edge // 2)


class LesionTypeUNet(SEResUNet):
    """A SEResUNet that outlines lesions of any type and names them by a `LesionTypeHead`, in one pass.

    In evaluation mode it gives what the joint network gives, five channels, so all that reads those reads these.

    Args:
        size: a key of `SIZES`.
        in_channels: slices of a slab.
        out_channels: 5, the joint label table; the argument stands beside those of the other networks.
        deep_supervision: also learn from maps made at strides 2, 4 and 8.
        evidence: one of `EVIDENCE`.
        windows: of the `LesionTypeHead`.

    Raises:
        UsageError: if size or evidence are not known, or windows are not odd numbers.
    """

    def __init__(
        self,
        size: str = "full",
        in_channels: int = 3,
        out_channels: int = 5,
        deep_supervision: bool = False,
        evidence: str = "measurements",
        windows: Sequence[int] = _WINDOWS,
    ) -> None:
        super().__init__(size, in_channels, LESION + 1, deep_supervision)
        self.out_channels = len(JOINT_LABELS)
        self.type_head = LesionTypeHead(in_channels, get_size(size).decoder[2], evidence, windows)
        self.type_head.apply(initialise)

    def arguments(self) -> dict[str, Any]:
        """What the network was built with."""
        own = {"out_channels": self.out_channels, "evidence": self.type_head.evidence}
        # left out where it is what all networks had before it could be set: their checkpoints stay valid
        windows = {} if self.type_head.windows == _WINDOWS else {"windows": list(self.type_head.windows)}
        return {**super().arguments(), **own, **windows}

    def forward(self, x: torch.Tensor) -> torch.Tensor | SlabOutput:  # type: ignore[override]
        """Logits (batch, 5, H, W); in training the map of three channels and the types of its pixels apart.

        A pixel is a lesion where lesion of any type is likelier than liver and background; the likeliest type keeps the
        lesion's logit, so that doubt between types never makes an outline smaller.
        """
        slab = pad_to_stride(x)
        height, width = x.shape[2], x.shape[3]
        features = self.decoder(slab, self.encoder(slab))
        whole = self.head(features[0])
        maps = self._maps(whole, features, height, width)
        # measurements need float32: a spread is a small difference of large squares
        lesion = torch.softmax(whole.detach().float(), dim=1)[:, LESION:]
        with torch.autocast(slab.device.type, enabled=False):
            coarse = self.type_head(slab.float(), lesion, features[2].float())
        types = functional.interpolate(coarse, scale_factor=float(_STRIDE), mode="bilinear", align_corners=False)
        types = types[:, :, :height, :width]
        if self.training:
            return SlabOutput(maps, types)
        relative = types - types.amax(dim=1, keepdim=True)
        return torch.cat([maps[:, :LESION], maps[:, LESION:] + relative], dim=1)
