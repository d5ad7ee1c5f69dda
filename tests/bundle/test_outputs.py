"""Lists of output types: their form, and CTs for which they cannot be written."""

import pytest

from liverseg.bundle.outputs import (
    OUTPUT_TYPES,
    are_output_types,
    check_output_types,
    needs_dicom,
    parse_output_types,
)
from liverseg.bundle.validation import check_values
from liverseg.errors import UsageError
from liverseg.imageio.volume import Volume
from liverseg.results.case_folder import CASE_FILES, OTHER_FILES


def test_every_file_is_one_of_a_case_folder():
    files = [name for names in OUTPUT_TYPES.values() for name in names]
    assert len({*files}) == len(files)
    assert {*files} < {*CASE_FILES, *OTHER_FILES}


def test_lists_that_mean_the_same_are_equal():
    assert parse_output_types("rtstruct,labels") == ["labels", "rtstruct"]
    assert parse_output_types(" Labels, RTSTRUCT ,labels,") == ["labels", "rtstruct"]
    assert parse_output_types("nrrd,labels") == ["labels", "nrrd"]


@pytest.mark.parametrize("value", [[], "labels", ["label"], ["labels", "labels"], [["labels"]], [1], 5, {"labels": 1}])
def test_other_values_are_refused(value):
    assert not are_output_types(value)
    with pytest.raises(UsageError, match=r"^output_types is .*; it must be null or a list of labels, dicom-seg, "):
        check_values(output_types=value)


def test_dicom_files_by_list_or_by_switch():
    assert [needs_dicom(None, dicom) for dicom in (True, False)] == [True, False]
    assert needs_dicom(["labels", "rtstruct"], True)
    assert not needs_dicom(["labels", "seg-nrrd"], True)
    assert not needs_dicom(["labels"], False)
    with pytest.raises(UsageError, match="dicom is False, but output_types has dicom-seg, rtstruct; leave out one"):
        needs_dicom(["dicom-seg", "labels", "rtstruct"], False)


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (["a.nii.gz"], "a.nii.gz is a NIfTI file"),
        (["a.nii", "b.nii.gz"], "none of the 2 CTs is DICOM"),
        ([Volume(None, None)], "ct is an image in memory"),
    ],
)
def test_dicom_files_need_a_dicom_series(images, found):
    with pytest.raises(UsageError) as caught:
        check_output_types(["labels", "dicom-sr", "rtstruct"], images)
    assert str(caught.value) == (
        f"output_types has dicom-sr, rtstruct, but {found}; these files need a DICOM series, the others are labels, "
        "seg-nrrd"
    )
    check_output_types(None, images)
    check_output_types(["labels", "seg-nrrd"], images)


def test_beside_dicom_other_cts_are_accepted():
    check_output_types(["rtstruct"], ["a.nii.gz", "folder"])
    check_output_types(["rtstruct"], ["packed.zip"])
    check_output_types(["rtstruct"], [])
