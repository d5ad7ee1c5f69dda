"""Read the tags of a DICOM file: the slices it holds, with geometry and storage of their pixels, or named tags.

DICOM's frame is LPS+, in mm.
"""

from __future__ import annotations

import io
import math
import re
import threading
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pydicom
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.config import disable_value_validation
from pydicom.datadict import tag_for_keyword
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag
from pydicom.valuerep import TEXT_VR_DELIMS

from liverseg.errors import UnreadableError
from liverseg.imageio.formats import has_dicom_marker, has_dicom_prefix

__all__ = [
    "NO_TRANSFER_SYNTAX",
    "PixelFormat",
    "Slice",
    "normalise_text",
    "read_slices",
    "read_tags",
    "skip_validation",
]

_validation_lock = threading.RLock()
"""pydicom's switch is global: of two threads, the first to leave would enable validation for the other."""


@contextmanager
def skip_validation() -> Iterator[None]:
    """Disable pydicom's validation of values within the block; blocks of other threads wait for its end."""
    with _validation_lock, disable_value_validation():
        yield


def read_tags(path: Path, keywords: Sequence[str]) -> pydicom.Dataset:
    """Read some tags of a DICOM file without its pixels and without validation, which would log patients' data.

    pydicom converts values when they are used, so use them within `skip_validation` too.

    Args:
        path: the file; it may lack the preamble.
        keywords: of the tags.

    Raises:
        UnreadableError: if it cannot be read.
    """
    with skip_validation():
        try:
            return pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(keywords))
        except Exception as error:  # pydicom raises many kinds for damaged files
            raise UnreadableError(f"{path}: its header cannot be read; copy or export it again") from error


_START_BYTES, _MAX_START_BYTES = 4096, 1 << 20
"""Bytes read first and at most to find a file's class and transfer syntax. 400 are usual."""
_LONG_VALUES = (b"OB", b"OW", b"UN", b"UT", b"SQ")
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_CLASS_IS = b"\2\0\2\0UI\x1a\0"
_IMAGE_CLASSES = (_CLASS_IS + b"1.2.840.10008.5.1.4.1.1.2\0", _CLASS_IS + b"1.2.840.10008.5.1.4.1.1.7\0")
"""CT image and secondary capture, as (0002,0002): if such a file is unreadable, it is damaged. Files of other classes,
DICOMDIRs among them, only refer to slices."""
_CLASS_TAGS = (b"\2\0\2\0UI", b"\x08\0\x16\0")
"""Tags that state the class, (0002,0002) and (0008,0016): a file without either is truncated."""
_FIRST_GROUPS = (b"\2\0", b"\x08\0", b"\0\x08")
"""Groups with which a file without preamble starts: its meta information, or its data set in either byte order."""

