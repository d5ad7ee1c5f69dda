"""Definition of a batch for its workers, and the check whether a case is complete.

A case is complete if its record says so and the record's hashes match the input, weights, settings and result files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from liverseg.cases.case import BatchCase
from liverseg.errors import LiversegError, one_line
from liverseg.results.case_folder import read_case_record
from liverseg.results.inputs import matches_input
from liverseg.utils.files import is_file, sha256_file, sha256_text

__all__ = ["Job", "RunSpec", "run_spec"]

_IGNORED_SETTINGS = ("device", "batch_size", "progress", "statistics")
"""Settings that change how a case is computed but not its results, except for rounding."""


@dataclass(frozen=True)
class RunSpec:
    """Weights and settings of a run. Two runs with equal specs produce the same results.

    Attributes:
        weights_sha256: SHA-256 of the weights file.
        settings: content of the bundle's inference config, with overrides; JSON types only.
    """

    weights_sha256: str
    settings: Mapping[str, Any]

    def configuration(self, case: BatchCase) -> str:
        """Return the SHA-256 of the settings of a case."""
        settings = {**self.settings, "case": case.own_settings()}
        return sha256_text(json.dumps(settings, sort_keys=True, default=str))

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
            return matches_input(case.image, source) and (liver is None or matches_input(Path(liver["path"]), liver))
        except (LiversegError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return False

    def _matches(self, case: BatchCase, record: Mapping[str, Any]) -> bool:
        try:
            return (
                record["status"] == "done"
                and record["input"]["path"] == str(case.image)
                and record["weights"]["sha256"] == self.weights_sha256
                and record["configuration_sha256"] == self.configuration(case)
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
    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise LiversegError(f"{config}: cannot be read ({one_line(error)})") from error
    given = {name: value for name, value in overrides.items() if value is not None and name not in _IGNORED_SETTINGS}
    sidecar = weights.with_suffix(".json")  # holds what a state_dict does not, such as a fitted temperature
    record = sha256_file(sidecar) if weights.suffix != ".safetensors" and is_file(sidecar) else None
    settings = {"config": content, "overrides": given, "weights_record": record}
    # as a worker gets them, so that specs compare equal on both sides
    return RunSpec(sha256_file(weights), json.loads(json.dumps(settings, default=str)))


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
