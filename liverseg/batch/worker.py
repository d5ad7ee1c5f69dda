"""One who computes cases: loads the weights once, holds each case while it is at it, and tells what becomes of it.

Runs in a process of its own, so that a case that hangs, crashes or takes all memory ends the worker and not the batch.
"""

from __future__ import annotations

import errno
import os
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from liverseg.batch.completeness import wanted
from liverseg.batch.job import Job
from liverseg.batch.state import BatchState, case_fingerprint, find_failure
from liverseg.cases.case import BatchCase
from liverseg.errors import LiversegError, OutputError, causes
from liverseg.inference.failures import categorise_failure, describe_cause
from liverseg.inference.predict import case_evaluator
from liverseg.inference.progress import CaseCallback, WrittenCase
from liverseg.results.case_folder import discard_unfinished
from liverseg.utils.locks import FileLock

__all__ = ["CaseWorker"]

Tell = Callable[..., None]

_NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ESTALE)
_NO_DEVICE = 71
"""Exit code of a worker whose GPU has failed."""


class CaseWorker(CaseCallback):
    """Computes the cases it is given.

    What it tells, by event: `ready`, the weights are loaded; `refused`, they cannot be, with `reason` and `exit_code`;
    of a case `begun`, `stage` (with `stage` and `at`, begun or ended), `done` (with `found`, `seconds`, `warnings`),
    `failed` (with `category`, `reason`, `stage`), `elsewhere` (another run has it in hand), `already` (another run has
    done it), `failed before` (another run has seen it fail, of which `known` tells), `abandoned`; `unwritable`, the
    output folder cannot be written any more, with `reason`.

    Args:
        job: what the cases share.
        tell: is called with `event` and what belongs to it, in several threads.
        draining: once it is set no more is computed; what is computed already is written.
    """

    def __init__(self, job: Job, tell: Tell, draining: threading.Event) -> None:
        self._job, self._tell = job, tell
        self._state = BatchState(job.output)
        self._locks: dict[str, FileLock] = {}
        self._draining = draining

    def work(self, cases: Iterable[BatchCase]) -> None:
        """Load the weights, then compute cases as they come, until there are no more.

        Args:
            cases: asked for one at a time, in a thread of their own.
        """
        try:
            evaluator = case_evaluator(
                self._job.output,
                weights=self._job.weights,
                bundle=self._job.bundle,
                progress=False,
                **self._job.overrides,
            )
            self._check_unchanged()  # after they were loaded, or they might change between
        except LiversegError as error:
            self._tell(event="refused", reason=str(error), exit_code=int(error.exit_code))
            return
        self._tell(event="ready")
        evaluator.work(self._claimed(cases), self)

    def _check_unchanged(self) -> None:
        """A worker begun in the midst of a batch makes what those before it made, or nothing."""
        job = self._job
        now = wanted(job.bundle / "configs" / "inference.yaml", job.weights, job.overrides)
        if not now.same_as(job.wanted):
            raise LiversegError(
                f"{job.weights} or {job.bundle}: is not what it was when the batch began; run the batch again, with "
                "copies that stay as they are"
            )

    def _claimed(self, cases: Iterable[BatchCase]) -> Iterator[dict[str, Any]]:
        """The cases that are to be computed, each held from now on."""
        for case in cases:
            if self._draining.is_set():
                self._tell(event="abandoned", case=case.name)
                continue
            self._tell(event="stage", case=case.name, stage="claim", at="begun")
            try:
                lock = self._state.lock(case.name)
            except OutputError as error:  # nor could those after it be held
                self._tell(event="unwritable", reason=describe_cause(error), case=case.name)
                return
            if lock is None:
                self._tell(event="elsewhere", case=case.name)
                continue
            self._locks[case.name] = lock
            try:
                stamp = self._claimed_with(case)
            except (OSError, OutputError) as error:
                self.failed(case.name, "write", error)
                continue
            if stamp is None:
                continue
            self._tell(event="stage", case=case.name, stage="claim", at="ended")
            self._tell(event="begun", case=case.name, stamp=stamp)
            own = {**case.own_settings(), "configuration": self._job.wanted.configuration(case)}
            yield {"image": str(case.image), "case": case.name, **own}

    def _claimed_with(self, case: BatchCase) -> str | None:
        """The stamp of the input of a case that is held; None where it is not to be computed, which is told."""
        if self._job.wanted.is_complete(case, self._job.output):
            self._release(case.name)
            self._tell(event="already", case=case.name)
            return None
        known = find_failure(case, self._job, self._state)
        if known is not None:
            self._release(case.name)
            self._tell(event="failed before", case=case.name, known=known)
            return None
        discard_unfinished(self._job.output / case.name)
        return case_fingerprint(case, self._job.overrides.get("liver"))

    def wanted(self, case: str) -> bool:
        """Not any more, when the worker is to end."""
        if self._draining.is_set():
            self._release(case)
            self._tell(event="abandoned", case=case)
            return False
        return True

    def begun(self, case: str, stage: str) -> None:
        """Told on."""
        self._tell(event="stage", case=case, stage=stage, at="begun")

    def ended(self, case: str, stage: str) -> None:
        """Told on."""
        self._tell(event="stage", case=case, stage=stage, at="ended")

    def done(self, case: str, written: WrittenCase) -> None:
        """Given back and told on."""
        self._release(case)
        told = {"found": written.found, "warnings": list(written.warnings)}
        seconds = {stage: round(duration, 3) for stage, duration in written.seconds.items()}
        self._tell(event="done", case=case, seconds=seconds, **told)

    def failed(self, case: str, stage: str, error: Exception) -> None:
        """Given back and told on; if it is for want of an output folder, that and not the case is told of."""
        self._release(case)
        category, reason = categorise_failure(error, stage), describe_cause(error)
        if os.environ.get("LIVERSEG_DEBUG"):
            traceback.print_exception(error)
        if category == "internal" and _device_is_lost(error):
            os._exit(_NO_DEVICE)  # it would fail every case after this one; the batch begins another worker
        if category == "output" and stage == "write" and self._output_is_gone(error):
            self._tell(event="unwritable", reason=reason, case=case)
        else:
            self._tell(event="failed", case=case, stage=stage, category=category, reason=reason)

    def _release(self, case: str) -> None:
        lock = self._locks.pop(case, None)
        if lock is not None:
            lock.remove()

    def _output_is_gone(self, error: BaseException) -> bool:
        """Whether no case could be written any more, rather than this one alone."""
        if any(isinstance(cause, OSError) and cause.errno in _NOT_WRITABLE for cause in causes(error)):
            return True
        return not _can_be_written(self._state.folder)


def _device_is_lost(error: BaseException) -> bool:
    """Whether a GPU has failed in a way that stays until the process ends, as CUDA's errors but for memory do."""
    return any(isinstance(cause, torch.AcceleratorError) for cause in causes(error))


def _can_be_written(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        return False
    return True
