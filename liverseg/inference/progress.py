"""Progress of a run over cases: callbacks, the terminal, and seconds by stage."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tqdm import tqdm

from liverseg.inference.failures import describe_cause

__all__ = [
    "CaseCallback",
    "ConsoleReporter",
    "StageTimer",
    "WrittenCase",
]


class StageTimer:
    """Seconds of a case by stage.

    Args:
        tell: is told the stage and how much of it is done, 0 to 1, whenever that changes.

    Attributes:
        seconds: by stage, in the order the stages ended.

    Example:
        >>> stages = Stages()
        >>> with stages("read"):
        ...     pass
        >>> list(stages.seconds)
        ['read']
    """

    def __init__(self, tell: Callable[[str, float], None] | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self.tell = tell
        self._stage = ""

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time what is done within; a stage that fails has no seconds."""
        start, self._stage = time.perf_counter(), stage
        self.done(0.0)
        yield
        self.seconds[stage] = time.perf_counter() - start

    def done(self, part: float) -> None:
        """So much of the stage, 0 to 1, is done."""
        if self.tell is not None:
            self.tell(self._stage, part)


_BAR = "{desc}{percentage:3.0f}%|{bar}| {n:.1f}/{total} {unit} [{elapsed}<{remaining}]"


@dataclass(frozen=True)
class WrittenCase:
    """A case whose files are there.

    Attributes:
        found: in words, what was found.
        seconds: it took, by stage.
        warnings: what a reader of the results should know, one sentence each.
    """

    found: str
    seconds: dict[str, float]
    warnings: tuple[str, ...]


class CaseCallback:
    """Is told of every case and stage; the methods are called in several threads, and this class does nothing.

    Stages are read, compute and write. Between two stages of a case others may be at work.
    """

    def begun(self, case: str, stage: str) -> None:
        """A stage of a case has begun."""

    def ended(self, case: str, stage: str) -> None:
        """It has ended, well or not."""

    def wanted(self, case: str) -> bool:
        """Asked before a case is computed: is it still wanted? If not, nothing more is told of it."""
        return True

    def moved(self, case: str, part: str, share: float) -> None:
        """So much, 0 to 1, of a part of a stage (`StageTimer`) is done."""

    def done(self, case: str, written: WrittenCase) -> None:
        """The case's files are there."""

    def failed(self, case: str, stage: str, error: Exception) -> None:
        """The case has failed in a stage, and nothing of it is left."""


class ConsoleReporter(CaseCallback):
    """Tells finished cases on stdout, failed ones and warnings on stderr, and shows a bar there if it is a terminal.

    Args:
        cases: their names, in order.
        bar: show it.

    Attributes:
        failures: names of the failed cases.
        error: of the one case there is, which is not told: whoever runs it raises it. Of many none is kept, since each
            would keep its case in memory.
    """

    def __init__(self, cases: list[str], bar: bool = True) -> None:
        self.failures: list[str] = []
        self.error: Exception | None = None
        self._cases = cases
        self._settled = 0
        self._lock = threading.Lock()
        self._bar = tqdm(total=len(cases), unit="case", bar_format=_BAR, file=sys.stderr, disable=None if bar else True)

    def __enter__(self) -> ConsoleReporter:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def moved(self, case: str, part: str, share: float) -> None:
        """Bring the bar to where the run is: so many cases whole, and of this one what the network has done."""
        self._bar.set_description(f"{case}, {part}", refresh=False)
        if part == "network":
            self._bar.n = max(self._bar.n, self._cases.index(case) + share)
        self._bar.refresh()

    def done(self, case: str, written: WrittenCase) -> None:
        """A line, and one a warning."""
        stages = ", ".join(f"{stage} {duration:.1f}" for stage, duration in written.seconds.items())
        tqdm.write(f"{case}: {written.found}, {sum(written.seconds.values()):.1f} s ({stages})", file=sys.stdout)
        for warning in written.warnings:
            tqdm.write(f"{case}: warning: {warning}", file=sys.stderr)
        self._settle()

    def failed(self, case: str, stage: str, error: Exception) -> None:
        """A line; its traceback where the environment sets LIVERSEG_DEBUG."""
        self.failures.append(case)
        if len(self._cases) == 1:
            self.error = error
        else:
            if os.environ.get("LIVERSEG_DEBUG"):
                tqdm.write("".join(traceback.format_exception(error)), file=sys.stderr)
            tqdm.write(f"{case}: failed: {describe_cause(error)}", file=sys.stderr)
        self._settle()

    def _settle(self) -> None:
        with self._lock:
            self._settled += 1
            self._bar.update(max(0, self._settled - self._bar.n))
