"""Real CT keeps its geometry; the labels of a random network have no meaning."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from liverseg.errors import LiversegError
from liverseg.imageio.dicom_series import find_series, read_series
from liverseg.imageio.volume import read_volume
from liverseg.inference import LiverCascade, SlabInferer, SlabPrediction
from liverseg.inference.contrast_phase import aorta_hu
from liverseg.inference.lesions import find_lesions
from liverseg.inference.plausibility import check_plausibility
from liverseg.inference.predict import run_inference

ROOT = Path(os.environ.get("LIVERSEG_REAL_DATA") or Path(__file__).parents[3] / "shared" / "realdata")


def real(name):
    path = ROOT / name
    if not path.exists():
        pytest.skip(f"{path} is not here; set LIVERSEG_REAL_DATA to the folder of real CT")
    return path


def record_of(folder):
    return json.loads((folder / "record.json").read_text(encoding="utf-8"))


@pytest.mark.integration
@pytest.mark.parametrize(
    "name",
    [
        "hcc_048/hcc_048_portal.nii.gz",
        "totalsegmentator_3mm/example_ct_sm.nii.gz",
        "totalsegmentator_3mm/example_ct.nii.gz",  # 32-bit
    ],
)
def test_a_real_ct_runs_through(name, joint_weights, tmp_path):
    ct = nib.load(real(name))
    first = int(ct.shape[2] * 0.55)
    part = tmp_path / "part.nii.gz"  # a few slices of the middle, at their position in the grid
    nib.save(ct.slicer[:, :, first : first + 6], part)
    run_inference(part, tmp_path / "out", weights=joint_weights, progress=False)
    folder = tmp_path / "out" / "part"
    expected = nib.load(part)
    for result in ("labels.nii.gz", "lesions.nii.gz"):
        written = nib.load(folder / result)
        assert written.shape == expected.shape
        np.testing.assert_array_equal(written.affine, expected.affine)
        for code in ("qform_code", "sform_code", "xyzt_units"):
            assert int(written.header[code]) == int(expected.header[code])
    # few slices and a network trained on phantoms for an epoch: warnings of implausible results only
    record = record_of(folder)
    assert record["warnings"] == [finding["sentence"] for finding in record["findings"]]


@pytest.mark.slow
def test_dicom_and_nifti_of_one_series_get_the_same_labels(joint_weights, tmp_path):
    (series,) = find_series(real("hcc_048/dicom"))
    start, count = 45, 5
    (tmp_path / "dicom").mkdir()
    for path in series.files[start : start + count]:
        shutil.copy(path, tmp_path / "dicom")
    _, affine = read_series(tmp_path / "dicom")
    ct = nib.load(real("hcc_048/hcc_048_portal.nii.gz"))
    assert np.sign(ct.affine[2, 2]) == np.sign(affine[2, 2])
    nib.save(ct.slicer[:, :, start : start + count], tmp_path / "nifti.nii.gz")
    labels = []
    for source in (tmp_path / "dicom", tmp_path / "nifti.nii.gz"):
        run_inference(source, tmp_path / "out", weights=joint_weights, liver="none", progress=False, preview=False)
        found = read_volume(tmp_path / "out" / source.name.split(".")[0] / "labels.nii.gz")
        np.testing.assert_allclose(found.axial_affine, read_volume(tmp_path / "nifti.nii.gz").axial_affine, atol=1e-3)
        labels.append(found.axial)
    assert len(np.unique(labels[0])) > 1
    np.testing.assert_array_equal(*labels)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("ct", "mask"),
    [
        pytest.param(
            "totalsegmentator_dicom/example_ct_dicom",
            "totalsegmentator_dicom/example_seg_dicom.nii.gz",
            marks=pytest.mark.slow,
        ),
        ("totalsegmentator_3mm/example_ct_sm.nii.gz", "totalsegmentator_3mm/example_seg.nii.gz"),
    ],
)
def test_the_liver_of_totalsegmentator(ct, mask, joint_weights, tmp_path):
    """Label 5 of its masks, whose axes are opposite to those of the JPEG 2000 slices, is the result's liver."""
    mask = real(mask)
    run_inference(real(ct), tmp_path, weights=joint_weights, liver=f"{mask}:5", min_lesion_ml=0, progress=False)
    folder = tmp_path / Path(ct).name.removesuffix(".nii.gz")
    found, given = read_volume(folder / "labels.nii.gz"), read_volume(mask)
    np.testing.assert_allclose(found.axial_affine, given.axial_affine, atol=1e-2)
    liver = given.axial == 5
    assert liver.any() and (found.axial[liver] > 0).all()
    warnings = record_of(folder)["warnings"]
    if "dicom" in ct:  # its UIDs were emptied
        assert warnings[0].startswith("no DICOM results: ")
    assert not (folder / "segmentation.dcm").exists()


