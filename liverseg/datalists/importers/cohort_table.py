"""The table of a cohort, CSV or Excel: rows, the user's words for lesion types, and errors by row."""

from __future__ import annotations

import json
import logging
import os
import re
import zipfile
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from tqdm.contrib.concurrent import thread_map

from liverseg.errors import LiversegError, one_line
from liverseg.labels import LESION_TYPES
from liverseg.utils.csv_table import check_columns, column_name, read_csv
from liverseg.utils.files import backslash_hint, is_dir, is_file

__all__ = [
    "COLUMNS",
    "MASK_VALUES",
    "OPTIONAL_COLUMNS",
    "CohortRow",
    "RowErrors",
    "Types",
    "map_rows",
    "prefix_row",
    "read_rows",
]

COLUMNS = ("patient", "image", "mask", "slice", "lesion_type")
"""Required columns: patient, paths of image and mask relative to the table's folder, number of the slice along the
file's slice axis from 0, and type of its lesions. The last two may be empty in a row."""

OPTIONAL_COLUMNS = ("liver_mask", "lesion", "mask_values")
"""Optional columns: path of a mask of the liver, number of the lesion in a mask with numbered lesions, and meaning of
the mask's values, one of `MASK_VALUES`."""

MASK_VALUES = ("lesion", "typed")

Types = str | os.PathLike | Mapping[str, str | None]
"""The user's words for lesion types, as a mapping or a JSON or CSV file with one. A word is mapped to a type of
`LESION_TYPES`, or to None to leave its rows out."""

_TABLES = ("slices.csv", "slices.xlsx")
_MAX_TABLE_BYTES = 64 << 20
"""Limit of the unpacked size of an Excel table, some 500 000 rows. Reading it needs several times that memory."""
_INTEGER = re.compile(r"([0-9]+)(\.0+)?$")
_MAX_MESSAGES = 20

_Job = TypeVar("_Job", bound=Hashable)
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class CohortRow:
    """One row of the table.

    Attributes:
        where: table and row number, to begin a message with.
        number: row number as in a spreadsheet; the header is row 1.
        patient: name of the patient.
        image: NIfTI or DICOM file, or folder of a DICOM series, relative to the table's folder.
        mask: NIfTI, PNG or DICOM SEG, relative to the table's folder.
        slice: number along the image's slice axis, from 0; None for the complete volume.
        lesion_type: one of `LESION_TYPES`; None if the cell is empty.
        liver_mask: mask of the liver, as `mask`; None if there is none.
        lesion: number of the lesion in the mask; None if lesions are not numbered.
        mask_values: one of `MASK_VALUES`; None if the cell is empty.
    """

    where: str
    number: int
    patient: str
    image: str
    mask: str
    slice: int | None
    lesion_type: str | None
    liver_mask: str | None
    lesion: int | None
    mask_values: str | None


def read_rows(
    root: str | os.PathLike,
    table: str | None,
    types: Types | None,
    errors: RowErrors,
    needed: Sequence[str] = COLUMNS,
    of: str = "a cohort",
) -> list[CohortRow]:
    """Read the table of a cohort or a set of slices, without rows whose type is mapped to None.

    Args:
        root: the folder with the table, which paths in the table are relative to.
        table: file name of the table; None finds `slices.csv` or `slices.xlsx`.
        types: the user's words for types.
        errors: collects errors of rows with an invalid cell or a missing file; such rows are left out.
        needed: required columns; cells of missing optional columns are empty.
        of: kind of data set, for messages.

    Raises:
        LiversegError: if the table or the mapping of types is missing or unreadable, a column is missing, or no row is
            left.
    """
    path = _find_table(Path(root)) if table is None else Path(root) / table
    words = _read_types(types)
    cells = _read_cells(path, needed, of)
    rows, left_out = [], 0
    for number, values in enumerate(cells.to_dict("records"), 2):
        if not any(values.values()):
            continue
        where = f"{path}, row {number}"
        if words.get(_normalise(values["lesion_type"]), "") is None:
            left_out += 1
            continue
        row_cells = {str(column): value for column, value in values.items()}
        try:
            rows.append(_parse_row(path.parent, where, number, row_cells, words))
        except LiversegError as error:
            errors.add(number, error)
    if left_out:
        logging.getLogger(__name__).warning("%s: %d rows left out, as their types are mapped to none", path, left_out)
    if not rows:
        errors.raise_if_any()
        raise LiversegError(f"{path}: {'every row is left out' if left_out else 'the table has no rows'}")
    return rows


