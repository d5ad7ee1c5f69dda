"""DICOM folders and zips as they should not be: each function makes one at a path, seeded."""

from __future__ import annotations

import io
import os
import random
import shutil
import stat
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.soak.material import write_ct_series

__all__ = ["DICOM_FAULTS", "ZIP_FAULTS"]

Make = Callable[[random.Random, Path], None]
TEXTS = (
    "<script>alert(1)</script>", "../../../../tmp/evil", "x" * 10_000, "\0\1\2", "a\\b\\c", "'; DROP TABLE cases; --",
    "=cmd|' /C calc'!A0", "\u202egpj.exe", "%s%n{0}$(id)`id`", "Ã¿Ã",
)  # fmt: skip
TAGS = (
    "Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "BitsStored",
    "RescaleIntercept", "BitsAllocated", "SeriesInstanceUID", "StudyInstanceUID", "SOPInstanceUID", "SOPClassUID",
    "Modality", "SliceThickness", "PhotometricInterpretation", "PixelRepresentation", "SamplesPerPixel", "HighBit",
    "PatientID", "ImageType", "FrameOfReferenceUID", "InstanceNumber",
)  # fmt: skip
ODD: dict[str, tuple[Any, ...]] = {
    "Rows": (0, 1, 65535, 33),
    "Columns": (0, 1, 65535, 41),
    "BitsAllocated": (1, 8, 12, 32, 64),
    "BitsStored": (0, 1, 17),
    "HighBit": (0, 31),
    "SamplesPerPixel": (0, 3, 255),
    "PixelRepresentation": (1, 7),
    "NumberOfFrames": (0, -1, 2, 10**6),
    "RescaleSlope": (0, -1, 1e30, "nan"),
    "RescaleIntercept": (1e30, "inf", "text"),
    "PixelSpacing": ([0, 0], [-1, 1], [1e9, 1]),
    "ImageOrientationPatient": ([0] * 6, [1, 0, 0, 1, 0, 0], [0, 1, 0, 0, 0, -1], [1, 0, 0]),
    "SliceThickness": (0, -1),
    "Modality": ("MR", "", "SEG"),
    "PhotometricInterpretation": ("RGB", "PALETTE COLOR", "YBR_FULL"),
    "GantryDetectorTilt": (12.5,),
    "SpecificCharacterSet": ("ISO_IR 100", "nonsense", "ISO 2022 IR 87"),
}
SYNTAXES = (
    "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.5", "1.2.3", "",
    "1.2.840.10008.1.2.2", "1.2.840.10008.1.2",
)  # fmt: skip


