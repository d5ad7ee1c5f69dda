"""`liverseg.predict` and `liverseg.load_model` have the command's results, for paths and images in memory."""

import json
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage

import liverseg
from liverseg.cli.main import main
from liverseg.errors import GeometryError, LiversegError, NotCTError, OutputError, UsageError
from liverseg.inference.api import _item
from liverseg.results.case_folder import CASE_FILES

STRAIGHT = np.diag([2.0, 2.0, 3.0, 1.0])
_TURN = np.deg2rad(12)
OBLIQUE = np.array(
    [
        [2 * np.cos(_TURN), -2 * np.sin(_TURN), 0, -31.5],
        [2 * np.sin(_TURN), 2 * np.cos(_TURN), 0, 12.25],
        [0, 0, 3, 812],
        [0, 0, 0, 1],
    ]
)
AIR = liverseg.Volume(np.full((64, 64, 4), -1000, np.int16), np.diag([5.0, 5.0, 5.0, 1.0]))
RUN_FACTS = ("finished", "seconds", "files", "input")


def write_ct(folder, array, affine=STRAIGHT, codes="RAS", slope=None):
    """Write a CT with its axes permuted and flipped to the given directions; scaled if there is a slope."""
    image = nib.Nifti1Image(array, affine)
    turned = image.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(codes))
    )
    if slope is not None:
        stored = np.rint((np.asarray(turned.dataobj) + 1024) / slope).astype(np.uint16)
        turned = nib.Nifti1Image(stored, turned.affine)
        turned.header.set_slope_inter(slope, -1024)
    turned.set_qform(turned.affine, 1)
    turned.set_sform(turned.affine, 1)
    folder.mkdir(exist_ok=True)
    nib.save(turned, folder / "ct.nii.gz")
    return folder / "ct.nii.gz"


def read_back(folder):
    """Return labels, lesion ids, table and record of a written case."""
    labels, ids = (np.asarray(nib.load(folder / f"{name}.nii.gz").dataobj) for name in ("labels", "lesions"))
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    return labels, ids, (folder / "lesions.csv").read_text(encoding="utf-8"), record


def settled(record):
    """Return a record without the fields that differ between two runs of a CT."""
    return {name: value for name, value in record.items() if name not in RUN_FACTS}


@pytest.fixture(scope="module")
def model(joint_weights):
    return liverseg.load_model(joint_weights, device="cpu")


IMAGES = {
    "path": str,
    "SimpleITK": lambda path: SimpleITK.ReadImage(str(path)),
    "nibabel": nib.load,
    "nibabel in memory": lambda path: nib.Nifti1Image(nib.load(path).get_fdata(), nib.load(path).affine),
    "MetaTensor": LoadImage(image_only=True, ensure_channel_first=True),
    "MetaTensor of ITK": LoadImage("ITKReader", image_only=True, affine_lps_to_ras=False),
    "Volume": lambda path: liverseg.Volume(np.asarray(nib.load(path).dataobj), nib.load(path).affine),
}


@pytest.mark.integration
@pytest.mark.parametrize(
    ("affine", "codes", "slope"),
    [(STRAIGHT, "RAS", None), (STRAIGHT, "PIR", 1), (OBLIQUE, "SLA", None), (OBLIQUE, "LPS", 0.5)],
)
def test_images_in_memory_give_what_the_command_writes(affine, codes, slope, ct_array, model, joint_weights, tmp_path):
    path = write_ct(tmp_path / "in", ct_array, affine, codes, slope)
    assert main(["predict", str(path), str(tmp_path / "out"), "--weights", str(joint_weights), "--device", "cpu"]) == 0
    labels, ids, table, record = read_back(tmp_path / "out" / "ct")
    assert set(np.unique(labels)) >= {0, 1} and ids.max() >= 1
    for kind, read in IMAGES.items():
        found = model.predict(read(path))
        np.testing.assert_array_equal(found.labels, labels, err_msg=kind)
        np.testing.assert_array_equal(found.lesion_ids, ids, err_msg=kind)
        assert (found.labels.dtype, found.lesion_ids.dtype) == (np.uint8, np.uint16)
        assert found.lesions.to_csv(index=False) == table, kind
        np.testing.assert_allclose(found.affine, nib.load(path).affine, atol=1e-4)
        assert found.warnings == tuple(record["warnings"]) and found.folder is None
        assert settled(found.record).keys() == settled(record).keys()
        if kind in ("path", "nibabel", "Volume"):  # the others compute their affine in another precision
            assert settled(found.record) == settled(record)