def _find_table(root: Path) -> Path:
    found = [name for name in _TABLES if is_file(root / name)]
    if len(found) > 1:
        raise LiversegError(f"{root}: {' and '.join(found)} are both there; name one with --table, or take one away")
    return root / (found[0] if found else _TABLES[0])


def _check_size(path: Path) -> None:
    """Refuse an Excel table that is a zip bomb; zipfile reads no more of a member than its stated size."""
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > _MAX_TABLE_BYTES:
        raise LiversegError(f"{path}: holds {size >> 20} MiB, {_MAX_TABLE_BYTES >> 20} are allowed; save it as CSV")


def _read_cells(path: Path, needed: Sequence[str], of: str) -> pd.DataFrame:
    """Return the table's known columns as stripped text, '' for missing cells and columns."""
    excel = path.suffix.lower() == ".xlsx"
    kind = "Excel table" if excel else "CSV"
    try:
        if excel:
            _check_size(path)
            cells = pd.read_excel(path, dtype=str, keep_default_na=False, engine="openpyxl")
        else:
            cells = read_csv(path, needed)
    except FileNotFoundError as error:
        raise LiversegError(
            f"{path}: no such table; {of} needs a CSV with columns {', '.join(needed)}, or an .xlsx"
        ) from error
    except (OSError, ValueError, KeyError, SyntaxError, zipfile.BadZipFile) as error:  # also errors of pandas and XML
        raise LiversegError(f"{path}: not a readable {kind} ({one_line(error)})") from error
    cells.columns = pd.Index([column_name(str(name)) for name in cells.columns])
    check_columns(path, cells.columns, [*needed, *(name for name in OPTIONAL_COLUMNS if name in cells.columns)])
    known = [column for column in (*COLUMNS, *OPTIONAL_COLUMNS) if column in cells.columns]
    cells = cells[known].fillna("").apply(lambda column: column.astype(str).str.strip())
    return cells.reindex(columns=[*COLUMNS, *OPTIONAL_COLUMNS], fill_value="")


def _parse_row(
    root: Path, where: str, number: int, cells: dict[str, str], words: Mapping[str, str | None]
) -> CohortRow:
    if not cells["patient"]:
        raise LiversegError(f"{where}: no patient; without it slices of one patient could leak across folds")
    for column in ("image", "mask", "liver_mask"):
        name = cells[column]
        if not name and column != "liver_mask":
            raise LiversegError(f"{where}: no {column}; a path relative to {root} is needed")
        if name and not is_file(root / name) and not (column == "image" and is_dir(root / name)):
            raise LiversegError(f"{where}: {root / name} does not exist{backslash_hint(name)}")
    numbers: dict[str, int | None] = {}
    for column, lowest in (("slice", 0), ("lesion", 1)):
        match = _INTEGER.match(cells[column])
        numbers[column] = int(match.group(1)) if match else None
        if cells[column] and (match is None or int(match.group(1)) < lowest):
            raise LiversegError(f"{where}: {column} {cells[column]!r}; a whole number from {lowest} is needed")
    lesion_type = _normalise(cells["lesion_type"])
    lesion_type = words.get(lesion_type, lesion_type) or ""
    if lesion_type and lesion_type not in LESION_TYPES:
        raise LiversegError(
            f"{where}: lesion type {cells['lesion_type']!r}; allowed: {', '.join(LESION_TYPES)}; "
            "map other words to these with --types FILE"
        )
    values = cells["mask_values"].lower()
    if values and values not in MASK_VALUES:
        raise LiversegError(f"{where}: mask_values {cells['mask_values']!r}; allowed: {', '.join(MASK_VALUES)}")
    return CohortRow(
        where=where,
        number=number,
        patient=cells["patient"],
        image=cells["image"],
        mask=cells["mask"],
        slice=numbers["slice"],
        lesion_type=lesion_type or None,
        liver_mask=cells["liver_mask"] or None,
        lesion=numbers["lesion"],
        mask_values=values or None,
    )


def _normalise(word: str) -> str:
    return word.strip().lower()


