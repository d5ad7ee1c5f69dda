"""What a batch leaves at its end: tables over all its cases, and a page of them."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from liverseg.batch.completeness import Wanted
from liverseg.batch.index_page import index_page
from liverseg.batch.state import BatchState
from liverseg.cases.case import BatchCase
from liverseg.results.tables import summary_of
from liverseg.utils.files import write_text

__all__ = ["FAILED", "write_tables"]

FAILED = ("case", "category", "reason", "input", "tries", "time")
"""Columns of failed.csv."""


def write_tables(cases: Sequence[BatchCase], state: BatchState, wanted: Wanted) -> None:
    """Write `summary.csv`, `lesions.csv`, `failed.csv` and `index.html` over all of a batch's cases.

    Of several runs on one folder, such as shards, each writes what is there, and the last has all.

    Args:
        cases: all of them, other shards' too.
        state: the output folder's.
        wanted: what results are made with; others are left out.

    Raises:
        LiversegError: if they cannot be written.
    """
    with state.tables_held():
        failed = _failed(cases, state)
        # one that has failed since has the results of another input
        names = set(failed["case"])
        made = [case for case in cases if case.name not in names and wanted.was_made(case, state.output)]
        summary, lesions = summary_of(state.output, [case.name for case in made])
        for name, table in (("summary.csv", summary), ("lesions.csv", lesions), ("failed.csv", failed)):
            write_text(state.output / name, _plain(table).to_csv(index=False))
        left = len(cases) - len(made) - len(failed)
        write_text(state.output / "index.html", index_page(state.output, summary, failed, left))


def _failed(cases: Sequence[BatchCase], state: BatchState) -> pd.DataFrame:
    rows = []
    for case in cases:
        known = state.failure(case.name)
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
