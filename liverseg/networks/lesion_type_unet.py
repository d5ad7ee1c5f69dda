"""Our network: one map of five channels whose types come from measurements of lesions, not pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from liverseg.errors import UsageError
from liverseg.labels import JOINT_LABELS, LESION, LESION_TYPES
from liverseg.networks.se_resunet import SEResUNet, get_size, initialise, join_types, pad_to_stride
from liverseg.networks.ynet import SlabOutput
from liverseg.utils.tensors import window_maximum

__all__ = ["EVIDENCE", "WINDOWS", "LesionTypeHead", "LesionTypeUNet", "check_evidence"]

EVIDENCE = ("measurements", "features", "both")
"""Input of the type head. The measurements are our method; the decoder's features, averaged over the lesion in the same
way, serve for comparison (studies/ablation.yaml)."""

_STRIDE = 4
"""The type head works at a quarter of the slab's height and width: types do not change within a few pixels."""

_RIM = 2
"""Width in pixels of the rims inside and outside an outline, where types differ: the enhancing rim of a metastasis, the
nodules of a hemangioma, the sharp margin of a cyst."""

WINDOWS = (15,)
"""Edges of the averaging windows at stride 4, so 60 pixels: most lesions fit in."""

# bring the measurements of lesions near zero mean and unit variance; units of the windowed slab
_MEAN_CENTER, _MEAN_SCALE = 0.3, 0.25
_STD_SCALE = 0.1
_LOG_AREA_CENTER, _LOG_AREA_SCALE = -2.5, 1.2

_EPSILON = 1e-6


def check_evidence(evidence: str) -> None:
    """Refuse evidence that is none of `EVIDENCE`.

    Raises:
        UsageError: if it is not known.
    """
    if evidence not in EVIDENCE:
        raise UsageError(f"evidence {evidence!r} is not known; there are {', '.join(EVIDENCE)}")


