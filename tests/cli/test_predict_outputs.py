"""`liverseg predict --output-types` and the same in a batch, in Python and in MONAI's command."""

import json
import shutil

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import slicerio
from ct_files import write_ct
from dicom_files import write_slice

import liverseg
from liverseg.batch.job import run_spec
from liverseg.bundle.paths import inference_config
from liverseg.cases.case import BatchCase
from liverseg.cases.discover import find_batch
from liverseg.cli.main import main
from liverseg.errors import UsageError

ALWAYS = {"lesions.csv", "lesions.json", "preview.png", "record.json"}
LABELS = {"labels.nii.gz", "lesions.nii.gz"}


@pytest.fixture
def study(tmp_path):
    """A folder with a CT series with all UIDs."""
    folder = tmp_path / "study"
    planes = np.random.default_rng(0).integers(-200, 250, (5, 40, 48)).astype(np.int16)
    planes[:, :6] = -1000
    for number, plane in enumerate(planes):
        path = folder / f"{number}.dcm"
        write_slice(path, plane, (-15, -12, 300 - 2.5 * number), uid="1.2.3.4")
        header = pydicom.dcmread(path)
        header.StudyInstanceUID, header.FrameOfReferenceUID = "1.2.3", "1.2.3.9"
        header.save_as(path)
    return folder


def run(command, *arguments):
    return main([command, *map(str, arguments)])


def files_of(folder):
    """Return the names of a case's files; the record has all others."""
    names = {path.name for path in folder.iterdir()}
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    assert {*record["files"]} == names - {"record.json"}
    return names, record


@pytest.mark.integration
def test_files_are_those_of_the_list(study, weights, tmp_path, capsys):
    options = ["--weights", weights, "--liver", "none"]
    chosen = ["--output-types", "rtstruct,seg-nrrd,labels"]
    assert run("predict", study, tmp_path / "out", *options, *chosen) == 0
    case = tmp_path / "out" / "study"
    names, record = files_of(case)
    assert names == ALWAYS | LABELS | {"structures.dcm", "segmentation.seg.nrrd"}
    assert record["warnings"] == [warning for warning in record["warnings"] if ".dcm" not in warning]
    labels = nib.load(case / "labels.nii.gz")
    voxels = np.asarray(labels.dataobj)
    table = np.atleast_1d(np.genfromtxt(case / "lesions.csv", delimiter=",", names=True, dtype=None, encoding="utf-8"))
    expected = ["liver", *(f"{row['type']} {row['id']}" for row in table)]
    assert len(expected) > 1
    structures = pydicom.dcmread(case / "structures.dcm")
    assert [region.ROIName for region in structures.StructureSetROISequence] == expected
    assert structures.StudyInstanceUID == "1.2.3"
    segments = slicerio.read_segmentation(str(case / "segmentation.seg.nrrd"))
    assert slicerio.segment_names(segments) == expected
    np.testing.assert_array_equal(segments["voxels"] > 0, voxels > 0)
    images = [sitk.ReadImage(case / name) for name in ("segmentation.seg.nrrd", "labels.nii.gz")]
    assert images[0].GetSize() == images[1].GetSize()
    for name in ("GetOrigin", "GetSpacing", "GetDirection"):
        np.testing.assert_allclose(*(getattr(image, name)() for image in images), atol=1e-5)

    assert run("predict", study, tmp_path / "out", *options, "--output-types", "dicom-sr") == 0
    assert files_of(case)[0] == ALWAYS | {"measurements.dcm"}
    assert run("predict", study, tmp_path / "out", *options) == 0
    assert files_of(case)[0] == ALWAYS | LABELS | {"measurements.dcm", "segmentation.dcm"}


@pytest.mark.integration
def test_results_without_labels_are_no_cts(study, weights, tmp_path):
    write_ct(study / "ct.nii.gz")
    for name in ("0.dcm", "1.dcm", "2.dcm", "3.dcm", "4.dcm"):
        shutil.move(study / name, tmp_path / name)
    options = ["--weights", weights, "--liver", "none", "--output-types", "seg-nrrd"]
    assert run("predict", study, study, *options) == 0
    assert files_of(study / "ct")[0] == ALWAYS | {"segmentation.seg.nrrd"}
    assert [case.name for case in find_batch(study, tmp_path / "elsewhere", None)] == ["ct"]


