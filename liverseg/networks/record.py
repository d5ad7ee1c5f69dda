"""The record stored with weights: network, input, training, recommended thresholds and a hash of the tensors."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy
import torch

import liverseg
from liverseg.bundle.validation import are_lesion_ranges
from liverseg.bundle.weights_files import RENAMED_NETWORKS
from liverseg.errors import LiversegError
from liverseg.transforms import SLAB_SLICES

__all__ = ["FORMAT_VERSION", "SlabInput", "WeightsRecord", "package_versions", "tensors_hash"]

FORMAT_VERSION = 2
"""Newest version of the record format. Version 2 has `pixel_mm`. A record that an older liverseg would not misread is
still written as version 1, so that it can be read there."""

_ADDED_LATER = ("type_temperature", "pixel_mm")
"""Fields that are missing in older records."""

_OPTIONAL = ("voxel_threshold", "lesion_threshold", "lesion_ranges", "averaged_share")
"""Fields that are written only if they have a value."""


@dataclass(frozen=True)
class SlabInput:
    """Input of a network. Weights are valid only for the input they were trained with.

    Attributes:
        hu_window: lower and upper HU.
        slab_spacing_mm: distance of a slab's slices in mm; None for adjacent slices at any distance.
        slab_slices: axial slices of a slab.
        pixel_mm: edge of the pixels that slices are resampled to, in mm; None for each CT's own pixels.

    Raises:
        LiversegError: if a value is of the wrong type or out of range.
    """

    hu_window: tuple[float, float]
    slab_spacing_mm: float | None = None
    slab_slices: int = SLAB_SLICES
    pixel_mm: float | None = None

    def __post_init__(self) -> None:
        for name, is_valid in (
            ("hu_window", len(self.hu_window) == 2 and all(map(_is_number, self.hu_window))),
            ("slab_spacing_mm", self.slab_spacing_mm is None or _is_number(self.slab_spacing_mm)),
            ("slab_slices", _is_count(self.slab_slices) and self.slab_slices > 0),
            ("pixel_mm", self.pixel_mm is None or (_is_number(self.pixel_mm) and 0 < self.pixel_mm < math.inf)),
        ):
            _check_field(self, name, is_valid)
        object.__setattr__(self, "hu_window", tuple(map(float, self.hu_window)))
        for name in ("slab_spacing_mm", "pixel_mm"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, float(getattr(self, name)))

    def differences(self, other: SlabInput) -> list[tuple[str, str, str]]:
        """Return where another input differs: name, value here and value there, formatted for messages."""
        specs = (self, other)
        pairs = [
            ("HU window", *(f"[{spec.hu_window[0]:g}, {spec.hu_window[1]:g}]" for spec in specs)),
            ("slab spacing", *(_format_spacing(spec.slab_spacing_mm) for spec in specs)),
            ("slab slices", *(str(spec.slab_slices) for spec in specs)),
            ("pixel size", *(_format_pixel_size(spec.pixel_mm) for spec in specs)),
        ]
        return [(name, value, other_value) for name, value, other_value in pairs if value != other_value]


@dataclass(frozen=True)
class WeightsRecord:
    """Description of a weights file.

    Attributes:
        network: class name, such as "SEResUNet".
        arguments: constructor arguments as JSON values; at least size, in_channels and out_channels.
        input_spec: the input that the weights were trained with.
        labels: label names in channel order, one per output channel.
        datalist_name: name of the data list used for training.
        datalist_sha256: SHA-256 of that data list's file, hexadecimal.
        epoch: number of epochs trained; 0 for none.
        metrics: validation scores of that epoch, by name; NaN for an undefined score.
        versions: versions of the packages used for training, by package.
        fold: validation fold of the data list; None if unknown.
        type_temperature: divisor of the type logits before their softmax, see `liverseg.training.TypeTemperature`; 1 if
            none was fitted.
        voxel_threshold: least probability of lesion, given liver or lesion, from which on inference labels a voxel of
            the liver as lesion; None to take the likeliest label.
        lesion_threshold: default of the least score of a lesion that inference keeps, see
            `liverseg.evaluation.calibrate_lesion_threshold`; None if none was chosen.
        lesion_ranges: bounds of the training's lesions by type and measurement, see
            `liverseg.evaluation.lesion_ranges`; None if they were not measured.
        averaged_share: share of the pre-training in encoder and decoder, see `liverseg.networks.average_weights`, if
            the heads have not been trained since; None otherwise.
        tensors_sha256: `tensors_hash` of the weights; empty until they are written.
        format_version: see `FORMAT_VERSION`; computed from the other fields.

    Raises:
        LiversegError: if a value is of the wrong type or out of range, or the number of labels is not that of the
            output channels.
    """

    network: str
    arguments: dict[str, Any]
    input_spec: SlabInput
    labels: tuple[str, ...]
    datalist_name: str
    datalist_sha256: str
    epoch: int
    metrics: dict[str, float]
    versions: dict[str, str]
    fold: int | None = None
    type_temperature: float = 1.0
    voxel_threshold: float | None = None
    lesion_threshold: float | None = None
    lesion_ranges: dict[str, dict[str, tuple[float, float]]] | None = None
    averaged_share: float | None = None
    tensors_sha256: str = ""
    format_version: int = field(init=False, default=1)

    def __post_init__(self) -> None:
        for name, is_valid in (
            ("network", _is_text(self.network) and bool(self.network)),
            (
                "arguments",
                isinstance(self.arguments, dict) and {"size", "in_channels", "out_channels"} <= {*self.arguments},
            ),
            ("labels", all(map(_is_text, self.labels))),
            ("datalist_name", _is_text(self.datalist_name)),
            ("datalist_sha256", _is_text(self.datalist_sha256)),
            ("epoch", _is_count(self.epoch)),
            ("metrics", isinstance(self.metrics, dict) and all(map(_is_number, self.metrics.values()))),
            ("versions", isinstance(self.versions, dict) and all(map(_is_text, self.versions.values()))),
            ("fold", self.fold is None or _is_count(self.fold)),
            ("type_temperature", _is_number(self.type_temperature) and 0 < self.type_temperature < math.inf),
            (
                "voxel_threshold",
                self.voxel_threshold is None or (_is_number(self.voxel_threshold) and 0 < self.voxel_threshold < 1),
            ),
            (
                "lesion_threshold",
                self.lesion_threshold is None
                or (_is_number(self.lesion_threshold) and 0 <= self.lesion_threshold <= 1),
            ),
            ("lesion_ranges", self.lesion_ranges is None or are_lesion_ranges(self.lesion_ranges)),
            (
                "averaged_share",
                self.averaged_share is None or (_is_number(self.averaged_share) and 0 <= self.averaged_share <= 1),
            ),
            ("tensors_sha256", _is_text(self.tensors_sha256)),
        ):
            _check_field(self, name, is_valid)
        object.__setattr__(self, "format_version", 1 if self.input_spec.pixel_mm is None else 2)
        if self.arguments["out_channels"] != len(self.labels):
            raise LiversegError(
                f"record of weights: {len(self.labels)} labels for {self.arguments['out_channels']} output channels"
            )

    def for_tensors(self, state: Mapping[str, torch.Tensor]) -> WeightsRecord:
        """Return a copy of the record with the hash of these tensors."""
        return replace(self, tensors_sha256=tensors_hash(state))

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values; an undefined score becomes null."""
        content = asdict(self)
        content |= content.pop("input_spec")
        if self.format_version == 1:
            del content["pixel_mm"]  # readers of version 1 do not know it
        content["hu_window"], content["labels"] = list(self.input_spec.hu_window), list(self.labels)
        for name in _OPTIONAL:
            if content[name] is None:
                del content[name]  # readers that do not know the field would refuse the record
        content["metrics"] = {name: value if math.isfinite(value) else None for name, value in self.metrics.items()}
        return content

    @classmethod
    def from_json(cls, content: Any) -> WeightsRecord:
        """Build a record from the JSON values of `to_json`.

        Raises:
            LiversegError: if the content is not that of a record, or of a newer format.
        """
        if not isinstance(content, Mapping) or "format_version" not in content:
            raise LiversegError("not a record of liverseg weights")
        if content["format_version"] not in range(1, FORMAT_VERSION + 1):
            raise LiversegError(
                f"record of format {content['format_version']!r}; "
                f"this liverseg reads 1 to {FORMAT_VERSION}: update liverseg"
            )
        known = [entry.name for kind in (cls, SlabInput) for entry in fields(kind) if entry.name != "input_spec"]
        required = [name for name in known if name not in (*_ADDED_LATER, *_OPTIONAL)]
        wrong = [name for name in required if name not in content] + [name for name in content if name not in known]
        if wrong:
            raise LiversegError(f"record of weights: {wrong[0]} is {'missing' if wrong[0] in known else 'unknown'}")
        values = {name: value for name, value in content.items() if name != "format_version"}
        if isinstance(values["network"], str):
            values["network"] = RENAMED_NETWORKS.get(values["network"], values["network"])
        for name in ("hu_window", "labels"):
            if not isinstance(values[name], list):
                raise LiversegError(f"record of weights: {name} is {values[name]!r}; a list is needed")
            values[name] = tuple(values[name])
        names = [entry.name for entry in fields(SlabInput) if entry.name in values]
        values["input_spec"] = SlabInput(**{name: values.pop(name) for name in names})
        ranges = values.get("lesion_ranges")
        if ranges is not None and are_lesion_ranges(ranges):
            values["lesion_ranges"] = {
                lesion_type: {name: (float(low), float(high)) for name, (low, high) in bounds.items()}
                for lesion_type, bounds in ranges.items()
            }
        if isinstance(values["metrics"], dict):
            values["metrics"] = {
                name: math.nan if score is None else score for name, score in values["metrics"].items()
            }
        return cls(**values)

    def dumps(self, indent: int | None = None) -> str:
        """Return the record as JSON text."""
        return json.dumps(self.to_json(), indent=indent, ensure_ascii=False, allow_nan=False)


def tensors_hash(state: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of tensors sorted by name: for each the name, dtype and shape as text, then its bytes.

    The bytes are those of the contiguous tensor, so the memory format does not matter. Their order is the machine's,
    little-endian wherever torch runs.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that influence the output of a network."""
    return {
        "liverseg": liverseg.__version__,
        "monai": importlib.metadata.version("monai"),
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
    }


def _check_field(record: SlabInput | WeightsRecord, name: str, is_valid: bool) -> None:
    if not is_valid:
        raise LiversegError(f"record of weights: {name} is {getattr(record, name)!r}, which is not a valid value")


def _format_spacing(spacing: float | None) -> str:
    return "adjacent slices" if spacing is None else f"{spacing:g} mm"


def _format_pixel_size(pixel_mm: float | None) -> str:
    return "each CT's own" if pixel_mm is None else f"{pixel_mm:g} mm"


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