@pytest.mark.integration
def test_an_output_folder_gets_the_files_of_the_command(ct_array, model, joint_weights, tmp_path):
    path = write_ct(tmp_path / "in", ct_array, OBLIQUE, "PIR")
    assert main(["predict", str(path), str(tmp_path / "out"), "--weights", str(joint_weights), "--device", "cpu"]) == 0
    expected = tmp_path / "out" / "ct"
    for number, ct in enumerate((path, nib.load(path))):
        found = model.predict(ct, tmp_path / f"api{number}")
        assert found.folder == tmp_path / f"api{number}" / "ct"
        assert sorted(file.name for file in found.folder.iterdir()) == sorted(CASE_FILES)
        for name in CASE_FILES:
            if name != "record.json":
                assert (found.folder / name).read_bytes() == (expected / name).read_bytes(), name
        labels, ids, _, record = read_back(found.folder)
        assert found.record == record and settled(record) == settled(read_back(expected)[3])
        np.testing.assert_array_equal(found.labels, labels)
        np.testing.assert_array_equal(found.lesion_ids, ids)
    assert record["input"]["path"].startswith("ct (nibabel Nifti1Image in memory), SHA-256 ")
    other = liverseg.Volume(ct_array, STRAIGHT)
    with pytest.raises(LiversegError, match="holds the results of another CT"):
        model.predict(other, tmp_path / "api1")
    assert model.predict(other, tmp_path / "api1", case="other").folder == tmp_path / "api1" / "other"


@pytest.mark.integration
def test_results_go_back_to_the_images_space(ct_array, model, tmp_path):
    path = write_ct(tmp_path / "in", ct_array, OBLIQUE, "SLA")
    image = SimpleITK.ReadImage(str(path))
    found = model(image)
    labels = found.to_sitk()
    for name in ("GetOrigin", "GetSpacing", "GetDirection"):
        np.testing.assert_allclose(getattr(labels, name)(), getattr(image, name)(), atol=1e-9)
    assert labels.GetSize() == image.GetSize()
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(labels), found.labels.T)
    assert SimpleITK.GetArrayFromImage(found.to_sitk("lesion_ids")).max() == len(found.lesions)
    # SimpleITK considers both images in the same space
    statistics = SimpleITK.LabelIntensityStatisticsImageFilter()
    statistics.Execute(labels, image)
    assert statistics.GetNumberOfPixels(1) == (found.labels == 1).sum()

    loaded = nib.load(path)
    written = model(loaded).to_nibabel()
    np.testing.assert_array_equal(written.affine, loaded.affine)
    assert [int(written.header[code]) for code in ("qform_code", "sform_code")] == [1, 1]
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(written.dataobj), found.labels)

    tensor = found.to_metatensor("lesion_ids")
    assert tensor.shape == (1, *found.labels.shape) and tensor.meta["space"] == "RAS"
    np.testing.assert_allclose(tensor.affine, found.affine)
    with pytest.raises(ValueError, match="which is 'ids'; it must be labels or lesion_ids"):
        found.to_sitk("ids")

    loaded.header["qform_code"] = loaded.header["sform_code"] = 0
    nib.save(nib.Nifti1Image(np.asarray(loaded.dataobj), None, loaded.header), tmp_path / "nowhere.nii.gz")
    labels, image = model(tmp_path / "nowhere.nii.gz").to_sitk(), SimpleITK.ReadImage(tmp_path / "nowhere.nii.gz")
    for name in ("GetOrigin", "GetSpacing", "GetDirection"):
        np.testing.assert_allclose(getattr(labels, name)(), getattr(image, name)(), atol=1e-5)


