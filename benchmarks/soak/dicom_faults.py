"""Damaged and hostile DICOM folders and zips: each function writes one at a path, from a seeded generator."""

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
    """Return one slice or all."""
    files = _slices(folder)
    return files if rng.random() < 0.3 else [rng.choice(files)]


def truncated(rng: random.Random, path: Path) -> None:
    """Truncated slices."""
    for file in _some(rng, write_ct_series(path, rng.randrange(1000))):
        content = file.read_bytes()
        file.write_bytes(
            content[: rng.choice([0, 100, 131, 132, 140, 300, len(content) - 1, rng.randrange(len(content))])]
        )


def flipped(rng: random.Random, path: Path) -> None:
    """Flipped bits in the tags."""
    for file in _some(rng, write_ct_series(path, rng.randrange(1000))):
        content = bytearray(file.read_bytes())
        for _ in range(rng.randint(1, 12)):
            content[rng.randrange(132, min(1000, len(content)))] ^= 1 << rng.randrange(8)
        file.write_bytes(content)


def missing_tags(rng: random.Random, path: Path) -> None:
    """Slices without one to four tags."""
    write_ct_series(path, rng.randrange(1000), **dict.fromkeys(rng.sample(TAGS, rng.randint(1, 4))))


def odd_tags(rng: random.Random, path: Path) -> None:
    """Tags with impossible values."""
    names = rng.sample([name for name in ODD if ODD[name]], rng.randint(1, 2))
    odd = {name: rng.choice(ODD[name]) for name in names}
    try:
        write_ct_series(path, rng.randrange(1000), **odd)
    except (ValueError, TypeError, struct.error):  # values that pydicom does not write
        write_ct_series(path, rng.randrange(1000), Rows=65535, Columns=65535)


def odd_texts(rng: random.Random, path: Path) -> None:
    """Names and descriptions that are harmful if printed, stored or shown, and private tags."""
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
        dataset = pydicom.dcmread(file)
        dataset.add_new((0x0011, 0x0010), "LO", "SOAK")
        dataset.add_new((0x0011, 0x1001), "UN", rng.randbytes(2 * rng.randrange(500)))
        dataset.save_as(file)


def mixed(rng: random.Random, path: Path) -> None:
    """Two series of equal or other length or with the same UID, two studies, doubled or missing slices, a SEG."""
    seed, variant = rng.randrange(1000), rng.randrange(7)
    write_ct_series(path, seed, 6)
    other = path / "other" if rng.random() < 0.5 else path.with_name(f"{path.name}.tmp")
    same_study = {"StudyInstanceUID": f"1.2.3.{seed}.0", "PatientID": f"P{seed}"}
    if variant == 0:
        write_ct_series(other, seed + 1, 6, **same_study)
    elif variant == 1:
        write_ct_series(other, seed + 1, 3, **same_study)
    elif variant == 2:
        write_ct_series(other, seed + 1, 6, SeriesInstanceUID=f"1.2.3.{seed}", **same_study)
    elif variant == 3:
        write_ct_series(other, seed + 1)
    elif variant == 4:
        shutil.copy(path / "2.dcm", path / "copy.dcm")
    elif variant == 5:
        (path / f"{rng.choice([1, 2, 3])}.dcm").unlink()
    else:
        write_ct_series(other, seed + 1, 4, Modality="SEG", **same_study)
    if other.exists() and other.parent != path:
        for file in _slices(other):
            shutil.move(os.fspath(file), os.fspath(path / f"o{file.name}"))
        other.rmdir()


def syntax(rng: random.Random, path: Path) -> None:
    """A transfer syntax that differs from the bytes', or encapsulated noise as pixels."""
    import pydicom

    write_ct_series(path, rng.randrange(1000))
    syntax_uid = rng.choice(SYNTAXES).encode()
    for file in _slices(path):
        dataset = pydicom.dcmread(file)
        if rng.random() < 0.5:
            body = file.read_bytes()
            start = body.index(b"\2\0\x10\0UI") + 8
            uid = syntax_uid.ljust(20, b"\0")[:20]
            file.write_bytes(body[:start] + uid[: len(b"1.2.840.10008.1.2.1\0")] + body[start + 20 :])
        else:
            dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.70"
            dataset.PixelData = pydicom.encaps.encapsulate([rng.randbytes(rng.randrange(2, 600))])
            dataset["PixelData"].VR = "OB"
            dataset["PixelData"].is_undefined_length = True
            dataset.save_as(file)


def no_slices(rng: random.Random, path: Path) -> None:
    """Files that are not DICOM despite their names, or FIFOs and links among slices."""
    variant = rng.randrange(6)
    path.mkdir()
    if variant == 0:
        (path / "1.dcm").write_bytes(rng.randbytes(5000))
    elif variant == 1:
        (path / "1.dcm").write_bytes(b"\0" * 128 + b"DICM" + rng.randbytes(rng.randrange(2000)))
    elif variant == 2:
        write_ct_series(path, 3)
        os.mkfifo(path / "fifo")
        os.mkfifo(path / "fifo.dcm")
    elif variant == 3:
        write_ct_series(path, 3)
        (path / "zero.dcm").symlink_to("/dev/zero")
    elif variant == 4:
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


def _zip(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _study(rng: random.Random) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as name:
        folder = write_ct_series(Path(name) / "s", rng.randrange(1000))
        return {file.name: file.read_bytes() for file in _slices(folder)}


def zip_path(rng: random.Random, path: Path) -> None:
    """Members with paths outside the folder or harmful names, or a link."""
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
    variant = rng.randrange(len(names) + 1)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in study.items():
            archive.writestr(name, content)
        if variant == len(names):
            link = zipfile.ZipInfo("link")
            link.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(link, "/etc/passwd")
        else:
            archive.writestr(names[variant], b"evil")


def zip_bomb(rng: random.Random, path: Path) -> None:
    """Hundreds of megabytes of zeros, a zip in a zip, or 25,000 empty members."""
    variant = rng.randrange(3)
    if variant == 0:
        _zip(path, {f"{n}.dcm": bytes(100 << 20) for n in range(3)})
    elif variant == 1:
        inner = io.BytesIO()
        with zipfile.ZipFile(inner, "w") as archive:
            for name, content in _study(rng).items():
                archive.writestr(name, content)
        _zip(path, {"inner.zip": inner.getvalue()})
    else:
        _zip(path, {f"f{n}": b"" for n in range(25_000)}, zipfile.ZIP_STORED)


def zip_damaged(rng: random.Random, path: Path) -> None:
    """Truncated, with flipped bits, marked as encrypted, empty, not a zip, or with doubled names."""
    _zip(path, _study(rng))
    content = bytearray(path.read_bytes())
    variant = rng.randrange(6)
    if variant == 0:
        content = content[: rng.randrange(len(content))]
    elif variant == 1:
        for _ in range(rng.randint(1, 10)):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif variant == 2:
        for mark, at in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
            content[content.index(mark) + at] |= 1
    elif variant == 3:
        content = bytearray(b"PK\5\6" + bytes(18))
    elif variant == 4:
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