def _read_types(types: Types | None) -> dict[str, str | None]:
    """Map the user's words, in lower case, to lesion types, or None to leave rows out."""
    if types is None:
        return {}
    name = "types" if isinstance(types, Mapping) else str(types)
    pairs = list(types.items()) if isinstance(types, Mapping) else _read_pairs(Path(types))
    words: dict[str, str | None] = {}
    for word, value in pairs:
        lesion_type = _normalise(value) if isinstance(value, str) else value
        if lesion_type is not None and lesion_type not in LESION_TYPES:
            raise LiversegError(
                f"{name}: {word!r} is mapped to {value!r}; allowed: {', '.join(LESION_TYPES)}, and null to leave out"
            )
        if words.setdefault(_normalise(word), lesion_type) != lesion_type:
            raise LiversegError(f"{name}: {word!r} is mapped twice, to different types; keep one")
    return words


def _read_pairs(path: Path) -> list[tuple[str, Any]]:
    """Read words and types from a JSON object, or from the columns word and type of a CSV."""
    if path.suffix.lower() not in (".json", ".csv"):
        raise LiversegError(f"{path}: a mapping of types is a .json or a .csv")
    try:
        if path.suffix.lower() == ".csv":
            table = read_csv(path, ("word", "type"))
            pairs = zip(table["word"], table["type"], strict=True)
            return [(word, value.strip() or None) for word, value in pairs if word.strip() or value.strip()]
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise LiversegError(f"{path}: no such file; it maps words to {', '.join(LESION_TYPES)}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise LiversegError(f"{path}: not a readable mapping of types ({one_line(error)})") from error
    if not isinstance(content, dict):
        raise LiversegError(f'{path}: a JSON object is needed, as {{"haemangioma": "hemangioma", "other": null}}')
    return list(content.items())


@contextmanager
def prefix_row(row: CohortRow) -> Iterator[None]:
    """Prefix the messages of errors in the block with the row.

    Raises:
        LiversegError: an error of the block, with the row.
    """
    try:
        yield
    except LiversegError as error:
        if str(error).startswith(row.where):
            raise
        raise LiversegError(f"{row.where}: {error}") from error


class RowErrors:
    """Collects the first error of each bad row, to raise them together."""

    def __init__(self) -> None:
        self._errors: dict[int, LiversegError] = {}

    def add(self, number: int, error: LiversegError) -> None:
        """Add an error of the row with a number, unless the row has an error already."""
        self._errors.setdefault(number, error)

    @contextmanager
    def collect(self, *rows: CohortRow) -> Iterator[None]:
        """Catch an error of the block and add it for the row that its message begins with, else for the first row."""
        try:
            yield
        except LiversegError as error:
            matching = (row for row in rows if str(error).startswith(f"{row.where}:"))
            self.add(next(matching, rows[0]).number, error)

    def any_in(self, rows: Iterable[CohortRow]) -> bool:
        """Whether any of the rows has an error."""
        return any(row.number in self._errors for row in rows)

    def raise_if_any(self) -> None:
        """Raise the collected errors, if any.

        Raises:
            LiversegError: the error of a single bad row unchanged; else an error with one line per bad row, in the
                order of the table, for the first 20 rows, and the number of the others.
        """
        errors = [self._errors[number] for number in sorted(self._errors)]
        if len(errors) == 1:
            raise errors[0]
        if errors:
            rest = len(errors) - _MAX_MESSAGES
            more = [f"and {rest} more bad {'row' if rest == 1 else 'rows'}"] if rest > 0 else []
            raise LiversegError("\n".join([*map(str, errors[:_MAX_MESSAGES]), *more])) from errors[0]


def map_rows(
    function: Callable[[_Job], _Result],
    jobs: Mapping[_Job, CohortRow],
    errors: RowErrors,
    description: str,
    unit: str,
    workers: int | None,
    progress: bool,
) -> dict[_Job, _Result]:
    """Apply a function to jobs in threads, with a progress bar; results and errors are in the order of the jobs.

    Threads run in parallel because decompression and numpy release the interpreter's lock.

    Args:
        function: called with each job.
        jobs: each job with the row that its error is reported for.
        errors: collects the errors.
        description: text of the progress bar.
        unit: unit of the progress bar.
        workers: number of threads; None for Python's default.
        progress: show the progress bar on a terminal.
    """

    def attempt(job: _Job) -> _Result | LiversegError:
        try:
            return function(job)
        except LiversegError as error:
            return error

    attempts = thread_map(
        attempt,
        jobs,
        max_workers=workers,
        desc=description,
        unit=unit,
        disable=None if progress and jobs else True,  # None: on a terminal only
    )
    results: dict[_Job, _Result] = {}
    for (job, row), result in zip(jobs.items(), attempts, strict=True):
        with errors.collect(row), prefix_row(row):
            if isinstance(result, LiversegError):
                raise result
            results[job] = result
    return results
