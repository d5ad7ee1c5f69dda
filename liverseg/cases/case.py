"""A CT to compute, and the name of its folder of results."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath
from typing import Any

__all__ = ["BatchCase", "name_in_tree", "safe_name", "with_distinct_names"]

_UNSAFE = re.compile(r"[^\w.-]+", re.ASCII)
_MAX_LENGTH = 100
"""File systems allow 255 bytes, which must also hold prefixes and endings."""
_SEPARATOR = "__"
_RESERVED = ("run.jsonl", "summary.csv", "failed.csv", "skipped.csv", "lesions.csv", "index.html")
"""Files beside the cases' folders."""


@dataclass(frozen=True)
class BatchCase:
    """A CT to compute.

    Attributes:
        name: name of its folder of results. In a batch it is a `safe_name` that no other case has.
        image: NIfTI file, zip, or folder of a study's DICOM files; absolute.
        series: which of a study's series, as for `--series`; None for that of the run.
        study: StudyInstanceUID, if the folder holds several studies.
        liver: a mask of the liver, as for `--liver`; None for that of the run.
        type_priors: odds of each lesion type, as for `with_type_priors`.
    """

    name: str
    image: Path
    series: str | None = None
    study: str | None = None
    liver: str | None = None
    type_priors: dict[str, float] | None = None

    def own_settings(self) -> dict[str, Any]:
        """Return the settings that differ from the run's, under the names that inference's transforms read."""
        own = {"series": self.series, "study": self.study, "liver_from": self.liver, "type_priors": self.type_priors}
        return {name: value for name, value in own.items() if value is not None}

    def to_item(self) -> dict[str, Any]:
        """Return the case as an item of a MONAI data set, the input of inference's transforms."""
        return {"image": str(self.image), "case": self.name, **self.own_settings()}

    def to_json(self) -> str:
        """Serialise to one line of JSON."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, line: str) -> BatchCase:
        """Inverse of `to_json`."""
        content = json.loads(line)
        return cls(**{**content, "image": Path(content["image"])})


def safe_name(text: str) -> str:
    """Return a name of ASCII letters, digits, `.`, `_` and `-` for any text.

    A text that must be changed gets the start of its SHA-256, so that two texts share a name only if one was crafted
    to look like the other's name; `with_distinct_names` separates those. No name is hidden, leads to another folder or
    is too long for a file system.

    Example:
        >>> safe_name("liver-001"), safe_name("../etc")
        ('liver-001', 'etc-f7f9121f')
    """
    name = _cleaned(text)
    return name if name == text and name.lower() not in _RESERVED else _with_hash(name, text)


def name_in_tree(path: PurePath) -> str:
    """Return the name of a case for its path in a tree, without its ending.

    Example:
        >>> name_in_tree(PurePath("patient1/portal"))
        'patient1__portal'
    """
    plain = all(safe_name(part) == part and _SEPARATOR not in part for part in path.parts)
    joined = _SEPARATOR.join(path.parts)
    return safe_name(joined) if plain or len(path.parts) == 1 else _with_hash(_cleaned(joined), path.as_posix())


def with_distinct_names(cases: Iterable[BatchCase]) -> list[BatchCase]:
    """Return the cases with a hash of the path added to every name that occurs twice, as of scan.nii and scan.nii.gz.

    Names that differ only in case are the same: some file systems do not distinguish them.
    """
    cases = list(cases)
    by_name: dict[str, list[BatchCase]] = {}
    for case in cases:
        by_name.setdefault(case.name.lower(), []).append(case)
    return [
        case
        if len(by_name[case.name.lower()]) == 1
        else replace(case, name=_with_hash(case.name, f"{case.name} {case.image} {case.study}"))
        for case in cases
    ]


def _cleaned(text: str) -> str:
    return _UNSAFE.sub("_", text).lstrip("._-").rstrip("._")[:_MAX_LENGTH] or "case"


def _with_hash(name: str, text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{name[:_MAX_LENGTH]}-{digest[:8]}"
