"""Workers as the dispatcher sees them: the interface, a slot for each, and the local worker process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from liverseg.batch.events import WorkerExited, from_json
from liverseg.batch.job import Job
from liverseg.batch.worker_main import DRAIN, END
from liverseg.cases.case import BatchCase
from liverseg.cases.events import Event
from liverseg.errors import LiversegError, OutputError, one_line

__all__ = [
    "AssignedCase",
    "Emit",
    "LocalWorker",
    "StartWorker",
    "Stopwatch",
    "TimeLimits",
    "Worker",
    "WorkerSlot",
    "describe_exit",
    "oom_kills",
    "worker_environment",
]

Emit = Callable[[Event], None]
"""Receives the events of a worker; may be called from any thread."""


class Worker(Protocol):
    """Computes cases, on this machine or another.

    Emits the events of `CaseWorker`, and at last `WorkerExited`.
    """

    def send(self, case: BatchCase) -> None:
        """Queue a case."""

    def finish(self) -> None:
        """End after the queued cases."""

    def drain(self) -> None:
        """Abandon the cases that are not computed yet, write the others, then end."""

    def kill(self) -> None:
        """End now."""


StartWorker = Callable[[Emit], Worker]
"""Starts a worker."""


@dataclass(frozen=True)
class TimeLimits:
    """Time limits in seconds.

    Attributes:
        case: for all stages of a case.
        grace: to finish the current cases when the batch is stopped.
        start: until a worker has loaded the weights.
    """

    case: float = 3600.0
    grace: float = 20.0
    start: float = 900.0


class Stopwatch:
    """Measures the time a case spends in its stages, without the waiting between them."""

    def __init__(self) -> None:
        self._elapsed = 0.0
        self._started: float | None = None

    def start(self) -> None:
        """Start to measure, or continue."""
        self.stop()
        self._started = time.monotonic()

    def stop(self) -> None:
        """Stop until the next start."""
        self._elapsed, self._started = self.elapsed, None

    @property
    def elapsed(self) -> float:
        """Seconds measured so far."""
        return self._elapsed + (0.0 if self._started is None else time.monotonic() - self._started)


@dataclass
class AssignedCase:
    """A case that a worker has.

    Attributes:
        case: the case.
        stopwatch: time spent in its stages.
        started: the worker has locked it.
        writing: it is computed and being written.
    """

    case: BatchCase
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    started: bool = False
    writing: bool = False


@dataclass
class WorkerSlot:
    """Place for a worker, and its state.

    Attributes:
        worker: the worker; None if there is none.
        assigned: its unsettled cases by name.
        ready: it has loaded the weights.
        started_at: time of its start, `time.monotonic`.
        oom_kills: `oom_kills` at its start.
        timed_out: name of the case for which it was killed.
        isolated: it has a single suspected case, to see whether this case ends it.
        retry_after: no worker is started here before this time, `time.monotonic`.
    """

    worker: Worker | None = None
    assigned: dict[str, AssignedCase] = field(default_factory=dict)
    ready: bool = False
    started_at: float = 0.0
    oom_kills: int = 0
    timed_out: str | None = None
    isolated: bool = False
    retry_after: float = 0.0

    @property
    def queued(self) -> int:
        """Number of its cases that are not being written yet."""
        return sum(not assigned.writing for assigned in self.assigned.values())

    def settle(self, case: str) -> None:
        """Remove a finished case."""
        self.assigned.pop(case, None)
        if not self.assigned:
            self.isolated = False


_OOM_COUNTERS = (
    Path("/proc/vmstat"),
    Path("/sys/fs/cgroup/memory.events"),
    Path("/sys/fs/cgroup/memory/memory.oom_control"),
)
"""Of the machine, and of this container by version 2 and version 1 of control groups."""


def oom_kills() -> int:
    """Count the processes that the system has killed for lack of memory, as far as visible; only growth matters."""
    kills = 0
    for path in _OOM_COUNTERS:
        with suppress(OSError, ValueError):
            words = path.read_text(encoding="ascii").split()
            if "oom_kill" in words:
                kills += int(words[words.index("oom_kill") + 1])
    return kills


def describe_exit(code: int) -> str:
    """Describe how a process ended by its exit code, negative for a signal."""
    if code < 0:
        try:
            return f"was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"was ended by signal {-code}"
    return f"ended with exit code {code}"


def worker_environment(workers: int, cpus: float | None) -> Mapping[str, str]:
    """Divide the processors between the workers, unless the environment already limits threads.

    Args:
        workers: number of workers.
        cpus: processors of each; None for an equal share.

    Returns:
        Environment variables for `LocalWorker`.
    """
    if cpus is None and (workers == 1 or "OMP_NUM_THREADS" in os.environ):
        return {}
    threads = len(os.sched_getaffinity(0)) // workers if cpus is None else int(cpus)
    return {"OMP_NUM_THREADS": str(max(1, threads))}


_STDERR = 2
"""File descriptor; `sys.stderr` has none in a notebook."""


class LocalWorker:
    """A worker process on this machine.

    Args:
        job: settings of the batch.
        emit: receives the worker's events, in a thread.
        environment: environment variables to set for the process.

    Raises:
        LiversegError: if the process cannot be started.
    """

    def __init__(self, job: Job, emit: Emit, environment: Mapping[str, str]) -> None:
        try:
            # a killed worker leaves unpacked archives behind; they are removed with this folder
            self._temporary = tempfile.mkdtemp(prefix="liverseg-worker-")
        except OSError as error:
            raise OutputError(
                f"no temporary folder for a worker ({one_line(error)}); set TMPDIR to a writable folder"
            ) from error
        try:
            events, self._process = _start_process(self._temporary, environment)
        except OSError as error:
            shutil.rmtree(self._temporary, ignore_errors=True)
            raise LiversegError(
                f"a worker cannot be started ({one_line(error)}): too many processes or files?"
            ) from error
        self._emit = emit
        threading.Thread(target=self._read_events, args=(events,), daemon=True).start()
        self._write_line(job.to_json())

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self._process.pid

    def send(self, case: BatchCase) -> None:
        """Queue a case."""
        self._write_line(case.to_json())

    def finish(self) -> None:
        """End after the queued cases."""
        self._write_line(END)

    def drain(self) -> None:
        """Abandon the cases that are not computed yet, write the others, then end."""
        self._write_line(DRAIN)
        self._write_line(END)

    def kill(self) -> None:
        """End now."""
        with suppress(OSError):
            self._process.kill()

    def _write_line(self, line: str) -> None:
        with suppress(OSError, ValueError):  # the process has ended, which `_read_events` reports
            assert self._process.stdin is not None
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def _read_events(self, descriptor: int) -> None:
        with os.fdopen(descriptor, encoding="utf-8") as events:
            for line in events:
                with suppress(ValueError):  # a killed process may leave half a line
                    self._emit(from_json(line))
        code = self._process.wait()
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._emit(WorkerExited(code))


def _start_process(temporary: str, environment: Mapping[str, str]) -> tuple[int, subprocess.Popen[str]]:
    """Start a worker process; return the descriptor of its events, and the process."""
    reading, writing = os.pipe()
    try:
        # in a new session, so that Ctrl-C in a terminal reaches only the batch
        return reading, subprocess.Popen(
            [sys.executable, "-m", "liverseg.batch.worker_main", str(writing)],
            stdin=subprocess.PIPE,
            stdout=_STDERR,  # only libraries print there; the batch reports results
            pass_fds=[writing],
            env={**os.environ, "TMPDIR": temporary, **environment},
            start_new_session=True,
            text=True,
        )
    except OSError:
        os.close(reading)
        raise
    finally:
        os.close(writing)
