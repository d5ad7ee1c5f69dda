"""What becomes of a batch's cases, reported to its log, its tables and the terminal."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import Any, TextIO

from tqdm import tqdm

from liverseg.batch.completeness import RunSpec
from liverseg.batch.state import ALIVE_SECONDS, BatchState, case_fingerprint
from liverseg.cases.case import BatchCase
from liverseg.errors import OutputError
from liverseg.results.case_folder import discard_unfinished, read_case_record

__all__ = [
    "BatchCallback",
    "BatchReporter",
    "write_line",
]


class BatchCallback:
    """Is told what becomes of each case."""

    def begun(self, case: BatchCase, stamp: str) -> None:
        """A worker has it in hand; its input was then as the stamp says."""

    def done(self, case: BatchCase, about: dict[str, Any]) -> None:
        """Its results are there; `about` as `CaseWorker` tells."""

    def already(self, case: BatchCase) -> None:
        """Its results were there."""

    def failed(self, case: BatchCase, category: str, reason: str) -> None:
        """It has failed."""

    def failed_before(self, case: BatchCase, known: dict[str, Any]) -> None:
        """It failed in an earlier run, and is not tried again."""

    def abandoned(self, case: BatchCase) -> None:
        """A worker had been given it, and it is left for the next run."""

    def note(self, what: str) -> None:
        """Something a reader of the run's log wants to know."""

    def tick(self) -> None:
        """Twice a second or so."""


_BAR = "{desc}{percentage:3.0f}%|{bar}| {n}/{total} {unit}s [{elapsed}{postfix}]"


class BatchReporter(BatchCallback):
    """Keeps count, and tells.

    Args:
        name: of the batch, for the bar.
        cases: how many there are.
        state: the output folder's.
        wanted: what results are made with.
        liver: where the run's liver masks are, as `--liver` takes it.

    Attributes:
        made: names of cases whose results are there, be they of this run or not.
        failures: names of cases that failed, in this run or before.
        unfinished: how many a worker had been given that are left for the next run.
    """

    def __init__(self, name: str, cases: int, state: BatchState, wanted: RunSpec, liver: str | None) -> None:
        self.made: set[str] = set()
        self.failures: set[str] = set()
        self.unfinished = 0
        self._state, self._wanted, self._cases, self._liver = state, wanted, cases, liver
        self._stamps: dict[str, str] = {}
        self._record_when_begun: dict[str, dict[str, Any] | None] = {}
        self._computed, self._since, self._alive = 0, 0.0, 0.0
        self._bar = tqdm(total=cases, desc=name, unit="case", bar_format=_BAR, file=sys.stderr, disable=None)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._bar.close()

    def begun(self, case: BatchCase, stamp: str) -> None:
        """For the log; a rate begins with the first."""
        self._stamps[case.name], self._record_when_begun[case.name] = stamp, self._record(case)
        self._since = self._since or time.monotonic()
        self._state.log("begun", case=case.name, image=case.image)

    def done(self, case: BatchCase, about: dict[str, Any]) -> None:
        """A line on stdout, with how fast the batch is and how long it will take."""
        self._computed += 1
        self._forget(case)
        self.made.add(case.name)
        self._state.forget_failure(case.name)
        self._state.log("done", case=case.name, **{name: about[name] for name in ("found", "seconds", "warnings")})
        self._settle()
        told = f"{case.name}: {about['found']}, {sum(about['seconds'].values()):.1f} s"
        write_line(f"{self._so_far()} {told}; {self._rate()}", sys.stdout)
        for warning in about["warnings"]:
            write_line(f"{case.name}: warning: {warning}")

    def already(self, case: BatchCase) -> None:
        """Counted, no more."""
        self._forget(case)
        self.made.add(case.name)
        self._state.discard_lock(case.name)
        self._state.forget_failure(case.name)
        self._settle()

    def failed_before(self, case: BatchCase, known: dict[str, Any]) -> None:
        """It failed in an earlier run, and is not tried again."""
        self.failures.add(case.name)
        self._state.discard_lock(case.name)
        self._settle()
        reason = f"{known.get('category')}: {known.get('reason')}"
        write_line(f"{self._so_far()} {case.name}: failed before: {reason}")

    def failed(self, case: BatchCase, category: str, reason: str) -> None:
        """A line on stderr, and kept."""
        if self._was_made_since_begun(case):
            self.already(case)  # its worker was ended between the last file and telling of it
            return
        self.failures.add(case.name)
        about = {"image": str(case.image), "category": category, "reason": reason}
        self._state.log("failed", case=case.name, **about)
        tries = int((self._state.failure(case.name) or {}).get("tries", 0)) + 1
        stamp = self._stamps.pop(case.name, None) or case_fingerprint(case, self._liver)
        made_of = {"input": stamp, "weights_sha256": self._wanted.weights_sha256}
        configuration = self._wanted.configuration(case)
        with suppress(OutputError):  # it is in the log, and would be tried again
            self._state.keep_failure(case.name, **about, **made_of, configuration_sha256=configuration, tries=tries)
        self._tidy(case)
        self._settle()
        write_line(f"{self._so_far()} {case.name}: failed: {category}: {reason}")

    def abandoned(self, case: BatchCase) -> None:
        """For the log; nothing half-written stays."""
        self.unfinished += 1
        self._state.log("abandoned", case=case.name)
        self._tidy(case)

    def note(self, what: str) -> None:
        """For both."""
        self._state.log("note", what=what)
        write_line(what)

    def tick(self) -> None:
        """Say that the batch is alive."""
        now = time.monotonic()
        if now - self._alive > ALIVE_SECONDS:
            self._alive = now
            self._state.still_alive()

    def _was_made_since_begun(self, case: BatchCase) -> bool:
        """By its record: to read the input again, as `is_complete` does, may take as long as what has just failed."""
        if case.name not in self._record_when_begun or not self._wanted.was_made(case, self._state.output):
            return False
        return self._record(case) != self._record_when_begun.pop(case.name)

    def _record(self, case: BatchCase) -> dict[str, Any] | None:
        return read_case_record(self._state.output / case.name)

    def _forget(self, case: BatchCase) -> None:
        """What was kept of a case while it was in hand."""
        for kept in (self._stamps, self._record_when_begun):
            kept.pop(case.name, None)

    def _tidy(self, case: BatchCase) -> None:
        with suppress(OutputError, OSError):
            lock = self._state.lock(case.name)
            if lock is not None:
                try:
                    discard_unfinished(self._state.output / case.name)
                finally:
                    lock.remove()

    def _settle(self) -> None:
        self._bar.set_postfix_str(self._rate(), refresh=False)
        self._bar.update()

    def _so_far(self) -> str:
        return f"[{len(self.made) + len(self.failures)}/{self._cases}]"

    def _rate(self) -> str:
        """Cases an hour in this run, and how long the rest takes at that rate."""
        seconds = time.monotonic() - self._since if self._since else 0.0
        if not self._computed or not seconds:
            return ""
        rate = self._computed / seconds
        left = (self._cases - len(self.made) - len(self.failures)) / rate
        return f"{rate * 3600:.0f} an hour, {_duration(left)} left"


def write_line(line: str, file: TextIO | None = None) -> None:
    """A line above the bar, by default on stderr; what a terminal would act on, or cannot show, is escaped."""
    file = file or sys.stderr
    shown = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in line)
    encoding = getattr(file, "encoding", None) or "utf-8"
    with suppress(OSError):  # a log that is full, or a terminal that is gone, is no reason to end
        tqdm.write(shown.encode(encoding, "backslashreplace").decode(encoding), file=file)
        file.flush()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
