"""`liverseg batch` as a process that is looked at from outside, and what must hold of its output folder."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["Batch", "Fault", "complete_cases", "events", "files_of", "half_written", "settled"]

LONGEST = 400.0
"""Seconds that no run of these takes, however busy the machine is: one that does hangs."""
_RECORD = "record.json"
_TIMES = ("finished", "seconds")
"""What of a record is never the same twice."""


class Fault(Exception):
    """A promise that was not kept."""


class Batch:
    """One run of the subcommand.

    Args:
        log: what it prints goes there.
        arguments: of the subcommand.
        environment: set beside what there is.
        wrapper: a command before it, such as taskset.
        cwd: folder it is run in.
    """

    def __init__(
        self, log: Path, *arguments: Any, wrapper: tuple[str, ...] = (), cwd: Path | None = None, **environment: str
    ) -> None:
        self.begun = time.monotonic()
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [*wrapper, sys.executable, "-m", "liverseg.cli.main", "batch", *map(os.fspath, map(_text, arguments))],
                env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                cwd=cwd,
                preexec_fn=_hear,
            )

    @property
    def pid(self) -> int:
        """Of the batch."""
        return self.process.pid

    def ended(self) -> int | None:
        """Its exit code, None while it runs."""
        return self.process.poll()

    def workers(self) -> list[int]:
        """Process ids of its workers."""
        return [pid for pid, parent, words in _processes() if parent == self.pid and b"liverseg.batch.worker" in words]

    def actors(self) -> list[int]:
        """Process ids of Ray's actors that compute cases, whoever began them."""
        return [pid for pid, _, words in _processes() if words.startswith(b"ray::_CaseActor")]

    def send(self, number: int) -> None:
        """A signal to the batch alone."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    def wait(self, seconds: float = LONGEST) -> int:
        """Its exit code.

        Raises:
            Fault: if it takes longer.
        """
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill_all()
            raise Fault(f"hangs: not ended after {seconds:.0f} s") from None

    def kill_all(self) -> None:
        """The batch and its workers."""
        for pid in (*self.workers(), self.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def _hear() -> None:
    """Whoever runs the campaign may have signals ignored, as a script's `&` does."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _text(argument: Any) -> str:
    return os.fspath(argument) if isinstance(argument, os.PathLike) else str(argument)


def _processes() -> list[tuple[int, int, bytes]]:
    """Process id, parent and command line of all processes."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                words = (folder / "cmdline").read_bytes()
                parent = int((folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
                found.append((int(folder.name), parent, words))
    return found


def events(output: Path) -> list[dict[str, Any]]:
    """The run's log so far; a line that is no JSON is a fault."""
    path = output / "run.jsonl"
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise Fault(f"run.jsonl: a line is no JSON ({error})") from error


def _folders(output: Path) -> list[Path]:
    return [path for path in output.iterdir() if path.is_dir() and not path.name.startswith(".")]


def complete_cases(output: Path) -> dict[str, tuple[int, int]]:
    """Cases with a record, and the inode and time of it; every one must be whole.

    Raises:
        Fault: if a folder with a record lacks a file it names, or has other bytes.
    """
    found = {}
    for folder in _folders(output):
        try:
            about = (folder / "record.json").stat()
            record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except ValueError as error:
            raise Fault(f"{folder.name}: half a record ({error})") from error
        for name, sha256 in record["files"].items():
            if not (folder / name).exists():
                raise Fault(f"{folder.name}: a record, and no {name}")
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != sha256:
                raise Fault(f"{folder.name}: {name} is not what the record says")
        left = {path.name for path in folder.iterdir()} - {*record["files"], "record.json"}
        if left:
            raise Fault(f"{folder.name}: a record, and besides {sorted(left)}")
        found[folder.name] = (about.st_ino, about.st_mtime_ns)
    return found


def files_of(output: Path) -> dict[str, dict[str, Any]]:
    """By case the bytes of its files, less what is never the same twice: times, in the record and in DICOM."""
    found = {}
    for folder in _folders(output):
        files: dict[str, Any] = {path.name: path.read_bytes() for path in folder.iterdir()}
        record = json.loads(files[_RECORD])
        files[_RECORD] = {name: value for name, value in record.items() if name not in _TIMES}
        for name in [name for name in files if name.endswith(".dcm")]:
            files[name] = _without_times(folder / name)
            del record["files"][name]  # the hash has been compared with the file
        found[folder.name] = files
    return found


def _without_times(path: Path) -> str:
    """A DICOM file's tags and pixels, dates and times left out."""
    import pydicom

    one = pydicom.dcmread(path)
    one.walk(lambda inner, element: inner.pop(element.tag) if element.VR in ("DA", "TM", "DT") else None)
    return one.to_json()


def half_written(output: Path) -> list[Path]:
    """Files that were being written."""
    # os.walk passes over a folder that goes away meanwhile
    return sorted(
        Path(at) / name for at, _, names in os.walk(output) for name in names if name.startswith(".unfinished-")
    )


def settled(output: Path, cases: set[str]) -> Counter:
    """How the cases ended, by the tables.

    Raises:
        Fault: if one is neither in summary.csv nor, with a category and a reason, in failed.csv, or in both.
    """
    import pandas as pd

    done = set(pd.read_csv(output / "summary.csv", dtype=str, keep_default_na=False)["case"])
    failed = pd.read_csv(output / "failed.csv", dtype=str, keep_default_na=False)
    if lost := cases - done - {*failed["case"]}:
        raise Fault(f"{len(lost)} cases lost: {sorted(lost)[:5]}")
    if both := done & {*failed["case"]}:
        raise Fault(f"done and failed at once: {sorted(both)[:5]}")
    if more := (done | {*failed["case"]}) - cases:
        raise Fault(f"cases that nobody asked for: {sorted(more)[:5]}")
    if not (failed["category"].ne("").all() and failed["reason"].ne("").all()):
        raise Fault("a failed case without category or reason")
    return Counter({"done": len(done), **Counter(failed["category"])})
