"""3D-IRCADb-01: trees in its layout are converted to NIfTI with the right labels, and defects are reported."""

import json
import logging
import shutil

import nibabel as nib
import numpy as np
import pytest
from ircadb_tree import CYST, SHAPE, TUMOUR, WHERE, image, patient, structure, write_volume

from liverseg.cli.main import main
from liverseg.datalists import DataItem, build_datalist, read_datalist
from liverseg.datalists.importers.ircadb import LICENCE, SOURCE, ircadb_items
from liverseg.errors import LiversegError, OutputError, UsageError


@pytest.fixture(autouse=True)
def _warnings(caplog):
    caplog.set_level(logging.WARNING, logger="liverseg.datalists.importers.ircadb")


def import_(root, **settings):
    labelled, unlabelled = ircadb_items(root, progress=False, **settings)
    assert unlabelled == ()
    return labelled


def axial(path):
    """Read a written file as (slice, row, column)."""
    return np.asarray(nib.load(path).dataobj).transpose(2, 1, 0)


def test_a_patient_becomes_an_image_and_a_label(tmp_path):
    folder = patient(tmp_path, 3, "livertumor01", "livertumor02", "liverkyst", "venoussystem", modality="OT")
    (folder / "MASKS_DICOM" / ".DS_Store").touch()
    (folder / "PATIENT_DICOM" / "._image_0").write_bytes(b"\0\5\x16\7")
    shutil.rmtree(folder / "MASKS_DICOM" / "livertumor02")
    outside = np.s_[0:1, 0:1, 0:1]  # a lesion may extend beyond the liver's mask
    write_volume(folder / "MASKS_DICOM" / "livertumor02", structure("livertumor", outside))
    assert import_(tmp_path) == (DataItem("nifti/ircadb-03.nii.gz", "nifti/ircadb-03-label.nii.gz", "ircadb-03"),)
    written, label = nib.load(tmp_path / "nifti/ircadb-03.nii.gz"), nib.load(tmp_path / "nifti/ircadb-03-label.nii.gz")
    assert (written.get_data_dtype(), label.get_data_dtype()) == (np.int16, np.uint8)
    np.testing.assert_array_equal(axial(tmp_path / "nifti/ircadb-03.nii.gz"), image(3))
    expected = np.zeros(SHAPE, np.uint8)
    expected[WHERE["liver"]] = 1
    for where in (TUMOUR, CYST, outside):
        expected[where] = 2
    np.testing.assert_array_equal(axial(tmp_path / "nifti/ircadb-03-label.nii.gz"), expected)
    for nifti in (written, label):
        np.testing.assert_allclose(nifti.affine, np.diag([-0.7, -0.8, 1.6, 1]), atol=1e-6)
        assert (int(nifti.header["sform_code"]), int(nifti.header["qform_code"])) == (1, 1)
        assert nifti.header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize(
    "name",
    [
        "livertumor",
        "livertumor1",
        "livertumor07",
        "livertumors",
        "LiverTumor02",
        "livertumour",
        "livercyst",
        "livercysts",
        "livercyst01",
        "liverkyst",
        "liverkyst2",
        "liverkyste",
        "Liverkystes",
        "liverkyste01",
    ],
)
def test_spellings_of_lesions(name, tmp_path, caplog):
    patient(tmp_path, 1, name)
    import_(tmp_path)
    where = CYST if "yst" in name else TUMOUR
    assert np.all(axial(tmp_path / "nifti/ircadb-01-label.nii.gz")[where] == 2)
    assert caplog.text == ""


@pytest.mark.parametrize("name", ["tumor", "leftsurretumor", "rightsurretumor", "metastasectomie", "Hyperplasie"])
def test_masks_perhaps_outside_the_liver_are_left_out_with_a_warning(name, tmp_path, caplog):
    patient(tmp_path, 7, name)
    import_(tmp_path)
    assert axial(tmp_path / "nifti/ircadb-07-label.nii.gz").max() == 1
    assert f"ircadb-07: left out, not known to be lesions of the liver: {name}" in caplog.text


def test_patients_are_in_the_order_of_their_numbers_and_without_lesions_too(tmp_path, caplog):
    for number in (10, 2, 20):
        patient(tmp_path / "3Dircadb1", number)
    assert [item.patient for item in import_(tmp_path)] == ["ircadb-02", "ircadb-10", "ircadb-20"]
    assert axial(tmp_path / "nifti/ircadb-10-label.nii.gz").max() == 1
    assert caplog.text == ""


def test_folders_unpacked_one_deeper(tmp_path):
    folder = patient(tmp_path, 2, "livertumor")
    for name in ("PATIENT_DICOM", "MASKS_DICOM"):
        (folder / name).rename(folder / "moved")
        (folder / name).mkdir()
        (folder / "moved").rename(folder / name / name)
    assert len(import_(tmp_path)) == 1
    assert axial(tmp_path / "nifti/ircadb-02-label.nii.gz").max() == 2


