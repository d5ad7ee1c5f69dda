"""Who computes which case: given out to workers, taken back from those that end, watched by the clock."""

from __future__ import annotations

import signal
import time
from collections import deque
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from liverseg.batch.reporter import BatchCallback
from liverseg.batch.workers import AssignedCase, Limits, Start, WorkerSlot, describe_exit, oom_kills
from liverseg.cases.case import BatchCase
from liverseg.errors import ExitCode, LiversegError, one_line

__all__ = ["Dispatcher"]

_AHEAD = 2
"""Cases a worker has that are not being written: one is computed, one read."""
_STARTS = 3
"""So often in a row may a worker end before it is ready."""
_TRIES_ALONE = {"out of memory": 1, "killed": 3, "crashed": 2}
"""So often may a worker end while it has a case alone, by how it ends; whoever kills processes may mean others."""
_PATIENCE = 5.0
"""Seconds between two looks at a case another run has in hand, and for a killed worker to be gone."""
_CLOSED = 300.0
"""Seconds until a worker is begun again where one could not be."""
_TICK = 0.5


class Dispatcher:
    """Gives cases out to workers until all are settled.

    A worker that ends takes no case with it: those it had begun are tried again one at a time, so that the one that
    ends it is known, and only that one fails.

    Args:
        start: begins a worker.
        workers: at a time.
        limits: of time.
        listener: is told.

    Attributes:
        events: put `(None, {"event": "todo", "case": case})` here for every case, or `complete`, or `failed before`
            with what is `known` of it, and `planned` after the last; or `unplanned` with the `error` that kept from it.
    """

    def __init__(self, start: Start, workers: int, limits: Limits, listener: BatchCallback) -> None:
        self.events: SimpleQueue[tuple[WorkerSlot | None, dict[str, Any]]] = SimpleQueue()
        self._start, self._limits, self._listener = start, limits, listener
        self._hands = [WorkerSlot() for _ in range(workers)]
        self._waiting: deque[BatchCase] = deque()
        self._suspects: deque[BatchCase] = deque()
        self._elsewhere: dict[str, tuple[BatchCase, float]] = {}
        self._tries: dict[str, int] = {}
        self._planned = False
        self._starts = 0
        self._stopped_at: float | None = None
        self._end: LiversegError | None = None

    def stop(self) -> None:
        """Give out no more; what is in hand may be finished within the grace. Safe in a signal's handler."""
        if self._stopped_at is None:
            self._stopped_at = time.monotonic()

    def run(self) -> None:
        """Go on until every case is settled, or the batch is stopped.

        Raises:
            LiversegError: if workers cannot be begun or the output folder cannot be written any more.
        """
        try:
            self._run()
        finally:
            self._let_go()
        if self._end is not None:
            raise self._end

    def _run(self) -> None:
        drained = False
        while True:
            ending = self._stopped_at is not None or self._end is not None
            if ending and not drained:
                drained = True
                self._stopped_at = self._stopped_at or time.monotonic()
                for hand in self._hands:
                    if hand.worker is not None:
                        hand.worker.drain() if hand.ready else hand.worker.kill()
            if not ending:
                self._give_out()
            if not any(hand.given for hand in self._hands) and (ending or self._all_given()):
                break
            with suppress(Empty):
                self._heard(*self.events.get(timeout=_TICK))
            if not self._in_time():
                break
            self._listener.tick()

    def _all_given(self) -> bool:
        return self._planned and not (self._waiting or self._suspects or self._elsewhere)

    def _give_out(self) -> None:
        now = time.monotonic()
        for name, (case, due) in list(self._elsewhere.items()):
            if due <= now:
                del self._elsewhere[name]
                self._waiting.append(case)
        while (found := self._next()) is not None:
            hand, case = found
            assert hand.worker is not None
            hand.given[case.name] = AssignedCase(case)
            hand.worker.send(case)
        self._begin_workers(now)

    def _begin_workers(self, now: float) -> None:
        """As many as there are cases nobody has; who is not ready has none, so none waits for a place in a cluster."""
        beginning = sum(hand.worker is not None and not hand.ready for hand in self._hands)
        for hand in self._hands:
            if beginning >= len(self._waiting) + len(self._suspects):
                break
            if hand.worker is None and hand.closed_until <= now:
                hand.ready, hand.late, hand.since, hand.oom_kills = False, None, now, oom_kills()
                try:
                    hand.worker = self._start(partial(self._put, hand))
                except LiversegError as error:
                    if not self._go_on_without(hand, any(other.worker is not None for other in self._hands)):
                        self._end = error
                        break
                else:
                    beginning += 1

    def _put(self, hand: WorkerSlot, event: dict[str, Any]) -> None:
        self.events.put((hand, event))

    def _next(self) -> tuple[WorkerSlot, BatchCase] | None:
        """Who gets which case now."""
        there = [hand for hand in self._hands if hand.ready and hand.worker is not None]
        idle = [hand for hand in there if not hand.given]
        if self._suspects and idle:
            idle[0].on_its_own = True
            return idle[0], self._suspects.popleft()
        open_ = [hand for hand in there if not hand.on_its_own and hand.in_front < _AHEAD]
        if self._waiting and open_:
            return min(open_, key=lambda one: one.in_front), self._waiting.popleft()
        return None

    def _heard(self, hand: WorkerSlot | None, event: dict[str, Any]) -> None:
        kind = event["event"]
        if hand is None:
            if kind == "todo":
                self._waiting.append(event["case"])
            elif kind == "complete":
                self._listener.already(event["case"])
            elif kind == "failed before":
                self._listener.failed_before(event["case"], event["known"])
            elif kind == "unplanned":
                self._end = LiversegError(f"what is to be done cannot be found out ({one_line(event['error'])})")
                self._end.__cause__ = event["error"]
            self._planned = self._planned or kind == "planned"
        elif kind == "gone":
            self._gone(hand, event["code"], event.get("how"))
        elif kind == "ready":
            hand.ready, self._starts = True, 0
        elif kind == "refused":
            self._end = LiversegError(event["reason"])
            self._end.exit_code = ExitCode(event["exit_code"])
        elif kind == "unwritable":
            self._end = self._end or LiversegError(f"{event['reason']}: the batch stops; run it again to go on")
            hand.take(event["case"])
        elif event["case"] in hand.given:
            self._heard_of_case(hand, hand.given[event["case"]], event)

    def _heard_of_case(self, hand: WorkerSlot, given: AssignedCase, event: dict[str, Any]) -> None:
        kind, case = event["event"], given.case
        if kind == "begun":
            given.begun = True
            self._listener.begun(case, event["stamp"])
            return
        if kind == "stage":
            given.clock.stage(event["at"])
            given.writing = given.writing or event["stage"] == "write"
            return
        alone = hand.on_its_own
        hand.take(case.name)
        if kind == "done":
            self._listener.done(case, event)
        elif kind == "already":
            self._listener.already(case)
        elif kind == "failed before":
            self._listener.failed_before(case, event["known"])
        elif kind == "failed" and event["category"] == "out of memory" and not alone:
            self._suspects.append(case)  # another in the same worker may have taken it
        elif kind == "failed":
            self._listener.failed(case, event["category"], event["reason"])
        elif kind == "abandoned":
            self._listener.abandoned(case)
        elif kind == "elsewhere":
            if not self._elsewhere:
                self._listener.note(f"{case.name} is in the hands of another run, which is waited for at the end")
            self._elsewhere[case.name] = case, time.monotonic() + _PATIENCE

    def _gone(self, hand: WorkerSlot, code: int, how: str | None) -> None:
        """A worker has ended, though nobody said there were no more cases."""
        given, alone, ready = list(hand.given.values()), hand.on_its_own, hand.ready
        any_begun = any(one.begun for one in given)
        hand.worker, hand.ready, hand.given, hand.on_its_own = None, False, {}, False
        if self._stopped_at is not None:
            for one in given:
                self._listener.abandoned(one.case)
            return
        if not ready:
            self._starts += not self._go_on_without(hand, any(other.ready for other in self._hands))
            if self._starts >= _STARTS:
                how = describe_exit(code)
                self._end = LiversegError(f"a worker {how} {self._starts} times before it was ready; see what it says")
            return
        if code == -signal.SIGKILL and oom_kills() > hand.oom_kills:
            how = "out of memory"
        how = how or ("killed" if code == -signal.SIGKILL else "crashed")
        for one in reversed(given):
            if one.case.name == hand.late:
                self._listener.failed(one.case, "timeout", f"took longer than {self._limits.case:g} s")
            elif hand.late is not None or (any_begun and not one.begun):
                self._waiting.appendleft(one.case)  # it had nothing to do with it
            elif alone and self._tried(one.case) >= _TRIES_ALONE[how]:
                category = how if how == "out of memory" else "internal"
                self._listener.failed(
                    one.case, category, f"the worker {describe_exit(code)} while it had this case alone"
                )
            else:
                self._suspects.append(one.case)
        if hand.late is None:
            self._listener.note(
                f"a worker {describe_exit(code)} ({how}); what it had begun is tried again, one at a time"
            )

    def _go_on_without(self, hand: WorkerSlot, others: bool) -> bool:
        """Leave a place in which no worker could be begun alone for a while, if there are others."""
        if not others:
            return False
        hand.closed_until = time.monotonic() + _CLOSED
        self._listener.note(f"a worker could not be begun; the batch goes on with fewer for {_CLOSED:g} s")
        return True

    def _tried(self, case: BatchCase) -> int:
        """How often a worker has ended with the case alone, this time included."""
        self._tries[case.name] = self._tries.get(case.name, 0) + 1
        return self._tries[case.name]

    def _in_time(self) -> bool:
        """End what takes too long; false when there is nothing left to wait for."""
        now = time.monotonic()
        for hand in self._hands:
            if hand.worker is None:
                continue
            if not hand.ready and now - hand.since > self._limits.start:
                hand.since = now
                hand.worker.kill()
            for name, one in hand.given.items():
                if hand.late is None and one.clock.seconds > self._limits.case:
                    hand.late = name
                    hand.worker.kill()
        if self._stopped_at is None or now - self._stopped_at < self._limits.grace:
            return True
        for hand in self._hands:
            if hand.worker is not None:
                hand.worker.kill()
        return now - self._stopped_at < self._limits.grace + _PATIENCE

    def _let_go(self) -> None:
        """End the workers; one that does not is killed."""
        for hand in self._hands:
            if hand.worker is not None:
                hand.worker.kill() if hand.given else hand.worker.finish()
        deadline = time.monotonic() + _PATIENCE
        while any(hand.worker is not None for hand in self._hands):
            try:
                whose, event = self.events.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                break
            if whose is None:
                continue
            if event["event"] == "gone":
                whose.worker = None
            elif (given := whose.given.get(event.get("case", ""))) is not None:
                self._heard_of_case(whose, given, event)
        for hand in self._hands:
            if hand.worker is not None:
                hand.worker.kill()
            for one in hand.given.values():
                self._listener.abandoned(one.case)
            hand.given.clear()
