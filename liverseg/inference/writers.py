"""A case's files: each appears whole, and record.json last."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from liverseg.errors import ConflictError, OutputError

__all__ = [
    "CASE_FILES",
    "OTHER_FILES",
    "RECORD",
    "refuse_another_input",
    "write_case_files",
    "write_json",
    "write_table_csv",
    "write_table_json",
]

RECORD = "record.json"
CASE_FILES = ("labels.nii.gz", "lesions.nii.gz", "lesions.csv", "lesions.json", "preview.png", RECORD)
"""What every case has, when nothing else is asked for."""
OTHER_FILES = ("report.html", "segmentation.dcm", "measurements.dcm")
"""What it may have besides."""

_UNFINISHED = ".unfinished-"


def write_case_files(folder: Path, files: Mapping[str, Callable[[Path], Any]]) -> None:
    """Write a case: every file under a temporary name beside its own, then renamed.

    The record of an earlier run goes first, so a case with a record is complete at any moment, and with it what is not
    written again. When a file cannot be written, what this call wrote is taken away again.

    Args:
        folder: the case's folder, made if missing.
        files: by name, in the order they are to be written, functions that write to a given path; one that gives False
            has nothing to write. The record is last.

    Raises:
        LiversegError: if a file cannot be written.
        ValueError: if the record is not the last file.
    """
    if list(files)[-1:] != [RECORD]:
        raise ValueError(f"files of a case end with {RECORD}, not with {list(files)[-1:]}")
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECORD).unlink(missing_ok=True)
        not_again = [folder / name for name in (*CASE_FILES, *OTHER_FILES) if name not in files]
        for left in (*folder.glob(f"{_UNFINISHED}*"), *not_again):
            left.unlink(missing_ok=True)
        for name, write in files.items():
            unfinished = folder / f"{_UNFINISHED}{name}"
            written.append(unfinished)
            if write(unfinished) is False:
                (folder / name).unlink(missing_ok=True)
                continue
            unfinished.replace(folder / name)
            written.append(folder / name)
    except BaseException as error:
        for path in written:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()  # only if nothing else is in it
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise OutputError(f"{folder}: the case cannot be written ({reason}); is the disk full?") from error
        raise


def refuse_another_input(folder: Path, source: Mapping[str, Any]) -> None:
    """Refuse a case's folder that holds the results of another CT; of the same content they are replaced.

    Those of the same path are replaced as well, unless they are of another series in it.

    Args:
        folder: the case's.
        source: `input_facts` of the CT that is to be written there.

    Raises:
        LiversegError: if they are of another one: many folders of DICOM files are called CT.
    """
    try:
        there = json.loads((folder / RECORD).read_text(encoding="utf-8"))["input"]
        other, series = str(there["path"]), (there.get("series") or {}).get("uid")
        same_place, same_content = other == source["path"], there["sha256"] == source["sha256"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return  # nothing there, or no record of ours
    if same_place and not same_content and series != (source.get("series") or {}).get("uid"):
        raise ConflictError(
            f"{folder}: holds the results of another series of {other}, {series}; choose another output folder"
        )
    if not same_place and not same_content:
        raise ConflictError(
            f"{folder}: holds the results of another CT, {other}; choose another output folder, or rename "
            f"{source['path']}"
        )


def write_json(path: Path, content: Any) -> None:
    """Write JSON a strict reader takes: UTF-8, no NaN."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    path.write_bytes(text.encode("utf-8", "backslashreplace"))  # a path's bytes that are no UTF-8, escaped as JSON does


def write_table_csv(path: Path, table: pd.DataFrame) -> None:
    """Write the lesion table as CSV; one without lesions is its header alone."""
    table.to_csv(path, index=False)


def write_table_json(path: Path, table: pd.DataFrame) -> None:
    """Write the lesion table as a JSON list of objects, with the rows and names of the CSV."""
    write_json(path, json.loads(table.to_json(orient="records", double_precision=10)))
