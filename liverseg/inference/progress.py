"""Progress of a run over cases: the terminal, and seconds by stage."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import singledispatchmethod

from tqdm import tqdm

from liverseg.cases.events import Callback, CaseDone, CaseFailed, Event, StageProgress

__all__ = ["ConsoleReporter", "StageTimer"]


class StageTimer:
    """Measure the seconds of a case by stage.

    Args:
        on_progress: called with the stage and its fraction done, 0 to 1, whenever it changes.

    Attributes:
        seconds: by stage, in the order the stages ended.

    Example:
        >>> stages = StageTimer()
        >>> with stages("read"):
        ...     pass
        >>> list(stages.seconds)
        ['read']
    """

    def __init__(self, on_progress: Callable[[str, float], None] | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self.on_progress = on_progress
        self._stage = ""

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time the block; a stage that fails has no seconds."""
        start, self._stage = time.perf_counter(), stage
        self.done(0.0)
        yield
        self.seconds[stage] = time.perf_counter() - start

    def done(self, share: float) -> None:
        """Report the fraction of the current stage that is done, 0 to 1."""
        if self.on_progress is not None:
            self.on_progress(self._stage, share)


_BAR = "{desc}{percentage:3.0f}%|{bar}| {n:.1f}/{total} {unit} [{elapsed}<{remaining}]"


class ConsoleReporter(Callback):
    """Report finished cases on stdout, failures and warnings on stderr.

    A progress bar is shown on stderr if that is a terminal.

    Args:
        cases: names of the cases, in order.
        bar: show the bar.

    Attributes:
        failures: names of the failed cases.
        error: the exception if the run has a single case. It is not printed, because the caller raises it. With several
            cases it stays None: each exception would keep its case in memory.
    """

    def __init__(self, cases: Sequence[str], bar: bool = True) -> None:
        self.failures: list[str] = []
        self.error: Exception | None = None
        self._cases = list(cases)
        self._finished = 0
        self._lock = threading.Lock()
        self._bar = tqdm(total=len(cases), unit="case", bar_format=_BAR, file=sys.stderr, disable=None if bar else True)

    def __enter__(self) -> ConsoleReporter:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    @singledispatchmethod
    def on_event(self, event: Event) -> None:
        """Print or show an event; others than progress, success and failure are ignored."""

    @on_event.register
    def _show_progress(self, event: StageProgress) -> None:
        """Move the bar to the number of finished cases plus the network's share of this one."""
        self._bar.set_description(f"{event.case}, {event.part}", refresh=False)
        if event.part == "network":
            self._bar.n = max(self._bar.n, self._cases.index(event.case) + event.share)
        self._bar.refresh()

    @on_event.register
    def _print_done(self, event: CaseDone) -> None:
        stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in event.seconds.items())
        total = sum(event.seconds.values())
        tqdm.write(f"{event.case}: {event.found}, {total:.1f} s ({stages})", file=sys.stdout)
        for warning in event.warnings:
            tqdm.write(f"{event.case}: warning: {warning}", file=sys.stderr)
        self._advance()

    @on_event.register
    def _print_failed(self, event: CaseFailed) -> None:
        """Print the reason; the traceback as well if the environment sets LIVERSEG_DEBUG."""
        self.failures.append(event.case)
        if len(self._cases) == 1:
            self.error = event.error
        else:
            if os.environ.get("LIVERSEG_DEBUG") and event.error is not None:
                tqdm.write("".join(traceback.format_exception(event.error)), file=sys.stderr)
            tqdm.write(f"{event.case}: failed: {event.reason}", file=sys.stderr)
        self._advance()

    def _advance(self) -> None:
        with self._lock:
            self._finished += 1
            self._bar.update(max(0, self._finished - self._bar.n))
