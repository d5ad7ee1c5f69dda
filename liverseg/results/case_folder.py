"""Files of a case, written atomically, with record.json last."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from liverseg.errors import ConflictError, OutputError
from liverseg.utils.files import TEMPORARY_PREFIX, fsync_paths, read_json_object, sha256_file
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
]

RECORD = "record.json"
CASE_FILES = ("labels.nii.gz", "lesions.nii.gz", "lesions.csv", "lesions.json", "preview.png", RECORD)
"""Files that every case has by default."""
OTHER_FILES = ("report.html", "segmentation.dcm", "measurements.dcm", "structures.dcm", "segmentation.seg.nrrd")
"""Optional files of a case."""


def write_case_files(
    folder: Path, files: Mapping[str, Callable[[Path], Any]], record: Callable[[Path, dict[str, str]], Any]
) -> None:
    """Write the files of a case: each to a temporary name, synchronised to disk, then renamed.

    The record of an earlier run is removed first, and with it files that are not written again, so that a case with a
    record is complete at any time. If a file cannot be written, the files written by this call are removed.

    Args:
        folder: the case's folder, created if needed; its parent must exist.
        files: functions that write to a given path, by file name, in the order of writing. A function that returns
            False has nothing to write.
        record: writes the record, the last file, to a given path; it also gets the SHA-256 of each written file.

    Raises:
        OutputError: if a file cannot be written, or another process is writing the case.
    """
    record_unfinished = folder / f"{TEMPORARY_PREFIX}{RECORD}"
    try:
        folder.mkdir(exist_ok=True)
        # before any other file: it marks the folder as unfinished and as written by liverseg
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
        fsync_paths(record_unfinished, folder)  # so that a loss of power cannot leave a record without its files
        record_unfinished.replace(folder / RECORD)
        written.append(folder / RECORD)
        fsync_paths(folder)
    except BaseException as error:
        for path in reversed(written):  # the unfinished record, which marks the folder, is removed last
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
    """Remove the files of a case that a killed run left unfinished.

    Folders with a record, without a mark of liverseg, or in which another process is writing are left unchanged.

    Raises:
        OSError: if a file cannot be removed.
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
    """Remove files by name and all unfinished files, except the unfinished record, which marks the folder."""
    mark = folder / f"{TEMPORARY_PREFIX}{RECORD}"
    unfinished = [path for path in folder.glob(f"{TEMPORARY_PREFIX}*") if path != mark]
    for path in (*(folder / name for name in names), *unfinished):
        path.unlink(missing_ok=True)


def read_case_record(folder: Path) -> dict[str, Any] | None:
    """Return a case's record; None if there is none or it is damaged."""
    return read_json_object(folder / RECORD)


def refuse_another_input(folder: Path, source: Mapping[str, Any]) -> None:
    """Refuse a case's folder that holds the results of another CT. Many folders of DICOM files are called CT.

    Results of a CT with the same content may be replaced, and so may results of the same path, unless they are of
    another series in it.

    Args:
        folder: the case's folder.
        source: `describe_input` of the new CT.

    Raises:
        LiversegError: if the folder holds the results of another CT.
    """
    try:
        earlier = (read_case_record(folder) or {})["input"]
        other, series = str(earlier["path"]), (earlier.get("series") or {}).get("uid")
        same_path, same_content = other == source["path"], earlier["sha256"] == source["sha256"]
    except (KeyError, TypeError, AttributeError):
        return  # no results, or a damaged record
    if same_path and not same_content and series != (source.get("series") or {}).get("uid"):
        raise ConflictError(
            f"{folder}: holds the results of another series of {other}, {series}; choose another output folder"
        )
    if not same_path and not same_content:
        raise ConflictError(
            f"{folder}: holds the results of another CT, {other}; choose another output folder, or rename "
            f"{source['path']}"
        )


def write_json(path: Path, content: Any) -> None:
    """Write strictly valid JSON: UTF-8, no NaN."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    path.write_bytes(
        text.encode("utf-8", "backslashreplace")
    )  # escapes bytes of a path that are no UTF-8, as JSON does
