"""What a worker is told, once and then case by case, and what it tells: plain JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from liverseg.batch.completeness import RunSpec
from liverseg.cases.case import BatchCase

__all__ = ["Job", "case_from_json", "case_to_json"]


@dataclass(frozen=True)
class Job:
    """What all cases of a batch share.

    Attributes:
        output: folder of results.
        bundle: the bundle's folder.
        weights: the weights' file.
        overrides: of the bundle's `configs/inference.yaml`.
        wanted: what results are to be made with.
        retry_failed: what failed before is tried again.
    """

    output: Path
    bundle: Path
    weights: Path
    overrides: Mapping[str, Any]
    wanted: RunSpec
    retry_failed: bool = False

    def to_json(self) -> str:
        """In one line."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, line: str) -> Job:
        """From that line."""
        content = json.loads(line)
        paths = {name: Path(content[name]) for name in ("output", "bundle", "weights")}
        return cls(
            **paths,
            overrides=content["overrides"],
            wanted=RunSpec(**content["wanted"]),
            retry_failed=content["retry_failed"],
        )


def case_to_json(case: BatchCase) -> str:
    """A case in one line."""
    return json.dumps(asdict(case), default=str)


def case_from_json(line: str) -> BatchCase:
    """A case from that line."""
    content = json.loads(line)
    return BatchCase(**{**content, "image": Path(content["image"])})
