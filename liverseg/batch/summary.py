"""Tables over all cases of a batch, and the page that shows them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from liverseg import __version__
from liverseg.batch.job import RunSpec
from liverseg.batch.state import BatchState
from liverseg.cases.case import BatchCase
from liverseg.cases.discover import Skipped
from liverseg.results.tables import summary_of
from liverseg.utils.files import write_text
from liverseg.utils.html import render

__all__ = [
    "FAILED",
    "SKIPPED",
    "index_page",
    "write_skipped",
    "write_tables",
]

FAILED = ("case", "category", "reason", "input", "tries", "time")
"""Columns of failed.csv."""
SKIPPED = ("path", "reason")
"""Columns of skipped.csv."""
MAX_LISTED = 2000
"""Longest list of cases on the page: a browser takes seconds to show tens of thousands."""


def write_skipped(skipped: Sequence[Skipped], state: BatchState) -> None:
    """Write `skipped.csv`: what the source holds besides its cases, one row for each file or folder.

    Args:
        skipped: from `find_batch`.
        state: state of the output folder.

    Raises:
        LiversegError: if the file cannot be written.
    """
    rows = [(str(entry.path), entry.reason) for entry in skipped]
    table = _escape_texts(pd.DataFrame(rows, columns=list(SKIPPED), dtype=object))
    with state.lock_tables() as locked:
        if locked:  # else another run of the same source waits to write the same
            write_text(state.output / "skipped.csv", table.to_csv(index=False))


def write_tables(cases: Sequence[BatchCase], state: BatchState, spec: RunSpec) -> None:
    """Write `summary.csv`, `lesions.csv`, `failed.csv` and `index.html` over all cases of a batch.

    If several runs share a folder, such as shards, each writes the results so far and the last one writes all. A run
    writes nothing if another one waits to write, whose tables will include its results.

    Args:
        cases: all cases, including those of other shards.
        state: state of the output folder.
        spec: weights and settings of the batch; results of others are left out.

    Raises:
        LiversegError: if a file cannot be written.
    """
    with state.lock_tables() as locked:
        if locked:
            _write_tables(cases, state, spec)


def _write_tables(cases: Sequence[BatchCase], state: BatchState, spec: RunSpec) -> None:
    failed = _failures(cases, state)
    # results of a failed case are those of an earlier input
    names = set(failed["case"])
    made = [case for case in cases if case.name not in names and spec.record_matches(case, state.output)]
    summary, lesions = summary_of(state.output, [case.name for case in made])
    for name, table in (("summary.csv", summary), ("lesions.csv", lesions), ("failed.csv", failed)):
        write_text(state.output / name, _escape_texts(table).to_csv(index=False))
    left = len(cases) - len(made) - len(failed)
    write_text(state.output / "index.html", index_page(state.output, summary, failed, left))


def _failures(cases: Sequence[BatchCase], state: BatchState) -> pd.DataFrame:
    rows = []
    for case in cases:
        known = state.read_failure(case.name)
        if known is not None:
            row = {**known, "case": case.name, "input": str(case.image)}
            rows.append({column: row.get(column) for column in FAILED})
    return pd.DataFrame(rows, columns=list(FAILED))


def _escape_texts(table: pd.DataFrame) -> pd.DataFrame:
    """Escape text that is not valid UTF-8, as a path may be."""
    texts = [column for column in table.columns if not pd.api.types.is_numeric_dtype(table[column])]
    return table.assign(**{column: table[column].map(_escape) for column in texts})


def _escape(value: object) -> object:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


_FILES = (
    *("report.html", "lesions.csv", "labels.nii.gz", "segmentation.seg.nrrd"),
    *("segmentation.dcm", "measurements.dcm", "structures.dcm", "record.json"),
)
_NUMBER_FORMATS = {"liver_ml": ".0f", "lesions_ml": ".1f", "longest_diameter_mm": ".1f", "seconds": ".1f"}
_COLUMN_TITLES = {
    "liver_ml": "liver, ml",
    "lesions_ml": "lesions, ml",
    "longest_diameter_mm": "longest, mm",
    "contrast_phase": "contrast",
}
_HIDDEN_COLUMNS = ("case", "warnings", "input", "lesion_share")


def index_page(output: Path, summary: pd.DataFrame, failed: pd.DataFrame, left: int) -> str:
    """Return the page as HTML. It links only to files in the output folder.

    At most `MAX_LISTED` cases and as many failed cases are listed; the page says how many it leaves out.

    Args:
        output: folder of results; only existing files are linked.
        summary: table of `summary_of`, one row per case.
        failed: one row per failed case.
        left: number of cases in neither table.
    """
    columns = [name for name in summary.columns if name not in _HIDDEN_COLUMNS]
    return render(
        "batch.html",
        counts=f"{len(summary)} done, {len(failed)} failed, {left} not yet",
        heads=[_COLUMN_TITLES.get(name, name) for name in columns],
        cases=[_case(output, row, columns) for row in summary.head(MAX_LISTED).to_dict("records")],
        cases_left_out=max(0, len(summary) - MAX_LISTED),
        failures=[
            [_text(row[name]) for name in ("case", "category", "reason", "input")]
            for row in failed.head(MAX_LISTED).to_dict("records")
        ],
        failures_left_out=max(0, len(failed) - MAX_LISTED),
        version=__version__,
    )


def _case(output: Path, row: Mapping[Hashable, Any], columns: Sequence[str]) -> dict[str, Any]:
    """Return what the page shows of a case that is done."""
    name = str(row["case"])
    files = [file for file in _FILES if (output / name / file).is_file()]
    preview = ""
    if (output / name / "preview.png").is_file():
        preview = "report.html" if "report.html" in files else "preview.png"
    return {
        "name": name,
        "folder": quote(name),
        "files": files,
        "preview": preview,  # the file that the picture links to
        "warnings": _text(row["warnings"]) if row["warnings"] else "",
        "cells": [_cell(column, row[column]) for column in columns],
    }


def _cell(column: str, value: Any) -> str:
    if value is None or value != value:  # NaN if there is no lesion
        return ""
    return format(value, _NUMBER_FORMATS[column]) if column in _NUMBER_FORMATS else _text(value)


def _text(value: object) -> str:
    return str(_escape(str(value)))
