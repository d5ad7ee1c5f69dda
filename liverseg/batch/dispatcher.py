"""Dispatcher of a batch: assigns cases to workers, restarts workers that end, enforces time limits."""

from __future__ import annotations

import signal
import time
from collections import deque
from contextlib import suppress
from functools import partial, singledispatchmethod
from queue import Empty, SimpleQueue

from liverseg.batch.events import (
    CaseAbandoned,
    CaseAlreadyDone,
    CaseFailedBefore,
    CaseLockedElsewhere,
    CasePlanned,
    CaseStarted,
    Heartbeat,
    Note,
    OutputUnwritable,
    PlanningDone,
    PlanningFailed,
    WorkerExited,
    WorkerReady,
    WorkerRefused,
)
from liverseg.batch.workers import AssignedCase, StartWorker, TimeLimits, WorkerSlot, describe_exit, oom_kills
from liverseg.cases.case import BatchCase
from liverseg.cases.events import Callback, CaseDone, CaseEvent, CaseFailed, Event, StageEnded, StageStarted
from liverseg.errors import ExitCode, LiversegError, OutputError, one_line

__all__ = ["Dispatcher"]

MAX_QUEUED = 2
"""Cases of a worker that are not being written yet: one is computed, one is read."""
MAX_START_FAILURES = 3
"""Give up after this many failed starts in a row."""
MAX_ATTEMPTS = {"out of memory": 1, "killed": 3, "crashed": 2}
"""Attempts for a case that runs alone, by how its worker ended. A kill may have been meant for another process."""
LOCK_RETRY_SECONDS = 5.0
"""Wait before another attempt at a case that another run has locked."""
EXIT_SECONDS = 5.0
"""Wait for workers to end after they were finished or killed."""
RESTART_BACKOFF = 300.0
"""Seconds before a worker is started again in a slot where the start failed."""
POLL_SECONDS = 0.5
"""Longest wait for an event before limits are checked."""


