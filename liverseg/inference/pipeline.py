"""Three stages side by side: while one case is computed, the next is read and the last one written.

Threads, not processes: reading, hashing, torch and compression leave Python's lock to the others, and a container's
64 MB of shared memory hold no CT.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

__all__ = ["Ahead", "overlapped"]

_NO_MORE = object()


class Ahead:
    """The next case, being read in a thread.

    Args:
        items: the cases, asked for one at a time, in that thread.
        read: what is made of one.
    """

    def __init__(self, items: Iterator[Any], read: Callable[[Any], Any]) -> None:
        self._items, self._read = items, read
        self._thread = ThreadPoolExecutor(1, "read")
        self._next: Future[tuple[Any, Any]] = self._thread.submit(self._pull)

    def __call__(self) -> tuple[Any, Any] | None:
        """The next item and what reading gave, while the one after it begins to be read; None after the last."""
        item, data = self._next.result()
        if item is _NO_MORE:
            return None
        self._next = self._thread.submit(self._pull)
        return item, data

    def close(self) -> None:
        """Read no more; what is being read is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _pull(self) -> tuple[Any, Any]:
        item = next(self._items, _NO_MORE)
        return (item, None) if item is _NO_MORE else (item, self._read(item))


def overlapped(ahead: Ahead, compute: Callable[[Any, Any], Any], write: Callable[[Any, Any], Any]) -> None:
    """Take every case through its stages; no more than three are in memory.

    Args:
        ahead: gives item and data.
        compute: item and data to what is written, in the calling thread; None ends the case there.
        write: item and data to files, in a thread.

    Raises:
        What a stage raises; stages settle what is a case's own affair themselves.
    """
    with ExitStack() as stack:
        writers = stack.enter_context(ThreadPoolExecutor(1, "write"))
        stack.callback(ahead.close)
        writing: Future[Any] | None = None
        while (pulled := ahead()) is not None:
            item, data = pulled
            data = compute(item, data)
            if writing is not None:
                writing.result()
            writing = None if data is None else writers.submit(write, item, data)
            del pulled, data  # or they would be in memory until the next is read
        if writing is not None:
            writing.result()
