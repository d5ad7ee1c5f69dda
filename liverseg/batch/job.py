"""Definition of a batch for its workers, and the check whether a case is complete.

A case is complete if its record says so and the record's hashes match the input, weights, settings and result files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from liverseg.batch.settings import (
    EarlierSettings,
    all_lesions_in_liver,
    configuration_hash,
    earlier_settings,
    has_liver_mask,
    run_settings,
)
from liverseg.cases.case import BatchCase
from liverseg.errors import LiversegError
from liverseg.imageio.volume import is_nifti
from liverseg.results.case_folder import read_case_record
from liverseg.results.inputs import matches_input
from liverseg.utils.files import sha256_file
from liverseg.utils.fingerprints import settings_hash

__all__ = ["Job", "RunSpec", "run_spec"]


@dataclass(frozen=True)
class RunSpec:
    """Weights and settings of a run. Two runs with equal specs produce the same results.

    Attributes:
        weights_sha256: SHA-256 of the weights file.
        settings: of the bundle's inference with overrides, from `liverseg.batch.settings.run_settings`.
    """

    weights_sha256: str
    settings: Mapping[str, Any]

    @cached_property
    def earlier(self) -> list[EarlierSettings]:
        """Settings of earlier versions that give the same results."""
        return earlier_settings(self.settings)

    def configuration(self, case: BatchCase) -> str:
        """Return the SHA-256 of the settings that a case depends on."""
        return configuration_hash(self.settings, case.own_settings(), is_nifti(case.image))

    def is_configuration(self, case: BatchCase, sha256: Any) -> bool:
        """Return whether a recorded hash is that of a case's settings, as this or an earlier version computes it."""
        return (
            sha256 == self.configuration(case)
            # earlier versions hashed settings of DICOM input for NIfTI files too
            or (is_nifti(case.image) and sha256 == configuration_hash(self.settings, case.own_settings()))
            or self._find_earlier(case, sha256) is not None
        )

    def _find_earlier(self, case: BatchCase, sha256: Any) -> EarlierSettings | None:
        own = case.own_settings()
        return next((found for found in self.earlier if settings_hash({**found.hashed, "case": own}) == sha256), None)

    def fingerprints(self) -> list[dict[str, Any]]:
        """Return the weights and settings to hash, first as this version does and then as earlier versions did."""
        today = {name: self.settings[name] for name in ("settings", "weights_record")}
        same = [today, *(found.hashed for found in self.earlier if not found.lacks_contact)]
        return [{"weights_sha256": self.weights_sha256, "settings": settings} for settings in same]

    def record_matches(self, case: BatchCase, output: Path) -> bool:
        """Return whether a case's record names this input path, these weights and these settings.

        Reads only the record. This is enough for tables, but not to skip a case.
        """
        record = read_case_record(output / case.name)
        return record is not None and self._matches(case, record)

    def verify(self, case: BatchCase, output: Path) -> bool:
        """Return whether all results of a case are there, made from this input with these weights and settings.

        Reads the input and the results again.
        """
        folder = output / case.name
        record = read_case_record(folder)
        if record is None or not self._matches(case, record):
            return False
        try:
            if any(sha256_file(folder / name) != sha256 for name, sha256 in record["files"].items()):
                return False
            source = record["input"]
            liver = source.get("liver")
            same_liver = liver is None or matches_input(Path(liver["path"]), liver)
            return same_liver and matches_input(case.image, source) and self._keeps_lesions(case, folder, record)
        except (LiversegError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return False

    def _keeps_lesions(self, case: BatchCase, folder: Path, record: Mapping[str, Any]) -> bool:
        """Return whether no lesion of a case would be left out by a filter that its version did not have."""
        sha256 = record["configuration_sha256"]
        earlier = None if sha256 == self.configuration(case) else self._find_earlier(case, sha256)
        if earlier is None or not earlier.lacks_contact or not record["lesions"]:
            return True
        return has_liver_mask(self.settings, case.own_settings()) or all_lesions_in_liver(folder, self.settings)

    def _matches(self, case: BatchCase, record: Mapping[str, Any]) -> bool:
        try:
            return (
                record["status"] == "done"
                and record["input"]["path"] == str(case.image)
                and record["weights"]["sha256"] == self.weights_sha256
                and self.is_configuration(case, record["configuration_sha256"])
            )
        except (KeyError, TypeError):
            return False


def run_spec(config: Path, weights: Path, overrides: Mapping[str, Any]) -> RunSpec:
    """Return the spec of a bundle's inference with these weights and overrides.

    Args:
        config: the bundle's `configs/inference.yaml`; its comments do not count.
        weights: the weights file.
        overrides: of the config's keys; None keeps the config's value.

    Raises:
        LiversegError: if a file cannot be read.
    """
    return RunSpec(sha256_file(weights), run_settings(config, weights, overrides))


@dataclass(frozen=True)
class Job:
    """Settings that all cases of a batch share.

    Attributes:
        output: folder of results.
        bundle: folder of the bundle.
        weights: the weights file.
        overrides: of the bundle's `configs/inference.yaml`.
        spec: weights and settings by content.
        retry_failed: compute cases again that failed before.
    """

    output: Path
    bundle: Path
    weights: Path
    overrides: Mapping[str, Any]
    spec: RunSpec
    retry_failed: bool = False

    def to_json(self) -> str:
        """Serialise to one line of JSON."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, line: str) -> Job:
        """Inverse of `to_json`."""
        content = json.loads(line)
        paths = {name: Path(content[name]) for name in ("output", "bundle", "weights")}
        return cls(
            **paths,
            overrides=content["overrides"],
            spec=RunSpec(**content["spec"]),
            retry_failed=content["retry_failed"],
        )
