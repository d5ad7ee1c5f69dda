"""One CT of a batch, and the name its results go under."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

__all__ = ["BatchCase", "name_in_tree", "named_apart", "safe_name"]

_UNSAFE = re.compile(r"[^\w.-]+", re.ASCII)
_LONGEST = 100
"""File systems take 255 bytes; what stands before and after a case's name must fit as well."""
_BETWEEN = "__"
_TAKEN = ("run.jsonl", "summary.csv", "failed.csv", "lesions.csv", "index.html")
"""What lies beside the cases' folders."""


@dataclass(frozen=True)
class BatchCase:
    """One CT of a batch.

    Attributes:
        name: of its folder of results, a `safe_name`, unlike those of the batch's other cases.
        image: NIfTI file, zip, or folder of a study's DICOM files; absolute.
        series: which of a study's series, as `--series` takes it; None where the run's counts.
        study: StudyInstanceUID, where the folder holds several studies.
        liver: a mask of the liver, as `--liver` takes it; None where the run's counts.
        type_priors: odds of each lesion type, as `with_type_priors` takes them.
    """

    name: str
    image: Path
    series: str | None = None
    study: str | None = None
    liver: str | None = None
    type_priors: dict[str, float] | None = None

    def own_settings(self) -> dict[str, Any]:
        """What of the settings is the case's own, by the name inference has for it."""
        own = {"series": self.series, "study": self.study, "liver_from": self.liver, "type_priors": self.type_priors}
        return {name: value for name, value in own.items() if value is not None}


def safe_name(text: str) -> str:
    """A name of ASCII letters, digits, `.`, `_` and `-` for any text.

    What has to be changed gets a piece of the text's SHA-256, so that two texts meet in one name only if one is made
    to look like the other's; `named_apart` tells such apart. No name is hidden, leads elsewhere or is longer than a
    file system takes.

    Example:
        >>> safe_name("liver-001"), safe_name("../etc")
        ('liver-001', 'etc-f7f9121f')
    """
    name = _cleaned(text)
    return name if name == text and name.lower() not in _TAKEN else _with_hash(name, text)


def name_in_tree(path: PurePath) -> str:
    """The name of a case by its path in a tree, without its ending.

    Example:
        >>> name_in_tree(PurePath("patient1/portal"))
        'patient1__portal'
    """
    plain = all(safe_name(part) == part and _BETWEEN not in part for part in path.parts)
    joined = _BETWEEN.join(path.parts)
    return safe_name(joined) if plain or len(path.parts) == 1 else _with_hash(_cleaned(joined), path.as_posix())


def named_apart(cases: Iterable[BatchCase]) -> list[BatchCase]:
    """The cases, with names that two or more have told apart by their paths: scan.nii and scan.nii.gz, say.

    Names count as the same where only upper and lower case differ: some file systems make no difference.
    """
    cases = list(cases)
    same: dict[str, list[BatchCase]] = {}
    for case in cases:
        same.setdefault(case.name.lower(), []).append(case)
    return [
        case
        if len(same[case.name.lower()]) == 1
        else replace(case, name=_with_hash(case.name, f"{case.name} {case.image} {case.study}"))
        for case in cases
    ]


def _cleaned(text: str) -> str:
    return _UNSAFE.sub("_", text).lstrip("._-").rstrip("._")[:_LONGEST] or "case"


def _with_hash(name: str, text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{name[:_LONGEST]}-{digest[:8]}"
