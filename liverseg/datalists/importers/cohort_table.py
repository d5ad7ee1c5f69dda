"""The table of a cohort, CSV or Excel: read row by row, with the user's words for lesion types mapped to ours."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import zipfile
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from tqdm import tqdm

from liverseg.errors import LiversegError
from liverseg.labels import LESION_TYPES
from liverseg.utils.csv_table import check_columns, read_csv
from liverseg.utils.files import is_dir, is_file

__all__ = [
    "COLUMNS",
    "MASK_VALUES",
    "OPTIONAL_COLUMNS",
    "CohortRow",
    "RowErrors",
    "Types",
    "in_threads",
    "named",
    "read_rows",
]

_SHOWN = 20

_Job = TypeVar("_Job", bound=Hashable)
_Made = TypeVar("_Made")


@contextmanager
def named(row: CohortRow) -> Iterator[None]:
    """Begin the message of an error with its row.

    Raises:
        LiversegError: what the block raises, with the row.
    """
    try:
        yield
    except LiversegError as error:
        if str(error).startswith(row.where):
            raise
        raise LiversegError(f"{row.where}: {error}") from error


class RowErrors:
    """The first error of each bad row, kept until `tell` raises them as one."""

    def __init__(self) -> None:
        self._errors: dict[int, LiversegError] = {}

    def add(self, number: int, error: LiversegError) -> None:
        """Keep an error of a row, given by its number, unless the row has one."""
        self._errors.setdefault(number, error)

    @contextmanager
    def of(self, *rows: CohortRow) -> Iterator[None]:
        """Keep what the block raises, as an error of the row its message begins with, else of the first."""
        try:
            yield
        except LiversegError as error:
            own = (row for row in rows if str(error).startswith(f"{row.where}:"))
            self.add(next(own, rows[0]).number, error)

    def among(self, rows: Iterable[CohortRow]) -> bool:
        """Whether any of the rows has an error."""
        return any(row.number in self._errors for row in rows)

    def tell(self) -> None:
        """Raise what was kept, if anything.

        Raises:
            LiversegError: the error of a single bad row as it is; else one with a line a bad row, in the order of the
                table, of which the first 20 are shown and the rest counted.
        """
        errors = [self._errors[number] for number in sorted(self._errors)]
        if len(errors) == 1:
            raise errors[0]
        if errors:
            rest = len(errors) - _SHOWN
            more = [f"and {rest} more bad {'row' if rest == 1 else 'rows'}"] if rest > 0 else []
            raise LiversegError("\n".join([*map(str, errors[:_SHOWN]), *more])) from errors[0]


def in_threads(
    work: Callable[[_Job], _Made],
    jobs: Mapping[_Job, CohortRow],
    errors: RowErrors,
    what: str,
    unit: str,
    workers: int | None,
    progress: bool,
) -> dict[_Job, _Made]:
    """What is made of each job, in their order, with a bar; errors are kept in that order too, each for its job's row.

    Decompression and numpy leave the interpreter's lock.

    Args:
        work: what to do with a job.
        jobs: each with the row that its error is told for.
        errors: where errors are kept.
        what: a word for the bar.
        unit: what a job is, for the bar.
        workers: jobs done at a time; None for Python's default.
        progress: show the bar on a terminal.
    """

    def attempt(job: _Job) -> _Made | LiversegError:
        try:
            return work(job)
        except LiversegError as error:
            return error

    done: dict[_Job, _Made] = {}
    shown = None if progress and jobs else True  # None: on a terminal only
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(jobs), desc=what, unit=unit, file=sys.stderr, disable=shown) as bar,
    ):
        for (job, row), made in zip(jobs.items(), pool.map(attempt, jobs), strict=True):
            bar.update()
            with errors.of(row), named(row):
                if isinstance(made, LiversegError):
                    raise made
                done[job] = made
    return done


COLUMNS = ("patient", "image", "mask", "slice", "lesion_type")
"""Columns a cohort's table needs: patient, paths of image and mask relative to the table's folder, the slice's number
along the file's own slice axis from 0, and the type of its lesions. The last two may be empty in a row."""

OPTIONAL_COLUMNS = ("liver_mask", "lesion", "mask_values")
"""Columns it may have: path of a mask of the liver, the lesion's number in a mask that numbers them, and what the
mask's values mean, one of `MASK_VALUES`."""

MASK_VALUES = ("lesion", "typed")

Types = str | os.PathLike | Mapping[str, str | None]
"""The user's words for types: a mapping to ours, or to None, which leaves the row out; or a JSON or CSV file of one."""

_TABLES = ("slices.csv", "slices.xlsx")
_MAX_TABLE_BYTES = 64 << 20
"""What an Excel table may hold unpacked: some 500 000 rows. It is in memory several times over while it is read."""
_WHOLE = re.compile(r"([0-9]+)(\.0+)?$")