@pytest.mark.integration
def test_only_what_has_changed_is_written_again(tmp_path):
    patient(tmp_path, 1, "livertumor")
    second = patient(tmp_path, 2)
    import_(tmp_path)
    nifti = tmp_path / "nifti"

    def times():
        return {path.name: path.stat().st_mtime_ns for path in nifti.iterdir()}

    first = times()
    assert sorted(first) == [f"ircadb-0{n}{end}" for n in (1, 2) for end in ("-label.nii.gz", ".json", ".nii.gz")]
    import_(tmp_path)
    assert times() == first
    write_volume(second / "MASKS_DICOM" / "liverkyst", structure("liverkyst"))  # a new mask
    import_(tmp_path)
    assert {name for name, time in times().items() if time != first[name]} == {
        "ircadb-02-label.nii.gz",
        "ircadb-02.json",
        "ircadb-02.nii.gz",
    }
    assert axial(nifti / "ircadb-02-label.nii.gz").max() == 2
    for damage in (
        lambda: (nifti / "ircadb-01-label.nii.gz").write_bytes(b""),
        lambda: (nifti / "ircadb-01.nii.gz").unlink(),
        lambda: (nifti / "ircadb-01.json").write_text("{"),
    ):
        before = times()
        damage()
        import_(tmp_path)
        assert times()["ircadb-01.json"] > before["ircadb-01.json"]
        assert axial(nifti / "ircadb-01-label.nii.gz").max() == 2
    names = json.loads((nifti / "ircadb-01.json").read_text(encoding="utf-8"))["files"]
    assert {name.rsplit("/", 1)[0] for name in names} == {
        "3Dircadb1.1/PATIENT_DICOM",
        "3Dircadb1.1/MASKS_DICOM/liver",
        "3Dircadb1.1/MASKS_DICOM/livertumor",
        "nifti",
    }


def test_typed_keeps_patients_whose_lesions_are_all_cysts(tmp_path, caplog):
    patient(tmp_path, 1, "liverkyst", "livertumor")
    patient(tmp_path, 2, "liverkyst", "liverkyst02", "leftsurretumor")
    patient(tmp_path, 3, "livertumor")
    patient(tmp_path, 4, "liverkyst", "tumor")
    patient(tmp_path, 5)
    (item,) = import_(tmp_path, typed=True)
    assert (item.patient, item.lesion_type) == ("ircadb-02", "cyst")
    assert axial(tmp_path / item.label).max() == 2
    assert "of unknown type: ircadb-01, ircadb-03, ircadb-04, ircadb-05" in caplog.text
    assert {path.name[:9] for path in (tmp_path / "nifti").iterdir()} == {"ircadb-02"}


def test_a_list_is_built_with_source_and_licence(tmp_path):
    for number in (1, 2, 3):
        patient(tmp_path, number, "livertumor")
    listed = read_datalist(build_datalist("ircadb", tmp_path, folds=2, test=0.3))
    assert (listed.source, listed.licence) == (SOURCE, LICENCE)
    assert listed.labels == {"0": "background", "1": "liver", "2": "lesion"}
    assert {item.patient for item in listed.training + listed.test} == {f"ircadb-0{n}" for n in (1, 2, 3)}
    assert all((tmp_path / name).is_file() for item in listed.training for name in (item.image, item.label))


def test_typed_on_the_command_line_is_a_sound_list_for_the_joint_bundle(tmp_path, caplog, capsys):
    for number, lesions in enumerate((["liverkyst"], ["livercyst"], ["liverkyst", "livertumor"], ["livercyst"]), 1):
        patient(tmp_path, number, *lesions)
    options = ["--typed", "--folds", "2", "--output", str(tmp_path / "typed.json")]
    assert main(["datalist", "ircadb", str(tmp_path), *options]) == 0
    assert "of unknown type: ircadb-03" in caplog.text
    listed = read_datalist(tmp_path / "typed.json")
    assert listed.labels == {"0": "background", "1": "liver", "2": "cyst", "3": "hemangioma", "4": "metastasis"}
    assert [(item.patient, item.lesion_type) for item in listed.training] == [
        (f"ircadb-{number:02d}", "cyst") for number in (1, 2, 4)
    ]
    assert listed.folds == (0, 1)
    capsys.readouterr()
    assert main(["datalist", "check", str(tmp_path / "typed.json")]) == 0
    assert "0 errors and 0 warnings in 6 files checked" in capsys.readouterr().out


