"""Tags in other character sets, and files without preamble or meta information."""

import unicodedata

import numpy as np
import pydicom
import pytest
from dicom_files import write_ct_series, write_ct_slice
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from liverseg.errors import LiversegError
from liverseg.imageio.dicom_header import read_slices
from liverseg.imageio.dicom_select import choose_series
from liverseg.imageio.dicom_series import read_series

HU = np.random.default_rng(2).integers(-1000, 1500, (3, 4, 5)).astype(np.int16)


@pytest.mark.parametrize(
    ("character_set", "text"),
    [
        ("GB18030", "门脉期"),
        ("GBK", "动脉期 腹部"),
        ("ISO_IR 144", "Портальная"),
        (["", "ISO 2022 IR 87"], "門脈相"),
        (["", "ISO 2022 IR 149"], "문맥기"),
        ("ISO_IR 101", "wątroba żylna"),
        ("ISO_IR 100", "foie portal différé"),
        ("ISO_IR 126", "Πυλαία φάση"),
        ("ISO_IR 138", "שלב ורידי"),
        ("ISO_IR 192", "門脈 żylna Портальная"),
    ],
)
def test_texts_are_decoded_as_pydicom_does_and_found_by_name(character_set, text, tmp_path):
    tags = {"SpecificCharacterSet": character_set, "ProtocolName": text, "ContrastBolusAgent": text}
    write_ct_series(tmp_path / "a", HU, SeriesDescription=text, SeriesInstanceUID="1.2.31", **tags)
    write_ct_series(tmp_path / "b", HU, SeriesDescription="other", SeriesInstanceUID="1.2.32", **tags)
    path = tmp_path / "a" / "000.dcm"
    (item,) = read_slices(path)
    header = pydicom.dcmread(path)
    assert item.description == item.protocol == item.contrast_agent == header.SeriesDescription == text
    for name in (text, text.upper(), unicodedata.normalize("NFD", text)):
        assert choose_series(tmp_path, name).uid == "1.2.31"


def test_a_backslash_within_a_character_does_not_divide_it(tmp_path):
    """Of GB18030's two bytes for this character, the second is that of a backslash."""
    text = "腹乗部"
    assert b"\\" in text.encode("gb18030")
    write_ct_slice(tmp_path / "0.dcm", HU[0], SpecificCharacterSet="GB18030", SeriesDescription="xxxxxx")
    content = (tmp_path / "0.dcm").read_bytes()
    assert content.count(b"xxxxxx") == 1
    (tmp_path / "0.dcm").write_bytes(content.replace(b"xxxxxx", text.encode("gb18030")))
    assert read_slices(tmp_path / "0.dcm")[0].description == text


@pytest.mark.parametrize("name", ["{}", "{}.dcm", "IM{:04}"])
@pytest.mark.parametrize("with_meta", [False, True])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, "1.2.840.10008.1.2.1", ExplicitVRBigEndian])
def test_without_preamble(name, with_meta, syntax, tmp_path):
    folder = write_ct_series(tmp_path / "ct", HU, syntax=pydicom.uid.UID(syntax))
    for number, path in enumerate(sorted(folder.iterdir())):
        content = path.read_bytes()[128 + 4 :]
        if not with_meta:
            length = int.from_bytes(content[8:12], "little")
            content = content[12 + length :]
        path.unlink()
        (folder / name.format(number)).write_bytes(content)
    np.testing.assert_array_equal(read_series(folder)[0], HU.transpose(2, 1, 0))


def test_a_text_file_with_the_first_byte_of_a_tag_is_no_dicom(tmp_path):
    for start in (b"\x08\0", b"\2\0", b"\0\x08"):
        path = tmp_path / "notes"
        path.write_bytes(start + b"\0 some text without any structure" * 20)
        assert read_slices(path) == []


def test_a_truncated_file_without_preamble(tmp_path):
    write_ct_slice(tmp_path / "0.dcm", HU[0], syntax=ImplicitVRLittleEndian)
    content = (tmp_path / "0.dcm").read_bytes()[132:]
    length = 12 + int.from_bytes(content[8:12], "little")
    (tmp_path / "0.dcm").write_bytes(content[length:-4])
    with pytest.raises(LiversegError, match=r"0\.dcm: a DICOM slice that cannot be read; is it truncated"):
        read_slices(tmp_path / "0.dcm")


@pytest.mark.parametrize("claimed", [0xFFFFFFF0, 0x7FFFFFFF])
def test_a_tag_that_claims_gigabytes(claimed, tmp_path):
    import tracemalloc

    write_ct_slice(tmp_path / "0.dcm", HU[0], syntax=ImplicitVRLittleEndian, SeriesDescription="portal")
    content = (tmp_path / "0.dcm").read_bytes()
    tag = b"\x08\0\x3e\x10\6\0\0\0"
    assert content.count(tag) == 1
    (tmp_path / "0.dcm").write_bytes(content.replace(tag, tag[:4] + claimed.to_bytes(4, "little")))
    tracemalloc.start()
    with pytest.raises(LiversegError, match="cannot be read; is it truncated"):
        read_slices(tmp_path / "0.dcm")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 4 << 20


def test_a_decimal_comma(tmp_path):
    write_ct_slice(tmp_path / "0.dcm", HU[0])
    header = pydicom.dcmread(tmp_path / "0.dcm")
    del header["PixelSpacing"]
    header.add_new(0x00280030, "LO", ["0,8", "0,7"])
    header.save_as(tmp_path / "0.dcm")
    with pytest.raises(LiversegError, match=r"no usable pixel spacing \(0028,0030\): 0,8\\0,7 has a decimal comma"):
        read_series(tmp_path)
