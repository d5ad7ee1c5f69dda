"""Graceful shutdown on SIGINT, SIGTERM and SIGHUP."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType

__all__ = ["SHUTDOWN_SIGNALS", "GracefulShutdown", "preserve_signal_handlers"]

SHUTDOWN_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_CLEANUP_SECONDS = 5.0
"""Ignore further signals for this time, so that cleanup can finish; after that they interrupt it."""


class GracefulShutdown:
    """Context manager in which SIGINT, SIGTERM and SIGHUP raise `SystemExit` with 128 plus the signal's number.

    The exception lets `finally` blocks remove unfinished files. It also ends process 1 of a container, to which the
    kernel does not deliver signals without a handler. A signal that is ignored when the process starts stays ignored:
    SIGHUP under `nohup`, SIGINT in a script's background job. Outside the main thread no signal is handled.

    Attributes:
        signal: the first signal; None before.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._action: Callable[[], None] | None = None
        self._previous: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}
        self._pid = os.getpid()
        self._raised_at = -math.inf

    @contextmanager
    def on_signal(self, action: Callable[[], None]) -> Iterator[None]:
        """Within the block, call a function on each signal instead of raising.

        Handlers that a library has set in the meantime, as Ray does, are replaced at both ends of the block.
        """
        outer, self._action = self._action, action
        self._install_handlers()
        try:
            yield
        finally:
            self._action = outer
            self._install_handlers()

    def _install_handlers(self) -> None:
        for number in self._previous:
            signal.signal(number, self._handle)

    def __enter__(self) -> GracefulShutdown:
        if threading.current_thread() is threading.main_thread():
            for number in SHUTDOWN_SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not set by Python
        if self.signal is not None and isinstance(error, _Interrupted):
            with suppress(OSError):  # the terminal may be closed
                print(f"liverseg: ended by {self.signal.name}", file=sys.stderr, flush=True)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._pid:
            os._exit(128 + number)  # a forked process has nothing to clean up
        self.signal = self.signal or signal.Signals(number)
        now = time.monotonic()
        if self._action is not None:
            self._action()
        elif now - self._raised_at > _CLEANUP_SECONDS:
            self._raised_at = now
            raise _Interrupted(128 + number)


@contextmanager
def preserve_signal_handlers() -> Iterator[None]:
    """Prevent a library from setting signal handlers within the block."""
    original = signal.signal
    signal.signal = lambda signalnum, handler: signal.getsignal(signalnum)
    try:
        yield
    finally:
        signal.signal = original


class _Interrupted(SystemExit):
    """Raised by a signal handler."""