@pytest.mark.parametrize("source", ["lits", "decathlon", "cohort"])
def test_typed_is_of_this_source_alone(source, tmp_path, capsys):
    with pytest.raises(UsageError, match=f"source {source}: typed given; allowed for ircadb only"):
        build_datalist(source, tmp_path, typed=True)
    assert main(["datalist", source, str(tmp_path), "--typed"]) == 2
    assert "unknown argument --typed" in capsys.readouterr().err


def remove(path):
    (shutil.rmtree if path.is_dir() else type(path).unlink)(path)


def packed(folder, name):
    remove(folder / name)
    (folder / f"{name}.zip").touch()


def rewrite(folder, name, mask, **settings):
    remove(folder / "MASKS_DICOM" / name)
    write_volume(folder / "MASKS_DICOM" / name, mask, **settings)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: packed(p, "PATIENT_DICOM"), r"3Dircadb1\.4/PATIENT_DICOM\.zip: not unpacked yet; unpack it"),
        (lambda p: packed(p, "MASKS_DICOM"), r"3Dircadb1\.4/MASKS_DICOM\.zip: not unpacked yet; unpack it"),
        (lambda p: remove(p / "MASKS_DICOM"), r"3Dircadb1\.4: no MASKS_DICOM in it"),
        (lambda p: remove(p / "MASKS_DICOM/liver"), r"MASKS_DICOM: 0 folders called liver; one is needed"),
        (lambda p: remove(p / "PATIENT_DICOM/image_1"), r"PATIENT_DICOM: a gap of 3.2 mm .* 1 missing"),
        (lambda p: remove(p / "MASKS_DICOM/liver/image_2"), r"MASKS_DICOM/liver: a gap of 3.2 mm .* 1 missing"),
        (
            lambda p: remove(p / "MASKS_DICOM/liver/image_0"),
            r"MASKS_DICOM/liver: a mask of 5×6×3 for an image of 5×6×4",
        ),
        (lambda p: [remove(f) for f in (p / "MASKS_DICOM/livertumor").iterdir()], r"livertumor: no DICOM image in it"),
        (lambda p: rewrite(p, "liver", structure("skin")), r"liver: the liver's mask is empty"),
        (lambda p: rewrite(p, "livertumor", structure("livertumor"), shift=0.4), r"livertumor: .* up to 0.4 mm off"),
        (
            lambda p: rewrite(p, "livertumor", structure("livertumor"), spacing=(0.8, 0.9)),
            r"livertumor: .* 1 mm off",
        ),
        (lambda p: rewrite(p, "livertumor", image(1)), r"livertumor: mask values -.*; 0 and one more"),
        (lambda p: rewrite(p, "liver", structure("liver") // 2 + 5), r"liver: mask values 5, 132; 0 and one more"),
        (lambda p: p.rename(p.with_name("3Dircadb1.21")), r"3Dircadb1\.21: patient 21; .* has patients 1 to 20"),
        (
            lambda p: shutil.copytree(p, p.with_name("3Dircadb1.04")),
            r"patient 4 occurs twice: .*04 and .*3Dircadb1\.4",
        ),
    ],
)
def test_patients_that_are_refused(spoil, message, tmp_path):
    spoil(patient(tmp_path, 4, "livertumor"))
    with pytest.raises(LiversegError, match=message) as caught:
        import_(tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("nifti/*"))


def test_masks_with_any_value_or_a_rescaled_background(tmp_path):
    folder = patient(tmp_path, 4, "livertumor")
    rewrite(folder, "liver", structure("liver") // 255)
    rewrite(folder, "livertumor", structure("livertumor").astype(np.int16) - 1024)  # with the rescale tags of the CT
    import_(tmp_path)
    label = axial(tmp_path / "nifti/ircadb-04-label.nii.gz")
    assert [int((label == value).sum()) for value in (1, 2)] == [22, 2]


def test_one_bad_patient_leaves_the_others_written(tmp_path):
    patient(tmp_path, 1)
    remove(patient(tmp_path, 2) / "PATIENT_DICOM/image_1")
    with pytest.raises(LiversegError, match=r"3Dircadb1\.2/PATIENT_DICOM"):
        import_(tmp_path)
    assert sorted(path.name[:9] for path in (tmp_path / "nifti").iterdir()) == ["ircadb-01"] * 3


def test_folders_that_are_no_tree(tmp_path):
    with pytest.raises(LiversegError, match="no such folder; 3D-IRCADb-01 is folders"):
        import_(tmp_path / "none")
    with pytest.raises(LiversegError, match=r"no folder 3Dircadb1\.N in it"):
        import_(tmp_path)
    patient(tmp_path, 1)
    (tmp_path / "nifti").touch()
    with pytest.raises(OutputError, match="nifti: the folder cannot be created"):
        import_(tmp_path)
