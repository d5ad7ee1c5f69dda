"""HU are what the tags say, as pydicom computes them, whatever the encoding and the display of the pixels."""

import numpy as np
import pydicom
import pytest
from dicom_files import write_ct_series, write_ct_slice, write_enhanced_ct, write_slice
from pydicom.pixels import apply_rescale
from pydicom.uid import (
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from liverseg.errors import LiversegError, NotCTError
from liverseg.imageio.dicom_header import read_slices
from liverseg.imageio.dicom_series import read_planes, read_series, read_series_volume


def stored(dtype=np.int16, bits=16, shape=(3, 4, 5), seed=1):
    """Return random stored values (slice, row, column) of all signed or unsigned numbers with so many bits."""
    ends = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if np.dtype(dtype).kind == "i" else (0, 2**bits)
    return np.random.default_rng(seed).integers(*ends, shape).astype(dtype)


def by_pydicom(folder):
    """Return (column, row, slice) of the files of a folder, sorted by name."""
    headers = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    return np.stack([apply_rescale(header.pixel_array, header).T for header in headers], axis=2)


def assert_as_pydicom(folder):
    array, _ = read_series(folder)
    expected = by_pydicom(folder)
    integral = np.array_equal(expected, np.rint(expected)) and np.abs(expected).max() < 32768
    assert array.dtype == (np.int16 if integral else np.float32)
    np.testing.assert_array_equal(array, expected.astype(array.dtype))


ENCODINGS = [
    (np.int16, 16, {}),
    (np.int16, 12, {"RescaleIntercept": -1024}),
    (np.uint16, 12, {"RescaleIntercept": -1024}),
    (np.uint16, 16, {"RescaleIntercept": -32768}),
    (np.uint16, 16, {"RescaleIntercept": -1024}),
    (np.uint8, 8, {"RescaleIntercept": -100, "RescaleSlope": 2}),
    (np.int8, 8, {}),
    (np.int32, 20, {}),
    (np.int16, 12, {"RescaleSlope": -1, "RescaleIntercept": 40}),
    (np.uint16, 12, {"RescaleSlope": -2, "RescaleIntercept": 3000}),
    (np.int16, 12, {"RescaleSlope": "0.5"}),
    (np.uint16, 12, {"RescaleSlope": "1.25", "RescaleIntercept": "-1024.5"}),
]


LOSSLESS = {"JPEG": JPEGLosslessSV1, "JPEG2000": JPEG2000Lossless}


@pytest.mark.parametrize("display", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize(("dtype", "bits", "tags"), ENCODINGS)
def test_hu_of_uncompressed_pixels(dtype, bits, tags, display, tmp_path):
    tags = {**tags, "BitsStored": bits, "PhotometricInterpretation": display}
    assert_as_pydicom(write_ct_series(tmp_path, stored(dtype, bits), **tags))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("display", ["MONOCHROME2", "MONOCHROME1"])
def test_hu_of_other_byte_orders(syntax, display, tmp_path):
    tags = {"syntax": syntax, "PhotometricInterpretation": display, "RescaleIntercept": -1024, "BitsStored": 12}
    assert_as_pydicom(write_ct_series(tmp_path, stored(np.uint16, 12), **tags))


@pytest.mark.parametrize("display", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize(("dtype", "bits", "tags"), ENCODINGS[1:6] + ENCODINGS[8:])
def test_hu_of_run_lengths(dtype, bits, tags, display, tmp_path):
    tags = {**tags, "BitsStored": bits, "PhotometricInterpretation": display}
    for path in write_ct_series(tmp_path, stored(dtype, bits, (3, 8, 9)), **tags).iterdir():
        header = pydicom.dcmread(path)
        header.compress(RLELossless)
        header.save_as(path)
    assert_as_pydicom(tmp_path)


@pytest.mark.parametrize("display", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize(("dtype", "bits", "tags"), ENCODINGS[:7] + ENCODINGS[8:])
def test_hu_of_lossless_jpeg_ls(dtype, bits, tags, display, tmp_path):
    tags = {**tags, "BitsStored": bits, "PhotometricInterpretation": display}
    values = np.sort(stored(dtype, bits, (3, 16, 24)))  # the encoder fails if noise of 8 bits does not get shorter
    for path in write_ct_series(tmp_path, values, **tags).iterdir():
        header = pydicom.dcmread(path)
        header.compress(JPEGLSLossless, generate_instance_uid=False)
        header.save_as(path)
    assert_as_pydicom(tmp_path)
    slope, intercept = float(tags.get("RescaleSlope", 1)), float(tags.get("RescaleIntercept", 0))
    np.testing.assert_array_equal(read_series(tmp_path)[0], (values * slope + intercept).transpose(2, 1, 0))


@pytest.mark.parametrize("syntax", [JPEGLSLossless, RLELossless])
def test_hu_of_compressed_frames_of_an_enhanced_ct(syntax, tmp_path):
    values = stored(np.int16, 12, (3, 8, 9))
    write_enhanced_ct(tmp_path / "ct.dcm", values, [0, 2.5, 5], syntax=syntax)
    assert pydicom.dcmread(tmp_path / "ct.dcm").file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(read_series(tmp_path)[0], values.transpose(2, 1, 0) - 24)


@pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000", "JPEG of any predictor"])
@pytest.mark.parametrize("display", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize("sop_class", ["1.2.840.10008.5.1.4.1.1.2", "1.3.12.2.1107.5.9.1"])
def test_hu_of_lossless_jpeg(compressor, display, sop_class, tmp_path):
    """pydicom decodes the one but not the other here, so the expected values are those that were written."""
    hu = np.random.default_rng(0).integers(-1000, 1500, (3, 16, 18)).astype(np.int16)
    for number, plane in enumerate(hu):
        path = tmp_path / f"{number}.dcm"
        write_slice(path, plane, (0, 0, 2.5 * number), compressor=compressor.split()[0])
        header = pydicom.dcmread(path)
        assert header.file_meta.TransferSyntaxUID == LOSSLESS[compressor.split()[0]]
        if "predictor" in compressor:  # which the first predictor, that of the written files, is one of
            header.file_meta.TransferSyntaxUID = JPEGLossless
        header.PhotometricInterpretation = display
        header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = sop_class
        header.save_as(path)
    np.testing.assert_array_equal(read_series(tmp_path)[0], hu.transpose(2, 1, 0))


def test_slope_and_intercept_of_each_slice(tmp_path):
    slopes, intercepts = [1, 2, "0.25"], [-1024, -1000, "-10.5"]
    folder = write_ct_series(
        tmp_path,
        stored(np.uint16, 12),
        BitsStored=12,
        RescaleSlope=slopes.__getitem__,
        RescaleIntercept=intercepts.__getitem__,
    )
    assert_as_pydicom(folder)


@pytest.mark.parametrize("signed", [False, True])
def test_unused_bits_do_not_count(signed, tmp_path):
    """Old files have an overlay in them, which pydicom removes as well."""
    values = stored(np.int16 if signed else np.uint16, 12)
    garbage = (values.view(np.uint16) & 0x0FFF) | np.uint16(0xA000)
    folder = write_ct_series(tmp_path, garbage, BitsStored=12, PixelRepresentation=int(signed), RescaleIntercept=-1024)
    assert_as_pydicom(folder)
    np.testing.assert_array_equal(read_series(folder)[0], values.transpose(2, 1, 0).astype(int) - 1024)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
def test_a_high_bit_above_the_bits_stored(dtype, tmp_path):
    """The retired form of DICOM PS3.5 8.1.1, of which pydicom reads the bits stored only at the low end."""
    values = stored(dtype, 12)
    shifted = np.left_shift(values, 4) | dtype(5)
    folder = write_ct_series(tmp_path, shifted, BitsStored=12, HighBit=15)
    np.testing.assert_array_equal(read_series(folder)[0], values.transpose(2, 1, 0))


@pytest.mark.parametrize(
    ("padding", "pixel", "hu"),
    [
        (-2000, -2000, -2000),
        (-3024, -3024, -3024),
        (-1024, -1024, -1024),
        (0, 0, 0),
        (-32768, -32768, -1024),
        (32767, 32767, -1024),
        (None, 30001, 30001),
    ],
)
def test_padding(padding, pixel, hu, tmp_path):
    values = stored(np.int16, 12)
    values[:, 0] = pixel
    array, _ = read_series(write_ct_series(tmp_path, values, PixelPaddingValue=padding))
    assert (array[:, 0] == hu).all()
    np.testing.assert_array_equal(array[:, 1:], values.transpose(2, 1, 0)[:, 1:])


def test_padding_of_unsigned_pixels_and_of_a_range(tmp_path):
    values = stored(np.uint16, 12)
    values[:, 0], values[:, 1] = 65535, 60000
    folder = write_ct_series(
        tmp_path, values, RescaleIntercept=-1024, PixelPaddingValue=60000, PixelPaddingRangeLimit=65535
    )
    array, _ = read_series(folder)
    assert array.dtype == np.int16 and (array[:, :2] == -1024).all()
    np.testing.assert_array_equal(array[:, 2:], values.transpose(2, 1, 0)[:, 2:].astype(int) - 1024)


@pytest.mark.parametrize("missing", [("RescaleSlope", "RescaleIntercept"), ("RescaleSlope",), ("RescaleIntercept",)])
def test_without_rescale_tags_stored_values_are_taken_with_a_warning(missing, tmp_path):
    folder = write_ct_series(tmp_path, stored(), **dict.fromkeys(missing))
    found = read_series_volume(folder)
    np.testing.assert_array_equal(found.array, stored().transpose(2, 1, 0))
    assert [warning.split(":")[0] for warning in found.warnings] == [
        "no RescaleSlope (0028,1053) or RescaleIntercept (0028,1052)"
    ]


def test_masks_have_no_rescale_tags(tmp_path):
    write_ct_series(tmp_path, stored(np.uint8, 8), Modality="OT", RescaleSlope=None, RescaleIntercept=None)
    assert read_series_volume(tmp_path, modality=None).warnings == ()


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"RescaleSlope": [1, None, 1].__getitem__}, r"001\.dcm: no RescaleSlope .*, which other slices of the series"),
        ({"RescaleSlope": 0}, r"000\.dcm: RescaleSlope \(0028,1053\) is 0; export the series again"),
        ({"RescaleType": "MGML"}, r"000\.dcm: values in MGML; HU are needed: give the series in HU"),
        ({"RescaleType": "Z_EFF"}, "values in Z_EFF; HU are needed"),
        ({"RescaleIntercept": [-1024, 0]}, r"000\.dcm: RescaleIntercept is not one number with a decimal point"),
    ],
)
def test_values_that_are_not_hu(tags, message, tmp_path):
    with pytest.raises(NotCTError, match=message):
        read_series(write_ct_series(tmp_path, stored(), **tags))


def test_rescale_tags_with_a_decimal_comma_are_refused(tmp_path):
    folder = write_ct_series(tmp_path, stored(np.uint16, 12))
    for path in folder.iterdir():
        header = pydicom.dcmread(path)
        del header.RescaleIntercept
        header.add_new(0x00281052, "LO", "-1024,0")
        header.save_as(path)
    with pytest.raises(NotCTError, match=r"000\.dcm: RescaleIntercept is not one number with a decimal point"):
        read_series(folder)


def test_a_lookup_table_is_refused(tmp_path):
    table = pydicom.Dataset()
    table.LUTDescriptor, table.ModalityLUTType, table.LUTData = [4, 0, 16], "US", bytes(8)
    tags = {"RescaleSlope": None, "RescaleIntercept": None, "ModalityLUTSequence": [table]}
    with pytest.raises(LiversegError, match=r"000\.dcm: a Modality LUT \(0028,3000\) instead of RescaleSlope"):
        read_series(write_ct_series(tmp_path, stored(), **tags))


def test_planes_of_a_float_after_integers(tmp_path):
    write_ct_slice(tmp_path / "0.dcm", stored()[0])
    write_ct_slice(tmp_path / "1.dcm", stored()[1], 2.5, RescaleSlope="0.5")
    slices = [item for path in sorted(tmp_path.iterdir()) for item in read_slices(path)]
    found = read_planes(slices)
    np.testing.assert_array_equal(found[:, :, 0], stored()[0].T)
    np.testing.assert_array_equal(found[:, :, 1], stored()[1].T * np.float32(0.5))
