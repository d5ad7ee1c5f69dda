"""Workers as Ray actors, on one machine or on a Ray cluster."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import signal
import tempfile
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from liverseg.batch.events import WorkerExited, from_json, to_json
from liverseg.batch.job import Job
from liverseg.batch.worker_main import CaseQueue, worker_loop
from liverseg.batch.workers import Emit, StartWorker
from liverseg.cases.case import BatchCase
from liverseg.cases.events import Event
from liverseg.errors import LiversegError, UsageError, one_line

try:
    import ray
except ImportError as error:
    raise UsageError("engine ray: Ray is not installed; pip install 'liverseg[ray]'") from error

__all__ = ["RayWorker", "ray_engine"]

_WAIT_SECONDS = 1.0
"""A call for events returns after this time if there are none."""
_MAX_CALLS = 4
"""Concurrent calls of an actor: one waits for events while others have to get through."""
_STORE_BYTES = 100 << 20
"""Size of the object store. Actors exchange only lines of JSON; by default Ray takes a third of the memory."""


def ray_engine(job: Job, workers: int | None, cpus: float, gpus: float) -> tuple[StartWorker, int]:
    """Connect to a cluster; return the function that starts an actor, and the number of actors.

    The cluster is the one in `RAY_ADDRESS`, else the one running on this machine, else a new one on this machine that
    ends with this process. Every node needs liverseg, and the same paths to input, weights and output.

    Args:
        job: settings of the batch.
        workers: number of actors; by default as many as the processors and GPUs of the cluster allow.
        cpus: processors of an actor, and its number of threads.
        gpus: GPUs of an actor, or a fraction of one.

    Raises:
        LiversegError: if there is no such cluster.
        UsageError: if the cluster is too small for one actor.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # send no usage statistics
    _ensure_home()
    try:
        if not ray.is_initialized():
            try:
                ray.init(address=os.environ.get("RAY_ADDRESS") or "auto", logging_level=logging.WARNING)
            except ConnectionError:
                if os.environ.get("RAY_ADDRESS"):
                    raise
                ray.init(
                    address="local",
                    include_dashboard=False,
                    object_store_memory=_STORE_BYTES,
                    logging_level=logging.WARNING,
                )
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        hint = "check RAY_ADDRESS, and RAY_AUTH_MODE where the cluster wants a token"
        raise LiversegError(f"engine ray: no cluster ({one_line(error)}); {hint}") from error
    available = ray.cluster_resources()
    fit = [int(available.get(name, 0) // number) for name, number in (("CPU", cpus), ("GPU", gpus)) if number > 0]
    if min(fit) < 1:
        has = f"{available.get('CPU', 0):g} processors and {available.get('GPU', 0):g} GPUs"
        raise UsageError(f"an actor of {cpus:g} processors and {gpus:g} GPUs does not fit a cluster of {has}")
    return partial(RayWorker, job, cpus=cpus, gpus=gpus), workers or min(fit)


def _ensure_home() -> None:
    """Set HOME to an empty folder, for as long as this process runs, if the user id has no home folder.

    So it is where a container or a cluster assigns a user id of its own. Ray looks for tokens there before it starts.
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = folder = tempfile.mkdtemp(prefix="liverseg-home-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)


class RayWorker:
    """A worker in a Ray actor.

    Args:
        job: settings of the batch.
        emit: receives the worker's events, in a thread; if the actor is lost, `WorkerExited` has the code of SIGKILL
            and, where Ray reports it, the cause.
        cpus: processors of the actor.
        gpus: GPUs of the actor.
    """

    def __init__(self, job: Job, emit: Emit, cpus: float = 1, gpus: float = 0) -> None:
        threads = {"OMP_NUM_THREADS": str(max(1, int(cpus)))}
        options = {
            "num_cpus": cpus,
            "num_gpus": gpus,
            "max_concurrency": _MAX_CALLS,
            "runtime_env": {"env_vars": threads},
        }
        self._actor: Any = ray.remote(_CaseActor).options(**options).remote(job.to_json())
        self._emit = emit
        threading.Thread(target=self._read_events, daemon=True).start()

    def send(self, case: BatchCase) -> None:
        """Queue a case."""
        self._actor.send.remote(case.to_json())

    def finish(self) -> None:
        """End after the queued cases."""
        self._actor.finish.remote()

    def drain(self) -> None:
        """Abandon the cases that are not computed yet, write the others, then end."""
        self._actor.drain.remote()

    def kill(self) -> None:
        """End now."""
        with suppress(Exception):  # Ray raises various errors for an actor that has ended
            ray.kill(self._actor)

    def _read_events(self) -> None:
        exited = WorkerExited(-signal.SIGKILL)
        try:
            while True:
                for line in ray.get(self._actor.events.remote()):
                    event = from_json(line)
                    if isinstance(event, WorkerExited):
                        exited = event
                        return
                    self._emit(event)
        except ray.exceptions.OutOfMemoryError:
            exited = WorkerExited(-signal.SIGKILL, "out of memory")
        except ray.exceptions.RayError:
            pass  # the actor, its node or the cluster is lost
        finally:
            if exited.code > 0:
                self.kill()  # a thread of it may still wait for a case, and its GPU may be lost
            self._emit(exited)


class _CaseActor:
    """The actor: runs `worker_loop` in a thread and answers the calls of `RayWorker`."""

    def __init__(self, job: str) -> None:
        self._events: SimpleQueue[str] = SimpleQueue()
        self._cases = CaseQueue()
        threading.Thread(target=self._work, args=(Job.from_json(job),), daemon=True).start()

    def send(self, line: str) -> None:
        self._cases.put(BatchCase.from_json(line))

    def finish(self) -> None:
        self._cases.finish()

    def drain(self) -> None:
        self._cases.drain()

    def events(self) -> list[str]:
        """Return the events since the last call as lines of JSON; wait up to `_WAIT_SECONDS` for the first."""
        lines: list[str] = []
        with suppress(Empty):
            lines.append(self._events.get(timeout=_WAIT_SECONDS))
            while True:
                lines.append(self._events.get_nowait())
        return lines

    def _work(self, job: Job) -> None:
        code = 1
        try:
            code = worker_loop(job, self._cases, self._emit)
        finally:
            self._emit(WorkerExited(code))

    def _emit(self, event: Event) -> None:
        self._events.put(to_json(event))
