"""Read CSV tables of spreadsheets and scripts: separated by comma, semicolon or tab, UTF-8 with or without BOM."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from liverseg.errors import LiversegError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["check_columns", "column_name", "read_csv"]

_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
"""Allowed separators with their names. Excel writes semicolons where the comma is the decimal sign."""


def read_csv(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read the cells of a CSV as text.

    The separator is the one that finds most of the required columns in the header. Blank lines are rows.

    Args:
        path: the file.
        columns: required columns.

    Returns:
        The table, with '' for empty cells and column names as from `column_name`.

    Raises:
        LiversegError: if it is not UTF-8, a required column is missing, two columns have the same name, or a row has
            more cells than the header.
        OSError: if it cannot be opened.
        ValueError: from pandas, if it cannot be parsed.
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
    separator = max(_SEPARATORS, key=lambda char: len({*columns} & {*headers[char]}))  # the comma if all are equal
    check_columns(path, headers[separator], columns, ", separated by comma, semicolon or tab")
    _check_widths(path, text, separator)
    import pandas as pd

    table = pd.read_csv(
        io.StringIO(text),
        sep=separator,
        dtype=str,
        keep_default_na=False,
        skipinitialspace=True,
        skip_blank_lines=False,
    )
    table.columns = pd.Index(_distinct(headers[separator]))
    return table.fillna("")


def column_name(text: str) -> str:
    """Return a column's name in lower case, without a byte order mark, and with _ for blanks and hyphens in it.

    Example:
        >>> column_name(" Lesion Type")
        'lesion_type'
    """
    return "_".join(re.split(r"[\s_-]+", text.strip("\ufeff \t\r\n\xa0").lower()))


def check_columns(path: Path, found: Iterable[str], required: Sequence[str], hint: str = "") -> None:
    """Refuse a table without a required column, or with two columns of the same name.

    Args:
        path: the table's, for the message.
        found: its columns.
        required: columns it must have.
        hint: end of the message.

    Raises:
        LiversegError: if a column is missing or there twice.
    """
    found = list(found)
    twice = next((column for column in required if found.count(column) > 1), None)
    if twice is not None:
        raise LiversegError(f"{path}: two columns are called {twice}, capitals and blanks aside; keep one")
    missing = [column for column in required if column not in found]
    if missing:
        shown = repr(", ".join(found)[:200]) if found else "nothing"
        raise LiversegError(
            f"{path}: no column {missing[0]}, its first row holds {shown}; it needs {', '.join(required)}{hint}"
        )


def _check_widths(path: Path, text: str, separator: str) -> None:
    """Refuse a row with more cells than the header: pandas would use the first ones as row names."""
    rows = _rows(text, separator)
    with suppress(csv.Error):  # pandas has a better message
        columns = len(next(rows, []))
        for number, cells in enumerate(rows, 2):
            if len(cells) > columns:
                raise LiversegError(
                    f"{path}, row {number}: {len(cells)} cells, but the first row names {columns} columns; "
                    f"put a cell with a {_SEPARATORS[separator]} in it into quotes, or name every column"
                )


def _distinct(names: Sequence[str]) -> list[str]:
    """Return column names with .1, .2 and so on at the end of repeated ones, as pandas does."""
    return [
        f"{name}.{names[:place].count(name)}" if name in names[:place] else name for place, name in enumerate(names)
    ]


def _rows(text: str, separator: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)


def _header(text: str, separator: str) -> list[str]:
    try:
        return [column_name(name) for name in next(_rows(text, separator), [])]
    except csv.Error:  # an unterminated cell: no header with this separator
        return []
