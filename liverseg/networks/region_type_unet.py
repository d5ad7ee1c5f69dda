"""Our network, second version: the type of a lesion comes from its region as a unit, not from pixels or windows."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from liverseg.labels import JOINT_LABELS, LESION, LESION_TYPES, LIVER, LIVER_OR_LESION
from liverseg.networks.lesion_regions import Regions, label_regions, typed_regions
from liverseg.networks.lesion_type_unet import check_evidence
from liverseg.networks.se_resunet import SEResUNet, get_size, join_types, pad_to_stride
from liverseg.networks.ynet import SlabOutput
from liverseg.utils.tensors import channel_argmax, window_maximum

__all__ = ["RegionTypeHead", "RegionTypeUNet"]

_RIM = 2
"""Width in pixels of the rims inside and outside an outline, where types differ: the enhancing rim of a metastasis, the
nodules of a hemangioma, the sharp margin of a cyst."""

_SURROUNDINGS = 6
"""Width in pixels of the liver around a lesion that its HU are compared with."""

_HIDDEN = 64

_STRIDE = 4
"""Of the decoder's features."""

# bring measurements near zero mean and unit variance; units of the windowed slab
_MEAN_CENTER, _MEAN_SCALE = 0.3, 0.25
_CONTRAST_SCALE = 0.25
_STD_SCALE = 0.1
_LOG_AREA_CENTER, _LOG_AREA_SCALE = 4.5, 1.2

_EPSILON = 1e-6


