"""Importer for a cohort of typed slices: a table with one row an annotated slice."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from liverseg.datalists.model import DataItem
from liverseg.errors import LiversegError
from liverseg.labels import LESION_TYPES

__all__ = ["COLUMNS", "cohort_items"]

COLUMNS = ("patient", "image", "mask", "slice", "lesion_type")
"""Columns a cohort's table needs: patient, paths of image and label map relative to the table's folder, the slice's
number along the file's own slice axis from 0, and the type of its lesions."""


def cohort_items(root: str | os.PathLike, table: str = "slices.csv") -> tuple[DataItem, ...]:
    """Items of a slice cohort in the order of its table, folds not yet assigned.

    White space around a cell's content does not count: `p1 ` and `p1` are one patient.

    Args:
        root: the folder that holds the table and that its paths are relative to.
        table: the table's file name, CSV.

    Raises:
        LiversegError: if the table is missing or unreadable, lacks a column, or a row names a missing file, an unknown
            type or a slice that is no number; the message names the row as a spreadsheet counts it.
    """
    path = Path(root) / table
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError as error:
        raise LiversegError(f"{path}: no such table; a cohort needs a CSV with columns {', '.join(COLUMNS)}") from error
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise LiversegError(f"{path}: not a readable CSV ({' '.join(str(error).split())})") from error
    rows.columns = rows.columns.str.strip()
    missing = [column for column in COLUMNS if column not in rows.columns]
    if missing:
        raise LiversegError(f"{path}: no column {missing[0]}; it needs {', '.join(COLUMNS)}")
    if rows.empty:
        raise LiversegError(f"{path}: the table has no rows")
    cells = rows[list(COLUMNS)].fillna("").apply(lambda column: column.str.strip())
    return tuple(
        _item(path, number, *values) for number, values in enumerate(cells.itertuples(index=False, name=None), 2)
    )


def _item(path: Path, row: int, patient: str, image: str, mask: str, number: str, lesion_type: str) -> DataItem:
    where = f"{path}, row {row}"
    if not patient:
        raise LiversegError(f"{where}: no patient; without it slices of one patient could leak across folds")
    for name in (image, mask):
        if not (path.parent / name).is_file():
            raise LiversegError(f"{where}: {path.parent / name} does not exist")
    if not number.isdecimal():
        raise LiversegError(f"{where}: slice {number!r}; a whole number from 0 is needed")
    if lesion_type not in LESION_TYPES:
        raise LiversegError(f"{where}: lesion type {lesion_type!r}; allowed: {', '.join(LESION_TYPES)}")
    return DataItem(image=image, label=mask, patient=patient, slice=int(number), lesion_type=lesion_type)
