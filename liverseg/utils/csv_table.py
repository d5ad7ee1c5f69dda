"""CSV tables as spreadsheets and scripts write them: comma, semicolon or tab between cells, UTF-8 with a BOM or not."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd

from liverseg.errors import LiversegError

__all__ = ["check_columns", "read_csv"]

_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
"""What may separate cells. Excel writes semicolons where the comma is the decimal sign."""


def read_csv(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A CSV's cells as text, '' where one is empty; blank lines are rows too, names of columns have no space around.

    Its separator is the one that gives the most of the needed columns in the header.

    Args:
        path: the file.
        columns: those it must have.

    Raises:
        LiversegError: if it is not UTF-8, a needed column is missing or a row has more cells than there are columns.
        OSError: if it cannot be opened.
        ValueError: pandas', if its rows cannot be told apart.
    """
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")  # with or without byte order mark
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        raise LiversegError(
            f"{path}, row {row}: a byte {content[error.start]:#x} that is not UTF-8; save the table as CSV UTF-8"
        ) from error
    headers = {separator: _header(text, separator) for separator in _SEPARATORS}
    separator = max(_SEPARATORS, key=lambda one: len({*columns} & {*headers[one]}))  # of equals the first, the comma
    check_columns(path, headers[separator], columns, ", separated by comma, semicolon or tab")
    _check_widths(path, text, separator)
    table = pd.read_csv(
        io.StringIO(text),
        sep=separator,
        dtype=str,
        keep_default_na=False,
        skipinitialspace=True,
        skip_blank_lines=False,
    )
    table.columns = table.columns.astype(str).str.strip()
    return table.fillna("")


def check_columns(path: Path, found: Iterable[str], needed: Sequence[str], how: str = "") -> None:
    """Refuse a table that lacks a column; `how` ends the message.

    Raises:
        LiversegError: if one is missing.
    """
    found = list(found)
    missing = [column for column in needed if column not in found]
    if missing:
        shown = repr(", ".join(found)[:200]) if found else "nothing"
        raise LiversegError(
            f"{path}: no column {missing[0]}, its first row holds {shown}; it needs {', '.join(needed)}{how}"
        )


def _check_widths(path: Path, text: str, separator: str) -> None:
    """Refuse a row with more cells than the header: pandas takes the first of them for names of rows."""
    rows = _rows(text, separator)
    with suppress(csv.Error):  # pandas tells it better
        columns = len(next(rows, []))
        for number, cells in enumerate(rows, 2):
            if len(cells) > columns:
                raise LiversegError(
                    f"{path}, row {number}: {len(cells)} cells, but the first row names {columns} columns; "
                    f"put a cell with a {_SEPARATORS[separator]} in it into quotes, or name every column"
                )


def _rows(text: str, separator: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)


def _header(text: str, separator: str) -> list[str]:
    try:
        return [name.strip() for name in next(_rows(text, separator), [])]
    except csv.Error:  # a cell without end: no header in this separator
        return []