class Dispatcher:
    """Assigns cases to workers until all are settled.

    When a worker ends, its cases are not lost. Those it had started are tried again, each alone in a worker, so that
    only the case that ends its worker fails.

    Args:
        start: starts a worker.
        workers: number of workers.
        limits: time limits.
        callback: receives the events of the cases, `Note` and `Heartbeat`, all in the thread of `run`.
    """

    def __init__(self, start: StartWorker, workers: int, limits: TimeLimits, callback: Callback) -> None:
        self._start, self._limits, self._callback = start, limits, callback
        self._events: SimpleQueue[tuple[Event, WorkerSlot | None]] = SimpleQueue()
        self._slots = [WorkerSlot() for _ in range(workers)]
        self._waiting: deque[BatchCase] = deque()
        self._quarantine: deque[BatchCase] = deque()
        self._locked_elsewhere: dict[str, tuple[BatchCase, float]] = {}
        self._attempts: dict[str, int] = {}
        self._planned = False
        self._start_failures = 0
        self._stopped_at: float | None = None
        self._error: LiversegError | None = None

    def post(self, event: Event, slot: WorkerSlot | None = None) -> None:
        """Queue an event from any thread.

        Args:
            event: of a worker, or of the planner. The planner posts `CasePlanned`, `CaseAlreadyDone` or
                `CaseFailedBefore` for every case and then `PlanningDone`, or `PlanningFailed`.
            slot: the worker's slot; None for the planner.
        """
        self._events.put((event, slot))

    def stop(self) -> None:
        """Assign no more cases; started ones may finish within the grace period. Safe in a signal handler."""
        if self._stopped_at is None:
            self._stopped_at = time.monotonic()

    def run(self) -> None:
        """Run until every case is settled or the batch is stopped.

        Raises:
            LiversegError: if planning fails, workers cannot be started or refuse the job, or the output folder cannot
                be written.
        """
        try:
            self._run()
        finally:
            self._shutdown()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        drained = False
        while True:
            stopping = self._stopped_at is not None or self._error is not None
            if stopping and not drained:
                drained = True
                self.stop()
                self._drain_workers()
            if not stopping:
                self._assign()
            if not any(slot.assigned for slot in self._slots) and (stopping or self._exhausted()):
                break
            with suppress(Empty):
                self._receive(*self._events.get(timeout=POLL_SECONDS))
            if not self._enforce_timeouts():
                break
            self._callback.on_event(Heartbeat())

    def _exhausted(self) -> bool:
        """Return whether no case is left to assign."""
        return self._planned and not (self._waiting or self._quarantine or self._locked_elsewhere)

    # Assigning cases

    def _assign(self) -> None:
        now = time.monotonic()
        for name, (case, retry_at) in list(self._locked_elsewhere.items()):
            if retry_at <= now:
                del self._locked_elsewhere[name]
                self._waiting.append(case)
        while (assignment := self._next_assignment()) is not None:
            slot, case = assignment
            assert slot.worker is not None
            slot.assigned[case.name] = AssignedCase(case)
            slot.worker.send(case)
        self._start_workers(now)

    def _next_assignment(self) -> tuple[WorkerSlot, BatchCase] | None:
        ready = [slot for slot in self._slots if slot.ready and slot.worker is not None]
        idle = [slot for slot in ready if not slot.assigned]
        if self._quarantine and idle:
            idle[0].isolated = True
            return idle[0], self._quarantine.popleft()
        free = [slot for slot in ready if not slot.isolated and slot.queued < MAX_QUEUED]
        if self._waiting and free:
            return min(free, key=lambda slot: slot.queued), self._waiting.popleft()
        return None

    def _start_workers(self, now: float) -> None:
        """Start as many workers as there are unassigned cases.

        A worker gets no case before it is ready, so that no case waits for a free place in a cluster.
        """
        starting = sum(slot.worker is not None and not slot.ready for slot in self._slots)
        for slot in self._slots:
            if starting >= len(self._waiting) + len(self._quarantine):
                break
            if slot.worker is None and slot.retry_after <= now:
                slot.ready, slot.timed_out, slot.started_at, slot.oom_kills = False, None, now, oom_kills()
                try:
                    slot.worker = self._start(partial(self.post, slot=slot))
                except LiversegError as error:
                    if not self._suspend_slot(slot, any(other.worker is not None for other in self._slots)):
                        self._error = error
                        break
                else:
                    starting += 1

    def _suspend_slot(self, slot: WorkerSlot, others: bool) -> bool:
        """Start no worker in a slot for a while after a failed start; False if there are no other workers."""
        if not others:
            return False
        slot.retry_after = time.monotonic() + RESTART_BACKOFF
        self._note(f"a worker could not be started; the batch continues with fewer for {RESTART_BACKOFF:g} s")
        return True

    # Handling events

    def _receive(self, event: Event, slot: WorkerSlot | None) -> None:
        if slot is None or not isinstance(event, CaseEvent) or event.case in slot.assigned:
            self._on_event(event, slot)

    @singledispatchmethod
    def _on_event(self, event: Event, slot: WorkerSlot | None) -> None:
        raise TypeError(f"{event} is not an event for the dispatcher")

    @_on_event.register
    def _on_case_planned(self, event: CasePlanned, slot: WorkerSlot | None) -> None:
        self._waiting.append(event.case)

    @_on_event.register
    def _on_planning_done(self, event: PlanningDone, slot: WorkerSlot | None) -> None:
        self._planned = True

    @_on_event.register
    def _on_planning_failed(self, event: PlanningFailed, slot: WorkerSlot | None) -> None:
        self._error = LiversegError(f"planning failed ({one_line(event.error)})")
        self._error.__cause__ = event.error

    @_on_event.register
    def _on_worker_ready(self, event: WorkerReady, slot: WorkerSlot) -> None:
        slot.ready, self._start_failures = True, 0

    @_on_event.register
    def _on_worker_refused(self, event: WorkerRefused, slot: WorkerSlot) -> None:
        self._error = LiversegError(event.reason)
        self._error.exit_code = ExitCode(event.exit_code)

    @_on_event.register
    def _on_output_unwritable(self, event: OutputUnwritable, slot: WorkerSlot) -> None:
        self._error = self._error or OutputError(f"{event.reason}: the batch stops; run it again to continue")
        slot.settle(event.case)

    @_on_event.register
    def _on_case_started(self, event: CaseStarted, slot: WorkerSlot) -> None:
        slot.assigned[event.case].started = True
        self._callback.on_event(event)

    @_on_event.register
    def _on_stage_started(self, event: StageStarted, slot: WorkerSlot) -> None:
        assigned = slot.assigned[event.case]
        assigned.stopwatch.start()
        assigned.writing = assigned.writing or event.stage == "write"

    @_on_event.register
    def _on_stage_ended(self, event: StageEnded, slot: WorkerSlot) -> None:
        slot.assigned[event.case].stopwatch.stop()

    @_on_event.register(CaseDone)
    @_on_event.register(CaseAlreadyDone)
    @_on_event.register(CaseFailedBefore)
    @_on_event.register(CaseAbandoned)
    def _on_case_settled(self, event: CaseEvent, slot: WorkerSlot | None) -> None:
        if slot is not None:
            slot.settle(event.case)
        self._callback.on_event(event)

    @_on_event.register
    def _on_case_failed(self, event: CaseFailed, slot: WorkerSlot) -> None:
        case, isolated = slot.assigned[event.case].case, slot.isolated
        slot.settle(event.case)
        if event.category == "out of memory" and not isolated:
            self._quarantine.append(case)  # another case in the same worker may have taken the memory
        else:
            self._callback.on_event(event)

    @_on_event.register
    def _on_case_locked_elsewhere(self, event: CaseLockedElsewhere, slot: WorkerSlot) -> None:
        case = slot.assigned[event.case].case
        slot.settle(event.case)
        if not self._locked_elsewhere:
            self._note(f"{event.case} is being processed by another run; will be checked again at the end")
        self._locked_elsewhere[event.case] = case, time.monotonic() + LOCK_RETRY_SECONDS

    @_on_event.register
    def _on_worker_exited(self, event: WorkerExited, slot: WorkerSlot) -> None:
        """Decide about the cases of a worker that has ended before it was finished."""
        assigned, isolated, ready = list(slot.assigned.values()), slot.isolated, slot.ready
        slot.worker, slot.ready, slot.assigned, slot.isolated = None, False, {}, False
        if self._stopped_at is not None:
            for item in assigned:
                self._callback.on_event(CaseAbandoned(item.case.name))
        elif not ready:
            self._count_failed_start(event.code, slot)
        elif slot.timed_out is not None:
            self._settle_timeout(slot.timed_out, assigned)
        else:
            self._settle_crash(event, self._exit_cause(event, slot), assigned, isolated)

    def _count_failed_start(self, code: int, slot: WorkerSlot) -> None:
        self._start_failures += not self._suspend_slot(slot, any(other.ready for other in self._slots))
        if self._start_failures >= MAX_START_FAILURES:
            times = f"{self._start_failures} times before it was ready"
            self._error = LiversegError(f"a worker {describe_exit(code)} {times}; see its messages above")

    def _settle_timeout(self, timed_out: str, assigned: list[AssignedCase]) -> None:
        """Fail the case for which a worker was killed; the others wait for another worker."""
        for item in reversed(assigned):
            if item.case.name == timed_out:
                self._fail(item.case, "timeout", f"took longer than {self._limits.case:g} s")
            else:
                self._waiting.appendleft(item.case)

    def _settle_crash(self, event: WorkerExited, cause: str, assigned: list[AssignedCase], isolated: bool) -> None:
        """Quarantine the cases that a worker had started; a case that was alone fails after `MAX_ATTEMPTS`."""
        any_started = any(item.started for item in assigned)
        for item in reversed(assigned):
            if any_started and not item.started:
                self._waiting.appendleft(item.case)  # it only waited
            elif isolated and self._count_attempt(item.case) >= MAX_ATTEMPTS[cause]:
                category = cause if cause == "out of memory" else "internal"
                self._fail(item.case, category, f"the worker {describe_exit(event.code)} while it had this case alone")
            else:
                self._quarantine.append(item.case)
        self._note(f"a worker {describe_exit(event.code)} ({cause}); its started cases are tried again, one at a time")

    def _exit_cause(self, event: WorkerExited, slot: WorkerSlot) -> str:
        """Return a key of `MAX_ATTEMPTS`."""
        killed = event.code == -signal.SIGKILL
        if killed and oom_kills() > slot.oom_kills:
            return "out of memory"
        return event.cause or ("killed" if killed else "crashed")

    def _count_attempt(self, case: BatchCase) -> int:
        """Count the workers that have ended with the case alone, including this time."""
        self._attempts[case.name] = self._attempts.get(case.name, 0) + 1
        return self._attempts[case.name]

    def _fail(self, case: BatchCase, category: str, reason: str) -> None:
        self._callback.on_event(CaseFailed(case.name, None, category, reason))

    def _note(self, text: str) -> None:
        self._callback.on_event(Note(text))

    # Ending workers

    def _drain_workers(self) -> None:
        for slot in self._slots:
            if slot.worker is not None:
                slot.worker.drain() if slot.ready else slot.worker.kill()

    def _enforce_timeouts(self) -> bool:
        """Kill workers that exceed a limit; return False if there is nothing left to wait for."""
        now = time.monotonic()
        for slot in self._slots:
            if slot.worker is None:
                continue
            if not slot.ready and now - slot.started_at > self._limits.start:
                slot.started_at = now
                slot.worker.kill()
            for name, assigned in slot.assigned.items():
                if slot.timed_out is None and assigned.stopwatch.elapsed > self._limits.case:
                    slot.timed_out = name
                    slot.worker.kill()
        if self._stopped_at is None or now - self._stopped_at < self._limits.grace:
            return True
        for slot in self._slots:
            if slot.worker is not None:
                slot.worker.kill()
        return now - self._stopped_at < self._limits.grace + EXIT_SECONDS

    def _shutdown(self) -> None:
        """End the workers, and kill those that do not end; abandon their cases."""
        for slot in self._slots:
            if slot.worker is not None:
                slot.worker.kill() if slot.assigned else slot.worker.finish()
        deadline = time.monotonic() + EXIT_SECONDS
        while any(slot.worker is not None for slot in self._slots):
            try:
                event, from_slot = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                break
            if from_slot is None:
                continue
            if isinstance(event, WorkerExited):
                from_slot.worker = None
            elif isinstance(event, CaseEvent):
                self._receive(event, from_slot)
        for slot in self._slots:
            if slot.worker is not None:
                slot.worker.kill()
            for assigned in slot.assigned.values():
                self._callback.on_event(CaseAbandoned(assigned.case.name))
            slot.assigned.clear()
