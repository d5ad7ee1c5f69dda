"""Ours: one map of five channels whose types are measured on lesions, not learnt pixel by pixel."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from liverseg.errors import UsageError
from liverseg.labels import JOINT_LABELS, LESION, LESION_TYPES
from liverseg.networks.se_resunet import SEResUNet, initialise, numbers_of, padded
from liverseg.networks.typed import SlabOutput

__all__ = ["EVIDENCE", "LesionTypeHead", "MeasuringUNet"]

EVIDENCE = ("measurements", "features", "both")
"""What types are decided from. Measurements are ours; the decoder's features, averaged over the lesion in the same way,
are there to be compared with (studies/ablation.yaml)."""

_STRIDE = 4
"""The type head works at a quarter of the slab's height and width: types do not change within a few pixels."""

_RIM = 2
"""Pixels of the rims inside and outside an outline, where types differ: the enhancing rim of a metastasis, the nodules
of a hemangioma, the sharp margin of a cyst."""

_WINDOW = 15
"""Edge of the averaging window at stride 4, so 60 pixels: most lesions fit in."""

# what brings measurements of lesions near zero mean and unit spread, in the units of the windowed slab
_USUAL_MEAN, _SPREAD_OF_MEANS = 0.3, 0.25
_SPREAD_OF_SPREADS = 0.1
_USUAL_LOG_AREA, _SPREAD_OF_LOG_AREAS = -2.5, 1.2

_NOTHING = 1e-6


class LesionTypeHead(nn.Module):
    """Type logits from what is measured on the lesion around each pixel.

    The lesion is the network's own outline, as soft as it is. Within a window are measured: mean and spread of each
    slice's HU in the lesion's core, in the rim inside its outline and in the rim outside, and its area. That is what a
    radiologist goes by, and few enough numbers to learn from a few hundred lesions. Every pixel of a lesion that fits
    into the window sees nearly the same numbers, so a lesion gets one type without being cut out; it takes only pooling
    and 1×1 convolutions.

    Args:
        in_channels: slices of a slab.
        features: channels of the decoder's features at stride 4.
        evidence: one of `EVIDENCE`.
        hidden: channels of the hidden layer.

    Raises:
        UsageError: if the evidence is not known.
    """

    def __init__(self, in_channels: int, features: int, evidence: str = "measurements", hidden: int = 64) -> None:
        super().__init__()
        if evidence not in EVIDENCE:
            raise UsageError(f"evidence {evidence!r} is not known; there are {', '.join(EVIDENCE)}")
        self.evidence = evidence
        channels = {"measurements": 3 * 2 * in_channels + 1, "features": features}
        self.layers = nn.Sequential(
            nn.Conv2d(channels.get(evidence) or sum(channels.values()), hidden, kernel_size=1),
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
            seen.append(_window(features * weight) / (_window(weight) + _NOTHING))
        return self.layers(torch.cat(seen, dim=1))

    def _measured(self, slab: torch.Tensor, lesion: torch.Tensor) -> list[torch.Tensor]:
        wide = 2 * _RIM + 1
        grown = functional.max_pool2d(lesion, wide, stride=1, padding=_RIM)
        core = -functional.max_pool2d(-lesion, wide, stride=1, padding=_RIM)
        values = torch.cat([slab, slab * slab], dim=1)
        measured = []
        for part in (core, lesion - core, grown - lesion):
            mean, square = (_around(values * part) / (_around(part) + _NOTHING)).chunk(2, dim=1)
            spread = (square - mean * mean).clamp(min=_NOTHING).sqrt()
            measured += [(mean - _USUAL_MEAN) / _SPREAD_OF_MEANS, spread / _SPREAD_OF_SPREADS]
        area = (_around(lesion) + _NOTHING).log()
        measured.append((area - _USUAL_LOG_AREA) / _SPREAD_OF_LOG_AREAS)
        return measured


def _window(values: torch.Tensor) -> torch.Tensor:
    """Averages over the window around each place, at stride 4."""
    return functional.avg_pool2d(values, _WINDOW, stride=1, padding=_WINDOW // 2)


def _around(values: torch.Tensor) -> torch.Tensor:
    """The same of values at full resolution."""
    return _window(functional.avg_pool2d(values, _STRIDE))


class MeasuringUNet(SEResUNet):
    """A SEResUNet that outlines lesions of any type and names them by a `LesionTypeHead`, in one pass.

    In evaluation mode it gives what the joint network gives, five channels, so all that reads those reads these.

    Args:
        size: a key of `SIZES`.
        in_channels: slices of a slab.
        out_channels: 5, the joint label table; the argument stands beside those of the other networks.
        deep_supervision: also learn from maps made at strides 2, 4 and 8.
        evidence: one of `EVIDENCE`.

    Raises:
        UsageError: if size or evidence are not known.
    """

    def __init__(
        self,
        size: str = "full",
        in_channels: int = 3,
        out_channels: int = 5,
        deep_supervision: bool = False,
        evidence: str = "measurements",
    ) -> None:
        super().__init__(size, in_channels, LESION + 1, deep_supervision)
        self.out_channels = len(JOINT_LABELS)
        self.type_head = LesionTypeHead(in_channels, numbers_of(size).decoder[2], evidence)
        self.type_head.apply(initialise)

    def arguments(self) -> dict[str, Any]:
        """What the network was built with."""
        return {**super().arguments(), "out_channels": self.out_channels, "evidence": self.type_head.evidence}

    def forward(self, x: torch.Tensor) -> torch.Tensor | SlabOutput:  # type: ignore[override]
        """Logits (batch, 5, H, W); in training the map of three channels and the types of its pixels apart.

        A pixel is a lesion where lesion of any type is likelier than liver and background; the likeliest type keeps the
        lesion's logit, so that doubt between types never makes an outline smaller.
        """
        slab = padded(x)
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
