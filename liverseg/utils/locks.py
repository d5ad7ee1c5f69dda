"""A file held against all other processes."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path

__all__ = ["NO_LOCKS", "FileLock"]

NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""What a file system says that knows no locks."""


class FileLock:
    """A file that is held until it is let go or this process ends, however it ends.

    By `flock`: the system gives the lock back when its process is gone, on the machine itself as over NFS.

    Attributes:
        descriptor: of the file; a process that inherits it holds the lock as well.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self.descriptor = path, descriptor

    @classmethod
    def of(cls, path: Path, needed: bool = True) -> FileLock | None:
        """Take a lock, its file made if missing; None where another has it.

        Args:
            path: the file.
            needed: otherwise it is taken for held where the file system knows no locks.

        Raises:
            OSError: if the file's folder is gone or cannot be written, or knows no locks.
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
                pass  # its holder has let it go since, and taken the file away
            except OSError as error:
                if not needed and error.errno in NO_LOCKS:
                    return cls(path, descriptor)
                os.close(descriptor)
                if error.errno in NO_LOCKS:
                    path.unlink(missing_ok=True)  # nobody can hold it
                raise
            os.close(descriptor)

    def remove(self) -> None:
        """Let it go, and take its file away."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)  # while it is held: whoever opens it now sees that it is gone
        self.release()

    def release(self) -> None:
        """Let it go; the file stays, by whatever name it has now."""
        os.close(self.descriptor)
