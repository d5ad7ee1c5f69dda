"""What a batch keeps beside its results: who has which case in hand, what failed, and a line for all that happened."""

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
from liverseg.results.inputs import file_fingerprint
from liverseg.utils.files import TEMPORARY_PREFIX, sha256_text, write_text
from liverseg.utils.locks import NO_LOCKS, FileLock

__all__ = [
    "ALIVE_SECONDS",
    "BatchState",
    "case_fingerprint",
    "find_failure",
]


def case_fingerprint(case: BatchCase, liver: str | None) -> str:
    """SHA-256 of names, sizes and times of a case's CT and of its liver mask, be they there or not.

    Args:
        case: the case.
        liver: the run's, as `--liver` takes it; a mask of the case's own goes before it.
    """
    masks = LiverSource.parse(case.liver or liver or "none").candidates(case.name)
    return sha256_text(" ".join(file_fingerprint(path) for path in (case.image, *masks)))


def find_failure(case: BatchCase, job: Job, state: BatchState) -> dict[str, Any] | None:
    """What is known of a case's failure with the same input, weights and settings.

    None where there is none, or where the batch is to try again what failed.

    Args:
        case: the case.
        job: of the batch.
        state: of the output folder.
    """
    known = None if job.retry_failed else state.failure(case.name)
    if known is None or known.get("weights_sha256") != job.wanted.weights_sha256:
        return None
    same = known.get("configuration_sha256") == job.wanted.configuration(case)
    return known if same and known.get("input") == case_fingerprint(case, job.overrides.get("liver")) else None


RUN_LOG = "run.jsonl"
_FOLDER = ".liverseg"
ALIVE_SECONDS = 10.0
"""Between two touches of the file that says a batch lives."""


class BatchState:
    """The state of the batches that write into an output folder, several at once if need be.

    Args:
        output: the folder; `begin` makes it.
        shard: (i, n), which part of the cases this run has.

    Attributes:
        output: the folder.
        folder: the state's own in it.
    """

    def __init__(self, output: Path, shard: tuple[int, int] = (1, 1)) -> None:
        self.output = output
        self.folder = output / _FOLDER
        part, parts = shard
        self._alive = self.folder / ("alive" if parts == 1 else f"alive-{part}-of-{parts}")
        self._told = False

    def begin(self) -> None:
        """Make the folders.

        Raises:
            LiversegError: if they cannot be made or written.
        """
        try:
            for name in ("locks", "failed"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            self._alive.touch()
        except OSError as error:
            raise _unwritable(self.output, error) from error

    def lock(self, case: str) -> FileLock | None:
        """Hold a case; None where another run has it in hand.

        Raises:
            LiversegError: if the folder is gone or cannot be written, or knows no locks.
        """
        path = self._lock(case)
        try:
            return FileLock.of(path)
        except OSError as error:
            raise _unwritable(path.parent, error) from error

    def discard_lock(self, case: str) -> None:
        """Take away the lock's file of a case that is settled, if whoever held it was killed before."""
        with suppress(OSError, OutputError):
            if self._lock(case).exists() and (lock := self.lock(case)) is not None:
                lock.remove()

    def _lock(self, case: str) -> Path:
        return self.folder / "locks" / f"{case}.lock"

    @contextmanager
    def tables_held(self) -> Iterator[None]:
        """Hold the tables over all cases, so that of two runs the one that writes last has seen all.

        What a run that was killed had of them and of failures under temporary names is taken away.

        Raises:
            LiversegError: if the folder cannot be written.
        """
        try:
            with (self.folder / "tables.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                for folder in (self.output, self.folder / "failed"):
                    for left in folder.glob(TEMPORARY_PREFIX + "*"):
                        left.unlink(missing_ok=True)
                yield
        except OSError as error:
            raise _unwritable(self.output, error) from error

    @contextmanager
    def kept_alive(self, make: bool = False) -> Iterator[None]:
        """Say so while something takes long.

        Args:
            make: make the folder for it if need be, but not for what is over soon; it goes again if the block fails.
        """
        over = threading.Event()
        made: list[Path] = []

        def say() -> None:
            while not over.wait(ALIVE_SECONDS):
                with suppress(OSError):
                    folders = (*reversed(self.output.parents), self.output, self.folder) if make else ()
                    for folder in [one for one in folders if not one.exists()]:
                        folder.mkdir()
                        made.append(folder)
                    self.still_alive()

        saying = threading.Thread(target=say, name="alive", daemon=True)
        saying.start()
        try:
            yield
        except BaseException:
            over.set()
            saying.join()
            self.ended()
            for folder in reversed(made):
                with suppress(OSError):
                    folder.rmdir()  # if nothing is in it
            raise
        over.set()
        saying.join()

    def still_alive(self) -> None:
        """Say so, for whoever looks at the time of the file."""
        with suppress(OSError):
            self._alive.touch()

    def ended(self) -> None:
        """Nobody need look any more."""
        with suppress(OSError):
            self._alive.unlink(missing_ok=True)

    def log(self, event: str, **about: Any) -> None:
        """Add a line to the run's log, whole or not at all; if that fails, say so once and go on.

        Args:
            event: what happened.
            about: what of; JSON-able.
        """
        line = {"time": _now(), "event": event, "host": socket.gethostname(), "pid": os.getpid(), **about}
        data = (json.dumps(line, default=str) + "\n").encode()
        try:
            descriptor = os.open(self.output / RUN_LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)  # over NFS, appending alone would not keep two lines apart
                size = os.fstat(descriptor).st_size
                if os.write(descriptor, data) != len(data):
                    os.ftruncate(descriptor, size)
                    raise OSError(f"only part of a line could be written to {RUN_LOG}")
            finally:
                os.close(descriptor)
        except OSError as error:
            if not self._told:
                self._told = True
                print(f"{self.output / RUN_LOG}: cannot be written ({error.strerror or error})", file=sys.stderr)

    def failure(self, case: str) -> dict[str, Any] | None:
        """What is known of a case's last failure; None where it has not failed."""
        try:
            content = json.loads(self._failed(case).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) else None

    def keep_failure(self, case: str, **about: Any) -> None:
        """Keep a failure for later runs.

        Raises:
            LiversegError: if it cannot be written.
        """
        text = json.dumps({"time": _now(), **about}, indent=1) + "\n"
        try:
            write_text(self._failed(case), text)
        except OutputError:  # another run, at its end, may have taken it for what a killed one left
            write_text(self._failed(case), text)

    def forget_failure(self, case: str) -> None:
        """A case is done, or is tried again."""
        with suppress(OSError):
            self._failed(case).unlink(missing_ok=True)

    def _failed(self, case: str) -> Path:
        return self.folder / "failed" / f"{case}.json"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _unwritable(folder: Path, error: OSError) -> OutputError:
    what = "does its file system know no locks?" if error.errno in NO_LOCKS else "is it full, or gone?"
    return OutputError(f"{folder}: the batch cannot write there ({error.strerror or error}); {what}")
