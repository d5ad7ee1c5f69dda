"""Build the evaluator of a bundle's inference as its config does, without MONAI.

The import of MONAI takes longer than the inference of a small CT. `configs/inference.yaml` therefore has two readers:
MONAI for `python -m monai.bundle run inference`, and this module for `liverseg predict`, `liverseg batch` and Python.
The first part of the config holds values, which a user may edit. The second part, below the line `# objects`, connects
the objects; this module connects them in the same way, and a test compares both. If the second part was edited, the
config is left to MONAI.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from liverseg.bundle.effective import is_expression
from liverseg.bundle.outputs import needs_dicom
from liverseg.bundle.validation import RULES, check_values, is_recorded, none_if_null
from liverseg.cases.discover import find_cases
from liverseg.imageio.liver_mask import LiverSource
from liverseg.inference.cascade import LiverCascade
from liverseg.inference.evaluator import CaseEvaluator
from liverseg.inference.inferer import SlabInferer, resolve_batch_size
from liverseg.inference.output.case_writer import CaseWriter
from liverseg.inference.transforms import FindLesionsd, MeasureLesionsd, ReadCTd, ReadLiverd, Steps
from liverseg.labels import JOINT_LABELS, PRETRAIN_LABELS
from liverseg.networks.registry import RecordedSettings, recorded_settings
from liverseg.networks.se_resunet import SEResUNet
from liverseg.transforms import SLAB_SLICES
from liverseg.utils.files import sha256_text
from liverseg.utils.precision import get_device

__all__ = ["build_evaluator"]

_OBJECTS = "\n# objects\n"
_JOINT, _PRETRAIN = len(JOINT_LABELS), len(PRETRAIN_LABELS)
_LABELS = {
    "2a306fe1e6014111f4c832fce2bfed5ed4968ba29e890ed4d2aaf0010c74c87f": _JOINT,
    "2e0f4091674674f565ee16a3b1b033ce25daa3a0d07cf04eeae13b55e2b783ab": _PRETRAIN,
}
"""Number of labels by the SHA-256 of the second part of a config."""

_AUTO_DEVICE = "$bundle.get_device('auto')"
_RECORDED = "$@weights_record."
_GIVEN = ("imports", "bundle_root", "output_dir", "dataset_dir", "weights", "weights_record")
"""Keys of the first part that the caller gives, or that only MONAI needs."""


@dataclass
class _CaseDataset:
    data: Sequence[Mapping[str, Any]]
    transform: Callable[[Mapping[str, Any]], Mapping[str, Any]]


def build_evaluator(config: Path, settings: Mapping[str, Any]) -> CaseEvaluator | None:
    """Return the evaluator of a config, or None if only MONAI can evaluate it.

    Args:
        config: a bundle's `configs/inference.yaml`.
        settings: values of its keys that replace those of the file. `weights` is required; `dataset_dir`, or `cases`
            with the items themselves.

    Raises:
        LiversegError: if a value is not allowed, or the CTs, their masks or the device cannot be used.
    """
    head, _, objects = config.read_text(encoding="utf-8").partition(_OBJECTS)
    labels = _LABELS.get(sha256_text(objects))
    if labels is None:
        return None
    content = yaml.safe_load(head)
    record = recorded_settings(settings["weights"])
    values = _values(content, settings, record)
    if values is None:
        return None
    device = get_device(values["device"])
    values["batch_size"] = resolve_batch_size(values["batch_size"], device)
    for key, value in values.items():
        if key in RULES:
            check_values(**{key: value})

    cases = settings["cases"] if "cases" in settings else find_cases(settings["dataset_dir"])
    liver = LiverSource.parse(values["liver"]).check(len(cases))
    read_ct = ReadCTd(
        "image",
        series=values["series"],
        dicom_results=needs_dicom(values["output_types"], values["dicom"]),
        keep_identifiers=values["keep_identifiers"],
        phase=values["phase"],
        untilt=values["untilt"],
    )
    slabs = SlabInferer(
        hu_window=values["hu_window"],
        batch_size=values["batch_size"],
        amp=values["amp"],
        slab_spacing_mm=values["slab_spacing_mm"],
        pixel_mm=values["pixel_mm"],
        voxel_threshold=values["voxel_threshold"],
        type_temperature=values.get("type_temperature", 1.0),
    )
    find_lesions = FindLesionsd(
        "pred",
        min_lesion_ml=values["min_lesion_ml"],
        min_liver_contact=values["min_liver_contact"],
        min_confidence=values.get("min_confidence", 0.0),
        lesion_threshold=values["lesion_threshold"],
    )
    measure_lesions = MeasureLesionsd("pred", num_channels=labels, lesion_ranges=values.get("lesion_ranges"))
    network_class = values.get("network_class", SEResUNet)
    network = network_class(size=values["network_size"], in_channels=SLAB_SLICES, out_channels=labels)
    return CaseEvaluator(
        dataset=_CaseDataset(cases, Steps([read_ct, ReadLiverd(liver, "image")])),
        network=network.to(device, memory_format=torch.channels_last),
        inferer=LiverCascade(slabs, find_liver=liver.find),
        postprocessing=Steps([find_lesions, measure_lesions]),
        writer=CaseWriter(
            settings.get("output_dir", "."),
            preview=values["preview"],
            report=values["report"],
            output_types=values["output_types"],
        ),
        device=device,
        weights=settings["weights"],
        settings={key: str(value) if key == "liver" else value for key, value in values.items() if is_recorded(key)},
        statistics=values["statistics"],
        progress=values["progress"],
    )


def _values(content: Mapping[str, Any], settings: Mapping[str, Any], record: RecordedSettings) -> dict[str, Any] | None:
    """Return the values of a config's first part; None if one is an expression of another kind, or a key is unknown."""
    if not {*settings} <= {*content, "cases"}:
        return None
    values: dict[str, Any] = {}
    for key, default in content.items():
        if key in _GIVEN:
            continue
        if key in settings:
            value = settings[key]
        elif default == _AUTO_DEVICE:
            value = "auto"
        elif str(default).startswith(_RECORDED):
            value = getattr(record, default.removeprefix(_RECORDED))
        elif is_expression(default):
            return None
        else:
            value = default
        is_optional = key == "series" or (key in RULES and RULES[key].optional)
        values[key] = none_if_null(value) if is_optional else value
    return values
