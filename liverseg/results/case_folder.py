"""A case's files: each appears whole, and record.json last."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from liverseg.errors import ConflictError, OutputError
from liverseg.utils.files import TEMPORARY_PREFIX, fsync_paths, sha256_file
from liverseg.utils.locks import FileLock

__all__ = [
    "CASE_FILES",
    "OTHER_FILES",
    "RECORD",
    "discard_unfinished",
    "read_case_record",
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


def write_case_files(
    folder: Path, files: Mapping[str, Callable[[Path], Any]], record: Callable[[Path, dict[str, str]], Any]
) -> None:
    """Write a case: every file under a temporary name beside its own, brought to the disk, then renamed.

    The record of an earlier run goes first, so a case with a record is complete at any moment, and with it what is not
    written again. When a file cannot be written, what this call wrote is taken away again.

    Args:
        folder: the case's folder, made if missing, in one that is there.
        files: by name, in the order they are to be written, functions that write to a given path; one that gives False
            has nothing to write.
        record: writes the record, the last of the files, to a given path; is told the SHA-256 of each file written.

    Raises:
        LiversegError: if a file cannot be written, or another process is writing the case.
    """
    record_unfinished = folder / f"{TEMPORARY_PREFIX}{RECORD}"
    try:
        folder.mkdir(exist_ok=True)
        # first of all: it marks the folder as unfinished and ours
        lock = FileLock.try_acquire(record_unfinished, required=False)
    except OSError as error:
        with suppress(OSError):
            folder.rmdir()
        raise _unwritable(folder, error) from error
    if lock is None:
        raise OutputError(f"{folder}: another process writes this case; wait for it, or choose another output folder")
    written = [record_unfinished]
    hashes: dict[str, str] = {}
    try:
        (folder / RECORD).unlink(missing_ok=True)
        _clear(folder, [name for name in (*CASE_FILES, *OTHER_FILES) if name not in files])
        for name, write in files.items():
            unfinished = folder / f"{TEMPORARY_PREFIX}{name}"
            written.append(unfinished)
            if write(unfinished) is False:
                (folder / name).unlink(missing_ok=True)
                continue
            fsync_paths(unfinished)
            hashes[name] = sha256_file(unfinished)
            unfinished.replace(folder / name)
            written.append(folder / name)
        record(record_unfinished, hashes)
        fsync_paths(record_unfinished, folder)  # a machine that loses power now must not keep the record alone
        record_unfinished.replace(folder / RECORD)
        written.append(folder / RECORD)
        fsync_paths(folder)
    except BaseException as error:
        for path in reversed(written):  # the mark is last to go
            with suppress(OSError):
                path.unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()  # only if nothing else is in it
        cause = error.__cause__ if isinstance(error, OutputError) else error
        if isinstance(cause, OSError):
            raise _unwritable(folder, cause) from error
        raise
    finally:
        lock.release()


def _unwritable(folder: Path, error: OSError) -> OutputError:
    return OutputError(f"{folder}: the case cannot be written ({error.strerror or error}); is the disk full?")


def discard_unfinished(folder: Path) -> None:
    """Take away what a killed run left of a case; what has a record, is being written or is not ours stays.

    Raises:
        OSError: if something cannot be taken away.
    """
    if not folder.is_dir() or (folder / RECORD).exists() or not any(folder.glob(f"{TEMPORARY_PREFIX}*")):
        return
    lock = FileLock.try_acquire(folder / f"{TEMPORARY_PREFIX}{RECORD}", required=False)
    if lock is None:
        return
    try:
        if not (folder / RECORD).exists():
            _clear(folder, [*CASE_FILES, *OTHER_FILES])
    finally:
        lock.remove()
    with suppress(OSError):
        folder.rmdir()


def _clear(folder: Path, names: Iterable[str]) -> None:
    """Take away files by name, then what is unfinished: its mark is last to go."""
    own = folder / f"{TEMPORARY_PREFIX}{RECORD}"
    for left in (
        *(folder / name for name in names),
        *(one for one in folder.glob(f"{TEMPORARY_PREFIX}*") if one != own),
    ):
        left.unlink(missing_ok=True)


def read_case_record(folder: Path) -> dict[str, Any] | None:
    """A case's record; None where there is none, or no whole one of ours."""
    try:
        content = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def refuse_another_input(folder: Path, source: Mapping[str, Any]) -> None:
    """Refuse a case's folder that holds the results of another CT; of the same content they are replaced.

    Those of the same path are replaced as well, unless they are of another series in it.

    Args:
        folder: the case's.
        source: `describe_input` of the CT that is to be written there.

    Raises:
        LiversegError: if they are of another one: many folders of DICOM files are called CT.
    """
    try:
        there = (read_case_record(folder) or {})["input"]
        other, series = str(there["path"]), (there.get("series") or {}).get("uid")
        same_place, same_content = other == source["path"], there["sha256"] == source["sha256"]
    except (KeyError, TypeError, AttributeError):
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
