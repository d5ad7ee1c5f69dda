"""Report the cases of a batch to its run log, its state folder and the terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import singledispatchmethod
from typing import Any, TextIO

from tqdm import tqdm

from liverseg.batch.events import CaseAbandoned, CaseAlreadyDone, CaseFailedBefore, CaseStarted, Heartbeat, Note
from liverseg.batch.job import RunSpec
from liverseg.batch.state import HEARTBEAT_SECONDS, BatchState, case_fingerprint
from liverseg.cases.case import BatchCase
from liverseg.cases.events import Callback, CaseDone, CaseFailed, Event
from liverseg.errors import OutputError
from liverseg.results.case_folder import discard_unfinished, read_case_record

__all__ = ["BatchReporter", "write_line"]

_BAR = "{desc}{percentage:3.0f}%|{bar}| {n}/{total} {unit}s [{elapsed}{postfix}]"


class BatchReporter(Callback):
    """Count the cases of a batch and report what happens to them.

    Args:
        name: name of the batch, for the progress bar.
        cases: all cases of the batch.
        state: state of the output folder.
        spec: weights and settings of the batch.
        liver: liver masks of the run, as `--liver` takes them.

    Attributes:
        made: names of the cases with results, from this run or an earlier one.
        failures: names of the cases that failed, in this run or an earlier one.
        unfinished: number of started cases that are left for the next run.
    """

    def __init__(
        self, name: str, cases: Sequence[BatchCase], state: BatchState, spec: RunSpec, liver: str | None
    ) -> None:
        self.made: set[str] = set()
        self.failures: set[str] = set()
        self.unfinished = 0
        self._cases = {case.name: case for case in cases}
        self._state, self._spec, self._liver = state, spec, liver
        self._fingerprints: dict[str, str] = {}
        self._records_at_start: dict[str, dict[str, Any] | None] = {}
        self._computed, self._first_start, self._last_heartbeat = 0, 0.0, 0.0
        self._bar = tqdm(total=len(cases), desc=name, unit="case", bar_format=_BAR, file=sys.stderr, disable=None)

    @property
    def left(self) -> int:
        """Number of cases without a result or a failure."""
        return len(self._cases) - len(self.made) - len(self.failures)

    def close(self) -> None:
        """Close the progress bar."""
        self._bar.close()

    @singledispatchmethod
    def on_event(self, event: Event) -> None:
        """Report an event; others than those below are ignored."""

    @on_event.register
    def _on_started(self, event: CaseStarted) -> None:
        """Log the start of a case; the first one starts the clock of the rate."""
        self._fingerprints[event.case] = event.fingerprint
        self._records_at_start[event.case] = self._read_record(event.case)
        self._first_start = self._first_start or time.monotonic()
        self._state.log("begun", case=event.case, image=self._cases[event.case].image)

    @on_event.register
    def _on_done(self, event: CaseDone) -> None:
        """Log a case that is done, and print it on stdout with the rate and the time left."""
        self._computed += 1
        self._forget(event.case)
        self.made.add(event.case)
        self._state.clear_failure(event.case)
        self._state.log("done", case=event.case, found=event.found, seconds=event.seconds, warnings=event.warnings)
        self._advance()
        result = f"{event.case}: {event.found}, {sum(event.seconds.values()):.1f} s"
        write_line(f"{self._counter()} {result}; {self._rate()}", sys.stdout)
        for warning in event.warnings:
            write_line(f"{event.case}: warning: {warning}")

    @on_event.register
    def _on_already_done(self, event: CaseAlreadyDone) -> None:
        self._count_made(event.case)

    @on_event.register
    def _on_failed_before(self, event: CaseFailedBefore) -> None:
        self.failures.add(event.case)
        self._state.discard_lock(event.case)
        self._advance()
        reason = f"{event.known.get('category')}: {event.known.get('reason')}"
        write_line(f"{self._counter()} {event.case}: failed before: {reason}")

    @on_event.register
    def _on_failed(self, event: CaseFailed) -> None:
        """Log a failed case, record it for later runs and print it on stderr."""
        case = self._cases[event.case]
        if self._was_written_since_start(case):
            self._count_made(case.name)  # its worker ended after the last file and before `CaseDone`
            return
        self.failures.add(case.name)
        details = {"image": str(case.image), "category": event.category, "reason": event.reason}
        self._state.log("failed", case=case.name, **details)
        with suppress(OutputError):  # the log has it, and a later run would try the case again
            self._state.record_failure(
                case.name,
                **details,
                input=self._fingerprints.pop(case.name, None) or case_fingerprint(case, self._liver),
                weights_sha256=self._spec.weights_sha256,
                configuration_sha256=self._spec.configuration(case),
                tries=int((self._state.read_failure(case.name) or {}).get("tries", 0)) + 1,
            )
        self._discard_files(case.name)
        self._advance()
        write_line(f"{self._counter()} {case.name}: failed: {event.category}: {event.reason}")

    @on_event.register
    def _on_abandoned(self, event: CaseAbandoned) -> None:
        self.unfinished += 1
        self._state.log("abandoned", case=event.case)
        self._discard_files(event.case)

    @on_event.register
    def _on_note(self, event: Note) -> None:
        self._state.log("note", what=event.text)
        write_line(event.text)

    @on_event.register
    def _on_heartbeat(self, event: Heartbeat) -> None:
        now = time.monotonic()
        if now - self._last_heartbeat > HEARTBEAT_SECONDS:
            self._last_heartbeat = now
            self._state.touch()

    def _count_made(self, case: str) -> None:
        """Count a case whose results were there."""
        self._forget(case)
        self.made.add(case)
        self._state.discard_lock(case)
        self._state.clear_failure(case)
        self._advance()

    def _was_written_since_start(self, case: BatchCase) -> bool:
        """Return whether a case has a new, matching record.

        The input is not read again, as `RunSpec.verify` does: that may take as long as the step that has just failed.
        """
        if case.name not in self._records_at_start or not self._spec.record_matches(case, self._state.output):
            return False
        return self._read_record(case.name) != self._records_at_start.pop(case.name)

    def _read_record(self, case: str) -> dict[str, Any] | None:
        return read_case_record(self._state.output / case)

    def _forget(self, case: str) -> None:
        """Drop what was kept of a case since its start."""
        self._fingerprints.pop(case, None)
        self._records_at_start.pop(case, None)

    def _discard_files(self, case: str) -> None:
        """Remove the unfinished files of a case and its lock file, unless another run holds the lock."""
        with suppress(OutputError, OSError):
            lock = self._state.lock(case)
            if lock is not None:
                try:
                    discard_unfinished(self._state.output / case)
                finally:
                    lock.remove()

    def _advance(self) -> None:
        self._bar.set_postfix_str(self._rate(), refresh=False)
        self._bar.update()

    def _counter(self) -> str:
        return f"[{len(self.made) + len(self.failures)}/{len(self._cases)}]"

    def _rate(self) -> str:
        """Return the cases per hour of this run, and the time left at this rate."""
        seconds = time.monotonic() - self._first_start if self._first_start else 0.0
        if not self._computed or not seconds:
            return ""
        rate = self._computed / seconds
        return f"{rate * 3600:.0f} an hour, {_duration(self.left / rate)} left"


def write_line(line: str, file: TextIO | None = None) -> None:
    """Write a line above the bar, by default on stderr; control and unencodable characters are escaped."""
    file = file or sys.stderr
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)
    encoding = getattr(file, "encoding", None) or "utf-8"
    with suppress(OSError):  # a full log or a closed terminal must not end the batch
        tqdm.write(shown.encode(encoding, "backslashreplace").decode(encoding), file=file)
        file.flush()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
