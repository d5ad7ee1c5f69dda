"""Read the pixels of a DICOM slice in the unit of its tags: HU for a CT.

A value is the stored one times RescaleSlope plus RescaleIntercept (DICOM PS3.3 C.7.6.16.2.9 and C.11.1). What follows
in a viewer, the window and the polarity of MONOCHROME1, changes the display and not the HU. Uncompressed pixels are
read here. pydicom reads run lengths, and GDCM, by way of SimpleITK, the other compressed pixels; GDCM applies the
polarity first, and refuses private classes, so that it has to read a copy without them.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
import pydicom
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import pixel_array
from pydicom.uid import UID, CTImageStorage, RLELossless

from liverseg.errors import NotCTError, UnreadableError
from liverseg.imageio.dicom_header import PixelFormat, Slice

__all__ = ["check_rescale", "read_plane"]

_RUN_LENGTH_RATIO = 64
"""DICOM PS3.5 G.3.1: two bytes hold 128 at most."""
_NATIVE_BITS = (8, 16, 32)
_HU_TYPES = ("", "HU", "HU_MOD", "US")
"""RescaleType of a CT in HU: DICOM PS3.3 C.11.1.1.2 takes HU if it is missing; US is "unspecified"."""
_PADDING_HU, _LOWEST_PADDING, _HIGHEST_PADDING = -1024, -4096, 3071
"""Padding between the last two numbers, HU that twelve bits can hold, is left as it is stored, such as -2000 and -3024.
Our choice: some files state a padding value that tissue has as well."""


def check_rescale(item: Slice) -> None:
    """Refuse a CT slice whose tags do not lead to HU.

    Raises:
        NotCTError: if its values are in another unit, the slope is 0, or slope or intercept is no number.
        UnreadableError: if its values go through a lookup table.
    """
    if item.rescale_type.upper() not in _HU_TYPES:
        raise NotCTError(f"{item.path}: values in {item.rescale_type}; HU are needed: give the series in HU")
    for keyword in item.unusable_rescale:
        raise NotCTError(
            f"{item.path}: {keyword} is not one number with a decimal point, so that HU are not known; export the "
            "series again"
        )
    if item.slope == 0:
        raise NotCTError(f"{item.path}: RescaleSlope (0028,1053) is 0; export the series again")
    if item.lookup_table and np.isnan(item.slope):
        raise UnreadableError(
            f"{item.path}: a Modality LUT (0028,3000) instead of RescaleSlope and RescaleIntercept; export it in HU"
        )


def read_plane(item: Slice) -> np.ndarray:
    """Read a slice.

    Args:
        item: a grey slice of `liverseg.imageio.dicom_header.read_slices`.

    Returns:
        Values in the unit of the tags, shape (row, column): int16 if slope and intercept are integers and all values
        fit, else int32, int64 or float64. Without slope and intercept, values as stored. Padding that would be outside
        -4096 to 3071 HU is -1024.

    Raises:
        UnreadableError: if the pixels cannot be read.
    """
    try:
        if _is_native(item.pixels):
            values = _rescale(_read_native(item), item)
        elif item.pixels.transfer_syntax == RLELossless:
            values = _rescale(_read_run_lengths(item), item)
        elif item.frames == 1 and not item.pixels.inverted and item.sop_class == CTImageStorage:
            values = _read_with_gdcm(item)
        else:
            values = _rescale(_decompress(item), item)
    except Exception as error:  # the decoders raise many kinds for damaged pixels
        raise UnreadableError(f"{item.path}: its pixels cannot be read; copy or export it again") from error
    return _fill_padding(values, item)


def _is_native(pixels: PixelFormat) -> bool:
    return pixels.length is not None and pixels.bits_allocated in _NATIVE_BITS


def _read_native(item: Slice) -> np.ndarray:
    """Return the stored values of an uncompressed slice."""
    pixels, (columns, rows) = item.pixels, item.size
    kind, size = "i" if pixels.signed else "u", pixels.bits_allocated // 8
    dtype = np.dtype(f"{'>' if pixels.big_endian else '<'}{kind}{size}")
    offset = pixels.offset + (item.frame or 0) * rows * columns * size
    stored = np.fromfile(item.path, dtype, rows * columns, offset=offset).reshape(rows, columns)
    return _without_unused_bits(stored.astype(dtype.newbyteorder("="), copy=False), pixels)


def _without_unused_bits(stored: np.ndarray, pixels: PixelFormat) -> np.ndarray:
    """Return values whose bits beyond those stored, which may hold an overlay, are those of the sign."""
    unused = pixels.bits_allocated - pixels.bits_stored
    above = pixels.bits_allocated - 1 - pixels.high_bit
    if unused <= 0 or not 0 <= above <= unused:
        return stored
    return np.right_shift(np.left_shift(stored, above), unused)


def _rescale(stored: np.ndarray, item: Slice) -> np.ndarray:
    slope, intercept = (
        1.0 if np.isnan(item.slope) else item.slope,
        0.0 if np.isnan(item.intercept) else item.intercept,
    )
    if not (slope.is_integer() and intercept.is_integer()):
        return stored * np.float64(slope) + intercept
    if slope == 1 and intercept == 0:
        return stored
    bits = item.pixels.bits_stored
    ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if item.pixels.signed else (0, 2**bits - 1)
    bounds = (*ends, slope, intercept, *(slope * end + intercept for end in ends))
    dtype: type[np.signedinteger] = np.int64
    for smaller in (np.int32, np.int16):
        if np.iinfo(smaller).min <= min(bounds) and max(bounds) <= np.iinfo(smaller).max:
            dtype = smaller
    values = stored.astype(dtype)
    if slope != 1:
        values *= dtype(slope)
    values += dtype(intercept)
    return values


def _fill_padding(values: np.ndarray, item: Slice) -> np.ndarray:
    """Return values whose padding is -1024 if it would be beyond what a CT can hold."""
    if item.pixels.padding is None:
        return values
    slope, intercept = (1.0, 0.0) if np.isnan(item.slope) else (item.slope, np.nan_to_num(item.intercept))
    stored = [_in_range(value, item.pixels) for value in item.pixels.padding]
    first, last = sorted(slope * value + intercept for value in stored)
    if first >= _LOWEST_PADDING and last <= _HIGHEST_PADDING:
        return values
    inside = (values >= first) & (values <= last)
    if not inside.any():
        return values
    filled = values.astype(np.int32) if values.dtype.kind == "u" else values.copy()
    filled[inside] = _PADDING_HU
    return filled


def _in_range(value: int, pixels: PixelFormat) -> int:
    """Return a padding value as the stored values have it: some files give it with the other sign representation."""
    span = 1 << pixels.bits_allocated
    value %= span
    return value - span if pixels.signed and value >= span >> 1 else value


def _read_run_lengths(item: Slice) -> np.ndarray:
    """Return the stored values of a slice in run lengths, by pydicom: GDCM fails for some that it writes."""
    claimed = math.prod(item.size) * item.pixels.bits_allocated // 8
    if claimed > _RUN_LENGTH_RATIO * item.path.stat().st_size:
        raise ValueError("more pixels than run lengths can hold")
    stored = pixel_array(item.path, index=item.frame or 0)
    return _without_unused_bits(stored.reshape(item.size[::-1]), item.pixels)


def _read_with_gdcm(item: Slice) -> np.ndarray:
    """Return the rescaled values of a CT image of MONOCHROME2 with one frame."""
    return _gdcm_array(item.path).reshape(item.size[1], item.size[0])


def _gdcm_array(path: Path) -> np.ndarray:
    import SimpleITK as sitk  # imported here: it takes a while, and only compressed pixels need it

    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    return np.asarray(sitk.GetArrayFromImage(reader.Execute()))


def _decompress(item: Slice) -> np.ndarray:
    """Return the stored values of a compressed frame: GDCM reads a file with this frame and without rescale tags."""
    pixels, (columns, rows) = item.pixels, item.size
    compressed = pydicom.dcmread(item.path, force=True, specific_tags=["PixelData", "NumberOfFrames"])
    if pixels.length is not None:
        raise ValueError("uncompressed pixels of an unusual number of bits")
    frame = get_frame(compressed.PixelData, item.frame or 0, number_of_frames=item.frames)
    single = pydicom.Dataset()
    single.file_meta = pydicom.dataset.FileMetaDataset()
    single.file_meta.TransferSyntaxUID = UID(pixels.transfer_syntax)
    single.SOPClassUID = single.file_meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    single.SOPInstanceUID = single.file_meta.MediaStorageSOPInstanceUID = UID("2.25.1")
    single.Modality, single.SamplesPerPixel, single.PhotometricInterpretation = "OT", 1, "MONOCHROME2"
    single.Rows, single.Columns, single.BitsAllocated = rows, columns, pixels.bits_allocated
    single.BitsStored, single.HighBit = pixels.bits_stored, pixels.high_bit
    single.PixelRepresentation = int(pixels.signed)
    single.PixelData = encapsulate([frame])
    single["PixelData"].is_undefined_length = True
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frame.dcm"
        single.save_as(path, enforce_file_format=True)
        return _gdcm_array(path).reshape(rows, columns)
