"""The record that travels with weights: what they are, how they were made, and a hash that proves it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import monai
import numpy
import torch

import liverseg
from liverseg.bundle.validation import are_lesion_ranges
from liverseg.errors import LiversegError
from liverseg.transforms import SLAB_SLICES

__all__ = ["FORMAT_VERSION", "SlabInput", "WeightsRecord", "package_versions", "tensors_hash"]

FORMAT_VERSION = 2
"""The newest kind of record. It is raised when a record of the new kind would mislead a reader of the old one; a record
that would not still says 1, so that older versions go on reading it: 2 has `pixel_mm`."""

_ADDED_LATER = ("type_temperature", "pixel_mm")
"""What records made before it do not have."""


_WHERE_KNOWN = ("voxel_threshold", "lesion_threshold", "lesion_ranges", "averaged_share")
"""Fields that a record has only where they are known."""
_RENAMED_NETWORKS = {"MeasuringUNet": "LesionTypeUNet"}
"""Network classes by the names that earlier versions wrote into records."""


@dataclass(frozen=True)
class SlabInput:
    """What a network sees of a CT; weights are of use with the input they were trained with.

    Attributes:
        hu_window: lower and upper HU.
        slab_spacing_mm: distance of a slab's slices in mm; None for adjacent ones, whatever their distance.
        slab_slices: axial slices of a slab.
        pixel_mm: edge of the pixels that slices are resampled to, in mm; None for their own, whatever their size.

    Raises:
        LiversegError: if a value is not of its kind.
    """

    hu_window: tuple[float, float]
    slab_spacing_mm: float | None = None
    slab_slices: int = SLAB_SLICES
    pixel_mm: float | None = None

    def __post_init__(self) -> None:
        for name, sound in (
            ("hu_window", len(self.hu_window) == 2 and all(map(_is_number, self.hu_window))),
            ("slab_spacing_mm", self.slab_spacing_mm is None or _is_number(self.slab_spacing_mm)),
            ("slab_slices", _is_count(self.slab_slices) and self.slab_slices > 0),
            ("pixel_mm", self.pixel_mm is None or (_is_number(self.pixel_mm) and 0 < self.pixel_mm < math.inf)),
        ):
            _refuse_unsound(self, name, sound)
        object.__setattr__(self, "hu_window", tuple(map(float, self.hu_window)))
        for name in ("slab_spacing_mm", "pixel_mm"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, float(getattr(self, name)))

    def differences(self, other: SlabInput) -> list[tuple[str, str, str]]:
        """Where another input differs: what, this one's and the other's, in words."""
        pairs = [
            ("HU window", *(f"[{one.hu_window[0]:g}, {one.hu_window[1]:g}]" for one in (self, other))),
            ("slab spacing", *(_format_spacing(one.slab_spacing_mm) for one in (self, other))),
            ("slab slices", *(str(one.slab_slices) for one in (self, other))),
            ("pixel size", *(_format_pixels(one.pixel_mm) for one in (self, other))),
        ]
        return [(what, own, theirs) for what, own, theirs in pairs if own != theirs]


@dataclass(frozen=True)
class WeightsRecord:
    """What a weights file is.

    Attributes:
        network: class name, "SEResUNet".
        arguments: what it is built with, JSON-able; at least size, in_channels and out_channels.
        input_spec: the input they were trained with.
        labels: label names in channel order, one an output channel.
        datalist_name: name of the data list trained on.
        datalist_sha256: SHA-256 of that data list's file, hexadecimal.
        epoch: epochs trained when the weights were kept; 0 for none.
        metrics: validation scores of that epoch, by name; NaN where a score was not defined.
        versions: package versions it was trained with, by package.
        fold: validation fold of the data list that was held out; None where it is not known.
        type_temperature: what type logits are divided by before their softmax, see `liverseg.training.TypeTemperature`;
            1 where none was fitted.
        voxel_threshold: how likely lesion must be, given liver or lesion, for inference to call a voxel of the liver
            lesion; None where the likeliest label is taken.
        lesion_threshold: least score of a lesion that inference keeps unless told otherwise, see
            `liverseg.evaluation.calibrate_lesion_threshold`; None where none was chosen.
        lesion_ranges: by type and measurement the bounds of the training's lesions, see
            `liverseg.evaluation.lesion_ranges`; None where they were not measured.
        averaged_share: share of the pre-training in encoder and decoder, see `liverseg.networks.average_weights`, where
            the heads have not been trained on with them; None otherwise.
        tensors_sha256: `tensors_hash` of the weights; empty until they are written.
        format_version: see `FORMAT_VERSION`; it follows from what is recorded.

    Raises:
        LiversegError: if a value is not of its kind or the labels are not one an output channel.
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
        for name, sound in (
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
            _refuse_unsound(self, name, sound)
        object.__setattr__(self, "format_version", 1 if self.input_spec.pixel_mm is None else 2)
        if self.arguments["out_channels"] != len(self.labels):
            raise LiversegError(
                f"record of weights: {len(self.labels)} labels for {self.arguments['out_channels']} output channels"
            )

    def for_tensors(self, state: Mapping[str, torch.Tensor]) -> WeightsRecord:
        """The same record with the hash of these tensors."""
        return replace(self, tensors_sha256=tensors_hash(state))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON content; a score that is not defined becomes null."""
        content = asdict(self)
        content |= content.pop("input_spec")
        if self.format_version == 1:
            del content["pixel_mm"]  # unknown to versions that read such records
        content["hu_window"], content["labels"] = list(self.input_spec.hu_window), list(self.labels)
        for name in _WHERE_KNOWN:
            if content[name] is None:
                del content[name]  # a reader that does not know it would refuse the record
        content["metrics"] = {name: value if math.isfinite(value) else None for name, value in self.metrics.items()}
        return content

    @classmethod
    def from_json(cls, content: Any) -> WeightsRecord:
        """A record from what `to_json` gave.

        Raises:
            LiversegError: if it is not such content, or of a newer format.
        """
        if not isinstance(content, Mapping) or "format_version" not in content:
            raise LiversegError("not a record of liverseg weights")
        if content["format_version"] not in range(1, FORMAT_VERSION + 1):
            raise LiversegError(
                f"record of format {content['format_version']!r}; "
                f"this liverseg reads 1 to {FORMAT_VERSION}: update liverseg"
            )
        known = [one.name for kind in (cls, SlabInput) for one in fields(kind) if one.name != "input_spec"]
        needed = [name for name in known if name not in (*_ADDED_LATER, *_WHERE_KNOWN)]
        wrong = [name for name in needed if name not in content] + [name for name in content if name not in known]
        if wrong:
            raise LiversegError(f"record of weights: {wrong[0]} is {'missing' if wrong[0] in known else 'not known'}")
        values = {name: value for name, value in content.items() if name != "format_version"}
        if isinstance(values["network"], str):
            values["network"] = _RENAMED_NETWORKS.get(values["network"], values["network"])
        for name in ("hu_window", "labels"):
            if not isinstance(values[name], list):
                raise LiversegError(f"record of weights: {name} is {values[name]!r}; a list is needed")
            values[name] = tuple(values[name])
        input_spec = {one.name: values.pop(one.name) for one in fields(SlabInput) if one.name in values}
        values["input_spec"] = SlabInput(**input_spec)
        ranges = values.get("lesion_ranges")
        if ranges is not None and are_lesion_ranges(ranges):
            values["lesion_ranges"] = {
                kind: {name: (float(low), float(high)) for name, (low, high) in bounds.items()}
                for kind, bounds in ranges.items()
            }
        if isinstance(values["metrics"], dict):
            values["metrics"] = {key: math.nan if score is None else score for key, score in values["metrics"].items()}
        return cls(**values)

    def dumps(self, indent: int | None = None) -> str:
        """The record as JSON text."""
        return json.dumps(self.to_json(), indent=indent, ensure_ascii=False, allow_nan=False)


def tensors_hash(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over the tensors sorted by name: for each the name, data type and shape as text, then its bytes.

    Bytes are those of the contiguous tensor in the machine's order (little-endian wherever torch runs), so the memory
    format does not matter.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def package_versions() -> dict[str, str]:
    """Versions of the packages that decide what weights compute."""
    return {
        "liverseg": liverseg.__version__,
        "monai": monai.__version__,
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
    }


def _refuse_unsound(record: SlabInput | WeightsRecord, name: str, sound: bool) -> None:
    if not sound:
        raise LiversegError(f"record of weights: {name} is {getattr(record, name)!r}, which it cannot be")


def _format_spacing(spacing: float | None) -> str:
    return "adjacent slices" if spacing is None else f"{spacing:g} mm"


def _format_pixels(pixel_mm: float | None) -> str:
    return "each CT's own" if pixel_mm is None else f"{pixel_mm:g} mm"


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
