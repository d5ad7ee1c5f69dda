"""A worker on this machine: a process, and the pipes to it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from liverseg.batch.job import Job, case_to_json
from liverseg.batch.worker_process import DRAIN, END
from liverseg.cases.case import BatchCase
from liverseg.errors import LiversegError, OutputError, one_line

__all__ = ["LocalWorker"]

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
