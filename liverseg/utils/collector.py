"""Keep Python's garbage collector away from torch's import, for commands whose time a user waits for."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["torch_imports"]


@contextmanager
def torch_imports() -> Iterator[None]:
    """Import torch and what needs it within the block, in a process of our own.

    Hundreds of thousands of objects of these modules live as long as the process. The collector would look through
    them several times while they are made, again in each full collection, and once more at the end of the process,
    which together takes as long as half of the imports. It therefore waits during the block, and leaves the objects
    that exist after it alone (`gc.freeze`). Where torch was imported before, nothing changes: the process is another's.
    """
    if "torch" in sys.modules:
        yield
        return
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.register(gc.freeze)  # objects that are left at the end need no collection either
        if was_enabled:
            gc.enable()
