"""Extract the zip of a study to a temporary folder; refuse all but plain archives of files before anything is written.

The limits are the constants below; a program may set others. Members that share bytes, as in a bomb that extracts to
millions of times its size, are counted each, so the limits hold for them too. Names that differ only in case are two
files if the file system distinguishes them; if it does not, the second is refused.
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
from liverseg.imageio.limits import MAX_BYTES, MAX_FILES, MAX_RATIO
from liverseg.utils.files import is_dir, is_file, refuse_special

__all__ = ["extracted", "nested_volumes"]

MAX_DIRECTORY = 8 << 20
"""Bytes of a zip's list of members, which is read into memory before they can be counted: 400 for each allowed one."""
MAX_NAME, MAX_PART, MAX_DEPTH = 1024, 255, 32
"""Bytes of a member's path, bytes of each name in it (the limit of file systems), and number of names."""
SMALL_BYTES = 128 << 20
"""A zip with at most this content may have any compression ratio: masks compress to a thousandth and do no harm."""

_BLOCK_BYTES = 1 << 20
_MAX_SHOWN = 80
_ENCRYPTED_FLAG = 0x1
_NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
_DRIVE = re.compile(r"^[A-Za-z]:")
_DAMAGED = (zipfile.BadZipFile, zlib.error, LZMAError, EOFError, NotImplementedError, RuntimeError, ValueError)
"""Errors of zipfile for a zip that is damaged or uses an unknown compression."""


@contextmanager
def extracted(source: str | os.PathLike) -> Iterator[Path]:
    """Yield the folder of a study: a folder unchanged, a .zip extracted to a temporary folder for the block.

    The temporary folder is in the system's place for them, or in TMPDIR. Nothing is written outside it, and nothing is
    left of a zip that is refused.

    Raises:
        LiversegError: if the source is missing or neither a folder nor a zip; if the zip is damaged, too large or
            compressed too much; or if a member has a path that leads outside, is a link or is encrypted.
    """
    source = Path(source)
    if is_dir(source):
        yield source
        return
    if not is_file(source):
        refuse_special(source)
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
            with _BoundedFile(source) as file, zipfile.ZipFile(file) as archive:
                _extract(archive, source, folder)
        except _DAMAGED as error:
            raise UnreadableError(f"{source}: damaged or no zip ({one_line(error)}); pack or copy it again") from error
        except OSError as error:
            reason = error.strerror or error
            kind = OutputError if error.errno in _NOT_WRITABLE else UnreadableError
            message = f"cannot be unpacked into {folder.parent} ({reason}); is it full? TMPDIR names another folder"
            raise kind(f"{source}: {message}") from error
        yield folder


def nested_volumes(source: Path) -> list[tuple[str, str]]:
    """Return the members of a zip that hold CTs of their own, each with why it is not read.

    A zip is read as the DICOM files of one study. Only its list of members is read here. One that cannot be read gives
    none: the case itself fails, with the reason.
    """
    if not is_file(source):  # to open a pipe would never end
        return []
    try:
        with _BoundedFile(source) as file, zipfile.ZipFile(file) as archive:
            names = [member.filename for member in archive.infolist()]
    except (*_DAMAGED, OSError, UnreadableError):
        return []
    found = []
    for name in names:
        shown = name.replace("\\", "/").lstrip("/")
        if name.lower().endswith(".zip"):
            found.append((shown, "a zip within a zip; unpack the outer one"))
        elif name.lower().endswith((".nii", ".nii.gz")):
            found.append((shown, "NIfTI within a zip, of which DICOM files are read; unpack it"))
    return found


class _BoundedFile(io.FileIO):
    """A zip whose list of members is refused if it is too long; zipfile reads it in one piece."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > MAX_DIRECTORY:
            raise UnreadableError(
                f"{self.name}: {size >> 20} MiB of names, {MAX_DIRECTORY >> 20} are allowed; unpack it and give the "
                "folder"
            )
        return super().read(size) or b""


def _extract(archive: zipfile.ZipFile, source: Path, folder: Path) -> None:
    """Check all members, then write them."""
    members = archive.infolist()
    if len(members) > MAX_FILES:
        raise UnreadableError(
            f"{source}: {len(members)} members, {MAX_FILES} are allowed; unpack it and give the folder"
        )
    targets: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for member in members:
        target = _target_path(member, source)
        if target is None:
            continue
        if target in targets:
            raise UnreadableError(f"{source}: two members are called {target}; pack it again, or give the folder")
        targets[target] = member
    if len({parent for target in targets for parent in target.parents}) > MAX_FILES:
        raise UnreadableError(f"{source}: more than {MAX_FILES} folders in it; unpack it and give the folder")
    remaining = min(MAX_BYTES, max(SMALL_BYTES, MAX_RATIO * source.stat().st_size))
    needed = sum(member.file_size for member in targets.values())
    if needed > remaining:
        raise _too_large(source)
    free = shutil.disk_usage(folder).free
    if needed > free:  # refused before the disk is filled, which may be memory
        raise OSError(errno.ENOSPC, f"{(needed >> 20) + 1} MiB are needed, {free >> 20} are free")
    for target, member in targets.items():
        path = folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(member) as reader, path.open("xb") as writer:
            while block := reader.read(_BLOCK_BYTES):
                remaining -= len(block)  # counted again, since the sizes that a zip states may be wrong
                if remaining < 0:
                    raise _too_large(source)
                writer.write(block)


def _too_large(source: Path) -> UnreadableError:
    return UnreadableError(
        f"{source}: holds more than {MAX_BYTES >> 30} GiB, or than {MAX_RATIO} times its compressed size, as no CT "
        "does; if it is one, unpack it and give the folder"
    )


def _target_path(member: zipfile.ZipInfo, source: Path) -> PurePosixPath | None:
    """Return a file's path below the folder, or None for a folder.

    Raises:
        UnreadableError: if the path leads elsewhere, or the member is neither a file nor a folder.
    """
    name = member.filename.replace("\\", "/")  # some programs write backslashes on Windows
    kind = stat.S_IFMT(member.external_attr >> 16)
    for refused, reason in (
        (name.startswith("/") or bool(_DRIVE.match(name)), "has an absolute path"),
        (".." in name.split("/"), "has a path that leads upwards"),
        (kind not in (0, stat.S_IFREG, stat.S_IFDIR), "is a link or a device"),
        (bool(member.flag_bits & _ENCRYPTED_FLAG), "is encrypted"),
        (any(ord(char) < 32 or ord(char) == 127 for char in name), "has control characters in its name"),
        (_is_long(name), "has too long or too deep a path"),
    ):
        if refused:
            shown = ascii(member.filename[:_MAX_SHOWN])[1:-1] + ("..." if len(member.filename) > _MAX_SHOWN else "")
            raise UnreadableError(f"{source}: member {shown} {reason}; pack plain files alone, or give the folder")
    target = PurePosixPath(name)
    return None if name.endswith("/") or target == PurePosixPath() else target


def _is_long(name: str) -> bool:
    parts = [len(part.encode("utf-8", "surrogateescape")) for part in name.split("/") if part]
    return len(parts) > MAX_DEPTH or max(parts, default=0) > MAX_PART or sum(parts) + len(parts) > MAX_NAME
