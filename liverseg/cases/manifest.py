"""Read the cases of a batch from a CSV or JSON manifest, or from a data list."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

from liverseg.cases.case import BatchCase, name_in_tree, safe_name, with_distinct_names
from liverseg.errors import LiversegError, UsageError, one_line, suggest
from liverseg.imageio.formats import source_name
from liverseg.labels import LESION_TYPES
from liverseg.utils.csv_table import read_csv
from liverseg.utils.files import backslash_hint, read_json

__all__ = ["read_case_list"]

_PRIORS = tuple(f"prior_{lesion_type}" for lesion_type in LESION_TYPES)
_COLUMNS = ("case", "image", "series", "study", "liver", *_PRIORS)
_REQUIRED = ("case", "image")
_MAX_ROWS_SHOWN = 20


def read_case_list(path: Path, dataset_dir: Path | None = None) -> list[BatchCase]:
    """Read the cases of a manifest or a data list.

    A manifest is a CSV with a header, or a JSON list of objects, with `case` and `image`, and optionally `series`,
    `study`, `liver` and `prior_<type>` for every type. Of a data list every image is a case, named by its path.
    Relative paths are below the folder of the file and must not lead out of it.

    Args:
        path: .csv or .json.
        dataset_dir: another folder for the relative paths.

    Raises:
        UsageError: if a manifest lacks a column or has an unknown one, or has rows that cannot be used, with a line for
            each row.
        LiversegError: if the file cannot be read, or is neither a manifest nor a data list.
    """
    root = dataset_dir or path.parent
    rows = _read_csv_rows(path) if path.suffix.lower() == ".csv" else _read_json_rows(path)
    if isinstance(rows, Mapping):
        return _cases_of_datalist(path, root)
    cases, errors = [], []
    for place, row in rows:
        try:
            cases.append(_parse_row(root, row))
        except ValueError as error:
            errors.append(f"{path}, {place}: {error}")
    errors += _duplicates(path, cases)
    if errors:
        count = len(errors) - _MAX_ROWS_SHOWN
        more = [f"{path}: {count} more rows are wrong"] if count > 0 else []
        raise UsageError("\n".join([*errors[:_MAX_ROWS_SHOWN], *more]))
    return cases


def _read_csv_rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return each row with its place, blank rows left out."""
    try:
        table = read_csv(path, _REQUIRED)
    except LiversegError as error:
        raise UsageError(str(error)) from error
    except (OSError, ValueError) as error:
        raise LiversegError(f"{path}: cannot be read as CSV ({one_line(error)})") from error
    try:
        _check_columns(map(str, table.columns))
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
    rows = [
        (f"row {number}", {str(name): cell for name, cell in row.items()})
        for number, row in enumerate(table.to_dict("records"), 2)
    ]
    return [(place, row) for place, row in rows if any(row.values())]


def _read_json_rows(path: Path) -> list[tuple[str, dict[str, Any]]] | Mapping[str, Any]:
    """Return each object with its place, or the data list if the file is one."""
    content = read_json(path)
    if isinstance(content, dict) and {"training", "test"} & {*content}:
        return content
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise LiversegError(
            f"{path}: neither a manifest, a list of objects such as "
            '{"case": "a", "image": "a.nii.gz"}, nor a data list with training or test'
        )
    return [(f"entry {number}", row) for number, row in enumerate(content)]


def _parse_row(root: Path, row: Mapping[str, Any]) -> BatchCase:
    """Return the case of a row.

    Raises:
        ValueError: if the row is wrong.
    """
    _check_columns(map(str, row))
    texts = {name: _parse_text(name, row.get(name)) for name in _COLUMNS if name not in _PRIORS}
    for name in _REQUIRED:
        if texts[name] is None:
            raise ValueError(f"no {name}")
    return BatchCase(
        name=safe_name(str(texts["case"])),
        image=_existing(_resolve(root, str(texts["image"])), str(texts["image"])),
        series=texts["series"],
        study=texts["study"],
        liver=None if texts["liver"] is None else str(_resolve(root, texts["liver"])),
        type_priors=_parse_priors(row),
    )


def _check_columns(columns: Iterable[str]) -> None:
    """Refuse a column that a manifest does not have.

    Raises:
        ValueError: with the allowed columns, and the one that may be meant.
    """
    for column in columns:
        if column in _COLUMNS:
            continue
        first, number = column.rpartition(".")[::2]
        if first in _COLUMNS and number.isdecimal():  # how `read_csv` distinguishes columns of one name
            raise ValueError(f"two columns are called {first}; keep one")
        match = suggest(column, _COLUMNS)
        hint = f"did you mean {match}? " if match else ""
        raise ValueError(f"unknown column {column!r}; {hint}allowed are {', '.join(_COLUMNS)}")


def _parse_text(name: str, value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool) and name == "case":
        value = str(value)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} is {value!r}; text is needed")
    text = (value or "").strip()
    if "\0" in text:
        raise ValueError(f"{name} {text!r}: a name cannot hold a zero byte")
    return text or None


def _existing(path: Path, text: str) -> Path:
    """Refuse a path of another machine; any other missing file fails as a case."""
    hint = backslash_hint(text)
    if hint and not path.exists():
        raise ValueError(f"{text}: no such file or folder{hint}")
    return path


def _resolve(root: Path, text: str) -> Path:
    """Return an absolute path unchanged, a relative path below the root."""
    path = PurePath(text)
    if not path.is_absolute() and ".." in path.parts:
        raise ValueError(f"{text}: a relative path must not lead upwards; give it as an absolute path")
    return (root / path).absolute()


def _parse_priors(row: Mapping[str, Any]) -> dict[str, float] | None:
    given = {name: row.get(name) for name in _PRIORS if row.get(name) not in (None, "")}
    if not given:
        return None
    if len(given) < len(_PRIORS):
        raise ValueError(f"{', '.join(given)} without {', '.join(name for name in _PRIORS if name not in given)}")
    priors = {}
    for name, value in given.items():
        try:
            number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            number = math.nan
        if not (math.isfinite(number) and number > 0):
            raise ValueError(f"{name} is {value!r}; it must be a number above 0")
        priors[name.removeprefix("prior_")] = number
    return priors


def _duplicates(path: Path, cases: list[BatchCase]) -> list[str]:
    first: dict[str, BatchCase] = {}
    errors = []
    for case in cases:
        other = first.setdefault(case.name.lower(), case)
        if other is not case:
            errors.append(f"{path}: case {case.name} occurs twice, for {other.image} and for {case.image}")
    return errors


def _cases_of_datalist(path: Path, root: Path) -> list[BatchCase]:
    from liverseg.datalists import read_datalist  # imported here: data lists need packages that are slow to import

    datalist = read_datalist(path)
    images = dict.fromkeys(item.image for item in (*datalist.training, *datalist.test))
    cases = []
    for image in images:
        try:
            absolute = _resolve(root, image)
        except ValueError as error:
            raise LiversegError(f"{path}: {error}") from error
        name = PurePath(image)
        cases.append(BatchCase(name_in_tree(name.with_name(source_name(Path(image)) or name.name)), absolute))
    return with_distinct_names(cases)
