"""record.json: input, weights, settings, versions, results, times and warnings of a case."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import nibabel as nib
import torch

from liverseg.imageio.volume import Volume
from liverseg.inference.lesion_measurements import LesionMeasurements
from liverseg.inference.lesions import LesionMap, liver_volume_ml
from liverseg.inference.plausibility import Plausibility
from liverseg.labels import LESION, Label
from liverseg.networks import WeightsRecord, package_versions

__all__ = [
    "FORMAT_VERSION",
    "RunMetadata",
    "case_record",
    "complete_record",
    "describe_run",
    "describe_series",
    "lesions_by_type",
]

FORMAT_VERSION = 1
"""Increased when the format changes in a way that would mislead older readers."""


@dataclass(frozen=True)
class RunMetadata:
    """Metadata that all cases of a run share.

    Attributes:
        weights: path of the weights.
        weights_sha256: SHA-256 of the file.
        weights_record: record of the weights; None for a plain state_dict without one.
        device: device of the network.
        precision: number format of the network, such as float32.
        settings: of the run by name, JSON-able.
    """

    weights: Path
    weights_sha256: str
    weights_record: WeightsRecord | None
    device: torch.device
    precision: str
    settings: Mapping[str, Any] = field(default_factory=dict)


def lesions_by_type(table: LesionMeasurements, labels: Sequence[Label]) -> dict[str, int]:
    """Count the lesions of each type of the label table, in its order, including zeros."""
    counts = Counter(row.type for row in table.rows)
    return {label.name: counts[label.name] for label in labels[LESION:]}


def describe_series(source: Mapping[str, Any]) -> str:
    """Describe the series of a case's input, which is from `describe_input`; empty if it is not DICOM."""
    series = source.get("series")
    if series is None:
        return ""
    return f"series {series['description'] or series['uid'] or 'without a name'} of {series['slices']} slices"


def case_record(
    run: RunMetadata,
    case: str,
    source: Mapping[str, Any],
    volume: Volume,
    lesions: LesionMap,
    table: LesionMeasurements,
    labels: Sequence[Label],
    plausibility: Plausibility,
) -> dict[str, Any]:
    """Return the record of a finished case, without files, seconds and warnings. `source` is from `describe_input`.

    Lengths are in mm, volumes in ml, the affine is from voxel index to RAS+ mm.
    """
    weights = None
    if run.weights_record is not None:
        known = run.weights_record.to_json()
        names = ("network", "arguments", "labels", "datalist_name", "datalist_sha256", "epoch", "metrics")
        weights = {name: known[name] for name in names}
    return {
        "schema": "liverseg case record",
        "format_version": FORMAT_VERSION,
        "status": "done",
        "case": case,
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "input": dict(source),
        "weights": {"path": str(run.weights), "sha256": run.weights_sha256, "record": weights},
        "settings": dict(run.settings),
        "versions": {**package_versions(), "nibabel": nib.__version__, "python": platform.python_version()},
        "device": _device_name(run.device),
        "threads": torch.get_num_threads(),
        "precision": run.precision,
        "grid": {
            "shape": list(volume.array.shape),
            "spacing_mm": [round(length, 6) for length in volume.spacing],
            "affine": volume.affine.tolist(),
        },
        "labels": {str(label.index): label.name for label in labels},
        "liver_ml": round(liver_volume_ml(lesions, volume.voxel_ml), 3),
        "lesions": len(table),
        "lesions_by_type": lesions_by_type(table, labels),
        "lesions_dropped": lesions.dropped,
        "lesions_below_threshold": lesions.below_threshold,
        "lesions_outside_liver": lesions.outside_liver,
        "contrast_phase": None if plausibility.contrast is None else plausibility.contrast.to_json(),
        "findings": [asdict(finding) for finding in plausibility.findings],
    }


def complete_record(
    run: RunMetadata, case: str, data: Mapping[str, Any], labels: Sequence[Label], files: Mapping[str, str]
) -> dict[str, Any]:
    """Return the complete record of a case.

    Args:
        run: the metadata shared by all cases of the run.
        case: name of the case.
        data: the computed case, as `CaseWriter` takes it.
        labels: label table of the results.
        files: SHA-256 of each written file, by name.
    """
    record = case_record(
        run, case, data["input"], data["volume"], data["pred"], data["lesions"], labels, data["plausibility"]
    )
    seconds = {stage: round(duration, 3) for stage, duration in data["seconds"].items()}
    record |= {"files": dict(files), "seconds": seconds, "warnings": data["warnings"]}
    if "configuration" in data:
        record |= {"configuration_sha256": data["configuration"], "type_priors": data.get("type_priors")}
    return record


def describe_run(
    run: RunMetadata, source: Mapping[str, Any], volume: Volume, seconds: Mapping[str, float]
) -> dict[str, str]:
    """Describe input, grid, weights, software and times for a report, by name."""
    record = run.weights_record
    trained = "without a record" if record is None else f"{record.datalist_name}, epoch {record.epoch}"
    shape, spacing = " × ".join(map(str, volume.array.shape)), " × ".join(f"{mm:.3g}" for mm in volume.spacing)
    return {
        "Input": ", ".join(filter(None, (str(source["path"]), describe_series(source)))),
        "Grid": f"{shape} voxels of {spacing} mm",
        "Weights": f"{run.weights.name} ({trained}), SHA-256 {run.weights_sha256[:12]}",
        "Computed": f"liverseg {package_versions()['liverseg']} on {_device_name(run.device)}, {run.precision}",
        "Seconds": ", ".join(f"{stage} {duration:.1f}" for stage, duration in seconds.items()),
    }


def _device_name(device: torch.device) -> str:
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
