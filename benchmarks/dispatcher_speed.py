"""Processor time of a batch's own process per case, by the number of workers; the workers compute nothing.

python benchmarks/dispatcher_speed.py 1 10 100 1000

It includes the run log, in a temporary folder, but neither pipes nor Ray.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import threading
import time
from pathlib import Path
from queue import SimpleQueue

from liverseg.batch.dispatcher import Dispatcher
from liverseg.batch.events import CasePlanned, CaseStarted, PlanningDone, WorkerExited, WorkerReady
from liverseg.batch.job import RunSpec
from liverseg.batch.reporter import BatchReporter
from liverseg.batch.state import BatchState
from liverseg.batch.workers import Emit, TimeLimits
from liverseg.cases.case import BatchCase
from liverseg.cases.events import CaseDone, StageEnded, StageStarted

STAGES = ("claim", "read", "liver", "network", "lesions", "write")


class IdleWorker:
    """A worker that emits all events of a case a moment after it got it, in the order of those it got."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._cases: SimpleQueue[BatchCase | None] = SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        self._emit(WorkerReady())
        while (case := self._cases.get()) is not None:
            self._emit(CaseStarted(case.name, ""))
            for stage in STAGES:
                self._emit(StageStarted(case.name, stage))
                self._emit(StageEnded(case.name, stage))
            self._emit(CaseDone(case.name, "no lesion", dict.fromkeys(STAGES, 0.0), ()))
        self._emit(WorkerExited(0))

    def send(self, case: BatchCase) -> None:
        self._cases.put(case)

    def finish(self) -> None:
        self._cases.put(None)

    def drain(self) -> None:
        self._cases.put(None)

    def kill(self) -> None:
        self._cases.put(None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workers", type=int, nargs="+")
    parser.add_argument("--cases", type=int, default=5000)
    args = parser.parse_args()
    for workers in args.workers:
        print(f"{workers} workers: {1000 * _cpu_seconds(workers, args.cases) / args.cases:.2f} ms per case")


def _cpu_seconds(workers: int, number: int) -> float:
    """Return the processor seconds of a batch of so many cases."""
    with tempfile.TemporaryDirectory() as folder:
        state = BatchState(Path(folder))
        state.begin()
        cases = [BatchCase(f"case{index}", Path("none.nii.gz")) for index in range(number)]
        reporter = BatchReporter("idle", cases, state, RunSpec("", {}), None)
        dispatcher = Dispatcher(IdleWorker, workers, TimeLimits(), reporter)
        for case in cases:
            dispatcher.post(CasePlanned(case))
        dispatcher.post(PlanningDone())
        before = time.process_time()
        with contextlib.redirect_stdout(io.StringIO()):
            dispatcher.run()
        return time.process_time() - before


if __name__ == "__main__":
    main()
