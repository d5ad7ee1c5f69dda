"""CSV tables: all separators and encodings that spreadsheets write, and clear messages for others."""

import pytest
from cohort_tree import image, mask, nifti
from hypothesis import given
from hypothesis import strategies as st

from liverseg.cases.manifest import read_case_list
from liverseg.datalists import cohort_items
from liverseg.datalists.importers.cohort_table import COLUMNS
from liverseg.errors import LiversegError
from liverseg.utils.csv_table import read_csv

ROWS = [
    ["Nr", "patient", "image", "mask", "slice", "lesion_type", "remark"],
    ["1", "Müller", "ct, portal; one.nii", "m.nii", "2", "Zyste", '5,5 mm; "sure"'],
    ["", "", "", "", "", "", ""],
    ["2", "Ångström", "ct, portal; one.nii", "m.nii", "", "Metastase", ""],
]


def written(rows, separator):
    """Format rows as Excel does: quotes where needed, Windows line endings."""

    def cell(text):
        needs = any(special in text for special in (separator, '"', "\n"))
        return '"' + text.replace('"', '""') + '"' if needs else text

    return "".join(separator.join(map(cell, row)) + "\r\n" for row in rows)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_cohort_is_the_same_with_every_separator(separator, encoding, tmp_path):
    image(tmp_path, "ct, portal; one.nii")
    nifti(tmp_path / "m.nii", mask((2, 4)))
    (tmp_path / "slices.csv").write_bytes(written(ROWS, separator).encode(encoding))
    text = written([["word", "type"], ["Zyste", "cyst"], ["Metastase", "metastasis"], ["", ""]], separator)
    (tmp_path / "types.csv").write_bytes(text.encode(encoding))
    items = cohort_items(tmp_path, types=tmp_path / "types.csv")
    assert [(item.patient, item.slice, item.lesion_type) for item in items] == [
        ("Müller", 2, "cyst"),
        ("Ångström", None, "metastasis"),
    ]
    assert {(item.image, item.label) for item in items} == {("ct, portal; one.nii", "m.nii")}
    (tmp_path / "slices.csv").write_bytes(written([*ROWS, ["3", "p", "gone.nii"]], separator).encode(encoding))
    with pytest.raises(LiversegError, match=r"row 5: .*gone\.nii does not exist"):
        cohort_items(tmp_path, types=tmp_path / "types.csv")


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=6)


@pytest.mark.integration
@given(rows=st.lists(st.lists(TEXT, min_size=5, max_size=5), max_size=4), separator=st.sampled_from(",;\t"))
def test_cells_come_back_as_they_were(rows, separator, tmp_path_factory):
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    path.write_bytes(written([list(COLUMNS), *rows], separator).encode())
    table = read_csv(path, COLUMNS)
    assert list(table.columns) == list(COLUMNS)
    assert table.to_numpy().tolist() == rows