NO_TRANSFER_SYNTAX = ""
_NATIVE = (NO_TRANSFER_SYNTAX, "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_PIXEL_DATA, _FIRST_PIXEL_TAG = 0x7FE00010, 0x7FE00008
_UNDEFINED_LENGTH = 0xFFFFFFFF

_CAPTURE_WORDS = {"SCREEN", "CAPTURE", "DOSE", "REPORT", "PROTOCOL", "PROT"}
_PROJECTION_WORDS = {"PROJECTION", "MIP", "MINIP", "MNIP", "VRT", "RENDER", "SSD"}
_EXTREME_WORDS = {"MAX", "MIN", "MAXIMUM", "MINIMUM"}
"""Words of ImageType, as scanners write them and as DICOM PS3.3 C.8.15.2.1.1 defines them (MAX_IP, VOLUME_RENDER). The
mean of thin slices, MEAN_IP, is a slice with HU."""

_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_KEYWORDS = (
    *("ImageType", "SOPClassUID", "SOPInstanceUID", "Modality", "SeriesDescription", "ProtocolName"),
    *("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "InstanceNumber", "AcquisitionNumber"),
    *("AcquisitionDateTime", "AcquisitionTime", "ContentTime", "TriggerTime", "TemporalPositionIdentifier"),
    *("ContrastBolusAgent", "ContrastBolusStartTime", "SliceThickness", "GantryDetectorTilt"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SamplesPerPixel", "NumberOfFrames"),
    *("PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("RescaleIntercept", "RescaleSlope", "RescaleType", "ModalityLUTSequence"),
)


def _tag_numbers(keywords: Sequence[str]) -> list[BaseTag | int]:
    return [number for keyword in keywords if (number := tag_for_keyword(keyword)) is not None]


_TAGS, _TAGS_WITH_GROUPS = _tag_numbers(_KEYWORDS), _tag_numbers((*_KEYWORDS, *_GROUPS))


@dataclass(frozen=True)
class PixelFormat:
    """How a file stores the pixels of its frames.

    Attributes:
        transfer_syntax: UID of the file's encoding; empty if the file states none.
        offset: position in the file of the first byte of PixelData.
        length: bytes of PixelData; None for compressed pixels.
        bits_allocated, bits_stored, high_bit: of a pixel.
        signed: pixels are in two's complement.
        inverted: PhotometricInterpretation is MONOCHROME1: the lowest value is displayed white. Values stay as stored.
        palette: PhotometricInterpretation is PALETTE COLOR: the values are numbers of colours.
        padding: lowest and highest stored value of pixels outside the scanned area; None if the file states none.
    """

    transfer_syntax: str
    offset: int
    length: int | None
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    inverted: bool
    palette: bool
    padding: tuple[int, int] | None

    @property
    def big_endian(self) -> bool:
        """Whether pixels are stored with the highest byte first."""
        return self.transfer_syntax == _BIG_ENDIAN


@dataclass(frozen=True, eq=False)
class Slice:
    """The tags of a slice: of a file, or of a frame of an enhanced CT. Lengths in mm, LPS+; NaN for missing numbers.

    Attributes:
        path: the file.
        frame: number of the frame, from 0; None in a file without functional groups.
        uid, instance, study, patient: SeriesInstanceUID, SOPInstanceUID, StudyInstanceUID and PatientID.
        sop_class: SOPClassUID.
        description, protocol: SeriesDescription and ProtocolName, decoded.
        modality: CT, MR, SEG and so on.
        image_type: values of ImageType or FrameType, in capitals.
        size: (columns, rows).
        frames: number of frames of the file.
        channels: SamplesPerPixel.
        position, orientation, pixel_spacing, thickness: the tags; the first pixel spacing is between rows.
        stated_spacing: PixelSpacing as the file has it.
        tilt: GantryDetectorTilt in degrees.
        number: InstanceNumber, or that of the frame.
        acquisition: tags that distinguish acquisitions, by keyword; those missing are left out.
        times: AcquisitionTime and ContentTime in seconds since midnight, by keyword; those missing are left out.
        contrast_agent: ContrastBolusAgent; None if the tag is missing.
        contrast_start: ContrastBolusStartTime in seconds since midnight.
        slope, intercept: from stored value to output unit.
        unusable_rescale: keywords of those of both that hold something else than one number.
        rescale_type: RescaleType; empty if it is missing.
        lookup_table: a ModalityLUTSequence takes the place of slope and intercept.
        pixels: how they are stored.
    """

    path: Path
    frame: int | None
    uid: str
    instance: str
    study: str
    patient: str
    sop_class: str
    description: str
    protocol: str
    modality: str
    image_type: tuple[str, ...]
    size: tuple[int, int]
    frames: int
    channels: int
    position: np.ndarray
    orientation: np.ndarray
    pixel_spacing: np.ndarray
    stated_spacing: str
    thickness: float
    tilt: float
    number: float
    acquisition: Mapping[str, str]
    times: Mapping[str, float]
    contrast_agent: str | None
    contrast_start: float
    slope: float
    intercept: float
    unusable_rescale: tuple[str, ...]
    rescale_type: str
    lookup_table: bool
    pixels: PixelFormat = field(repr=False)

    @property
    def kind(self) -> str:
        """What the image is instead of a slice of a volume: "localiser", "screen capture", "projection"; else empty."""
        words = {word for value in self.image_type for word in re.split(r"[^A-Z0-9]+", value)}
        if words & {"LOCALIZER", "SCOUT", "TOPOGRAM"}:
            return "localiser"
        placed = not np.isnan(self.position).any() and not np.isnan(self.orientation).any()
        coloured = self.channels != 1 or self.pixels.palette
        if coloured or words & _CAPTURE_WORDS or (self.sop_class == _SECONDARY_CAPTURE and not placed):
            return "screen capture"
        return "projection" if words & _PROJECTION_WORDS or ("IP" in words and words & _EXTREME_WORDS) else ""


class _HeaderFile(io.BufferedReader):
    """A file that is never asked for more bytes than it has: a tag may claim four gigabytes, and Python allocates them.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path), 1 << 14)
        self.bytes = path.stat().st_size

    def read(self, size: int | None = -1) -> bytes:
        """Read at most `size` bytes."""
        return super().read(-1 if size is None or size < 0 else min(size, self.bytes))


def read_slices(path: Path) -> list[Slice]:
    """Read the tags of a file's slices: one, or one for each frame of an enhanced CT.

    Empty for files that are not DICOM images: notes, reports, directories. The file may lack the preamble and the meta
    information. A file that is deflated with its tags is not read: it would be inflated in memory, to any size.

    Raises:
        UnreadableError: if it states that it is a CT slice, or that it is DICOM without stating a class, and cannot be
            read, or if pixels are missing.
    """
    start, complete = _read_start(path)
    is_slice = has_dicom_prefix(start) and any(name in start for name in _IMAGE_CLASSES)
    if not complete or _DEFLATED in start:
        if is_slice:
            raise UnreadableError(f"{path}: a DICOM slice whose tags are deflated, or endless; export it uncompressed")
        return []
    truncated = f"{path}: a DICOM slice that cannot be read; is it truncated? copy it again"
    states_class = any(tag in start for tag in _CLASS_TAGS) or b"\0\x08\0\x16" in start
    with skip_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's remarks on odd tags; those that matter here are refused
        try:
            base = _read_base(path) if has_dicom_prefix(start) or start[:2] in _FIRST_GROUPS else None
        except OSError as error:
            raise UnreadableError(f"{path}: cannot be read ({error.strerror or error})") from error
        except Exception:  # pydicom raises many kinds for damaged files
            base = None
        if base is None:
            if is_slice or (has_dicom_marker(path, start) and not states_class):
                raise UnreadableError(truncated)
            return []
        if _lacks_pixels(base):
            raise UnreadableError(truncated)
        if base.frames == 1 and not np.isnan(base.position).all():
            return [base]
        try:
            return _read_frames(base) or [base]
        except Exception as error:
            raise UnreadableError(f"{path}: the tags of its frames cannot be read; export it again") from error


def _read_start(path: Path) -> tuple[bytes, bool]:
    """Return a file's first bytes, and whether its file meta information ends within them."""
    try:
        with path.open("rb") as file:
            start = file.read(_START_BYTES)
            complete = _ends_meta_information(start)
            if not complete:
                start += file.read(_MAX_START_BYTES)
                complete = _ends_meta_information(start)
    except OSError as error:
        raise UnreadableError(f"{path}: cannot be read ({error.strerror or error})") from error
    return start, complete or len(start) < _MAX_START_BYTES


def _ends_meta_information(start: bytes) -> bool:
    """Return whether the tags of group 2 end within a file's first bytes."""
    if not has_dicom_prefix(start):
        return True
    place = 132
    while place + 12 <= len(start):
        if start[place : place + 2] != b"\2\0":
            return True
        long = start[place + 4 : place + 6] in _LONG_VALUES
        begin = place + (12 if long else 8)
        place = begin + int.from_bytes(start[place + 8 : begin] if long else start[place + 6 : begin], "little")
    return False


def _parse(path: Path, tags: Sequence[BaseTag | int]) -> tuple[pydicom.FileDataset, int, int]:
    """Return a file's tags, and position and length of its PixelData; position 0 without it."""
    place = [0, 0]
    with _HeaderFile(path) as file:

        def at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
            if tag == _PIXEL_DATA:
                place[:] = file.tell(), length
            return tag >= _FIRST_PIXEL_TAG

        header = read_partial(cast(BinaryIO, file), at_pixels, force=True, specific_tags=list(tags))
    return header, place[0], place[1]


def _read_base(path: Path) -> Slice | None:
    """Return the tags of a file as those of one slice; None if it has no pixels or states no class and no size."""
    tags, offset, length = _parse(path, _TAGS)
    rows, columns = _integer(tags, "Rows"), _integer(tags, "Columns")
    if not offset or not rows or not columns:
        return None
    bits = _integer(tags, "BitsAllocated") or 16
    stored = _integer(tags, "BitsStored") or bits
    syntax = str(tags.file_meta.get("TransferSyntaxUID") or NO_TRANSFER_SYNTAX)
    if syntax == NO_TRANSFER_SYNTAX and not tags.original_encoding[1]:
        syntax = _BIG_ENDIAN
    pixels = PixelFormat(
        transfer_syntax=syntax,
        offset=offset,
        length=None if length == _UNDEFINED_LENGTH else length,
        bits_allocated=bits,
        bits_stored=stored,
        high_bit=_integer(tags, "HighBit", stored - 1),
        signed=_integer(tags, "PixelRepresentation") == 1,
        inverted=_text(tags, "PhotometricInterpretation") == "MONOCHROME1",
        palette=_text(tags, "PhotometricInterpretation") == "PALETTE COLOR",
        padding=_padding(tags),
    )
    return Slice(
        path=path,
        frame=None,
        uid=_text(tags, "SeriesInstanceUID"),
        instance=_text(tags, "SOPInstanceUID"),
        study=_text(tags, "StudyInstanceUID"),
        patient=_text(tags, "PatientID"),
        sop_class=_text(tags, "SOPClassUID"),
        description=_text(tags, "SeriesDescription"),
        protocol=_text(tags, "ProtocolName"),
        modality=_text(tags, "Modality"),
        image_type=_words(tags, "ImageType"),
        size=(columns, rows),
        frames=_integer(tags, "NumberOfFrames") or 1,
        channels=_integer(tags, "SamplesPerPixel") or 1,
        acquisition=_present(tags, ("AcquisitionNumber", "TemporalPositionIdentifier", "TriggerTime")),
        times=_times(tags),
        contrast_agent=_text(tags, "ContrastBolusAgent") if "ContrastBolusAgent" in tags else None,
        contrast_start=_seconds(_text(tags, "ContrastBolusStartTime")),
        lookup_table="ModalityLUTSequence" in tags,
        pixels=pixels,
        number=float(_numbers(tags, "InstanceNumber", 1)[0]),
        **_geometry(tags),
        **_rescale(tags),
    )


def _geometry(tags: pydicom.Dataset) -> dict[str, Any]:
    return {
        "position": _numbers(tags, "ImagePositionPatient", 3),
        "orientation": _numbers(tags, "ImageOrientationPatient", 6),
        "pixel_spacing": _numbers(tags, "PixelSpacing", 2),
        "stated_spacing": "\\".join(_raw(tags, "PixelSpacing")),
        "thickness": float(_numbers(tags, "SliceThickness", 1)[0]),
        "tilt": float(_numbers(tags, "GantryDetectorTilt", 1)[0]),
    }


def _rescale(tags: pydicom.Dataset) -> dict[str, Any]:
    found = {keyword: float(_numbers(tags, keyword, 1)[0]) for keyword in ("RescaleSlope", "RescaleIntercept")}
    return {
        "slope": found["RescaleSlope"],
        "intercept": found["RescaleIntercept"],
        "unusable_rescale": tuple(key for key, number in found.items() if math.isnan(number) and any(_raw(tags, key))),
        "rescale_type": _text(tags, "RescaleType"),
    }


def _padding(tags: pydicom.Dataset) -> tuple[int, int] | None:
    first = _integer(tags, "PixelPaddingValue", None)
    if first is None:
        return None
    last = _integer(tags, "PixelPaddingRangeLimit", first)
    return min(first, last), max(first, last)


_FRAME_GROUPS = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness"),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept", "RescaleType"),
    "CTImageFrameTypeSequence": ("FrameType",),
    "CTAcquisitionDetailsSequence": ("GantryDetectorTilt",),
    "FrameContentSequence": (
        *("FrameAcquisitionNumber", "TemporalPositionIndex", "FrameAcquisitionDateTime", "StackID"),
    ),
}
"""Functional groups of DICOM PS3.3 C.7.6.16.2 and C.8.15.3, with the attributes that are read of them."""


def _read_frames(base: Slice) -> list[Slice]:
    """Return the slices of a file with functional groups; empty if it has none."""
    tags, _, _ = _parse(base.path, _TAGS_WITH_GROUPS)
    per_frame = tags.get("PerFrameFunctionalGroupsSequence")
    if not per_frame:
        return []
    shared = next(iter(tags.get("SharedFunctionalGroupsSequence") or []), pydicom.Dataset())
    if len(per_frame) != base.frames:
        raise ValueError("as many frames as functional groups are needed")
    slices = []
    for number, own in enumerate(per_frame):
        frame = pydicom.Dataset()
        for name, keywords in _FRAME_GROUPS.items():
            group = next(iter(own.get(name) or shared.get(name) or []), None)
            for keyword in keywords:
                if group is not None and keyword in group:
                    frame[keyword] = group[keyword]
        acquisition = _present(frame, ("FrameAcquisitionNumber", "TemporalPositionIndex", "StackID"))
        time = _seconds(_text(frame, "FrameAcquisitionDateTime")[8:])
        found = replace(
            base,
            frame=number,
            number=float(number + 1),
            image_type=_words(frame, "FrameType") or base.image_type,
            acquisition=acquisition,
            times={} if math.isnan(time) else {"FrameAcquisitionDateTime": time},
            **_geometry(frame),
            **_rescale(frame),
        )
        slices.append(found)
    return slices


def _lacks_pixels(item: Slice) -> bool:
    """Return whether a file ends before its pixels, or its uncompressed pixels are fewer than its size states."""
    pixels, there = item.pixels, item.path.stat().st_size - item.pixels.offset
    if pixels.length is None or pixels.transfer_syntax not in _NATIVE:
        return there <= 0
    bits = math.prod(item.size) * item.frames * item.channels * pixels.bits_allocated
    return math.ceil(bits / 8) > min(there, pixels.length)


def normalise_text(text: str) -> str:
    """Return a text on one line, with single spaces and composed characters, so that it can be compared and printed."""
    printable = "".join(char if char.isprintable() else " " for char in unicodedata.normalize("NFC", text))
    return " ".join(printable.split())


def _text(tags: pydicom.Dataset, keyword: str) -> str:
    """Return the value of a tag, decoded by SpecificCharacterSet; by UTF-8 or Latin-1 if the file states none."""
    element = tags.get_item(keyword) if keyword in tags else None
    value = None if element is None else element.value
    if isinstance(value, bytes):
        return normalise_text(_decode(value.rstrip(b"\0 "), tags.get("SpecificCharacterSet")))
    parts = value if isinstance(value, list | tuple | pydicom.multival.MultiValue) else [value]
    return normalise_text("\\".join("" if part is None else str(part) for part in parts))


def _decode(value: bytes, character_set: Any) -> str:
    """Return a text. It is decoded before it is divided: in GB18030 and Shift JIS, a character may hold a backslash."""
    if character_set:
        return decode_bytes(value, convert_encodings(character_set), TEXT_VR_DELIMS)
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:  # most are Latin-1
        return value.decode("latin-1")


def _raw(tags: pydicom.Dataset, keyword: str) -> list[str]:
    """Return the values of a tag of text as they are in the file: a DS may have been stored with another type."""
    element = tags.get_item(keyword) if keyword in tags else None
    value = None if element is None else element.value
    if isinstance(value, bytes):
        return [part.strip("\0 ") for part in value.decode("latin-1").split("\\")]
    parts = value if isinstance(value, list | tuple | pydicom.multival.MultiValue) else [value]
    return [normalise_text(str(part)) for part in parts if part is not None]


def _numbers(tags: pydicom.Dataset, keyword: str, count: int) -> np.ndarray:
    try:
        numbers = np.array([float(part) for part in _raw(tags, keyword)])
    except ValueError:
        numbers = np.empty(0)
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else np.full(count, np.nan)


def _integer(tags: pydicom.Dataset, keyword: str, otherwise: Any = 0) -> Any:
    try:
        return int(tags[keyword].value) if keyword in tags else otherwise
    except Exception:  # pydicom raises many kinds for damaged values
        return otherwise


def _words(tags: pydicom.Dataset, keyword: str) -> tuple[str, ...]:
    return tuple(part.upper() for part in _text(tags, keyword).split("\\") if part)


def _present(tags: pydicom.Dataset, keywords: Sequence[str]) -> dict[str, str]:
    return {keyword: text for keyword in keywords if (text := _text(tags, keyword))}


def _times(tags: pydicom.Dataset) -> dict[str, float]:
    acquired = _seconds(_text(tags, "AcquisitionDateTime")[8:])
    if math.isnan(acquired):
        acquired = _seconds(_text(tags, "AcquisitionTime"))
    found = {"AcquisitionTime": acquired, "ContentTime": _seconds(_text(tags, "ContentTime"))}
    return {keyword: seconds for keyword, seconds in found.items() if not math.isnan(seconds)}


def _seconds(time: str) -> float:
    """Return the seconds since midnight of a DICOM time, HHMMSS.ffffff and its shorter forms; NaN for another text."""
    match = re.fullmatch(r"(\d\d)(?:(\d\d)(?:(\d\d(?:\.\d+)?))?)?(?:[+-]\d{4})?", time.replace(":", "").strip())
    if match is None:
        return math.nan
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return 3600 * hours + 60 * minutes + seconds