def _slices(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.dcm"))


def _some(rng: random.Random, folder: Path) -> list[Path]:
    """One slice, or all."""
    files = _slices(folder)
    return files if rng.random() < 0.3 else [rng.choice(files)]


def truncated(rng: random.Random, path: Path) -> None:
    """A slice ends early."""
    for file in _some(rng, write_ct_series(path, rng.randrange(1000))):
        content = file.read_bytes()
        file.write_bytes(
            content[: rng.choice([0, 100, 131, 132, 140, 300, len(content) - 1, rng.randrange(len(content))])]
        )


def flipped(rng: random.Random, path: Path) -> None:
    """Bits of the tags are others."""
    for file in _some(rng, write_ct_series(path, rng.randrange(1000))):
        content = bytearray(file.read_bytes())
        for _ in range(rng.randint(1, 12)):
            content[rng.randrange(132, min(1000, len(content)))] ^= 1 << rng.randrange(8)
        file.write_bytes(content)


def missing_tags(rng: random.Random, path: Path) -> None:
    """Without one to four tags."""
    write_ct_series(path, rng.randrange(1000), **dict.fromkeys(rng.sample(TAGS, rng.randint(1, 4))))


def odd_tags(rng: random.Random, path: Path) -> None:
    """Tags that say what cannot be."""
    names = rng.sample([name for name in ODD if ODD[name]], rng.randint(1, 2))
    odd = {name: rng.choice(ODD[name]) for name in names}
    try:
        write_ct_series(path, rng.randrange(1000), **odd)
    except (ValueError, TypeError, struct.error):  # what pydicom refuses to write at all
        write_ct_series(path, rng.randrange(1000), Rows=65535, Columns=65535)


def odd_texts(rng: random.Random, path: Path) -> None:
    """Names and descriptions made to harm whoever prints, stores or shows them, and private tags."""
    names = (
        "PatientName",
        "SeriesDescription",
        "StudyDescription",
        "PatientID",
        "InstitutionName",
        "StudyID",
    )
    harmful = {name: rng.choice(TEXTS) for name in rng.sample(names, 3)}
    write_ct_series(path, rng.randrange(1000), SpecificCharacterSet="ISO_IR 192", **harmful)
    import pydicom

    for file in _slices(path):
        one = pydicom.dcmread(file)
        one.add_new((0x0011, 0x0010), "LO", "SOAK")
        one.add_new((0x0011, 0x1001), "UN", rng.randbytes(2 * rng.randrange(500)))
        one.save_as(file)


def mixed(rng: random.Random, path: Path) -> None:
    """Two series of a study, of one length or not, of one UID, two studies, doubled, missing or uneven slices."""
    seed, what = rng.randrange(1000), rng.randrange(7)
    write_ct_series(path, seed, 6)
    other = path / "other" if rng.random() < 0.5 else path.with_name(f"{path.name}.tmp")
    same_study = {"StudyInstanceUID": f"1.2.3.{seed}.0", "PatientID": f"P{seed}"}
    if what == 0:
        write_ct_series(other, seed + 1, 6, **same_study)
    elif what == 1:
        write_ct_series(other, seed + 1, 3, **same_study)
    elif what == 2:
        write_ct_series(other, seed + 1, 6, SeriesInstanceUID=f"1.2.3.{seed}", **same_study)
    elif what == 3:
        write_ct_series(other, seed + 1)
    elif what == 4:
        shutil.copy(path / "2.dcm", path / "copy.dcm")
    elif what == 5:
        (path / f"{rng.choice([1, 2, 3])}.dcm").unlink()
    else:
        write_ct_series(other, seed + 1, 4, Modality="SEG", **same_study)
    if other.exists() and other.parent != path:
        for file in _slices(other):
            shutil.move(os.fspath(file), os.fspath(path / f"o{file.name}"))
        other.rmdir()


def syntax(rng: random.Random, path: Path) -> None:
    """Another transfer syntax than the bytes have, deflated noise, or pixels packed in fragments of noise."""
    import pydicom

    write_ct_series(path, rng.randrange(1000))
    wanted = rng.choice(SYNTAXES).encode()
    for file in _slices(path):
        one = pydicom.dcmread(file)
        if rng.random() < 0.5:
            body = file.read_bytes()
            begin = body.index(b"\2\0\x10\0UI") + 8
            uid = wanted.ljust(20, b"\0")[:20] if len(wanted) <= 20 else wanted[:20]
            file.write_bytes(body[:begin] + uid[: len(b"1.2.840.10008.1.2.1\0")] + body[begin + 20 :])
        else:
            one.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.70"
            one.PixelData = pydicom.encaps.encapsulate([rng.randbytes(rng.randrange(2, 600))])
            one["PixelData"].VR = "OB"
            one["PixelData"].is_undefined_length = True
            one.save_as(file)


def no_slices(rng: random.Random, path: Path) -> None:
    """Files called DICOM that are none, a folder of nothing, FIFOs and links among slices."""
    what = rng.randrange(6)
    path.mkdir()
    if what == 0:
        (path / "1.dcm").write_bytes(rng.randbytes(5000))
    elif what == 1:
        (path / "1.dcm").write_bytes(b"\0" * 128 + b"DICM" + rng.randbytes(rng.randrange(2000)))
    elif what == 2:
        write_ct_series(path, 3)
        os.mkfifo(path / "fifo")
        os.mkfifo(path / "fifo.dcm")
    elif what == 3:
        write_ct_series(path, 3)
        (path / "zero.dcm").symlink_to("/dev/zero")
    elif what == 4:
        write_ct_series(path, 3)
        (path / "loop").symlink_to(".")
    else:
        write_ct_series(path, 3)
        (path / "9.dcm").symlink_to("nowhere")


DICOM_FAULTS: dict[str, Make] = {
    "DICOM truncated": truncated,
    "DICOM bits flipped": flipped,
    "DICOM tags missing": missing_tags,
    "DICOM tags that cannot be": odd_tags,
    "DICOM texts made to harm": odd_texts,
    "DICOM series mixed, doubled, with gaps": mixed,
    "DICOM transfer syntax wrong": syntax,
    "DICOM folder with what is none": no_slices,
}


def _zip(path: Path, members: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _study(rng: random.Random) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as name:
        folder = write_ct_series(Path(name) / "s", rng.randrange(1000))
        return {file.name: file.read_bytes() for file in _slices(folder)}


def zip_path(rng: random.Random, path: Path) -> None:
    """Members that lead elsewhere, have harmful names, or are links."""
    names = (
        "../evil.dcm",
        "/tmp/evil.dcm",
        "a/../../evil.dcm",
        "..\\..\\evil.dcm",
        "C:\\evil.dcm",
        "x\nz.dcm",
        "d/" * 500,
    )
    study = _study(rng)
    what = rng.randrange(len(names) + 1)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in study.items():
            archive.writestr(name, content)
        if what == len(names):
            link = zipfile.ZipInfo("link")
            link.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(link, "/etc/passwd")
        else:
            archive.writestr(names[what], b"evil")


def zip_bomb(rng: random.Random, path: Path) -> None:
    """Zeros by the hundred megabytes, zips in zips, or a size that lies."""
    what = rng.randrange(3)
    if what == 0:
        _zip(path, {f"{n}.dcm": bytes(100 << 20) for n in range(3)})
    elif what == 1:
        inner = io.BytesIO()
        with zipfile.ZipFile(inner, "w") as archive:
            for name, content in _study(rng).items():
                archive.writestr(name, content)
        _zip(path, {"inner.zip": inner.getvalue()})
    else:
        _zip(path, {f"f{n}": b"" for n in range(25_000)}, zipfile.ZIP_STORED)


def zip_damaged(rng: random.Random, path: Path) -> None:
    """Truncated, flipped, encrypted by its flag, empty, no zip, or doubled names."""
    _zip(path, _study(rng))
    content = bytearray(path.read_bytes())
    what = rng.randrange(6)
    if what == 0:
        content = content[: rng.randrange(len(content))]
    elif what == 1:
        for _ in range(rng.randint(1, 10)):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif what == 2:
        for mark, at in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
            content[content.index(mark) + at] |= 1
    elif what == 3:
        content = bytearray(b"PK\5\6" + bytes(18))
    elif what == 4:
        content = bytearray(rng.randbytes(3000))
    else:
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("0.dcm", b"twice")
        content = bytearray(path.read_bytes())
    path.write_bytes(content)


ZIP_FAULTS: dict[str, Make] = {
    "zip members that lead elsewhere": zip_path,
    "zip bombs": zip_bomb,
    "zip damaged": zip_damaged,
}