def test_a_name_in_quotes_with_a_separator_and_a_new_line_in_it(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('"note;, of\nthe reader";"word";" type "\n"a;b";c;d\n', encoding="utf-8")
    table = read_csv(path, ("word", "type"))
    assert table[["word", "type"]].to_numpy().tolist() == [["c", "d"]]


HEADER = ",".join(COLUMNS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            HEADER.replace(",", "|").encode(),
            r"no column patient, its first row holds 'patient\|image.*semicolon or tab",
        ),
        (HEADER.replace(",", " ").encode(), "no column patient, .*separated by comma, semicolon or tab"),
        (HEADER.replace(",", ";").replace("slice", "z").encode(), "no column slice, .* 'patient, image, mask, z,"),
        (b"", "no column patient, its first row holds nothing"),
        (f"{HEADER}\np1,a,b,1,cyst\nMüller,a,b,1,cyst\n".encode("cp1252"), "row 3: a byte 0xfc .*CSV UTF-8"),
        (HEADER.encode("utf-16"), "row 1: a byte 0xff .*; save the table as CSV UTF-8"),
        (f"{HEADER}\np1,a,b,1,cyst\np1,a,b,1,cyst,2,3\n".encode(), "row 3: 7 cells, but the first row names 5 columns"),
        (f"{HEADER}\np1,a,b,1,cyst,5 mm\np1,a,b,1,cyst,\n".encode(), "row 2: 6 cells, .*; put a cell with a comma"),
        (f'{HEADER}\n\n"p\n1",a,b,1,cyst,,\n'.encode(), "row 3: 7 cells, but"),
        (f"{HEADER}\np1,a,b,1,cyst,\n".replace(",", ";").encode(), "row 2: 6 cells, .*; put a cell with a semicolon"),
        (f'{HEADER}\n"p1,a,b,1,cyst\n'.encode(), "not a readable CSV"),
    ],
)
def test_tables_that_are_refused(content, message, tmp_path):
    (tmp_path / "slices.csv").write_bytes(content)
    with pytest.raises(LiversegError, match=rf"slices\.csv(: |, ){message}") as error:
        cohort_items(tmp_path)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    "header",
    [
        ["Nr", "Patient", "Image", "Mask", "Slice", "Lesion_Type", "Remark"],
        ["NR", "PATIENT", "IMAGE", "MASK", "SLICE", "LESION TYPE", "REMARK"],
        ["", " patient ", "image\t", "\xa0mask", "slice", "lesion-type", ""],
        ["Nr", "\ufeffpatient", "image", "mask", "slice", "lesion  type", "patient remark"],
    ],
)
@pytest.mark.parametrize("separator", [",", ";"])
def test_column_names_in_capitals_or_with_blanks(header, separator, tmp_path):
    image(tmp_path, "ct, portal; one.nii")
    nifti(tmp_path / "m.nii", mask((2, 4)))
    (tmp_path / "slices.csv").write_text(written([header, *ROWS[1:]], separator), encoding="utf-8-sig", newline="")
    items = cohort_items(tmp_path, types={"Zyste": "cyst", "Metastase": "metastasis"})
    assert [(item.patient, item.lesion_type) for item in items] == [("Müller", "cyst"), ("Ångström", "metastasis")]


def test_column_names_of_an_excel_table(tmp_path):
    import pandas as pd

    image(tmp_path, "ct.nii")
    nifti(tmp_path / "m.nii", mask((2, 4)))
    header = ["Patient", "IMAGE", " Mask ", "Slice", "Lesion Type"]
    pd.DataFrame([["p", "ct.nii", "m.nii", "2", "cyst"]], columns=header).to_excel(
        tmp_path / "slices.xlsx", index=False
    )
    assert [item.lesion_type for item in cohort_items(tmp_path)] == ["cyst"]


@pytest.mark.parametrize(("column", "first", "second"), [("patient", "Patient", "patient"), ("mask", "mask", "MASK ")])
def test_two_columns_of_one_name_are_refused(column, first, second, tmp_path):
    names = [first, second, *(name for name in COLUMNS if name != column)]
    (tmp_path / "slices.csv").write_text(",".join(names) + "\n", encoding="utf-8")
    with pytest.raises(LiversegError, match=rf"two columns are called {column}, capitals and blanks aside; keep one"):
        cohort_items(tmp_path)


@pytest.mark.parametrize("name", ["d\\ct.nii", "C:\\data\\ct.nii", "D:/data/ct.nii"])
def test_a_path_of_a_windows_machine_gets_a_hint(name, tmp_path):
    (tmp_path / "d").mkdir()
    image(tmp_path, "d/ct.nii")
    nifti(tmp_path / "m.nii", mask((2, 4)))
    (tmp_path / "slices.csv").write_text(f"{','.join(COLUMNS)}\np,{name},m.nii,2,cyst\n", encoding="utf-8")
    hint = "path of a Windows machine" if ":" in name else r"write / instead of \\ between folders"
    with pytest.raises(LiversegError, match=rf"row 2: .* does not exist; .*{hint}"):
        cohort_items(tmp_path)
    (tmp_path / "cases.csv").write_text(f"Case,Image\na,{name}\n", encoding="utf-8")
    with pytest.raises(LiversegError, match=rf"no such file or folder; .*{hint}"):
        read_case_list(tmp_path / "cases.csv", None)


def test_a_backslash_that_is_part_of_a_name_is_no_mistake(tmp_path):
    (tmp_path / "a\\b.nii").touch()
    (tmp_path / "cases.csv").write_text("case,image\na,a\\b.nii\n", encoding="utf-8")
    (case,) = read_case_list(tmp_path / "cases.csv", None)
    assert case.image == tmp_path / "a\\b.nii"
