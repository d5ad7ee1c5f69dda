"""Workers as Ray actors, on one machine or on all of a Ray cluster's."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from liverseg.batch.job import Job, case_from_json, case_to_json
from liverseg.batch.workers import Start, Tell
from liverseg.cases.case import BatchCase
from liverseg.errors import LiversegError, UsageError, one_line

try:
    import ray
except ImportError as error:
    raise UsageError("engine ray: Ray is not installed; pip install 'liverseg[ray]'") from error

__all__ = ["RayWorker", "ray_engine"]

_WAIT = 1.0
_CALLS = 4
"""Calls an actor answers at a time: one waits for events, the others must get through."""
_STORE_BYTES = 100 << 20
"""For what actors hand to each other, which is a few lines of JSON; Ray would take a third of the memory."""


def ray_engine(job: Job, workers: int | None, cpus: float, gpus: float) -> tuple[Start, int]:
    """What begins an actor, and how many there are to be.

    Connects to the cluster `RAY_ADDRESS` names, else to one that runs on this machine, else begins one here that
    lasts as long as this process. Every node needs liverseg, and the same paths to input, weights and output.

    Args:
        job: what cases share.
        workers: actors at a time; by default as many as the cluster's processors or GPUs are enough for.
        cpus: processors of an actor; it computes with as many threads.
        gpus: GPUs of an actor, or a part of one.

    Raises:
        LiversegError: if there is no such cluster.
        UsageError: if it has nothing for a single actor.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
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
        what = "check RAY_ADDRESS, and RAY_AUTH_MODE where the cluster wants a token"
        raise LiversegError(f"engine ray: no cluster ({one_line(error)}); {what}") from error
    there = ray.cluster_resources()
    fit = [int(there.get(name, 0) // each) for name, each in (("CPU", cpus), ("GPU", gpus)) if each > 0]
    if min(fit) < 1:
        has = f"{there.get('CPU', 0):g} processors and {there.get('GPU', 0):g} GPUs"
        raise UsageError(f"an actor of {cpus:g} processors and {gpus:g} GPUs does not fit a cluster of {has}")
    return partial(RayWorker, job, cpus=cpus, gpus=gpus), workers or min(fit)


class RayWorker:
    """A worker in an actor.

    Args:
        job: what its cases share.
        tell: is called in a thread with each event of `CaseWorker`, and at last with `gone`, a `code` as of a process
            and, where Ray says so, `how` it ended.
        cpus, gpus: of the actor.
    """

    def __init__(self, job: Job, tell: Tell, cpus: float = 1, gpus: float = 0) -> None:
        threads = {"OMP_NUM_THREADS": str(max(1, int(cpus)))}
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_concurrency": _CALLS, "runtime_env": {"env_vars": threads}}
        self._actor: Any = ray.remote(_CaseActor).options(**options).remote(job.to_json())
        self._tell = tell
        threading.Thread(target=self._listen, daemon=True).start()

    def send(self, case: BatchCase) -> None:
        """Give it a case more."""
        self._actor.send.remote(case_to_json(case))

    def finish(self) -> None:
        """There are no more cases."""
        self._actor.finish.remote()

    def drain(self) -> None:
        """Compute none of the cases it has, but write what is computed; then end."""
        self._actor.drain.remote()

    def kill(self) -> None:
        """End it now."""
        with suppress(Exception):  # whatever Ray says of an actor that is gone
            ray.kill(self._actor)

    def _listen(self) -> None:
        gone: dict[str, Any] = {"event": "gone", "code": -signal.SIGKILL}
        try:
            while True:
                for event in ray.get(self._actor.events.remote()):
                    if event["event"] == "gone":
                        gone = event
                        return
                    self._tell(event)
        except ray.exceptions.OutOfMemoryError:
            gone["how"] = "out of memory"
        except ray.exceptions.RayError:
            pass  # the actor, its node or the cluster is lost
        finally:
            self._tell(gone)


class _CaseActor:
    """What runs in the actor: a `CaseWorker` in a thread, and the calls that reach it."""

    def __init__(self, job: str) -> None:
        self._told: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._cases: SimpleQueue[BatchCase | None] = SimpleQueue()
        self._draining = threading.Event()
        threading.Thread(target=self._work, args=(Job.from_json(job),), daemon=True).start()

    def send(self, line: str) -> None:
        self._cases.put(case_from_json(line))

    def finish(self) -> None:
        self._cases.put(None)

    def drain(self) -> None:
        self._draining.set()
        self._cases.put(None)

    def events(self) -> list[dict[str, Any]]:
        """What has been told since the last call; waits a while for the first."""
        found = []
        with suppress(Empty):
            found.append(self._told.get(timeout=_WAIT))
            while True:
                found.append(self._told.get_nowait())
        return found

    def _work(self, job: Job) -> None:
        code = 1
        try:
            from liverseg.batch.worker import CaseWorker

            CaseWorker(job, lambda **about: self._told.put(about), self._draining).work(self._until_none())
            code = 0
        finally:
            self._told.put({"event": "gone", "code": code})

    def _until_none(self) -> Iterator[BatchCase]:
        while (case := self._cases.get()) is not None:
            yield case
