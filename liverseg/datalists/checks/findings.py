"""Findings of a check, one row per defect, as a table, as CSV and as text."""

from __future__ import annotations

import os
import tempfile
import textwrap
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path

import pandas as pd

from liverseg.errors import OutputError
from liverseg.utils.files import write_text

__all__ = [
    "COLUMNS",
    "ERROR",
    "WARNING",
    "Defect",
    "Finding",
    "check_report",
    "describe_findings",
    "findings_table",
    "write_findings",
]

COLUMNS = ("file", "level", "defect", "found")
ERROR = "error"
"""Training would refuse the file, or learn something wrong from it."""
WARNING = "warning"
"""Should be looked at; training runs."""

_WIDTH = 120


@dataclass(frozen=True, order=True)
class Finding:
    """One defect of one file.

    Attributes:
        file: path as in the data list, or the list's own name.
        level: `ERROR` or `WARNING`.
        defect: a short fixed term to sort and count by.
        found: one sentence with the numbers and what to do.
    """

    file: str
    level: str
    defect: str
    found: str


class Defect(Exception):
    """Raised for a file that cannot be checked any further.

    Its attribute `word` becomes the `defect` of the finding, its message the sentence.
    """

    def __init__(self, word: str, found: str) -> None:
        super().__init__(found)
        self.word = word


def findings_table(findings: Iterable[Finding], files: int) -> pd.DataFrame:
    """Return a sorted table of distinct findings with `COLUMNS`; `attrs["files"]` is the number of files checked."""
    table = pd.DataFrame([astuple(finding) for finding in sorted(set(findings))], columns=list(COLUMNS), dtype=str)
    table.attrs["files"] = files
    return table


def check_report(path: Path) -> None:
    """Create the folder of a report if needed, and make sure that a file can be written to it.

    Raises:
        OutputError: if the folder cannot be created or written to, or the path is a folder.
    """
    if path.is_dir():
        raise OutputError(f"{path}: it is a folder; name a file for the report")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: its folder cannot be created ({error.strerror})") from error
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OutputError(f"{path}: nothing can be written there ({error.strerror}); choose another place") from error


def write_findings(findings: pd.DataFrame, path: str | os.PathLike) -> Path:
    """Write the findings as CSV, atomically; create the folder if needed.

    Raises:
        OutputError: if it cannot be written.
    """
    path = Path(path)
    check_report(path)
    write_text(path, findings.to_csv(index=False, lineterminator="\n"))
    return path


def describe_findings(findings: pd.DataFrame) -> str:
    """Format the findings as text, 120 columns wide unless a file name is longer; the last line has the counts."""
    lines = []
    for file, rows in findings.groupby("file", sort=False):
        lines.append(str(file))
        for level, defect, found in rows[["level", "defect", "found"]].itertuples(index=False, name=None):
            lines += textwrap.wrap(
                f"{level:<8} {defect}: {found}",
                _WIDTH,
                initial_indent="  ",
                subsequent_indent=" " * 11,
                break_long_words=False,
                break_on_hyphens=False,
            )
    counts = [_count(int((findings["level"] == level).sum()), level) for level in (ERROR, WARNING)]
    checked = findings.attrs.get("files")
    scope = "" if checked is None else f" in {_count(checked, 'file')} checked"
    return "\n".join([*lines, f"{' and '.join(counts)}{scope}"])


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