@pytest.mark.integration
def test_one_call_with_settings_and_a_mask(ct_array, joint_weights, tmp_path, monkeypatch):
    path = write_ct(tmp_path / "in", ct_array)
    mask = nib.Nifti1Image((ct_array > 60).astype(np.uint8), STRAIGHT)
    nib.save(mask, tmp_path / "mask.nii.gz")
    command = ["predict", str(path), str(tmp_path / "out"), "--weights", str(joint_weights), "--device", "cpu"]
    assert main([*command, "--liver", str(tmp_path / "mask.nii.gz"), "--min-lesion-ml", "0.2"]) == 0
    labels, ids, table, record = read_back(tmp_path / "out" / "ct")
    monkeypatch.setenv("LIVERSEG_WEIGHTS", str(joint_weights))
    monkeypatch.chdir(tmp_path)
    given = {"device": torch.device("cpu"), "min_lesion_ml": 0.2}
    for liver in ("mask.nii.gz", mask, liverseg.Volume(ct_array > 60, STRAIGHT)):
        found = liverseg.predict(path, liver=liver, **given)
        np.testing.assert_array_equal(found.labels, labels)
        np.testing.assert_array_equal(found.lesion_ids, ids)
        assert found.lesions.to_csv(index=False) == table
        assert found.record["settings"]["min_lesion_ml"] == record["settings"]["min_lesion_ml"] == 0.2
        assert "sha256" in found.record["input"]["liver"]
    model = liverseg.load_model(**given)
    assert (model.weights, model.settings["liver"]) == (joint_weights, "auto")
    np.testing.assert_array_equal(model.predict(path, liver="mask.nii.gz").labels, labels)
    with pytest.raises(UsageError, match="liver is 'none'; a mask is needed here"):
        model.predict(path, liver="none")
    with pytest.raises(LiversegError, match=r"liver \(nibabel Nifti1Image in memory\): several labels"):
        model.predict(path, liver=nib.Nifti1Image(np.arange(8, dtype=np.uint8).reshape(2, 2, 2), STRAIGHT))


@pytest.mark.integration
@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda hu: hu, TypeError, "ct is of type numpy.ndarray, which has no affine; give liverseg.Volume"),
        (lambda hu: nib.Nifti1Image(hu[0], STRAIGHT), GeometryError, "2 dimensions, shape 34 × 9; 3 are needed"),
        (lambda hu: liverseg.Volume(hu / 900, STRAIGHT), NotCTError, "do not look like a CT in HU"),
    ],
)
def test_images_that_cannot_be_used(make, kind, words, ct_array, model):
    with pytest.raises(kind, match=words) as raised:
        model.predict(make(ct_array))
    assert "\n" not in str(raised.value)


