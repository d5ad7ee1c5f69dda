"""`liverseg batch` as a subprocess, and checks of its output folder."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

__all__ = ["Batch", "Fault", "complete_cases", "event_time", "events", "files_of", "half_written", "settled"]

LONGEST = 400.0
"""Upper limit of a run's seconds, even on a busy machine; a longer run hangs."""
_RECORD = "record.json"
_TIMES = ("finished", "seconds")
"""Fields of a record that differ from run to run."""


class Fault(Exception):
    """A guarantee of `liverseg batch` was broken."""


class Batch:
    """One run of `liverseg batch`.

    Args:
        log: file to which its output is appended.
        arguments: arguments of the subcommand.
        wrapper: command that runs it, such as taskset.
        cwd: working directory.
        environment: variables added to the present ones.
    """

    def __init__(
        self, log: Path, *arguments: Any, wrapper: tuple[str, ...] = (), cwd: Path | None = None, **environment: str
    ) -> None:
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [*wrapper, sys.executable, "-m", "liverseg.cli.main", "batch", *map(os.fspath, map(_text, arguments))],
                env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                cwd=cwd,
                preexec_fn=_restore_signals,
            )

    @property
    def pid(self) -> int:
        """Process id of the batch."""
        return self.process.pid

    def ended(self) -> int | None:
        """Return the exit code, or None while it runs."""
        return self.process.poll()

    def workers(self) -> list[int]:
        """Return the process ids of its workers."""
        return [pid for pid, parent, words in _processes() if parent == self.pid and b"liverseg.batch.worker" in words]

    def actors(self) -> list[int]:
        """Return the process ids of all Ray actors that compute cases, also those of other batches."""
        return [pid for pid, _, words in _processes() if words.startswith(b"ray::_CaseActor")]

    def send(self, number: int) -> None:
        """Send a signal to the batch, but not to its workers."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    def wait(self, seconds: float = LONGEST) -> int:
        """Wait for the end and return the exit code.

        Raises:
            Fault: The batch does not end in this time.
        """
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill_all()
            raise Fault(f"hangs: not ended after {seconds:.0f} s") from None

    def kill_all(self) -> None:
        """Kill the batch and its workers."""
        for pid in (*self.workers(), self.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def _restore_signals() -> None:
    """Restore handlers that the campaign may inherit as ignored, for example from `&` in a script."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _text(argument: Any) -> str:
    return os.fspath(argument) if isinstance(argument, os.PathLike) else str(argument)


def _processes() -> list[tuple[int, int, bytes]]:
    """Return process id, parent and command line of all processes."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                words = (folder / "cmdline").read_bytes()
                parent = int((folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
                found.append((int(folder.name), parent, words))
    return found


def events(output: Path) -> list[dict[str, Any]]:
    """Return the entries of `run.jsonl`.

    Raises:
        Fault: A line is not JSON.
    """
    path = output / "run.jsonl"
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise Fault(f"run.jsonl: a line is not JSON ({error})") from error


def event_time(line: dict[str, Any]) -> float:
    """Return the time of an entry of `run.jsonl`, seconds since 1970."""
    return datetime.fromisoformat(line["time"]).timestamp()


def _folders(output: Path) -> list[Path]:
    return [path for path in output.iterdir() if path.is_dir() and not path.name.startswith(".")]


def complete_cases(output: Path) -> dict[str, tuple[int, int]]:
    """Return cases with a record, with the record's inode and modification time.

    Raises:
        Fault: A folder with a record lacks a file or has one that the record does not list or whose hash differs.
    """
    found = {}
    for folder in _folders(output):
        try:
            stat = (folder / "record.json").stat()
            record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except ValueError as error:
            raise Fault(f"{folder.name}: the record is incomplete ({error})") from error
        for name, sha256 in record["files"].items():
            if not (folder / name).exists():
                raise Fault(f"{folder.name}: a record, but no {name}")
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != sha256:
                raise Fault(f"{folder.name}: {name} has another hash than in the record")
        left = {path.name for path in folder.iterdir()} - {*record["files"], "record.json"}
        if left:
            raise Fault(f"{folder.name}: not in the record: {sorted(left)}")
        found[folder.name] = (stat.st_ino, stat.st_mtime_ns)
    return found


def files_of(output: Path) -> dict[str, dict[str, Any]]:
    """Return the contents of each case's files, without times in the record and in DICOM, which differ between runs."""
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
    """Return a DICOM file's tags and pixels as JSON, without dates and times."""
    import pydicom

    dataset = pydicom.dcmread(path)
    dataset.walk(lambda inner, element: inner.pop(element.tag) if element.VR in ("DA", "TM", "DT") else None)
    return dataset.to_json()


def half_written(output: Path) -> list[Path]:
    """Return temporary files of unfinished writes."""
    # os.walk skips folders that disappear meanwhile
    return sorted(
        Path(at) / name for at, _, names in os.walk(output) for name in names if name.startswith(".unfinished-")
    )


def settled(output: Path, cases: set[str]) -> Counter:
    """Return counts of done cases and of failures by category, from the tables.

    Raises:
        Fault: A case is in neither or in both of summary.csv and failed.csv, was not requested, or failed without
            category or reason.
    """
    import pandas as pd

    done = set(pd.read_csv(output / "summary.csv", dtype=str, keep_default_na=False)["case"])
    failed = pd.read_csv(output / "failed.csv", dtype=str, keep_default_na=False)
    if lost := cases - done - {*failed["case"]}:
        raise Fault(f"{len(lost)} cases lost: {sorted(lost)[:5]}")
    if both := done & {*failed["case"]}:
        raise Fault(f"in summary.csv and in failed.csv: {sorted(both)[:5]}")
    if more := (done | {*failed["case"]}) - cases:
        raise Fault(f"cases that were not requested: {sorted(more)[:5]}")
    if not (failed["category"].ne("").all() and failed["reason"].ne("").all()):
        raise Fault("a failed case without category or reason")
    return Counter({"done": len(done), **Counter(failed["category"])})
