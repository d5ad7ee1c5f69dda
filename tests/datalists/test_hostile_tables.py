"""Malicious pictures, tables and lists are refused in one line."""

import warnings
import zipfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from liverseg.datalists.importers.cohort_masks import read_mask_image
from liverseg.datalists.importers.cohort_table import COLUMNS, RowErrors, read_rows
from liverseg.datalists.model import read_datalist
from liverseg.errors import LiversegError
from liverseg.networks import read_record


@pytest.mark.integration
def test_a_picture_of_too_many_pixels(tmp_path):
    image = Image.new("1", (14_000, 14_000))
    image.save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 1 << 20
    with pytest.raises(LiversegError, match=r"bomb\.png: cannot be read as PNG .*decompression bomb"):
        read_mask_image(tmp_path / "bomb.png")


def test_pictures_of_another_kind_are_not_opened(tmp_path):
    """Encapsulated PostScript in particular is a program, which Ghostscript would run."""
    text = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    (tmp_path / "a.png").write_text(text, encoding="ascii")
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(tmp_path / "b.png", format="TIFF")
    for name in ("a.png", "b.png"):
        assert Image.open(tmp_path / name).format in ("EPS", "TIFF")
        with pytest.raises(LiversegError, match=rf"{name}: cannot be read as PNG"):
            read_mask_image(tmp_path / name)


def excel(path, **replaced):
    """Write a valid table and replace parts of it."""
    pd.DataFrame([["p", "i.nii", "m.nii", "3", "cyst"]], columns=list(COLUMNS)).to_excel(path, index=False)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, replaced["sheet"](content) if name.endswith("sheet1.xml") else content)
    return path


def laughs(sheet):
    """A billion characters by nested entities."""
    names = [f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10)]
    head = b'<?xml version="1.0"?><!DOCTYPE w [<!ENTITY a0 "lol">' + "".join(names).encode() + b"]>"
    return head + sheet[sheet.index(b"<worksheet") :].replace(b"cyst", b"&a9;").replace(b"<v>", b"<v>&a9;", 1)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("sheet", "match"),
    [
        (lambda sheet: sheet + b" " * (65 << 20), "holds 65 MiB, 64 are allowed; save it as CSV"),
        (laughs, "not a readable"),
    ],
)
def test_tables_that_are_bombs(sheet, match, tmp_path):
    excel(tmp_path / "slices.xlsx", sheet=sheet)
    with warnings.catch_warnings(), pytest.raises(LiversegError, match=match) as error:
        warnings.simplefilter("ignore")
        read_rows(tmp_path, None, None, RowErrors())
    assert "\n" not in str(error.value)


def test_json_that_is_nested_without_end(tmp_path):
    deep = "[" * 200_000
    for name in ("list.json", "weights.json"):
        (tmp_path / name).write_text(deep, encoding="utf-8")
    (tmp_path / "weights.pt").write_bytes(b"")
    with pytest.raises(LiversegError, match=r"list\.json"):
        read_datalist(tmp_path / "list.json")
    with pytest.raises(LiversegError, match=r"weights\.json: the record of the weights is not JSON"):
        read_record(tmp_path / "weights.pt")