@dataclass(frozen=True)
class CohortRow:
    """One row of the table.

    Attributes:
        where: table and row as a spreadsheet counts it, to begin a message with.
        number: that row; the header is row 1.
        patient: whose it is.
        image: NIfTI or DICOM file, or folder of a DICOM series, relative to the table's folder.
        mask: NIfTI, PNG or DICOM SEG, relative too.
        slice: number along the image's own slice axis, from 0; None for the whole volume.
        lesion_type: one of `LESION_TYPES`; None where the cell is empty.
        liver_mask: mask of the liver, as `mask`; None where there is none.
        lesion: the lesion's number in the mask; None where the mask does not number them.
        mask_values: one of `MASK_VALUES`; None where it is not said.
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
    """The rows of a cohort's table, or of a set of slices, those left out whose type is mapped to None.

    Args:
        root: the folder that holds the table and that its paths are relative to.
        table: the table's file name; None takes the one of `slices.csv` and `slices.xlsx` that is there.
        types: the user's words for types.
        errors: where it is kept that a cell holds what it may not or names a missing file; the row is left out.
        needed: columns the table must have; a row without another has nothing there.
        of: what the table is of, for messages.

    Raises:
        LiversegError: if the table or the words are missing or unreadable, a column is missing, or no row is left.
    """
    path = _found(Path(root)) if table is None else Path(root) / table
    words = _words(types)
    cells = _cells(path, needed, of)
    rows, left_out = [], 0
    for number, values in enumerate(cells.to_dict("records"), 2):
        if not any(values.values()):
            continue
        where = f"{path}, row {number}"
        if words.get(_plain(values["lesion_type"]), "") is None:
            left_out += 1
            continue
        try:
            rows.append(_row(path.parent, where, number, {str(key): value for key, value in values.items()}, words))
        except LiversegError as error:
            errors.add(number, error)
    if left_out:
        logging.getLogger(__name__).warning("%s: %d rows left out, as their types are mapped to none", path, left_out)
    if not rows:
        errors.tell()
        raise LiversegError(f"{path}: {'every row is left out' if left_out else 'the table has no rows'}")
    return rows


def _found(root: Path) -> Path:
    there = [name for name in _TABLES if is_file(root / name)]
    if len(there) > 1:
        raise LiversegError(f"{root}: {' and '.join(there)} are both there; name one with --table, or take one away")
    return root / (there[0] if there else _TABLES[0])


def _check_size(path: Path) -> None:
    """Refuse an Excel table that is a bomb; zipfile reads no more of a member than the size it states."""
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > _MAX_TABLE_BYTES:
        raise LiversegError(f"{path}: holds {size >> 20} MiB, {_MAX_TABLE_BYTES >> 20} are allowed; save it as CSV")


def _cells(path: Path, needed: Sequence[str], of: str) -> pd.DataFrame:
    """The table's known columns as text without white space around it; '' where a cell or a column is missing."""
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
    except (OSError, ValueError, KeyError, SyntaxError, zipfile.BadZipFile) as error:  # pandas' and XML's too
        raise LiversegError(f"{path}: not a readable {kind} ({' '.join(str(error).split())})") from error
    cells.columns = cells.columns.astype(str).str.strip()
    check_columns(path, cells.columns, needed)
    known = [column for column in (*COLUMNS, *OPTIONAL_COLUMNS) if column in cells.columns]
    cells = cells[known].fillna("").apply(lambda column: column.astype(str).str.strip())
    return cells.reindex(columns=[*COLUMNS, *OPTIONAL_COLUMNS], fill_value="")


def _row(root: Path, where: str, number: int, cells: dict[str, str], words: Mapping[str, str | None]) -> CohortRow:
    if not cells["patient"]:
        raise LiversegError(f"{where}: no patient; without it slices of one patient could leak across folds")
    for column in ("image", "mask", "liver_mask"):
        name = cells[column]
        if not name and column != "liver_mask":
            raise LiversegError(f"{where}: no {column}; a path relative to {root} is needed")
        if name and not is_file(root / name) and not (column == "image" and is_dir(root / name)):
            raise LiversegError(f"{where}: {root / name} does not exist")
    numbers: dict[str, int | None] = {}
    for column, lowest in (("slice", 0), ("lesion", 1)):
        match = _WHOLE.match(cells[column])
        numbers[column] = int(match.group(1)) if match else None
        if cells[column] and (match is None or int(match.group(1)) < lowest):
            raise LiversegError(f"{where}: {column} {cells[column]!r}; a whole number from {lowest} is needed")
    lesion_type = _plain(cells["lesion_type"])
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


def _plain(word: str) -> str:
    return word.strip().lower()


def _words(types: Types | None) -> dict[str, str | None]:
    """The user's words in lower case and the types they stand for, None for those to leave out."""
    if types is None:
        return {}
    name = "types" if isinstance(types, Mapping) else str(types)
    pairs = list(types.items()) if isinstance(types, Mapping) else _read_pairs(Path(types))
    words: dict[str, str | None] = {}
    for word, ours in pairs:
        kind = _plain(ours) if isinstance(ours, str) else ours
        if kind is not None and kind not in LESION_TYPES:
            raise LiversegError(
                f"{name}: {word!r} is mapped to {ours!r}; allowed: {', '.join(LESION_TYPES)}, and null to leave out"
            )
        if words.setdefault(_plain(word), kind) != kind:
            raise LiversegError(f"{name}: {word!r} is mapped twice, to different types; keep one")
    return words


def _read_pairs(path: Path) -> list[tuple[str, Any]]:
    """Word and type of a JSON object, or of a CSV with the columns word and type."""
    if path.suffix.lower() not in (".json", ".csv"):
        raise LiversegError(f"{path}: a mapping of types is a .json or a .csv")
    try:
        if path.suffix.lower() == ".csv":
            table = read_csv(path, ("word", "type"))
            pairs = zip(table["word"], table["type"], strict=True)
            return [(word, kind.strip() or None) for word, kind in pairs if word.strip() or kind.strip()]
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise LiversegError(f"{path}: no such file; it maps words to {', '.join(LESION_TYPES)}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise LiversegError(f"{path}: not a readable mapping of types ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise LiversegError(f'{path}: a JSON object is needed, as {{"haemangioma": "hemangioma", "other": null}}')
    return list(content.items())
