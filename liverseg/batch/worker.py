"""Compute cases in a worker: load the weights once, lock each case, run it, report its events.

A worker is a separate process. A case that hangs, crashes or takes all memory ends only the worker, not the batch.
"""

from __future__ import annotations

import errno
import os
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import singledispatchmethod
from pathlib import Path
from typing import Any

import torch

from liverseg.batch.events import (
    CaseAbandoned,
    CaseAlreadyDone,
    CaseFailedBefore,
    CaseLockedElsewhere,
    CaseStarted,
    OutputUnwritable,
    WorkerReady,
    WorkerRefused,
)
from liverseg.batch.job import Job, run_spec
from liverseg.batch.state import BatchState, case_fingerprint
from liverseg.cases.case import BatchCase
from liverseg.cases.events import Callback, CaseDone, CaseEvent, CaseFailed, Event, StageEnded, StageStarted
from liverseg.errors import LiversegError, OutputError, causes
from liverseg.inference.failures import case_failed, describe_cause
from liverseg.inference.predict import case_evaluator
from liverseg.results.case_folder import discard_unfinished
from liverseg.utils.locks import FileLock
from liverseg.utils.memory import return_freed_memory

__all__ = ["CaseWorker", "DeviceLostError"]

_UNWRITABLE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ESTALE)


class DeviceLostError(Exception):
    """The GPU has failed; this process cannot use it any more."""


class CaseWorker(Callback):
    """Computes cases and reports what happens to them.

    Emits `WorkerReady` or `WorkerRefused`. For each case it emits `StageStarted` and `StageEnded`, `CaseStarted`, and
    in the end one of `CaseDone`, `CaseFailed`, `CaseAlreadyDone`, `CaseFailedBefore`, `CaseLockedElsewhere`,
    `CaseAbandoned` and `OutputUnwritable`.

    Args:
        job: settings of the batch.
        emit: receives the events, in several threads.
        draining: once set, nothing more is computed; what is computed is still written.
    """

    def __init__(self, job: Job, emit: Callable[[Event], None], draining: threading.Event) -> None:
        self._job, self._emit = job, emit
        self._state = BatchState(job.output)
        self._locks: dict[str, FileLock] = {}
        self._draining = draining

    def work(self, cases: Iterable[BatchCase]) -> None:
        """Load the weights, then compute cases as they come.

        Args:
            cases: iterated in another thread, one at a time.

        Raises:
            DeviceLostError: if the GPU has failed. The case that met the error has no event: it is tried again by
                another worker.
        """
        try:
            evaluator = case_evaluator(
                self._job.output,
                weights=self._job.weights,
                bundle=self._job.bundle,
                progress=False,
                **self._job.overrides,
            )
            self._check_unchanged()  # after loading; before, they could still change
        except LiversegError as error:
            self._emit(WorkerRefused(str(error), int(error.exit_code)))
            return
        self._emit(WorkerReady())
        evaluator.work(self._claim(cases), self)

    def _check_unchanged(self) -> None:
        """Refuse weights or a bundle that changed since the batch started: its results would differ."""
        job = self._job
        if run_spec(job.bundle / "configs" / "inference.yaml", job.weights, job.overrides) != job.spec:
            raise LiversegError(
                f"{job.weights} or {job.bundle}: has changed since the batch started; run the batch again, with copies "
                "that do not change"
            )

    def _claim(self, cases: Iterable[BatchCase]) -> Iterator[dict[str, Any]]:
        """Lock the cases and yield the items of those that have to be computed."""
        for case in cases:
            if self._draining.is_set():
                self._emit(CaseAbandoned(case.name))
                continue
            self._emit(StageStarted(case.name, "claim"))
            try:
                lock = self._state.lock(case.name)
            except OutputError as error:  # the next cases could not be locked either
                self._emit(OutputUnwritable(case.name, describe_cause(error)))
                return
            if lock is None:
                self._emit(CaseLockedElsewhere(case.name))
                continue
            self._locks[case.name] = lock
            try:
                event = self._claimed(case)
            except (OSError, OutputError) as error:
                self.on_event(case_failed(case.name, "write", error))
                continue
            if not isinstance(event, CaseStarted):
                self._release(case.name)
                self._emit(event)
                continue
            self._emit(StageEnded(case.name, "claim"))
            self._emit(event)
            yield {**case.to_item(), "configuration": self._job.spec.configuration(case)}

    def _claimed(self, case: BatchCase) -> CaseEvent:
        """Decide about a locked case: `CaseStarted`, or the event that explains why it is not computed."""
        if self._job.spec.verify(case, self._job.output):
            return CaseAlreadyDone(case.name)
        known = self._state.find_failure(case, self._job)
        if known is not None:
            return CaseFailedBefore(case.name, known)
        discard_unfinished(self._job.output / case.name)
        return CaseStarted(case.name, case_fingerprint(case, self._job.overrides.get("liver")))

    def should_run(self, case: str) -> bool:
        """Abandon a case that is read when the worker is draining."""
        if self._draining.is_set():
            self._release(case)
            self._emit(CaseAbandoned(case))
            return False
        return True

    @singledispatchmethod
    def on_event(self, event: Event) -> None:
        """Emit the events that the batch needs; progress within a stage is not among them."""

    @on_event.register
    def _on_stage_start(self, event: StageStarted) -> None:
        self._emit(event)

    @on_event.register
    def _on_stage_end(self, event: StageEnded) -> None:
        self._emit(event)

    @on_event.register
    def _on_done(self, event: CaseDone) -> None:
        self._release(event.case)
        self._emit(replace(event, seconds={stage: round(seconds, 3) for stage, seconds in event.seconds.items()}))

    @on_event.register
    def _on_failed(self, event: CaseFailed) -> None:
        """Emit the failure, unless its cause is the GPU or the output folder, which would fail all other cases too."""
        assert event.error is not None  # the evaluator is in this process
        self._release(event.case)
        if os.environ.get("LIVERSEG_DEBUG"):
            traceback.print_exception(event.error)
        if event.category == "internal" and _is_device_lost(event.error):
            raise DeviceLostError(event.reason) from event.error
        if event.category == "output" and event.stage == "write" and self._is_output_lost(event.error):
            self._emit(OutputUnwritable(event.case, event.reason))
        else:
            self._emit(event)

    def _release(self, case: str) -> None:
        lock = self._locks.pop(case, None)
        if lock is not None:
            lock.remove()
            return_freed_memory()

    def _is_output_lost(self, error: BaseException) -> bool:
        """Return whether no case can be written, and not only this one."""
        if any(isinstance(cause, OSError) and cause.errno in _UNWRITABLE_DISK for cause in causes(error)):
            return True
        return not _is_writable(self._state.folder)


def _is_device_lost(error: BaseException) -> bool:
    """Return whether a GPU has failed until the process ends: true for all errors of CUDA except lack of memory."""
    return any(isinstance(cause, torch.AcceleratorError) for cause in causes(error))


def _is_writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        return False
    return True