@pytest.mark.integration
def test_a_ct_that_is_not_dicom_beside_one_that_is(study, weights, tmp_path):
    cts = tmp_path / "cts"
    write_ct(cts / "plain.nii.gz")
    shutil.make_archive(str(cts / "packed"), "zip", study)
    options = ["--weights", weights, "--liver", "none", "--output-types", "rtstruct,dicom-seg"]
    assert run("predict", cts, tmp_path / "out", *options) == 0
    assert files_of(tmp_path / "out" / "packed")[0] == ALWAYS | {"structures.dcm", "segmentation.dcm"}
    names, record = files_of(tmp_path / "out" / "plain")
    assert names == ALWAYS
    missing = [f"no {name}: the CT is not DICOM" for name in ("segmentation.dcm", "structures.dcm")]
    assert record["warnings"][-2:] == missing


@pytest.mark.parametrize("command", ["predict", "batch"])
@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--output-types", "labels,rtstuct"], "output_types is ['labels', 'rtstuct']; it must be null or a list of"),
        (["--output-types", ","], "output_types is []; it must be null or a list of"),
        (["--output-types", "labels,rtstruct"], "output_types has rtstruct, but"),
        (["--output-types", "labels", "--no-dicom"], "not allowed with argument --output-types"),
    ],
)
def test_wrong_lists_are_refused_at_once(command, options, line, weights, tmp_path, capsys):
    write_ct(tmp_path / "cts" / "a.nii.gz")
    try:
        code = run(command, tmp_path / "cts", tmp_path / "out", "--weights", weights, *options)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert line in capsys.readouterr().err.splitlines()[-1]
    assert not [*(tmp_path / "out").glob("a*")]


@pytest.mark.integration
def test_a_batch_writes_them_and_computes_again_for_another_list(study, weights, tmp_path, capsys):
    shutil.copytree(study, tmp_path / "cts" / "study")
    options = ["--weights", weights, "--liver", "none"]

    def finished(*more):
        assert run("batch", tmp_path / "cts", tmp_path / "out", *options, *more) == 0
        out = capsys.readouterr().out
        return "liver" in out, files_of(tmp_path / "out" / "study")[0] - ALWAYS

    default = LABELS | {"segmentation.dcm", "measurements.dcm"}
    assert finished() == (True, default)
    assert finished("--output-types", "dicom-sr,dicom-seg,labels") == (False, default)  # the default in other words
    assert finished("--output-types", "rtstruct,seg-nrrd") == (True, {"structures.dcm", "segmentation.seg.nrrd"})
    assert finished("--output-types", "seg-nrrd,rtstruct") == (False, {"structures.dcm", "segmentation.seg.nrrd"})
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "study/structures.dcm" in page
    assert "study/segmentation.seg.nrrd" in page


def test_the_default_by_name_has_the_settings_of_earlier_versions(weights):
    case = BatchCase("a", "/cts/a.nii.gz")
    hashes = [
        run_spec(inference_config(), weights, overrides).configuration(case)
        for overrides in (
            {},
            {"output_types": ["labels", "dicom-seg", "dicom-sr"]},
            {"output_types": ["labels"]},
        )
    ]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.integration
def test_python_writes_them(study, weights, tmp_path):
    write_ct(tmp_path / "plain.nii.gz")
    model = liverseg.load_model(weights, liver="none", output_types=("rtstruct",), device="cpu")
    assert files_of(model(study, tmp_path / "out").folder)[0] == ALWAYS | {"structures.dcm"}
    found = model(tmp_path / "plain.nii.gz", tmp_path / "out")
    assert found.warnings[-1] == "no structures.dcm: the CT is not DICOM"
    with pytest.raises(UsageError, match=r"plain\.nii\.gz is a NIfTI file; these files need a DICOM series"):
        liverseg.predict(tmp_path / "plain.nii.gz", tmp_path / "out", output_types=["rtstruct"])
    with pytest.raises(UsageError, match="dicom is False, but output_types has rtstruct"):
        liverseg.load_model(weights, output_types=["rtstruct"], dicom=False)
    with pytest.raises(UsageError, match="output_types is 'labels'; it must be null or a list of labels, "):
        liverseg.load_model(weights, output_types="labels")
