"""Main program of a worker process: `python -m liverseg.batch.worker_main FD`.

Reads the job and then the cases from stdin, one line each. Writes events to the descriptor FD, because libraries print
to stdout. Ends with its batch: if stdin ends without an END line, the batch is dead and another may already be running.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

from liverseg.batch.events import to_json
from liverseg.batch.job import Job
from liverseg.cases.case import BatchCase
from liverseg.cases.events import Event
from liverseg.utils.shutdown import SHUTDOWN_SIGNALS
from liverseg.utils.torch_imports import torch_imports

__all__ = ["DRAIN", "END", "CaseQueue", "main", "worker_loop"]

END, DRAIN = "end", "drain"
"""Lines on stdin that are not cases: end after the queued cases; abandon those that are not computed yet."""
_BATCH_LOST = 70
"""Exit code of a worker whose batch has died."""
_DEVICE_LOST = 71
"""Exit code of a worker whose GPU has failed."""


class CaseQueue:
    """Cases for a worker, filled in one thread and iterated in another.

    Attributes:
        draining: set once the worker shall compute no further case.
    """

    def __init__(self) -> None:
        self.draining = threading.Event()
        self._cases: SimpleQueue[BatchCase | None] = SimpleQueue()

    def put(self, case: BatchCase) -> None:
        """Add a case."""
        self._cases.put(case)

    def finish(self) -> None:
        """End the iteration after the cases that were added."""
        self._cases.put(None)

    def drain(self) -> None:
        """Have the worker abandon what is not computed yet, and end."""
        self.draining.set()
        self._cases.put(None)

    def __iter__(self) -> Iterator[BatchCase]:
        while (case := self._cases.get()) is not None:
            yield case


def worker_loop(job: Job, cases: CaseQueue, emit: Callable[[Event], None]) -> int:
    """Compute cases until the queue ends.

    Args:
        job: settings of the batch.
        cases: queue of the cases.
        emit: receives the events of `CaseWorker`, in several threads.

    Returns:
        Exit code for the worker. After any but 0, a thread may still wait for a case, so the process has to be ended by
        `os._exit`.
    """
    with torch_imports():
        from liverseg.batch.worker import CaseWorker, DeviceLostError  # with torch, a second

    try:
        CaseWorker(job, emit, cases.draining).work(cases)
    except DeviceLostError:
        return _DEVICE_LOST
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def main(descriptor: int) -> None:
    """Compute the cases that the batch sends on stdin."""
    for number in SHUTDOWN_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # schedulers signal all processes of a job; the batch decides
    with suppress(OSError):  # if memory is short, the system should kill the worker and not the batch
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    job = Job.from_json(sys.stdin.readline())
    cases = CaseQueue()
    # before torch is imported, so that the worker sees at once if its batch dies
    threading.Thread(target=_read_cases, args=(cases,), daemon=True).start()
    code = worker_loop(job, cases, _EventWriter(descriptor))
    if code:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class _EventWriter:
    """Write events to a descriptor, one line each, from several threads."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        data = (to_json(event) + "\n").encode()
        with self._lock:
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError:
                os._exit(_BATCH_LOST)


def _read_cases(cases: CaseQueue) -> None:
    for line in sys.stdin:
        text = line.strip()
        if text == END:
            cases.finish()
            return
        if text == DRAIN:
            cases.draining.set()
        else:
            cases.put(BatchCase.from_json(text))
    os._exit(_BATCH_LOST)


if __name__ == "__main__":
    main(int(sys.argv[1]))
