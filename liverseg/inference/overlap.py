"""Overlap the stages of a run: while one case is computed, the next is read and the previous one written.

Reading and writing run in threads, not processes: reading, hashing, torch and compression release Python's lock, and a
container's 64 MB of shared memory hold no CT.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

__all__ = ["Prefetcher", "run_overlapped"]

_END = object()


class Prefetcher:
    """Read the next item in a thread, while the caller uses the current one.

    Args:
        items: the items; `next` is called on them in the thread.
        read: reads an item.
    """

    def __init__(self, items: Iterator[Any], read: Callable[[Any], Any]) -> None:
        self._items, self._read = items, read
        self._thread = ThreadPoolExecutor(1, "read")
        self._next: Future[tuple[Any, Any]] = self._thread.submit(self._read_next)

    def __call__(self) -> tuple[Any, Any] | None:
        """Return the next item and its data, and start to read the one after it; None after the last."""
        item, data = self._next.result()
        if item is _END:
            return None
        self._next = self._thread.submit(self._read_next)
        return item, data

    def close(self) -> None:
        """Read no further items, without waiting for the one that is being read."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _read_next(self) -> tuple[Any, Any]:
        item = next(self._items, _END)
        return (item, None) if item is _END else (item, self._read(item))


def run_overlapped(
    prefetcher: Prefetcher, compute: Callable[[Any, Any], Any], write: Callable[[Any, Any], Any]
) -> None:
    """Compute and write every item; at most three are in memory.

    Args:
        prefetcher: returns each item with its data.
        compute: takes an item and its data to the data to write, in the calling thread; None if nothing is to be
            written.
        write: writes an item's data, in a thread.

    Raises:
        Any exception of `compute` or `write`, which handle the failure of a single item themselves.
    """
    with ExitStack() as stack:
        writer = stack.enter_context(ThreadPoolExecutor(1, "write"))
        stack.callback(prefetcher.close)
        writing: Future[Any] | None = None
        while (pair := prefetcher()) is not None:
            item, data = pair
            data = compute(item, data)
            if writing is not None:
                writing.result()
            writing = None if data is None else writer.submit(write, item, data)
            del pair, data  # they would stay in memory until the next is read
        if writing is not None:
            writing.result()
