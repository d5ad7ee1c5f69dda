"""Networks by name, and the network and settings to use with a weights file, from its record."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from liverseg.networks.base import SlabNetwork
from liverseg.networks.lesion_type_unet import LesionTypeUNet
from liverseg.networks.record import WeightsRecord
from liverseg.networks.region_type_unet import RegionTypeUNet
from liverseg.networks.se_resunet import SEResUNet
from liverseg.networks.weights import try_read_record
from liverseg.networks.ynet import SlabClassifier, YNet
from liverseg.transforms import HUWindow

__all__ = ["NETWORKS", "RecordedSettings", "recorded_settings"]

_FOR_VOLUMES: Final[dict[str, type[SEResUNet]]] = {
    network.__name__: network for network in (SEResUNet, LesionTypeUNet, RegionTypeUNet)
}
NETWORKS: Final[dict[str, type[SlabNetwork]]] = {
    **_FOR_VOLUMES,
    **{network.__name__: network for network in (YNet, SlabClassifier)},
}
"""Networks by the name in their records. They have the same encoder and decoder; only their heads differ."""
_OWN_ARGUMENTS: Final = {
    "SEResUNet": ("sum_types",),
    "LesionTypeUNet": ("evidence", "windows"),
    "RegionTypeUNet": ("evidence",),
}


@dataclass(frozen=True)
class RecordedSettings:
    """Settings that a weights file was trained with or recommends. The defaults are for weights without a record.

    Attributes:
        network_class: builds the network from size, in_channels and out_channels.
        network_size: "full", "small" or "lite".
        sum_types: whether the types' probabilities are summed before a pixel's label is chosen, see `SEResUNet`.
        hu_window: lower and upper HU; the paper's by default.
        slab_spacing_mm: distance of a slab's slices in mm; None for adjacent slices.
        pixel_mm: edge of the pixels that slices are resampled to, in mm; None for each CT's own.
        type_temperature: divisor of type logits.
        voxel_threshold: least probability of lesion in the liver; None for the likeliest label.
        lesion_threshold: least score of a lesion that is kept; 0 keeps all.
        lesion_ranges: bounds of the training's lesions by type and measurement; None if they were not measured.
    """

    network_class: Callable[..., SEResUNet] = SEResUNet
    network_size: str = "full"
    sum_types: bool = False
    hu_window: list[float] = field(default_factory=lambda: [HUWindow().lower, HUWindow().upper])
    slab_spacing_mm: float | None = None
    pixel_mm: float | None = None
    type_temperature: float = 1.0
    voxel_threshold: float | None = None
    lesion_threshold: float = 0.0
    lesion_ranges: dict[str, dict[str, tuple[float, float]]] | None = None


def recorded_settings(weights: str | os.PathLike | None) -> RecordedSettings:
    """Return the settings in the record of a weights file, or the defaults if there is no file or no sound record.

    It never raises. A config reads its defaults from here, before it is known whether the weights can be used; loading
    them raises the error.
    """
    record = try_read_record(weights)
    if record is None:
        return RecordedSettings()
    return RecordedSettings(
        network_class=_network_class(record),
        network_size=str(record.arguments["size"]),
        sum_types=bool(record.arguments.get("sum_types", False)),
        hu_window=[*record.input_spec.hu_window],
        slab_spacing_mm=record.input_spec.slab_spacing_mm,
        pixel_mm=record.input_spec.pixel_mm,
        type_temperature=record.type_temperature,
        voxel_threshold=record.voxel_threshold,
        lesion_threshold=0.0 if record.lesion_threshold is None else record.lesion_threshold,
        lesion_ranges=record.lesion_ranges,
    )


def _network_class(record: WeightsRecord) -> Callable[..., SEResUNet]:
    """Return the network of a record with its own arguments.

    Y-Net and the classifier do not say which lesion has which type, so they cannot be used on volumes. The joint
    network is returned for them, and loading their weights into it is refused.
    """
    names = _OWN_ARGUMENTS.get(record.network, ())
    return partial(
        _FOR_VOLUMES.get(record.network, SEResUNet),
        **{name: record.arguments[name] for name in names if name in record.arguments},
    )
