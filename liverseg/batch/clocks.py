"""How long each case has been worked at: a case that waits for another does not grow older."""

from __future__ import annotations

import time

__all__ = ["CaseClock"]


class CaseClock:
    """Seconds a case has been in one of its stages."""

    def __init__(self) -> None:
        self._spent = 0.0
        self._since: float | None = None

    def stage(self, at: str) -> None:
        """A stage has begun or ended."""
        now = time.monotonic()
        if self._since is not None:
            self._spent += now - self._since
        self._since = now if at == "begun" else None

    @property
    def seconds(self) -> float:
        """So far."""
        return self._spent + (0.0 if self._since is None else time.monotonic() - self._since)
