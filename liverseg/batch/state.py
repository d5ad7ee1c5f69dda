"""State folder of an output folder: locks of cases, failures, the run log and the heartbeat file."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from liverseg.batch.job import Job
from liverseg.cases.case import BatchCase
from liverseg.errors import OutputError
from liverseg.imageio.liver_mask import LiverSource
from liverseg.utils.files import TEMPORARY_PREFIX, append_json_line, read_json_object, sha256_text, write_text
from liverseg.utils.fingerprints import file_fingerprint
from liverseg.utils.locks import NO_LOCKS, FileLock

__all__ = ["HEARTBEAT_SECONDS", "BatchState", "case_fingerprint"]

RUN_LOG = "run.jsonl"
_FOLDER = ".liverseg"
HEARTBEAT_SECONDS = 10.0
"""Seconds between two touches of the heartbeat file."""


def case_fingerprint(case: BatchCase, liver: str | None) -> str:
    """Return a cheap fingerprint of a case's CT and liver mask: SHA-256 of names, sizes and modification times.

    The files need not exist.

    Args:
        case: the case.
        liver: liver masks of the run, as `--liver` takes them; a mask of the case itself takes precedence.
    """
    masks = LiverSource.parse(case.liver or liver or "none").candidates(case.name)
    return sha256_text(" ".join(file_fingerprint(path) for path in (case.image, *masks)))


class BatchState:
    """State of the batches that write into an output folder; several may do so at once.

    Args:
        output: the output folder; `begin` makes it.
        shard: (i, n): this run has the i-th of n parts of the cases.

    Attributes:
        output: the output folder.
        folder: the state folder in it.
    """

    def __init__(self, output: Path, shard: tuple[int, int] = (1, 1)) -> None:
        self.output = output
        self.folder = output / _FOLDER
        part, parts = shard
        self._heartbeat_file = self.folder / ("alive" if parts == 1 else f"alive-{part}-of-{parts}")
        self._log_failed = False

    def begin(self) -> None:
        """Create the folders.

        Raises:
            OutputError: if they cannot be created or written.
        """
        try:
            for name in ("locks", "failed"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            self._heartbeat_file.touch()
        except OSError as error:
            raise _unwritable(self.output, error) from error

    def lock(self, case: str) -> FileLock | None:
        """Lock a case; return None if another run holds its lock.

        Raises:
            OutputError: if the folder is missing or not writable, or its file system does not support locks.
        """
        path = self._lock_file(case)
        try:
            return FileLock.try_acquire(path)
        except OSError as error:
            raise _unwritable(path.parent, error) from error

    def discard_lock(self, case: str) -> None:
        """Remove the lock file of a settled case if a killed run has left it."""
        with suppress(OSError, OutputError):
            if self._lock_file(case).exists() and (lock := self.lock(case)) is not None:
                lock.remove()

    def _lock_file(self, case: str) -> Path:
        return self.folder / "locks" / f"{case}.lock"

    @contextmanager
    def lock_tables(self) -> Iterator[bool]:
        """Lock the tables over all cases, so that the last of several runs sees all results.

        Yields False, without a lock, if another run is waiting for it: that run will see all results so far, and when
        hundreds of shards end together, two of them write the tables and not all. Otherwise removes the temporary files
        of tables and failures that a killed run has left, and yields True.

        Raises:
            LiversegError: if the folder cannot be written.
        """
        try:
            waiting = FileLock.try_acquire(self.folder / "tables-waiting.lock")
            if waiting is None:
                yield False
                return
            with (self.folder / "tables.lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX)
                finally:
                    waiting.release()
                for folder in (self.output, self.folder / "failed"):
                    for path in folder.glob(TEMPORARY_PREFIX + "*"):
                        path.unlink(missing_ok=True)
                yield True
        except OSError as error:
            raise _unwritable(self.output, error) from error

    @contextmanager
    def heartbeat(self, make: bool = False) -> Iterator[None]:
        """Touch the heartbeat file regularly from a thread during a long step.

        Args:
            make: make missing folders, but only once the step has taken `HEARTBEAT_SECONDS`; they are removed again if
                the block fails.
        """
        stop = threading.Event()
        made: list[Path] = []

        def beat() -> None:
            while not stop.wait(HEARTBEAT_SECONDS):
                with suppress(OSError):
                    folders = (*reversed(self.output.parents), self.output, self.folder) if make else ()
                    for folder in [path for path in folders if not path.exists()]:
                        folder.mkdir()
                        made.append(folder)
                    self.touch()

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        except BaseException:
            stop.set()
            thread.join()
            self.stop_heartbeat()
            for folder in reversed(made):
                with suppress(OSError):
                    folder.rmdir()  # only if it is empty
            raise
        stop.set()
        thread.join()

    def touch(self) -> None:
        """Touch the heartbeat file, whose time a supervisor can check."""
        with suppress(OSError):
            self._heartbeat_file.touch()

    def stop_heartbeat(self) -> None:
        """Remove the heartbeat file."""
        with suppress(OSError):
            self._heartbeat_file.unlink(missing_ok=True)

    def log(self, event: str, **details: Any) -> None:
        """Append a line to the run log, completely or not at all; the first failure is printed, later ones are ignored.

        Args:
            event: name of the event.
            details: further fields, serialisable as JSON.
        """
        line = {"time": _now(), "event": event, "host": socket.gethostname(), "pid": os.getpid(), **details}
        try:
            append_json_line(self.output / RUN_LOG, line)
        except OSError as error:
            if not self._log_failed:
                self._log_failed = True
                print(f"{self.output / RUN_LOG}: cannot be written ({error.strerror or error})", file=sys.stderr)

    def read_failure(self, case: str) -> dict[str, Any] | None:
        """Return the last failure of a case; None if there is none."""
        return read_json_object(self._failure_file(case))

    def find_failure(self, case: BatchCase, job: Job) -> dict[str, Any] | None:
        """Return an earlier failure of a case with the same input, weights and settings.

        None if there is none, or if the job retries failed cases.
        """
        known = None if job.retry_failed else self.read_failure(case.name)
        if known is None or known.get("weights_sha256") != job.spec.weights_sha256:
            return None
        same_settings = job.spec.is_configuration(case, known.get("configuration_sha256"))
        same_input = same_settings and known.get("input") == case_fingerprint(case, job.overrides.get("liver"))
        return known if same_input else None

    def record_failure(self, case: str, **details: Any) -> None:
        """Write a failure for later runs.

        Raises:
            OutputError: if it cannot be written.
        """
        text = json.dumps({"time": _now(), **details}, indent=1) + "\n"
        try:
            write_text(self._failure_file(case), text)
        except OutputError:  # another run may have removed the temporary file with those of a killed run
            write_text(self._failure_file(case), text)

    def clear_failure(self, case: str) -> None:
        """Remove the failure of a case that is done."""
        with suppress(OSError):
            self._failure_file(case).unlink(missing_ok=True)

    def _failure_file(self, case: str) -> Path:
        return self.folder / "failed" / f"{case}.json"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _unwritable(folder: Path, error: OSError) -> OutputError:
    hint = "does its file system support locks?" if error.errno in NO_LOCKS else "is the disk full or the folder gone?"
    return OutputError(f"{folder}: the batch cannot write there ({error.strerror or error}); {hint}")