class LesionTypeHead(nn.Module):
    """Type logits of each pixel from measurements of the lesion around it.

    The lesion is the network's own outline, as probabilities. The measurements within a window are mean and standard
    deviation of each slice's HU in the lesion's core, in the rim inside its outline and in the rim outside, and its
    area. A radiologist judges by the same, and the numbers are few enough to learn from a few hundred lesions. All
    pixels of a lesion that fits into a window get nearly the same measurements, so a lesion gets one type without being
    cropped; a small window keeps neighbours of other types apart. The head needs only pooling and 1×1 convolutions.

    Args:
        in_channels: slices of a slab.
        features: channels of the decoder's features at stride 4.
        evidence: one of `EVIDENCE`.
        windows: edges of the averaging windows at stride 4, odd.
        hidden: channels of the hidden layer.

    Raises:
        UsageError: if the evidence is unknown, or a window's edge is not an odd number.
    """

    def __init__(
        self,
        in_channels: int,
        features: int,
        evidence: str = "measurements",
        windows: Sequence[int] = WINDOWS,
        hidden: int = 64,
    ) -> None:
        super().__init__()
        check_evidence(evidence)
        if not windows or not all(type(edge) is int and edge > 0 and edge % 2 for edge in windows):
            raise UsageError(f"windows {windows!r}: odd numbers of pixels at stride {_STRIDE} are needed, as [5, 11]")
        self.evidence, self.windows = evidence, tuple(windows)
        channels = {"measurements": 3 * 2 * in_channels + 1, "features": features}
        per_window = channels.get(evidence) or sum(channels.values())
        self.layers = nn.Sequential(
            nn.Conv2d(per_window * len(self.windows), hidden, kernel_size=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, len(LESION_TYPES), kernel_size=1),
        )

    def forward(self, slab: torch.Tensor, lesion: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Return type logits (batch, lesion types, H/4, W/4).

        Args:
            slab: (batch, in_channels, H, W), HU windowed to [-1, 1].
            lesion: probability of lesion (batch, 1, H, W).
            features: the decoder's features at stride 4 (batch, features, H/4, W/4).
        """
        maps = []
        if self.evidence != "features":
            maps += self._measured(slab, lesion)
        if self.evidence != "measurements":
            weight = functional.avg_pool2d(lesion, _STRIDE)
            maps += [features * weight, weight]
        sizes = [part.shape[1] for part in maps]
        joined = torch.cat(maps, dim=1).contiguous(memory_format=torch.channels_last)
        evidence: list[torch.Tensor] = []
        means = [_window_mean(joined, edge).split(sizes, dim=1) for edge in self.windows]
        if self.evidence != "features":
            for parts in means:
                evidence += _measurements(parts)
        if self.evidence != "measurements":
            evidence += [weighted / (weight + _EPSILON) for *_, weighted, weight in means]
        return self.layers(torch.cat(evidence, dim=1))

    def _measured(self, slab: torch.Tensor, lesion: torch.Tensor) -> list[torch.Tensor]:
        """Return what `_measurements` needs the means of, at stride 4.

        For the core of the lesion and the rims inside and outside its outline, these are HU and squared HU of each
        slice, weighted by the part, and the part itself; then the lesion.
        """
        dilated = window_maximum(lesion, _RIM)
        core = -window_maximum(-lesion, _RIM)
        values = torch.cat([slab, slab * slab], dim=1)
        maps = []
        for part in (core, lesion - core, dilated - lesion):
            maps += [functional.avg_pool2d(values * part, _STRIDE), functional.avg_pool2d(part, _STRIDE)]
        return [*maps, functional.avg_pool2d(lesion, _STRIDE)]


def _measurements(means: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return mean and standard deviation of HU in each part of the lesion, and its area, from means in windows."""
    measurements = []
    for weighted, weight in zip(means[0:6:2], means[1:6:2], strict=True):
        mean, mean_square = (weighted / (weight + _EPSILON)).chunk(2, dim=1)
        std = (mean_square - mean * mean).clamp(min=_EPSILON).sqrt()
        measurements += [(mean - _MEAN_CENTER) / _MEAN_SCALE, std / _STD_SCALE]
    log_area = (means[6] + _EPSILON).log()
    return [*measurements, (log_area - _LOG_AREA_CENTER) / _LOG_AREA_SCALE]


def _window_mean(values: torch.Tensor, edge: int) -> torch.Tensor:
    """Return the mean over the window around each pixel: along columns, then along rows."""
    along_columns = functional.avg_pool2d(values, (edge, 1), stride=1, padding=(edge // 2, 0))
    return functional.avg_pool2d(along_columns, (1, edge), stride=1, padding=(0, edge // 2))


class LesionTypeUNet(SEResUNet):
    """A SEResUNet that outlines lesions of any type and classifies them by a `LesionTypeHead`, in one pass.

    In evaluation mode the output has the five channels of the joint network, so the same code reads both.

    Args:
        size: a key of `SIZES`.
        in_channels: slices of a slab.
        out_channels: ignored, always the 5 of the joint label table; kept so that all networks have the same arguments.
        deep_supervision: also supervise maps at strides 2, 4 and 8.
        evidence: one of `EVIDENCE`.
        windows: as for `LesionTypeHead`.
        sum_types: ignored, since the outline never depends on the types.

    Raises:
        UsageError: if size or evidence is unknown, or a window's edge is not an odd number.
    """

    float32_parts = ("type_head",)

    def __init__(
        self,
        size: str = "full",
        in_channels: int = 3,
        out_channels: int = 5,
        deep_supervision: bool = False,
        evidence: str = "measurements",
        windows: Sequence[int] = WINDOWS,
        sum_types: bool = False,
    ) -> None:
        super().__init__(size, in_channels, LESION + 1, deep_supervision)
        self.out_channels = len(JOINT_LABELS)
        self.type_head = LesionTypeHead(in_channels, get_size(size).decoder[2], evidence, windows)
        self.type_head.apply(initialise)

    def arguments(self) -> dict[str, Any]:
        """Return the constructor arguments that build this network again."""
        arguments = {
            **super().arguments(),
            "out_channels": self.out_channels,
            "evidence": self.type_head.evidence,
        }
        if self.type_head.windows != WINDOWS:
            # the default is left out: checkpoints from before the argument existed stay valid
            arguments["windows"] = list(self.type_head.windows)
        return arguments

    def forward(self, x: torch.Tensor) -> torch.Tensor | SlabOutput:  # type: ignore[override]
        """Return logits (batch, 5, H, W); in training a map of three channels and the type logits of its pixels.

        A pixel is lesion where lesion of any type is likelier than liver and background, see `join_types`.
        """
        slab = pad_to_stride(x)
        height, width = x.shape[2], x.shape[3]
        features = self.decoder(slab, self.encoder(slab))
        padded = self.head(features[0])
        maps = self._maps(padded, features, height, width)
        # measurements need float32: a standard deviation is a small difference of large squares
        lesion = torch.softmax(padded.detach().float(), dim=1)[:, LESION:]
        with torch.autocast(slab.device.type, enabled=False):
            coarse = self.type_head(slab.float(), lesion, features[2].float())
        types = functional.interpolate(coarse, scale_factor=float(_STRIDE), mode="bilinear", align_corners=False)
        types = types[:, :, :height, :width]
        if self.training:
            return SlabOutput(maps, types)
        return join_types(maps[:, :LESION], maps[:, LESION:], types)