@pytest.mark.integration
def test_other_mistakes(model, ct_file, joint_weights, tmp_path):
    (ct_file.parent / "b.nii.gz").write_bytes(ct_file.read_bytes())
    with pytest.raises(UsageError, match="2 CTs; give one, or call load_model once"):
        model.predict(ct_file.parent)
    with pytest.raises(UsageError, match=r"case is '\.\./a'; it names a folder"):
        model.predict(ct_file, tmp_path / "out", case="../a")
    with pytest.raises(LiversegError, match="no such folder or file"):
        model.predict(tmp_path / "none.nii.gz")
    with pytest.raises(LiversegError, match="no such weights file"):
        liverseg.load_model(tmp_path / "none.safetensors")
    with pytest.raises(UsageError, match="min_confidence is 2"):
        liverseg.load_model(joint_weights, min_confidence=2)
    with pytest.raises(TypeError, match="min_lesion"):
        liverseg.predict(ct_file, weights=joint_weights, min_lesion=1)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="output cannot be written there"):
        model.predict(ct_file, tmp_path / "file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "in"]


@pytest.mark.integration
def test_the_package_is_light_until_it_is_used():
    program = (
        "import sys, liverseg\n"
        "heavy = {'torch', 'monai', 'numpy', 'nibabel', 'SimpleITK', 'pandas'}\n"
        "assert not heavy & {*sys.modules}, heavy & {*sys.modules}\n"
        "assert {*liverseg.__all__} <= {*dir(liverseg)}\n"
        "assert liverseg.LiversegError.__module__ == 'liverseg.errors' and not heavy & {*sys.modules}\n"
        "assert liverseg.Volume.__name__ == 'Volume' and 'torch' not in sys.modules\n"
        "assert callable(liverseg.predict) and 'torch' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_public_names():
    assert all(getattr(liverseg, name) is not None for name in liverseg.__all__)
    with pytest.raises(AttributeError, match="module 'liverseg' has no attribute 'segment'"):
        _ = liverseg.segment


@pytest.mark.parametrize("case", ["", ".", "..", "a/b", "a\0b", "a\nb", ".liverseg", "n" * 201, 3])
def test_a_case_that_names_no_folder_is_refused(case):
    with pytest.raises(UsageError, match=r"^case is .*; it names a folder in the output"):
        _item(AIR, case)


def test_an_empty_path_is_not_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="ct is an empty path"):
        _item("")
    for name in ("weights", "bundle", "liver"):
        with pytest.raises(UsageError, match=f"^{name} is an empty path$"):
            liverseg.load_model(**{name: ""})
    with pytest.raises(UsageError, match=r"^output is an empty path$"):
        _item(AIR, output="")


def test_paths_of_another_type_are_refused():
    for name in ("weights", "bundle", "liver"):
        with pytest.raises(TypeError, match=f"^{name} is of type int; a path is needed$"):
            liverseg.load_model(**{name: 5})
    with pytest.raises(TypeError, match=r"^output is of type int; a path is needed$"):
        _item(AIR, output=5)
    with pytest.raises(TypeError, match=r"^liver is an image; load_model takes auto, none or a path: give the mask to"):
        liverseg.load_model(liver=AIR)
    with pytest.raises(TypeError, match=r"^ct is a list; for several CTs, call load_model once and predict for each$"):
        _item([AIR, AIR])


@pytest.mark.parametrize(
    ("ct", "series", "words"),
    [
        (AIR, "portal", r"^series is 'portal', but ct is an image in memory; only DICOM has series"),
        ("ct.nii", "portal", r"^series is 'portal', but .*ct\.nii is a NIfTI file; only DICOM has series"),
        ("ct.zip", "", "^series is ''; it must be the UID or the description of a DICOM series$"),
        ("ct.zip", 3, "^series is 3; it must be the UID"),
    ],
)
def test_a_series_is_for_dicom(ct, series, words, tmp_path, monkeypatch):
    monkeypatch.setattr("liverseg.inference.api.case_evaluator", None)  # refused before the network is loaded
    if isinstance(ct, str):
        (tmp_path / ct).touch()
        ct = tmp_path / ct
    with pytest.raises(UsageError, match=words):
        liverseg.predict(ct, series=series)


def test_a_series_of_a_zip_is_passed_on(tmp_path):
    (tmp_path / "ct.zip").touch()
    assert _item(tmp_path / "ct.zip", series="portal")["series"] == "portal"


@pytest.mark.integration
def test_a_default_geometry_is_warned_of(ct_array, model):
    voxels = torch.from_numpy(ct_array)
    mask = MetaTensor((voxels > 60).to(torch.uint8))
    found = model.predict(MetaTensor(voxels), liver=mask)
    assumed = "has MONAI's default affine: voxels of 1 mm are assumed, and left, right, head and feet are a guess"
    assert found.warnings[:2] == (f"ct {assumed}", f"liver {assumed}") and found.record["warnings"] == [*found.warnings]
    assert not any("default" in warning for warning in model.predict(liverseg.Volume(ct_array, np.eye(4))).warnings)


@pytest.mark.parametrize("liver", [np.zeros((3, 3, 3)), 5, [1]])
def test_a_liver_of_another_type_is_refused_before_the_network_is_loaded(liver):
    with pytest.raises(TypeError, match="liver"):
        liverseg.predict(AIR, liver=liver)


@pytest.mark.integration
def test_predictions_in_threads_leave_loggers_alone():
    model = liverseg.load_model(device="cpu")
    loggers = [logging.getLogger(name) for name in ("ignite", "monai.bundle.workflows")]
    before = [logger.level for logger in loggers]
    with ThreadPoolExecutor(3) as pool:
        found = [*pool.map(lambda _: model.predict(AIR), range(4))]
    assert all("no liver found" in prediction.warnings for prediction in found)
    assert [logger.level for logger in loggers] == before