@pytest.mark.parametrize(
    ("ct", "mask"),
    [("example_ct_sm.nii.gz", "example_seg.nii.gz"), ("example_ct.nii.gz", "example_seg_fast_force_split.nii.gz")],
)
def test_an_unenhanced_ct_is_reported(ct, mask):
    volume = read_volume(real(f"totalsegmentator_3mm/{ct}"))
    labels = (read_volume(real(f"totalsegmentator_3mm/{mask}")).axial == 5).astype(np.uint8)
    lesions = find_lesions(SlabPrediction(labels, np.zeros((0, 3), np.float32)), volume.voxel_ml)
    found = check_plausibility(volume.axial, lesions, volume.axial_spacing)
    assert [finding.code for finding in found.findings] == ["liver_cut_off", "contrast_phase"]
    assert (found.contrast.phase, found.contrast.confidence) == ("unenhanced", "high")
    assert 30 < found.contrast.aorta_hu < 60


def test_the_blood_of_a_portal_venous_ct():
    volume = read_volume(real("hcc_048/hcc_048_portal.nii.gz"))
    hu, length = aorta_hu(volume.axial, slice(0, volume.axial.shape[0]), volume.axial_spacing)
    assert 150 < hu < 220  # in the picture it rises from 170 at the kidneys to 230 in the chest
    assert length > 150


@pytest.mark.slow
def test_three_slices_of_dicom(joint_weights, tmp_path):
    run_inference(
        real("dcmqi_3slice/ct-3slice"), tmp_path, weights=joint_weights, liver="none", progress=False, report=True
    )
    folder = tmp_path / "ct-3slice"
    assert nib.load(folder / "labels.nii.gz").shape[2] == 3
    assert (folder / "report.html").stat().st_size > 1e6
    written = [folder / name for name in ("segmentation.dcm", "measurements.dcm") if (folder / name).exists()]
    assert folder / "measurements.dcm" in written
    if shutil.which("dciodvfy"):
        for path in written:
            result = subprocess.run(["dciodvfy", path], capture_output=True, text=True)
            assert "Error" not in result.stdout + result.stderr


def test_a_tilted_head_is_refused(joint_weights, tmp_path):
    with pytest.raises(LiversegError, match=r"gantry tilt of 18\.\d degrees") as caught:
        run_inference(real("gantry_tilt_head"), tmp_path, weights=joint_weights, progress=False)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_head_has_no_liver(hu_classes):
    """The slices of the tilted head, stacked without their geometry to bypass the check that refuses them."""
    slices = [pydicom.dcmread(path) for path in sorted(real("gantry_tilt_head").glob("*.dcm"))]
    slices = [header for header in slices if header.pixel_array.shape == slices[0].pixel_array.shape]
    head = np.stack([header.pixel_array * int(header.RescaleSlope) + int(header.RescaleIntercept) for header in slices])
    spacing = (5.0, *map(float, slices[0].PixelSpacing))
    found = LiverCascade(SlabInferer(amp=False))(head.astype(np.int16), hu_classes, spacing=spacing)
    assert not found.labels.any()
    assert "bone, as in a head" in found.warnings[0]


@pytest.mark.integration
def test_damaged_copies_of_a_real_ct_are_refused(joint_weights, tmp_path):
    intact = real("totalsegmentator_3mm/example_ct_sm.nii.gz").read_bytes()
    flipped = bytearray(intact)
    flipped[len(intact) // 2] ^= 4
    for name, content in (
        ("short", intact[: len(intact) // 2]),
        ("flipped", bytes(flipped)),
        ("text", b"no CT at all"),
    ):
        path = tmp_path / f"{name}.nii.gz"
        path.write_bytes(content)
        with pytest.raises(LiversegError, match=rf"{name}\.nii\.gz: .*cannot be read") as caught:
            run_inference(path, tmp_path / "out", weights=joint_weights, progress=False)
        assert "\n" not in str(caught.value)
    (series,) = find_series(real("dcmqi_3slice/ct-3slice"))
    (tmp_path / "slices").mkdir()
    for path in series.files:
        shutil.copy(path, tmp_path / "slices")
    damaged = tmp_path / "slices" / series.files[1].name
    damaged.write_bytes(damaged.read_bytes()[:3000])
    with pytest.raises(LiversegError, match=damaged.name) as caught:
        run_inference(tmp_path / "slices", tmp_path / "out", weights=joint_weights, progress=False)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "out").iterdir())