class RegionTypeHead(nn.Module):
    """Type logits of lesion regions.

    A region is described as a radiologist would: mean and standard deviation of each slice's HU in its core, in the rim
    inside its outline and in the rim outside, its darkest and brightest spot, the liver around it, and its size. Means
    and spots are also given relative to that liver. To these comes what the map says: the mean of the types of the
    region's pixels. Two small layers name the region from this description.

    Args:
        in_channels: slices of a slab.
        features: channels of the decoder's features at stride 4.
        evidence: describes a region beside the types of its pixels; one of `lesion_type_unet.EVIDENCE`. Features are
            averaged over the region (studies/ablation.yaml).

    Raises:
        UsageError: if the evidence is unknown.
    """

    def __init__(self, in_channels: int, features: int, evidence: str = "measurements") -> None:
        super().__init__()
        check_evidence(evidence)
        self.evidence = evidence
        channels = {"measurements": 3 * 3 * in_channels + 2 * 2 + 2, "features": features}
        self.in_features = (channels.get(evidence) or sum(channels.values())) + len(LESION_TYPES)
        self.layers = nn.Sequential(
            nn.Linear(self.in_features, _HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(_HIDDEN, len(LESION_TYPES)),
        )

    def forward(
        self, slab: torch.Tensor, regions: Regions, liver: torch.Tensor, types: torch.Tensor, features: torch.Tensor
    ) -> torch.Tensor:
        """Return type logits (regions, lesion types).

        Args:
            slab: (batch, in_channels, H, W), HU windowed to [-1, 1].
            regions: of the batch.
            liver: true in the liver without lesions, (batch, H, W).
            types: type logits of pixels, (batch, lesion types, H, W).
            features: the decoder's features at stride 4, (batch, features, H/4, W/4).
        """
        if not regions.count:  # in distributed training, every process needs a gradient of every layer
            return self.layers(slab.new_zeros(0, self.in_features))
        batch, rows, columns = torch.nonzero(regions.ids, as_tuple=True)
        ids = regions.ids[batch, rows, columns] - 1
        described = [_mean(torch.softmax(types[batch, :, rows, columns], dim=1), ids, regions.count)]
        if self.evidence != "features":
            described.append(_measure(slab, regions, liver))
        if self.evidence != "measurements":
            described.append(_mean(features[batch, :, rows // _STRIDE, columns // _STRIDE], ids, regions.count))
        return self.layers(torch.cat(described, dim=1))


def _mean(values: torch.Tensor, ids: torch.Tensor, count: int) -> torch.Tensor:
    """Return the mean of rows of values, (pixels, columns), in each region, (count, columns); 0 for one without."""
    sums = values.new_zeros(count, values.shape[1]).index_add(0, ids, values)
    return sums / torch.bincount(ids, minlength=count).clamp(min=1)[:, None]


def _measure(slab: torch.Tensor, regions: Regions, liver: torch.Tensor) -> torch.Tensor:
    """Return the measurements of regions, (regions, measurements)."""
    box = (slice(None), *_box(regions.ids > 0, _SURROUNDINGS))
    slab, liver, ids, count = slab[:, :, box[1], box[2]], liver[box], regions.ids[box], regions.count
    near = _spread(ids, _RIM)
    around = _spread(near, _SURROUNDINGS - _RIM)
    inside = ids > 0
    core = inside & (_maximum(ids, _RIM) == ids) & (-_maximum(-ids, _RIM) == ids)
    middle = slab.shape[1] // 2
    smooth = functional.avg_pool2d(slab[:, middle, None], 3, stride=1, padding=1, count_include_pad=False)[:, 0]
    pixels = slab.permute(0, 2, 3, 1)

    def part(mask: torch.Tensor, of: torch.Tensor, fallback: torch.Tensor | None = None) -> torch.Tensor:
        values, numbers = pixels[mask], of[mask] - 1
        means = _mean(torch.cat([values, values * values], dim=1), numbers, count)
        if fallback is None:
            return means
        return torch.where(torch.bincount(numbers, minlength=count)[:, None] > 0, means, fallback)

    whole = part(inside, ids)
    parts = [
        part(core, ids, whole),
        part(inside & ~core, ids, whole),
        part(~inside & (near > 0), near, whole),
    ]
    organ = part(liver & ~inside & (near == 0) & (around > 0), around, part(~inside & (around > 0), around, whole))
    reference = organ[:, middle, None]
    measurements = []
    for means in parts:
        mean, square = means.chunk(2, dim=1)
        std = (square - mean * mean).clamp(min=_EPSILON).sqrt()
        measurements += [
            (mean - _MEAN_CENTER) / _MEAN_SCALE,
            (mean - reference) / _CONTRAST_SCALE,
            std / _STD_SCALE,
        ]
    spots = smooth[inside]
    numbers = ids[inside] - 1
    for reduce in ("amin", "amax"):
        extreme = spots.new_zeros(count).scatter_reduce(0, numbers, spots, reduce, include_self=False)[:, None]
        measurements += [(extreme - _MEAN_CENTER) / _MEAN_SCALE, (extreme - reference) / _CONTRAST_SCALE]
    area = torch.bincount(numbers, minlength=count).to(slab.dtype)[:, None]
    measurements += [
        (reference - _MEAN_CENTER) / _MEAN_SCALE,
        (area.log() - _LOG_AREA_CENTER) / _LOG_AREA_SCALE,
    ]
    return torch.cat(measurements, dim=1)


def _box(inside: torch.Tensor, margin: int, stride: int = 1) -> tuple[slice, slice]:
    """Return rows and columns of the box around pixels of all slabs, with a margin.

    Args:
        inside: boolean (batch, H, W), true somewhere.
        margin: pixels on each side, as far as they are in the slab.
        stride: the start is rounded down to a multiple of it.
    """
    sides = []
    in_any = inside.any(dim=0)
    for length, occupied in zip(inside.shape[1:], (in_any.any(dim=1), in_any.any(dim=0)), strict=True):
        places = torch.nonzero(occupied)
        start = max(0, int(places.min()) - margin) // stride * stride
        sides.append(slice(start, min(length, int(places.max()) + 1 + margin)))
    return sides[0], sides[1]


def _spread(ids: torch.Tensor, pixels: int) -> torch.Tensor:
    """Give the pixels within a square around a region its number, where they have none; the higher of two."""
    return torch.where(ids > 0, ids, _maximum(ids, pixels))


def _maximum(ids: torch.Tensor, pixels: int) -> torch.Tensor:
    """Return the highest number within a square around each pixel, as far as it is in the slab."""
    return window_maximum(ids.to(torch.float32), pixels).to(ids.dtype)  # exact below 2^24


class RegionTypeUNet(SEResUNet):
    """The joint network, whose types come from a `RegionTypeHead` for each connected region, in one pass.

    A pixel is lesion where all types together are likelier than liver and background. In evaluation mode the output has
    the five channels of the joint network, so the same code reads both.

    Args:
        size: a key of `SIZES`.
        in_channels: slices of a slab.
        out_channels: ignored, always the 5 of the joint label table; kept so that all networks have the same arguments.
        deep_supervision: also supervise maps at strides 2, 4 and 8.
        evidence: as for `RegionTypeHead`.
        sum_types: ignored, since an outline never depends on the types.

    Raises:
        UsageError: if size or evidence is unknown.
    """

    float32_parts = ("type_head",)
    classifies_regions = True

    def __init__(
        self,
        size: str = "full",
        in_channels: int = 3,
        out_channels: int = 5,
        deep_supervision: bool = False,
        evidence: str = "measurements",
        sum_types: bool = True,
    ) -> None:
        super().__init__(size, in_channels, len(JOINT_LABELS), deep_supervision, sum_types=True)
        self.type_head = RegionTypeHead(in_channels, get_size(size).decoder[2], evidence)

    def arguments(self) -> dict[str, Any]:
        """Return the constructor arguments that build this network again."""
        return {**super().arguments(), "evidence": self.type_head.evidence}

    def forward(  # type: ignore[override]
        self, x: torch.Tensor, outlines: torch.Tensor | None = None
    ) -> torch.Tensor | SlabOutput:
        """Return logits (batch, 5, H, W); in training the maps and the types of regions.

        Args:
            x: slabs (batch, in_channels, H, W), HU windowed to [-1, 1].
            outlines: for training, true label maps (batch, 1, H, W), whose lesions are named as well if their type is
                known. Tissue that is `LIVER_OR_LESION` counts as liver around them.
        """
        slab = pad_to_stride(x)
        height, width = x.shape[2], x.shape[3]
        features = self.decoder(slab, self.encoder(slab))
        maps = self._maps(self.head(features[0]), features, height, width)
        dtype = torch.promote_types(x.dtype, torch.float32)
        final = (maps[:, 0] if maps.ndim == 5 else maps).detach().to(dtype).contiguous()
        others, types = final[:, :LESION], final[:, LESION:]
        lesion = torch.logsumexp(types, dim=1, keepdim=True)
        background, organ = others.unbind(dim=1)
        outlined = lesion[:, 0] > torch.maximum(background, organ)
        liver = ~outlined & (organ > background)
        with torch.autocast(x.device.type, enabled=False):
            inputs, at_4 = x.to(dtype), features[2].to(dtype)
            if not self.training:
                return join_types(others, lesion, self._name_regions(inputs, outlined, liver, types, at_4))
            named = [(_own_regions(outlined, types), liver)]
            if outlines is not None:
                true = outlines[:, 0]
                named.append((typed_regions(true), (true == LIVER) | (true == LIVER_OR_LESION)))
            logits = [self.type_head(inputs, regions, tissue, types, at_4) for regions, tissue in named]
        painted = [_paint(of_regions, regions.ids) for (regions, _), of_regions in zip(named, logits, strict=True)]
        return SlabOutput(maps, torch.stack(painted, dim=1), torch.stack([at.weights() for at, _ in named], dim=1))

    def _name_regions(
        self,
        slab: torch.Tensor,
        lesion: torch.Tensor,
        liver: torch.Tensor,
        types: torch.Tensor,
        features: torch.Tensor,
    ) -> torch.Tensor:
        """Return type logits of pixels, in which those of each region and its rim are the region's.

        The rim has them for outlines at a lower threshold than the likeliest label. All but the network itself is
        computed in the box of the lesions alone, for its time.
        """
        if not lesion.any():
            return types
        rows, columns = _box(lesion, _SURROUNDINGS, _STRIDE)
        box = (slice(None), rows, columns)
        of_box = types[:, :, rows, columns]
        at_4 = features[:, :, rows.start // _STRIDE :, columns.start // _STRIDE :]
        regions = _own_regions(lesion[box], of_box)
        logits = self.type_head(slab[:, :, rows, columns], regions, liver[box], of_box, at_4)
        near = _spread(regions.ids, _RIM)
        named = types.clone()
        named[:, :, rows, columns] = torch.where(near[:, None] > 0, _paint(logits, near), of_box)
        return named


def _own_regions(lesion: torch.Tensor, types: torch.Tensor) -> Regions:
    """Return the regions of the network's own outlines, cysts beside other lesions separated by the pixels' types."""
    return label_regions(lesion, channel_argmax(types) == LESION_TYPES.index("cyst"))


def _paint(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Return the logits of each pixel's region, (batch, lesion types, H, W); 0 outside."""
    with_outside = torch.cat([logits.new_zeros(1, logits.shape[1]), logits])
    return with_outside[ids].permute(0, 3, 1, 2)
