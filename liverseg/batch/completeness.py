"""When a case is complete: its record says so, and its hashes are those of input, weights, settings and results."""

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

__all__ = ["RunSpec", "wanted"]

_NOT_OF_RESULTS = ("device", "batch_size", "progress", "statistics")
"""Settings that change how a case is computed and not what comes out, rounding aside."""


@dataclass(frozen=True)
class RunSpec:
    """What a batch's results are to be made with.

    Attributes:
        weights_sha256: of the weights' file.
        settings: the bundle's config as it stands in its file, and what is set beside it.
    """

    weights_sha256: str
    settings: Mapping[str, Any]

    def same_as(self, other: RunSpec) -> bool:
        """Whether results made with the one are those made with the other; either may have been through JSON."""
        one, another = (json.dumps(asdict(each), sort_keys=True, default=str) for each in (self, other))
        return one == another

    def configuration(self, case: BatchCase) -> str:
        """SHA-256 of the settings of a case."""
        own = {**self.settings, "case": case.own_settings()}
        return sha256_text(json.dumps(own, sort_keys=True, default=str))

    def was_made(self, case: BatchCase, output: Path) -> bool:
        """Whether a case's record says it was made from this path with these weights and settings.

        Nothing but the record is read: enough for tables, not for leaving a case as it is.
        """
        record = read_case_record(output / case.name)
        return record is not None and self._is_of(case, record)

    def is_complete(self, case: BatchCase, output: Path) -> bool:
        """Whether a case's results are there, whole, and made of this input with these weights and settings.

        Reads the input and the results again.
        """
        folder = output / case.name
        record = read_case_record(folder)
        if record is None or not self._is_of(case, record):
            return False
        try:
            if any(sha256_file(folder / name) != sha256 for name, sha256 in record["files"].items()):
                return False
            source = record["input"]
            liver = source.get("liver")
            return matches_input(case.image, source) and (liver is None or matches_input(Path(liver["path"]), liver))
        except (LiversegError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return False

    def _is_of(self, case: BatchCase, record: Mapping[str, Any]) -> bool:
        try:
            return (
                record["status"] == "done"
                and record["input"]["path"] == str(case.image)
                and record["weights"]["sha256"] == self.weights_sha256
                and record["configuration_sha256"] == self.configuration(case)
            )
        except (KeyError, TypeError):
            return False


def wanted(config: Path, weights: Path, overrides: Mapping[str, Any]) -> RunSpec:
    """What the results of a bundle's inference with these overrides are to be made with.

    Args:
        config: its `configs/inference.yaml`; comments in it do not count.
        weights: the weights' file.
        overrides: of the config's keys.

    Raises:
        LiversegError: if a file cannot be read.
    """
    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise LiversegError(f"{config}: cannot be read ({one_line(error)})") from error
    given = {name: value for name, value in overrides.items() if value is not None and name not in _NOT_OF_RESULTS}
    beside = weights.with_suffix(".json")  # what a state_dict cannot say of itself, such as a fitted temperature
    record = sha256_file(beside) if weights.suffix != ".safetensors" and is_file(beside) else None
    return RunSpec(sha256_file(weights), {"config": content, "overrides": given, "weights_record": record})
