"""Being told to end, by a signal: from a terminal, `kill`, or whatever runs a container or a job."""

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
_SECONDS = 5.0
"""So long what the first signal has begun to bring in order is not broken off by another; what hangs longer is."""


class GracefulShutdown:
    """While it is entered, SIGINT, SIGTERM and SIGHUP raise `SystemExit` with 128 and the signal's number.

    So whatever is being written is taken away on the way out, and process 1 of a container, from which the kernel keeps
    signals without a handler, ends at all. A signal that whoever began this process has it ignore stays ignored: SIGHUP
    by `nohup`, SIGINT by a script's `&`. Elsewhere than in the main thread nothing is handled.

    Attributes:
        by: the first signal there was; None before.
    """

    def __init__(self) -> None:
        self.by: signal.Signals | None = None
        self._then: Callable[[], None] | None = None
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}
        self._pid = os.getpid()
        self._raised = -math.inf

    def then(self, end: Callable[[], None] | None) -> None:
        """What a signal does from now on instead of raising; it may be called several times. None raises again.

        Handlers that a library has set meanwhile, as Ray does, are replaced.
        """
        self._then = end
        for number in self._before:
            signal.signal(number, self._told)

    def __enter__(self) -> GracefulShutdown:
        if threading.current_thread() is threading.main_thread():
            for number in SHUTDOWN_SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._told)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: one that Python did not set
        if self.by is not None and isinstance(error, _Ended):
            with suppress(OSError):  # the terminal may be what is gone
                print(f"liverseg: ended by {self.by.name}", file=sys.stderr, flush=True)

    def _told(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._pid:
            os._exit(128 + number)  # a process that was forked off has nothing to bring in order
        self.by = self.by or signal.Signals(number)
        now = time.monotonic()
        if self._then is not None:
            self._then()
        elif now - self._raised > _SECONDS:
            self._raised = now
            raise _Ended(128 + number)


@contextmanager
def preserve_signal_handlers() -> Iterator[None]:
    """Whatever a library does meanwhile, the handlers of signals stay what they are."""
    own = signal.signal
    signal.signal = lambda signalnum, handler: signal.getsignal(signalnum)
    try:
        yield
    finally:
        signal.signal = own


class _Ended(SystemExit):
    """Raised by a signal, in the midst of anything."""
