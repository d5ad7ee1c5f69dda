"""A zip of a study, unpacked for a while; what is no plain archive of files is refused before anything is written.

The limits are the constants below; a program may set others. Members that share bytes, as those of a bomb that unpacks
to millions of times its size, count each for itself, so the limits hold for them too. Names that are equal but for
upper and lower case are two files where the file system tells them apart; where it does not, the second is refused.
"""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from lzma import LZMAError
from pathlib import Path, PurePosixPath

from liverseg.errors import OutputError, UnreadableError, one_line
from liverseg.utils.files import is_dir, is_file

__all__ = ["extracted"]

MAX_FILES = 20_000
"""As many members as a zip may have: several times the slices of a study of many phases."""
MAX_DIRECTORY = 8 << 20
"""Bytes of a zip's list of members, which is read into memory before they can be counted: 400 for each allowed one."""
MAX_NAME, MAX_PART, MAX_DEPTH = 1024, 255, 32
"""Bytes of a member's path, bytes of a name in it, which is what file systems take, and names in it."""
MAX_BYTES = 8 << 30
"""As much as a zip may hold unpacked: a study of 16 000 slices of 512×512."""
MAX_RATIO = 100
"""How many times its packed size a zip may hold. A CT packs to a third or so, one that is mostly padding to a tenth."""
SMALL_BYTES = 128 << 20
"""A zip that holds no more than this may have any ratio: masks pack to a thousandth and do no harm."""

_BLOCK = 1 << 20
_SHOWN = 80
_ENCRYPTED = 0x1
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
_DRIVE = re.compile(r"^[A-Za-z]:")
_DAMAGED = (zipfile.BadZipFile, zlib.error, LZMAError, EOFError, NotImplementedError, RuntimeError, ValueError)
"""What zipfile raises for a zip that is damaged, or packed in a way it does not know."""


@contextmanager
def extracted(source: str | os.PathLike) -> Iterator[Path]:
    """The folder a study is in: a folder as it is, a .zip as a temporary folder that goes away with the block.

    The temporary folder is where the system keeps such (TMPDIR moves it). Nothing is written outside it, and nothing
    is left when the zip is refused.

    Raises:
        LiversegError: if there is nothing there, or it is neither a folder nor a zip; if the zip is damaged, too large
            or packed too tightly, or a member has a path that leads outside, is a link or is encrypted.
    """
    source = Path(source)
    if is_dir(source):
        yield source
        return
    if not is_file(source):
        raise UnreadableError(f"{source}: no such folder or file; give a folder of DICOM files, or a .zip of one")
    if source.suffix.lower() != ".zip":
        raise UnreadableError(f"{source}: neither a folder nor a .zip; give the folder that holds the DICOM files")
    try:
        temporary = tempfile.TemporaryDirectory(prefix="liverseg-")
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"{source}: no temporary folder to unpack into ({reason}); set TMPDIR to one") from error
    with temporary as name:
        folder = Path(name)
        try:
            with _Bounded(source) as file, zipfile.ZipFile(file) as archive:
                _unpack(archive, source, folder)
        except _DAMAGED as error:
            raise UnreadableError(f"{source}: damaged or no zip ({one_line(error)}); pack or copy it again") from error
        except OSError as error:
            reason = error.strerror or error
            told = f"cannot be unpacked into {folder.parent} ({reason}); is it full? TMPDIR names another folder"
            raise (OutputError if error.errno in _NO_ROOM else UnreadableError)(f"{source}: {told}") from error
        yield folder


class _Bounded(io.FileIO):
    """A zip whose list of members is refused where it is too long; zipfile reads it in one piece."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > MAX_DIRECTORY:
            raise UnreadableError(
                f"{self.name}: {size >> 20} MiB of names, {MAX_DIRECTORY >> 20} are allowed; unpack it and give the "
                "folder"
            )
        return super().read(size) or b""


def _unpack(archive: zipfile.ZipFile, source: Path, folder: Path) -> None:
    members = archive.infolist()
    if len(members) > MAX_FILES:
        raise UnreadableError(
            f"{source}: {len(members)} members, {MAX_FILES} are allowed; unpack it and give the folder"
        )
    targets: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for member in members:  # all of them before anything is written
        target = _target(member, source)
        if target is None:
            continue
        if target in targets:
            raise UnreadableError(f"{source}: two members are called {target}; pack it again, or give the folder")
        targets[target] = member
    if len({parent for target in targets for parent in target.parents}) > MAX_FILES:
        raise UnreadableError(f"{source}: more than {MAX_FILES} folders in it; unpack it and give the folder")
    left = min(MAX_BYTES, max(SMALL_BYTES, MAX_RATIO * source.stat().st_size))
    needed = sum(member.file_size for member in targets.values())
    if needed > left:
        raise _too_large(source)
    free = shutil.disk_usage(folder).free
    if needed > free:  # said now, not when all of it is filled, which may be memory
        raise OSError(errno.ENOSPC, f"{(needed >> 20) + 1} MiB are needed, {free >> 20} are free")
    for target, member in targets.items():
        path = folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(member) as reader, path.open("xb") as writer:
            while block := reader.read(_BLOCK):
                left -= len(block)  # counted again, since the sizes a zip states may lie
                if left < 0:
                    raise _too_large(source)
                writer.write(block)


def _too_large(source: Path) -> UnreadableError:
    return UnreadableError(
        f"{source}: holds more than {MAX_BYTES >> 30} GiB, or than {MAX_RATIO} times its packed size, as no CT does; "
        "if it is one, unpack it and give the folder"
    )


def _target(member: zipfile.ZipInfo, source: Path) -> PurePosixPath | None:
    """A file's path below the folder, None for a folder; what leads elsewhere or is neither of the two is refused."""
    name = member.filename.replace("\\", "/")  # as some programs pack on Windows
    kind = stat.S_IFMT(member.external_attr >> 16)
    for wrong, what in (
        (name.startswith("/") or bool(_DRIVE.match(name)), "has an absolute path"),
        (".." in name.split("/"), "has a path that leads upwards"),
        (kind not in (0, stat.S_IFREG, stat.S_IFDIR), "is a link or a device"),
        (bool(member.flag_bits & _ENCRYPTED), "is encrypted"),
        (any(ord(one) < 32 or ord(one) == 127 for one in name), "has control characters in its name"),
        (_is_long(name), "has too long or too deep a path"),
    ):
        if wrong:
            shown = ascii(member.filename[:_SHOWN])[1:-1] + ("..." if len(member.filename) > _SHOWN else "")
            raise UnreadableError(f"{source}: member {shown} {what}; pack plain files alone, or give the folder")
    target = PurePosixPath(name)
    return None if name.endswith("/") or target == PurePosixPath() else target


def _is_long(name: str) -> bool:
    parts = [len(part.encode("utf-8", "surrogateescape")) for part in name.split("/") if part]
    return len(parts) > MAX_DEPTH or max(parts, default=0) > MAX_PART or sum(parts) + len(parts) > MAX_NAME
