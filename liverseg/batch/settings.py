"""Settings of a batch's results: their fingerprint, and the fingerprints that earlier versions had for the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import yaml

from liverseg.bundle.effective import (
    RECORDED_SETTINGS,
    earlier_configs,
    effective_settings,
    merge_configs,
)
from liverseg.bundle.keys import DICOM_INPUT, EXECUTION
from liverseg.bundle.weights_files import read_record_content
from liverseg.errors import LiversegError, one_line
from liverseg.labels import LIVER
from liverseg.utils.files import is_file, sha256_file
from liverseg.utils.fingerprints import settings_hash

__all__ = [
    "EarlierSettings",
    "all_lesions_in_liver",
    "configuration_hash",
    "earlier_settings",
    "has_liver_mask",
    "run_settings",
]

_IGNORED = (*EXECUTION, "batch_size")
"""Settings that change how a case is computed but not its results, except for rounding."""
_CONTACT = "min_liver_contact"


@dataclass(frozen=True)
class EarlierSettings:
    """Settings of an earlier version that stand for today's.

    Attributes:
        hashed: the content whose hash is in the records of that version, without the case's own settings.
        lacks_contact: that version kept lesions with little liver around them, which today's settings leave out.
    """

    hashed: Mapping[str, Any]
    lacks_contact: bool


def run_settings(config: Path, weights: Path, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a bundle's inference, JSON types only.

    Args:
        config: the bundle's `configs/inference.yaml`.
        weights: the weights file.
        overrides: of the config's keys; None keeps the config's value.

    Returns:
        `settings`, the effective ones; `weights_record`, the SHA-256 of the record beside a state_dict; `overrides`, as
        earlier versions hashed them; and `recorded`, what the weights' record says of settings.

    Raises:
        LiversegError: if a file cannot be read.
    """
    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise LiversegError(f"{config}: cannot be read ({one_line(error)})") from error
    given = {name: value for name, value in overrides.items() if value is not None and name not in _IGNORED}
    sidecar = weights.with_suffix(".json")  # holds what a state_dict does not, such as a fitted temperature
    has_sidecar = weights.suffix != ".safetensors" and is_file(sidecar)
    recorded = _recorded_settings(weights)
    settings = {
        "settings": _effective(content, given, recorded),
        "weights_record": sha256_file(sidecar) if has_sidecar else None,
        "overrides": given,
        "recorded": recorded,
    }
    # as a worker gets them, so that they compare equal on both sides
    plain: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return plain


def configuration_hash(settings: Mapping[str, Any], case: Mapping[str, Any], nifti: bool = False) -> str:
    """Return the SHA-256 of the settings of a case.

    Args:
        settings: from `run_settings`.
        case: the case's own.
        nifti: the case is a NIfTI file, whose results do not depend on settings of DICOM input.
    """
    effective, own = dict(settings["settings"]), dict(case)
    if has_liver_mask(settings, case):
        effective.pop(_CONTACT, None)  # with a liver from elsewhere no lesion is judged by it
    if nifti:
        effective, own = (
            {key: value for key, value in values.items() if key not in DICOM_INPUT} for values in (effective, own)
        )
    return settings_hash({"settings": effective, "weights_record": settings["weights_record"], "case": own})


def earlier_settings(settings: Mapping[str, Any]) -> list[EarlierSettings]:
    """Return the settings of earlier versions that give the same results.

    Earlier versions hashed the complete content of their `configs/inference.yaml`, with class paths and expressions.
    `liverseg.bundle.effective` knows those contents. A setting that a version did not have is at the value that changes
    nothing, unless today's settings or the weights' record set it.

    Args:
        settings: from `run_settings`.
    """
    today, recorded = settings["settings"], settings["recorded"]
    found = []
    for content in earlier_configs().inference():
        known = {key: value for key, value in settings["overrides"].items() if key.split("::")[0] in content}
        changed = {key: value for key, value in known.items() if content.get(key) != value}
        for overrides in [known] if known == changed else [known, changed]:
            then = _effective(content, overrides, recorded)
            lacks_contact = _CONTACT in today and _CONTACT not in then
            if lacks_contact:
                then[_CONTACT] = today[_CONTACT]
            if then == today:
                hashed = {"config": content, "overrides": overrides, "weights_record": settings["weights_record"]}
                found.append(EarlierSettings(hashed, lacks_contact))
    return found


def all_lesions_in_liver(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Return True if today's `min_liver_contact` would leave out none of a case's lesions.

    Args:
        folder: of the case, whose files are known to be unchanged.
        settings: from `run_settings`.
    """
    from liverseg.inference.components import liver_contact  # with torch, which only such a case needs

    lesions, labels = (
        np.asanyarray(nib.Nifti1Image.from_filename(folder / name).dataobj)
        for name in ("lesions.nii.gz", "labels.nii.gz")
    )
    contact = liver_contact(lesions.astype(np.int64), labels >= LIVER)
    return bool(np.all(contact >= settings["settings"][_CONTACT] - 1e-6))


def has_liver_mask(settings: Mapping[str, Any], case: Mapping[str, Any]) -> bool:
    """Return True if a case's liver is read from a mask.

    Args:
        settings: from `run_settings`.
        case: the case's own.
    """
    liver = case.get("liver_from") or settings["settings"].get("liver") or "auto"
    return str(liver).strip().lower() not in ("", "auto", "none")


def _effective(config: Mapping[str, Any], overrides: Mapping[str, Any], recorded: Mapping[str, Any]) -> dict[str, Any]:
    merged = merge_configs([config, overrides])
    return effective_settings({key: value for key, value in merged.items() if key not in _IGNORED}, recorded)


def _recorded_settings(weights: Path) -> dict[str, Any]:
    """Return what the record of weights says of settings; empty without a record."""
    try:
        content = read_record_content(weights) or {}
    except LiversegError:
        return {}  # whoever loads the weights says what is wrong with them
    return {key: content[key] for key in RECORDED_SETTINGS if key in content}
