"""The stages a case goes through: how long each took, and how far the case is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Stages"]


class Stages:
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
