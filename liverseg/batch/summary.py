"""What a batch leaves at its end: tables over all cases, and the page that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import quote

import pandas as pd

from liverseg import __version__
from liverseg.batch.job import RunSpec
from liverseg.batch.state import BatchState
from liverseg.cases.case import BatchCase
from liverseg.results.tables import summary_of
from liverseg.utils.files import write_text

__all__ = [
    "FAILED",
    "index_page",
    "write_tables",
]

FAILED = ("case", "category", "reason", "input", "tries", "time")
"""Columns of failed.csv."""


def write_tables(cases: Sequence[BatchCase], state: BatchState, spec: RunSpec) -> None:
    """Write `summary.csv`, `lesions.csv`, `failed.csv` and `index.html` over all of a batch's cases.

    Of several runs on one folder, such as shards, each writes what is there, and the last has all.

    Args:
        cases: all of them, other shards' too.
        state: the output folder's.
        spec: weights and settings of the batch; results of others are left out.

    Raises:
        LiversegError: if they cannot be written.
    """
    with state.lock_tables():
        failed = _failed(cases, state)
        # one that has failed since has the results of another input
        names = set(failed["case"])
        made = [case for case in cases if case.name not in names and spec.record_matches(case, state.output)]
        summary, lesions = summary_of(state.output, [case.name for case in made])
        for name, table in (("summary.csv", summary), ("lesions.csv", lesions), ("failed.csv", failed)):
            write_text(state.output / name, _plain(table).to_csv(index=False))
        left = len(cases) - len(made) - len(failed)
        write_text(state.output / "index.html", index_page(state.output, summary, failed, left))


def _failed(cases: Sequence[BatchCase], state: BatchState) -> pd.DataFrame:
    rows = []
    for case in cases:
        known = state.read_failure(case.name)
        if known is not None:
            row = {**known, "case": case.name, "input": str(case.image)}
            rows.append({column: row.get(column) for column in FAILED})
    return pd.DataFrame(rows, columns=list(FAILED))


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """Texts whose bytes are no UTF-8 escaped: a path may be such."""
    texts = [column for column in table.columns if not pd.api.types.is_numeric_dtype(table[column])]
    return table.assign(**{column: table[column].map(_escaped) for column in texts})


def _escaped(value: object) -> object:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


_TEMPLATE = Path(__file__).parent / "template" / "index.html"
_FILES = ("report.html", "lesions.csv", "labels.nii.gz", "segmentation.dcm", "measurements.dcm", "record.json")
_NUMBERS = {"liver_ml": ".0f", "lesions_ml": ".1f", "longest_diameter_mm": ".1f", "seconds": ".1f"}
_WORDS = {
    "liver_ml": "liver, ml",
    "lesions_ml": "lesions, ml",
    "longest_diameter_mm": "longest, mm",
    "contrast_phase": "contrast",
}
_HIDDEN = ("case", "warnings", "input", "lesion_share")


def index_page(output: Path, summary: pd.DataFrame, failed: pd.DataFrame, left: int) -> str:
    """The page's text; it refers to files beside it and to nothing else.

    Args:
        output: folder of results, to see which files there are.
        summary: a row a case, of `summary_of`.
        failed: a row a failed case.
        left: cases that are neither.
    """
    shown = [name for name in summary.columns if name not in _HIDDEN]
    heads = "".join(f"<th>{escape(_WORDS.get(name, name))}</th>" for name in shown)
    rows = "\n".join(_row(output, row, shown) for row in summary.to_dict("records"))
    failures = "\n".join(
        "<tr>" + "".join(f"<td>{_text(row[name])}</td>" for name in ("case", "category", "reason", "input")) + "</tr>"
        for row in failed.to_dict("records")
    )
    counts = f"{len(summary)} done, {len(failed)} failed, {left} not yet"
    values = {"counts": counts, "heads": heads, "rows": rows, "failures": failures, "version": escape(__version__)}
    values["failed"] = "" if len(failed) else "hidden"
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(values)


def _row(output: Path, row: dict, shown: list[str]) -> str:
    name = str(row["case"])
    folder = quote(name)
    there = [file for file in _FILES if (output / name / file).is_file()]
    links = " ".join(f'<a href="{folder}/{file}">{file}</a>' for file in there)
    picture = ""
    if (output / name / "preview.png").is_file():
        to = there[0] if "report.html" in there else "preview.png"
        alt = f"preview of {escape(name)}"
        picture = f'<a href="{folder}/{to}"><img src="{folder}/preview.png" alt="{alt}" loading="lazy"></a>'
    cells = "".join(f"<td>{_number(column, row[column])}</td>" for column in shown)
    warnings = f'<p class="warning">{_text(row["warnings"])}</p>' if row["warnings"] else ""
    return f'<tr><td>{picture}</td><th scope="row">{escape(name)}{warnings}<p>{links}</p></th>{cells}</tr>'


def _number(column: str, value: object) -> str:
    if value is None or value != value:  # NaN, where there is no lesion
        return ""
    return format(value, _NUMBERS[column]) if column in _NUMBERS else _text(value)


def _text(value: object) -> str:
    return escape(str(value).encode("utf-8", "backslashreplace").decode())
