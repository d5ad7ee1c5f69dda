"""Compute queued studies with the workers of `liverseg batch`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial, singledispatchmethod
from pathlib import Path
from typing import Any

from liverseg.batch.dispatcher import Dispatcher
from liverseg.batch.events import (
    CaseAbandoned,
    CaseAlreadyDone,
    CaseFailedBefore,
    CasePlanned,
    CaseStarted,
    Note,
    PlanningDone,
)
from liverseg.batch.job import Job, run_spec
from liverseg.batch.state import BatchState
from liverseg.batch.workers import LocalWorker, TimeLimits, worker_environment
from liverseg.bundle.paths import inference_config, weights_path
from liverseg.bundle.validation import RULES, check_values
from liverseg.bundle.weights_files import check_weights_path
from liverseg.cases.case import BatchCase
from liverseg.cases.events import Callback, CaseDone, CaseFailed, Event
from liverseg.errors import LiversegError, one_line
from liverseg.pacs.journal import Journal
from liverseg.pacs.studies import Study, StudyStore
from liverseg.results.case_folder import discard_unfinished

__all__ = ["Computing"]

_RESTART_SECONDS, _LONGEST_RESTART_SECONDS = 30.0, 900.0
"""Wait before the workers are started again after an error that is not of a case; it doubles each time."""


class Computing(Callback):
    """Computes studies in worker processes, in the background and until it is stopped.

    A batch's dispatcher assigns the cases, restarts workers and enforces time limits. Here its cases come one by one.
    An error that would end a batch, such as a full disk, stops the computation for a while and not the node.

    Args:
        store: the studies.
        journal: of the node.
        on_settled: called after each study that is computed or has failed.
        weights: trained weights; by default as for `run_inference`.
        bundle: folder of the bundle; by default the joint bundle.
        workers: number of worker processes.
        cpus: processors of each; by default an equal share.
        limits: time limits.
        overrides: of the keys of the bundle's `configs/inference.yaml`.

    Raises:
        LiversegError: if the weights or the settings cannot be used.
    """

    def __init__(
        self,
        store: StudyStore,
        journal: Journal,
        on_settled: Callable[[], None],
        *,
        weights: Path | None = None,
        bundle: Path | None = None,
        workers: int = 1,
        cpus: float | None = None,
        limits: TimeLimits | None = None,
        overrides: Mapping[str, Any],
    ) -> None:
        self._store, self._journal, self._on_settled = store, journal, on_settled
        self._workers, self._cpus, self._limits = workers, cpus, limits or TimeLimits()
        self._given = {name: value for name, value in overrides.items() if value is not None}
        check_values(workers=workers, **{name: value for name, value in self._given.items() if name in RULES})
        self._config = inference_config(bundle)
        self._weights = weights_path(self._config, weights)
        check_weights_path(self._weights)
        self._make_job()  # refuse wrong values at once
        self._state = BatchState(store.results)
        self._lock = threading.Lock()
        self._dispatcher: Dispatcher | None = None
        self._stopping = threading.Event()
        self._settled_since_error = False
        self._thread = threading.Thread(target=self._run, name="compute", daemon=True)

    def start(self) -> None:
        """Start the thread; queued studies are computed.

        Raises:
            OutputError: if the folder of results cannot be written.
        """
        self._state.begin()
        self._thread.start()

    def submit(self, study: Study) -> None:
        """Compute a queued study."""
        with self._lock:
            if self._dispatcher is not None:
                self._dispatcher.post(CasePlanned(self._case(study)))

    def stop(self) -> None:
        """Start no more cases, give the current ones their grace period, and end the workers."""
        self._stopping.set()
        with self._lock:
            if self._dispatcher is not None:
                self._dispatcher.stop()
        if self._thread.is_alive():
            self._thread.join()

    def _make_job(self) -> Job:
        spec = run_spec(self._config, self._weights, self._given)
        return Job(self._store.results, self._config.parent.parent, self._weights, self._given, spec)

    def _case(self, study: Study) -> BatchCase:
        return BatchCase(study.case, self._store.image(study).absolute())

    def _run(self) -> None:
        wait = _RESTART_SECONDS
        while not self._stopping.is_set():
            try:
                self._dispatch()
            except Exception as error:
                if self._settled_since_error:
                    self._settled_since_error, wait = False, _RESTART_SECONDS
                reason = one_line(error) if isinstance(error, LiversegError) else f"{type(error).__name__}"
                self._journal.log("computation stopped", reason=reason, again_in_seconds=wait)
                self._stopping.wait(wait)
                wait = min(2 * wait, _LONGEST_RESTART_SECONDS)

    def _dispatch(self) -> None:
        job = self._make_job()
        start = partial(LocalWorker, job, environment=worker_environment(self._workers, self._cpus))
        dispatcher = Dispatcher(start, self._workers, self._limits, self)
        with self._lock:
            for study in self._store.unfinished("queued"):
                dispatcher.post(CasePlanned(self._case(study)))
            self._dispatcher = dispatcher
        try:
            if self._stopping.is_set():
                dispatcher.post(PlanningDone())
                dispatcher.stop()
            dispatcher.run()
        finally:
            with self._lock:
                self._dispatcher = None

    # Events of the dispatcher, all in the thread of `_run`

    @singledispatchmethod
    def on_event(self, event: Event) -> None:
        """Report an event; others than those below are ignored."""

    @on_event.register
    def _on_started(self, event: CaseStarted) -> None:
        self._journal.log("begun", case=event.case)

    @on_event.register
    def _on_done(self, event: CaseDone) -> None:
        study = self._settle(event.case, "computed", reason=event.found)
        self._journal.log(
            "done",
            case=event.case,
            found=event.found,
            seconds=event.seconds,
            warnings=event.warnings,
            replaced=study is None,
        )

    @on_event.register
    def _on_already_done(self, event: CaseAlreadyDone) -> None:
        self._settle(event.case, "computed")
        self._journal.log("done before", case=event.case)

    @on_event.register
    def _on_failed(self, event: CaseFailed) -> None:
        with suppress(OSError):
            discard_unfinished(self._store.results / event.case)
        self._state.discard_lock(event.case)
        self._settle(event.case, "failed", category=event.category, reason=event.reason)
        self._journal.log("failed", case=event.case, category=event.category, reason=event.reason)

    @on_event.register
    def _on_failed_before(self, event: CaseFailedBefore) -> None:
        self._settle(event.case, "failed", category="internal", reason="failed before")

    @on_event.register
    def _on_abandoned(self, event: CaseAbandoned) -> None:
        self._journal.log("abandoned", case=event.case)

    @on_event.register
    def _on_note(self, event: Note) -> None:
        self._journal.log("note", what=event.text)

    def _settle(self, case: str, state: str, **changes: Any) -> Study | None:
        """Record the end of a case; None if a newer version has replaced it."""
        self._settled_since_error = True
        study = self._store.find_case(case)
        if study is None:
            current = self._store.read(case.rpartition("-")[0])
            if current is not None and current.case != case and current.state != "queued":
                self._store.discard_older(current)
            return None
        if study.state == "queued":  # a dispatcher that was started again may compute a case twice
            study = self._store.change(study, state=state, since=time.time(), **changes)
        if study is not None and study.state == "computed":
            self._store.discard_older(study)
        self._on_settled()
        return study
