"""Workers as the dispatcher sees them: a slot for each, the cases assigned to it, its process and pipes."""

from __future__ import annotations

import json
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
from typing import Any, Protocol

from liverseg.batch.job import Job, case_to_json
from liverseg.batch.worker_process import DRAIN, END
from liverseg.cases.case import BatchCase
from liverseg.errors import LiversegError, OutputError, one_line

__all__ = [
    "AssignedCase",
    "Limits",
    "LocalWorker",
    "Start",
    "Stopwatch",
    "Tell",
    "Worker",
    "WorkerSlot",
    "describe_exit",
    "oom_kills",
]


class Stopwatch:
    """Seconds a case has been in one of its stages."""

    def __init__(self) -> None:
        self._spent = 0.0
        self._since: float | None = None

    def stage(self, at: str) -> None:
        """A stage has begun or ended."""
        now = time.monotonic()
        if self._since is not None:
            self._spent += now - self._since
        self._since = now if at == "begun" else None

    @property
    def seconds(self) -> float:
        """So far."""
        return self._spent + (0.0 if self._since is None else time.monotonic() - self._since)


_COUNTERS = (
    Path("/proc/vmstat"),
    Path("/sys/fs/cgroup/memory.events"),
    Path("/sys/fs/cgroup/memory/memory.oom_control"),
)
"""Of the whole machine, and of this container under either kind of control groups."""


def oom_kills() -> int:
    """How often processes were ended for want of memory, as far as can be seen: only that it grows says something."""
    kills = 0
    for path in _COUNTERS:
        with suppress(OSError, ValueError):
            words = path.read_text(encoding="ascii").split()
            if "oom_kill" in words:
                kills += int(words[words.index("oom_kill") + 1])
    return kills


Tell = Callable[[dict[str, Any]], None]
"""Takes an event: what happened, under `event`, and what belongs to it."""


class Worker(Protocol):
    """What computes cases, on this machine or another; tells the events of `CaseWorker`, and `gone` at last."""

    def send(self, case: BatchCase) -> None:
        """Give it a case more."""

    def finish(self) -> None:
        """There are no more cases."""

    def drain(self) -> None:
        """Compute none of the cases it has, but write what is computed; then end."""

    def kill(self) -> None:
        """End it now."""


Start = Callable[[Tell], Worker]
"""Begins a worker."""


@dataclass(frozen=True)
class Limits:
    """How long things may take, in seconds.

    Attributes:
        case: a case, in all its stages.
        grace: to finish the case in hand when the batch is told to stop.
        start: a worker, until it has loaded the weights.
    """

    case: float = 3600.0
    grace: float = 20.0
    start: float = 900.0


@dataclass
class AssignedCase:
    """A case a worker has been given.

    Attributes:
        case: the case.
        clock: how long it has been worked at.
        begun: the worker holds it.
        writing: it is computed.
    """

    case: BatchCase
    clock: Stopwatch = field(default_factory=Stopwatch)
    begun: bool = False
    writing: bool = False


@dataclass
class WorkerSlot:
    """A place for a worker.

    Attributes:
        worker: who is there; None where nobody is.
        given: what it has been given and is not settled, by name.
        ready: it has loaded the weights.
        since: when it was begun, seconds.
        oom_kills: how often the system had run out of memory by then.
        late: the case it was killed for.
        on_its_own: it has one case alone, to see whether that one ends it.
        closed_until: when it may be tried again to begin one here, seconds.
    """

    worker: Worker | None = None
    given: dict[str, AssignedCase] = field(default_factory=dict)
    ready: bool = False
    since: float = 0.0
    oom_kills: int = 0
    late: str | None = None
    on_its_own: bool = False
    closed_until: float = 0.0

    @property
    def in_front(self) -> int:
        """How many cases it has that are not being written."""
        return sum(not one.writing for one in self.given.values())

    def take(self, name: str) -> None:
        """A case is settled."""
        self.given.pop(name, None)
        if not self.given:
            self.on_its_own = False


def describe_exit(code: int) -> str:
    """How a process ended, by its exit code, below 0 for a signal."""
    if code < 0:
        try:
            return f"was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"was ended by signal {-code}"
    return f"ended with exit code {code}"


_STDERR = 2
"""The descriptor: in a notebook `sys.stderr` has none."""


class LocalWorker:
    """A worker process.

    Args:
        job: what its cases share.
        tell: is called in a thread with each event of `CaseWorker`, and at last with `gone` and the exit `code`, below
            0 for a signal.
        environment: variables set for it.
    """

    def __init__(self, job: Job, tell: Callable[[dict[str, Any]], None], environment: Mapping[str, str]) -> None:
        try:
            # of its own: what a worker that is killed was unpacking goes away with it
            self._temporary = tempfile.mkdtemp(prefix="liverseg-worker-")
        except OSError as error:
            raise OutputError(
                f"no temporary folder for a worker ({one_line(error)}); set TMPDIR to one that can be written"
            ) from error
        try:
            reading, self._process = _process(self._temporary, environment)
        except OSError as error:
            shutil.rmtree(self._temporary, ignore_errors=True)
            raise LiversegError(
                f"a worker cannot be begun ({one_line(error)}): too many processes or files?"
            ) from error
        self._tell = tell
        threading.Thread(target=self._listen, args=(reading,), daemon=True).start()
        self._say(job.to_json())

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def send(self, case: BatchCase) -> None:
        """Give it a case more."""
        self._say(case_to_json(case))

    def finish(self) -> None:
        """There are no more cases."""
        self._say(END)

    def drain(self) -> None:
        """Compute none of the cases it has, but write what is computed; then end."""
        self._say(DRAIN)
        self._say(END)

    def kill(self) -> None:
        """End it now."""
        with suppress(OSError):
            self._process.kill()

    def _say(self, line: str) -> None:
        with suppress(OSError, ValueError):  # it is gone, which is told
            assert self._process.stdin is not None
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def _listen(self, reading: int) -> None:
        with os.fdopen(reading, encoding="utf-8") as events:
            for line in events:
                with suppress(ValueError):  # half a line, of a process that was killed
                    self._tell(json.loads(line))
        code = self._process.wait()
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._tell({"event": "gone", "code": code})


def _process(temporary: str, environment: Mapping[str, str]) -> tuple[int, subprocess.Popen[str]]:
    """Begin it; gives the end of a pipe on which it tells its events."""
    reading, writing = os.pipe()
    try:
        # a session of its own: what a terminal sends on Ctrl-C goes to the batch alone
        return reading, subprocess.Popen(
            [sys.executable, "-m", "liverseg.batch.worker_process", str(writing)],
            stdin=subprocess.PIPE,
            stdout=_STDERR,  # what libraries print; results are told by the batch
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
