"""Cases listed by whoever runs the batch: a CSV or JSON manifest, or a data list."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from liverseg.cases.case import BatchCase, name_in_tree, named_apart, safe_name
from liverseg.errors import LiversegError, one_line
from liverseg.imageio.formats import source_name
from liverseg.labels import LESION_TYPES
from liverseg.utils.csv_table import read_csv

__all__ = ["cases_of_list"]

_PRIORS = tuple(f"prior_{kind}" for kind in LESION_TYPES)
_COLUMNS = ("case", "image", "series", "study", "liver", *_PRIORS)
_NEEDED = ("case", "image")
_TOLD = 20
"""As many bad rows as an error tells."""


def cases_of_list(path: Path, dataset_dir: Path | None = None) -> list[BatchCase]:
    """The cases of a manifest or a data list.

    A manifest is a CSV with a header, or a JSON list of objects, with `case` and `image`, and where wanted `series`,
    `study`, `liver` and `prior_<type>` for every type. Of a data list every image is a case, named by its path.
    Relative paths are below the folder of the file, and stay there.

    Args:
        path: .csv or .json.
        dataset_dir: another folder for the relative paths.

    Raises:
        LiversegError: if it cannot be read, has an unknown column, or rows that cannot be used: each is told.
    """
    root = dataset_dir or path.parent
    rows = _csv_rows(path) if path.suffix.lower() == ".csv" else _json_rows(path)
    if isinstance(rows, Mapping):
        return _of_datalist(path, root)
    cases, wrong = [], []
    for where, row in rows:
        try:
            cases.append(_case(root, row))
        except ValueError as error:
            wrong.append(f"{path}, {where}: {error}")
    wrong += _doubles(path, cases)
    if wrong:
        more = [f"{path}: {len(wrong) - _TOLD} more rows are wrong"] if len(wrong) > _TOLD else []
        raise LiversegError("\n".join([*wrong[:_TOLD], *more]))
    return cases


def _csv_rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    try:
        table = read_csv(path, _NEEDED)
    except (OSError, ValueError) as error:
        raise LiversegError(f"{path}: cannot be read as CSV ({one_line(error)})") from error
    rows = [
        (f"row {number}", {str(name): cell for name, cell in row.items()})
        for number, row in enumerate(table.to_dict("records"), 2)
    ]
    return [(where, row) for where, row in rows if any(row.values())]


def _json_rows(path: Path) -> list[tuple[str, dict[str, Any]]] | Mapping[str, Any]:
    """Rows, or the data list it is."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise LiversegError(f"{path}: cannot be read as JSON ({one_line(error)})") from error
    if isinstance(content, dict) and {"training", "test"} & {*content}:
        return content
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise LiversegError(
            f"{path}: neither a manifest, a list of objects such as "
            '{"case": "a", "image": "a.nii.gz"}, nor a data list with training or test'
        )
    return [(f"entry {number}", row) for number, row in enumerate(content)]


def _case(root: Path, row: Mapping[str, Any]) -> BatchCase:
    """The case of a row; ValueError says what is wrong with it."""
    for column in row:
        if column not in _COLUMNS:
            near = difflib.get_close_matches(str(column), _COLUMNS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(_COLUMNS)}"
            raise ValueError(f"unknown column {str(column)!r}; {hint}")
    texts = {name: _text(name, row.get(name)) for name in _COLUMNS if name not in _PRIORS}
    for name in _NEEDED:
        if texts[name] is None:
            raise ValueError(f"no {name}")
    return BatchCase(
        name=safe_name(str(texts["case"])),
        image=_below(root, str(texts["image"])),
        series=texts["series"],
        study=texts["study"],
        liver=None if texts["liver"] is None else str(_below(root, texts["liver"])),
        type_priors=_priors(row),
    )


def _text(name: str, value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool) and name == "case":
        value = str(value)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} is {value!r}; text is needed")
    text = (value or "").strip()
    if "\0" in text:
        raise ValueError(f"{name} {text!r}: a name cannot hold a zero byte")
    return text or None


def _below(root: Path, text: str) -> Path:
    """An absolute path as it is, a relative one below the root."""
    path = PurePath(text)
    if not path.is_absolute() and ".." in path.parts:
        raise ValueError(f"{text}: a relative path must not lead upwards; give it as an absolute path")
    return (root / path).absolute()


def _priors(row: Mapping[str, Any]) -> dict[str, float] | None:
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


def _doubles(path: Path, cases: list[BatchCase]) -> list[str]:
    seen: dict[str, BatchCase] = {}
    wrong = []
    for case in cases:
        other = seen.setdefault(case.name.lower(), case)
        if other is not case:
            wrong.append(f"{path}: case {case.name} is there twice, for {other.image} and for {case.image}")
    return wrong


def _of_datalist(path: Path, root: Path) -> list[BatchCase]:
    from liverseg.datalists import read_datalist  # here, not above: data lists are split by packages that take long

    listed = read_datalist(path)
    images = dict.fromkeys(item.image for item in (*listed.training, *listed.test))
    cases = []
    for image in images:
        try:
            where = _below(root, image)
        except ValueError as error:
            raise LiversegError(f"{path}: {error}") from error
        name = PurePath(image)
        cases.append(BatchCase(name_in_tree(name.with_name(source_name(Path(image)) or name.name)), where))
    return named_apart(cases)
