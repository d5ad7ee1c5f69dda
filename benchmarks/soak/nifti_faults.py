"""Damaged and hostile NIfTI files: each function writes one at a path, from a seeded generator."""

from __future__ import annotations

import gzip
import os
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from benchmarks.soak.material import write_ct

__all__ = ["NIFTI_FAULTS"]

Make = Callable[[random.Random, Path], None]
_HEADER, _OFFSET = 348, 352
FLOATS = (float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 1e-30, 1e30, 3.4e38, -2.0, 1e5)
SHORTS = (0, 1, -1, 2, 7, 8, 255, 32767, -32768, 1000)
_SHORT_FIELDS = {"dim0": 40, "dim1": 42, "dim2": 44, "dim3": 46, "dim4": 48, "dim7": 54, "datatype": 70, "bitpix": 72}
_FLOAT_FIELDS = {
    "pixdim0": 76, "pixdim1": 80, "pixdim2": 84, "pixdim3": 88, "vox_offset": 108, "scl_slope": 112, "scl_inter": 116,
    "quatern_b": 256, "quatern_c": 260, "qoffset_x": 268, "srow_x0": 280, "srow_x3": 292, "srow_y1": 300,
    "srow_z2": 320,
}  # fmt: skip


def _intact(rng: random.Random, path: Path) -> bytearray:
    """Return the bytes of an intact .nii."""
    plain = path.with_name("plain.nii.tmp.nii")
    write_ct(plain, rng.randrange(1000))
    content = bytearray(plain.read_bytes())
    plain.unlink()
    return content


def _save(path: Path, content: bytes) -> None:
    packed = path.name.endswith(".gz")
    path.write_bytes(gzip.compress(bytes(content), 1, mtime=0) if packed else bytes(content))


def truncated(rng: random.Random, path: Path) -> None:
    """A file that ends in the header, the voxels, or the gzip stream's last bytes."""
    _save(path, _intact(rng, path))
    content = path.read_bytes()
    size = len(content)
    ends = (0, 1, 10, 347, 348, 351, size - 1, size - 4, size - 9, rng.randrange(size))
    path.write_bytes(content[: rng.choice(ends)])


def flipped_header(rng: random.Random, path: Path) -> None:
    """One to eight flipped bits in the header."""
    content = _intact(rng, path)
    for _ in range(rng.randint(1, 8)):
        content[rng.randrange(_OFFSET)] ^= 1 << rng.randrange(8)
    _save(path, content)


def flipped_voxels(rng: random.Random, path: Path) -> None:
    """Flipped bits in the voxels: any, or of the lower bytes only, which leaves a plausible CT."""
    content, step = _intact(rng, path), rng.choice([1, 2])
    for _ in range(rng.randint(1, 50)):
        content[rng.randrange(_OFFSET, len(content), step)] ^= 1 << rng.randrange(8)
    _save(path, content)


def flipped_file(rng: random.Random, path: Path) -> None:
    """Flipped bits anywhere in the file on disk, also in gzip's own bytes."""
    _save(path, _intact(rng, path))
    content = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 4)):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def lying_header(rng: random.Random, path: Path) -> None:
    """One to three header fields with wrong values."""
    content = _intact(rng, path)
    for _ in range(rng.randint(1, 3)):
        if rng.random() < 0.5:
            struct.pack_into("<h", content, rng.choice([*_SHORT_FIELDS.values()]), rng.choice(SHORTS))
        else:
            struct.pack_into("<f", content, rng.choice([*_FLOAT_FIELDS.values()]), rng.choice(FLOATS))
    if rng.random() < 0.3:
        struct.pack_into("<hh", content, 252, rng.choice([0, 1, -5]), rng.choice([0, 1, 9]))  # qform, sform code
    _save(path, content)


def large_claim(rng: random.Random, path: Path) -> None:
    """Dimensions of several gigabytes."""
    content = _intact(rng, path)
    struct.pack_into("<8h", content, 40, rng.choice([3, 4, 7]), *[rng.choice([32767, 4096, 20000])] * 3, 1, 1, 1, 1)
    _save(path, content)


def bomb(rng: random.Random, path: Path) -> None:
    """Hundreds of megabytes of zeros, as voxels or after them."""
    content = _intact(rng, path)
    if rng.random() < 0.5:
        struct.pack_into("<4h", content, 40, 3, 1024, 1024, rng.choice([100, 1200]))
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    with path.open("wb") as file:
        file.write(packer.compress(bytes(content)))
        for _ in range(rng.choice([100, 300])):
            file.write(packer.compress(bytes(1 << 20)))
        file.write(packer.flush())


