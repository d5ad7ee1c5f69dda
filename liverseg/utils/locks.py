"""Lock files that exclude other processes."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path

__all__ = ["NO_LOCKS", "FileLock"]

NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""Error numbers of a file system without locks."""


class FileLock:
    """A lock file, held until it is released or this process ends in any way.

    By `flock`: the system releases the lock when the process is gone, on a local disk and over NFS.

    Attributes:
        descriptor: of the file; a process that inherits it holds the lock as well.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self.descriptor = path, descriptor

    @classmethod
    def try_acquire(cls, path: Path, required: bool = True) -> FileLock | None:
        """Acquire a lock, or return None if another process holds it.

        Args:
            path: the file, created if missing.
            required: raise if the file system knows no locks; otherwise return a lock that excludes nobody.

        Raises:
            OSError: if the file's folder is gone or cannot be written, or the file system knows no locks.
        """
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
                    return cls(path, descriptor)
            except BlockingIOError:
                os.close(descriptor)
                return None
            except FileNotFoundError:
                pass  # its holder released and deleted it after it was opened
            except OSError as error:
                if not required and error.errno in NO_LOCKS:
                    return cls(path, descriptor)
                os.close(descriptor)
                if error.errno in NO_LOCKS:
                    path.unlink(missing_ok=True)  # nobody can hold it
                raise
            os.close(descriptor)

    def remove(self) -> None:
        """Release the lock and delete its file."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)  # while it is held: a process that opens it now sees that it is gone
        self.release()

    def release(self) -> None:
        """Release the lock; the file stays, even under another name."""
        os.close(self.descriptor)
