"""Batches in a process or in this one, for tests."""

import json
import os
import resource
import subprocess
import sys
import threading
import time

from ct_files import hu, write_ct, write_study
from default_signals import use_default_signals

from liverseg.batch.events import WorkerExited, from_json, to_json
from liverseg.batch.job import Job
from liverseg.batch.worker_main import CaseQueue, worker_loop
from liverseg.cases.case import BatchCase
from liverseg.results.case_folder import CASE_FILES

__all__ = [
    "LONGEST",
    "SAME_EVERY_TIME",
    "Batch",
    "ThreadWorker",
    "batch",
    "happened",
    "hu",
    "log",
    "results",
    "write_ct",
    "write_study",
]

SAME_EVERY_TIME = [name for name in CASE_FILES if name != "record.json"]
LONGEST = 240
"""Upper limit of a run's seconds, also on a busy machine."""


class Batch:
    """`liverseg batch` in a process; `memory_gb` limits the address space of each of its processes."""

    def __init__(self, *arguments, memory_gb=None, **environment):
        def before() -> None:
            use_default_signals()
            if memory_gb is not None:
                resource.setrlimit(resource.RLIMIT_AS, (memory_gb << 30,) * 2)

        self.process = subprocess.Popen(
            [sys.executable, "-m", "liverseg.cli.main", "batch", *map(str, arguments)],
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            preexec_fn=before,
        )
        self.output = arguments[1]

    def end(self):
        """Wait for the end and return exit code, stdout and stderr."""
        out, err = self.process.communicate(timeout=LONGEST)
        return self.process.returncode, out, err

    def send(self, number):
        self.process.send_signal(number)

    def worker(self):
        """Return the worker's process id."""
        return int(subprocess.check_output(["pgrep", "-P", str(self.process.pid)], text=True).split()[0])

    def wait_for(self, event, case=None, times=1):
        """Wait until the run's log has an event a number of times."""
        deadline = time.monotonic() + LONGEST
        while time.monotonic() < deadline:
            found = [line for line in log(self.output) if line["event"] == event and case in (None, line.get("case"))]
            if len(found) >= times:
                return found
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.01)
        raise AssertionError(f"no {event} in {LONGEST} s")


class ThreadWorker:
    """Worker in a thread of this process, for tests that need no process.

    Job, cases and events are converted to JSON and back, as between processes.
    """

    def __init__(self, job, emit, environment=None):
        self._job, self._emit, self._cases = Job.from_json(job.to_json()), emit, CaseQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self):
        code = worker_loop(self._job, self._cases, lambda event: self._emit(from_json(to_json(event))))
        self._emit(WorkerExited(code))

    def send(self, case):
        self._cases.put(BatchCase.from_json(case.to_json()))

    def finish(self):
        self._cases.finish()

    def drain(self):
        self._cases.drain()

    kill = drain  # a thread cannot be killed


def batch(*arguments, **environment):
    """Run a batch and return exit code, stdout and stderr."""
    return Batch(*arguments, **environment).end()


def log(output):
    """Return the entries of a run's log."""
    path = output / "run.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def happened(output, event):
    """Return the names of the cases with an event, in order."""
    return [line["case"] for line in log(output) if line["event"] == event]


def results(output, case):
    """Return the contents of a case's reproducible files; check them against its record."""
    folder = output / case
    assert json.loads((folder / "record.json").read_text(encoding="utf-8"))["status"] == "done"
    assert sorted(path.name for path in folder.iterdir()) == sorted(CASE_FILES)
    return {name: (folder / name).read_bytes() for name in SAME_EVERY_TIME}
