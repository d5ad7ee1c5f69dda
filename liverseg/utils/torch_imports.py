"""Prepare the import of torch: the user's name, no work for the garbage collector, threads that share processors."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["ensure_user_name", "sleep_while_waiting", "torch_imports"]

_USER_VARIABLES = ("LOGNAME", "USER", "LNAME", "USERNAME")
"""Where `getpass.getuser` looks before it asks the system."""


def ensure_user_name() -> None:
    """Set USER if the environment names no user and the user id has no entry in the system's list of users.

    So it is where a container or a cluster assigns a user id of its own. torch and MONAI ask for the name while they
    are imported, for folders and messages, and end with an error without one.
    """
    if any(os.environ.get(name) for name in _USER_VARIABLES) or not hasattr(os, "getuid"):
        return
    import pwd  # not on Windows, which has no user ids

    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ["USER"] = f"uid{os.getuid()}"


def sleep_while_waiting() -> None:
    """Let the threads of torch that wait for the others sleep instead of spin; call it before torch is imported.

    Two predictions at a time on two cores take 3 s each; spinning, they take the cores from each other, and 5 to 15 s.
    A single prediction is as fast, with the full network 4 % slower. Training is slower by a third, and is left alone.

    Nothing changes where torch is imported already, or where the environment sets OMP_WAIT_POLICY.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # libgomp reads it when torch loads it


@contextmanager
def torch_imports() -> Iterator[None]:
    """Import torch and what needs it within the block, in a process of our own.

    Hundreds of thousands of objects of these modules live as long as the process. The collector would look through
    them several times while they are made, again in each full collection, and once more at the end of the process,
    which together takes as long as half of the imports. It therefore waits during the block, and leaves the objects
    that exist after it alone (`gc.freeze`). Threads that wait sleep, see `sleep_while_waiting`.

    Where torch was imported before, nothing changes: the process is another's.
    """
    if "torch" in sys.modules:
        yield
        return
    sleep_while_waiting()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.register(gc.freeze)  # objects that are left at the end need no collection either
        if was_enabled:
            gc.enable()
