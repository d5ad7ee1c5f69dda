"""Cohorts: the errors of all bad rows are reported together, in the order of the table."""

import pytest
from cohort_tree import image, mask, nifti, png, series, table

from liverseg.cli.main import main
from liverseg.datalists import cohort_items
from liverseg.datalists.importers.cohort_table import RowErrors
from liverseg.errors import LiversegError


def error_lines(rows):
    """Return the lines of a cohort's error without the name of the table."""
    with pytest.raises(LiversegError) as error:
        cohort_items(rows)
    return [line.removeprefix(f"{rows / 'slices.csv'}, ") for line in str(error.value).splitlines()]


def cohort(root, *rows):
    image(root)
    nifti(root / "one.nii", mask())
    nifti(root / "many.nii", mask((5, 6)))
    nifti(root / "typed.nii", mask((1, 2)))
    (root / "empty.nii").touch()
    png(root / "small.png", mask()[:5, :, 2].T)
    return table(root, "p,ct.nii.gz,one.nii,2,cyst", *rows)


def test_bad_cells_files_masks_and_slices_are_reported_together(tmp_path, capsys):
    names = [f"{letter}.nii" for letter in "abcd"]
    for name in names:
        image(tmp_path, name)
    rows = cohort(
        tmp_path,
        "p,a.nii,one.nii,9,cyst",
        "p,a.nii,one.nii,2,zyste",
        "p,gone.nii,one.nii,2,cyst",
        "p,b.nii,many.nii,2,cyst",
        "p,c.nii,empty.nii,2,cyst",
        "p,c.nii,empty.nii,3,cyst",
        "p,d.nii,typed.nii,3,cyst",
        "p,d.nii,typed.nii,2,cyst",
        "p,a.nii,one.nii,2,cyst",
        "p,a.nii,one.nii,2,metastasis",
    )
    starts = ["row 3: slice 9", "row 4: lesion type", "row 5:", "row 6: many", "row 7:", "row 9: no cyst", "row 12:"]
    lines = error_lines(rows)
    assert len(lines) == len(starts)
    assert all(line.startswith(start) for line, start in zip(lines, starts, strict=True))
    assert not (tmp_path / "nifti").exists()
    assert main(["datalist", "cohort", str(tmp_path), "--folds", "2"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == len(starts)


def test_rows_that_do_not_fit_their_masks_are_reported_together(tmp_path):
    image(tmp_path, "other.nii")
    rows = cohort(
        tmp_path,
        "p,ct.nii.gz,one.nii,1,cyst",
        "p,ct.nii.gz,one.nii,3,cyst",
        "p,other.nii,small.png,1,cyst",
        "p,other.nii,one.nii,,cyst",
    )
    expected = ["row 3: no cyst in slice 1", "row 4: no cyst in slice 3", f"row 5: {tmp_path / 'small.png'}: 9×5"]
    lines = error_lines(rows)
    assert [line.startswith(start) for line, start in zip(lines, expected, strict=False)] == [True] * 3
    assert len(lines) == 3


def test_series_that_cannot_be_converted_are_reported_together_in_table_order(tmp_path):
    for name in ("a", "b", "c"):
        series(tmp_path / name)
    for name in ("b", "c"):
        (tmp_path / name / "02.dcm").unlink()
    nifti(tmp_path / "one.nii", mask())
    rows = [f"{name},{name},one.nii,{number},cyst" for name, number in (("c", 2), ("a", 1), ("b", 2))]
    lines = error_lines(table(tmp_path, *rows))
    assert [line.split(":")[0] for line in lines] == ["row 2", "row 3", "row 4"]
    assert "a gap" in lines[0] and "no cyst in slice 1" in lines[1] and "a gap" in lines[2]
    (item,) = cohort_items(table(tmp_path, "a,a,one.nii,2,cyst"))
    assert item.image == "nifti/images/a.nii.gz"


@pytest.mark.parametrize(("count", "rest"), [(20, None), (21, "and 1 more bad row"), (45, "and 25 more bad rows")])
def test_twenty_bad_rows_are_shown(count, rest, tmp_path):
    lines = error_lines(cohort(tmp_path, *["p,ct.nii.gz,one.nii,2,zyste"] * count))
    assert [line.split(":")[0] for line in lines[:20]] == [f"row {number}" for number in range(3, 23)]
    assert lines[20:] == ([rest] if rest else [])


def test_a_single_error_is_raised_as_it_is():
    errors = RowErrors()
    errors.raise_if_any()
    first = LiversegError("t.csv, row 3: one")
    errors.add(3, first)
    errors.add(3, LiversegError("t.csv, row 3: two"))
    with pytest.raises(LiversegError) as error:
        errors.raise_if_any()
    assert error.value is first