def gzip_damage(rng: random.Random, path: Path) -> None:
    """A wrong checksum, length or flag, a second stream, or noise after the stream."""
    content = bytearray(gzip.compress(bytes(_intact(rng, path)), 1, mtime=0))
    variant = rng.randrange(6)
    if variant == 0:
        content[-8] ^= 0xFF
    elif variant == 1:
        content[-1] ^= 0xFF
    elif variant == 2:
        content[3] = rng.randrange(1, 256)
    elif variant == 3:
        content += gzip.compress(rng.randbytes(100))
    elif variant == 4:
        content += rng.randbytes(rng.randint(1, 1000))
    else:
        content[2] = rng.randrange(256)
    path.write_bytes(content)


def wrong_type(rng: random.Random, path: Path) -> None:
    """Other content under a volume's name: a picture, text, nothing, noise, a wrong or repeated compression."""
    plain, png = bytes(_intact(rng, path)), b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + rng.randbytes(400)
    kinds = [b"", b"\0" * 500, png, b"not a volume\n" * 50, rng.randbytes(2000), b"\x1f\x8b", plain[:348]]
    other = plain if path.name.endswith(".gz") else gzip.compress(plain)
    twice = gzip.compress(gzip.compress(plain))
    path.write_bytes(rng.choice([*kinds, other, twice]))


def wrong_voxels(rng: random.Random, path: Path) -> None:
    """Voxels that are not a CT: fractions, NaN, infinite, out of range, constant, or in four dimensions."""
    import nibabel as nib
    import numpy as np

    shape = rng.choice([(32, 40, 4), (32, 40, 4, 3), (32, 40), (1, 1, 1), (300, 2, 1), (32, 40, 1)])
    noise = np.random.default_rng(rng.randrange(1000)).normal(0, 1, shape)
    value = rng.choice([noise, noise * np.nan, noise * np.inf, noise * 1e6, noise * 0, noise * 400 - 100, noise * 1e38])
    kind = rng.choice([np.float32, np.float64])
    with np.errstate(all="ignore"):
        nib.save(nib.Nifti1Image(value.astype(kind), np.diag([2.0, 2.0, 4.0, 1.0])), os.fspath(path))


def wrong_grid(rng: random.Random, path: Path) -> None:
    """Sheared, singular, tiny, huge or left-handed affines."""
    import numpy as np

    affine = np.diag([2.0, 2.0, 4.0, 1.0])
    variant = rng.randrange(6)
    if variant == 0:
        affine[0, 1] = rng.choice([0.1, 1.0, 5.0])
    elif variant == 1:
        affine[2] = affine[1] + rng.choice([1e-9, 1e-5])  # nearly singular; lying_header makes singular ones
    elif variant == 2:
        affine[:3, :3] *= rng.choice([1e-4, 1e-2, 30, 1e4, 1e9])
    elif variant == 3:
        affine = affine[[1, 2, 0, 3]]
    elif variant == 4:
        affine[:3, 3] = rng.choice([1e4, 1e9, 1e20])
    else:
        angle = rng.uniform(0, 3)
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [0, 0, 1], [np.sin(angle), np.cos(angle), 0]])
        affine[:3, :3] = turn @ affine[:3, :3]
    write_ct(path, rng.randrange(1000), affine=affine)


def no_file(rng: random.Random, path: Path) -> None:
    """A folder, a link, a dangling or circular link, a FIFO, a device or an unreadable file instead of a volume."""
    variant = rng.randrange(7)
    if variant == 0:
        path.mkdir()
    elif variant == 1:
        path.symlink_to("nowhere.nii")
    elif variant == 2:
        path.symlink_to(path.name)
    elif variant == 3:
        os.mkfifo(path)
    elif variant == 4:
        path.symlink_to(rng.choice(["/dev/zero", "/dev/null", "/dev/urandom", "/dev/full"]))
    elif variant == 5:
        good = write_ct(path.with_name(f"target-{path.name}"), rng.randrange(1000))
        path.symlink_to(good.name)
    else:
        write_ct(path, 1)
        path.chmod(0)


NIFTI_FAULTS: dict[str, Make] = {
    "NIfTI truncated": truncated,
    "NIfTI header bits flipped": flipped_header,
    "NIfTI voxel bits flipped": flipped_voxels,
    "NIfTI file bits flipped": flipped_file,
    "NIfTI header that lies": lying_header,
    "NIfTI claims gigabytes": large_claim,
    "NIfTI gzip bomb": bomb,
    "NIfTI gzip damaged": gzip_damage,
    "NIfTI of another type": wrong_type,
    "NIfTI voxels that are no CT": wrong_voxels,
    "NIfTI affine odd": wrong_grid,
    "no file: folder, link, FIFO, device, unreadable": no_file,
}
