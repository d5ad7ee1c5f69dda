"""Labels are on the input's grid for every orientation, spacing, obliqueness, number type and size."""

import itertools

import nibabel as nib
import numpy as np
import pytest

ORIENTATIONS = [
    "".join(codes) for axes in itertools.permutations(("LR", "PA", "IS")) for codes in itertools.product(*axes)
]
_A, _B = np.deg2rad([14, -9])
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = (
    np.array([[np.cos(_A), -np.sin(_A), 0], [np.sin(_A), np.cos(_A), 0], [0, 0, 1]])
    @ np.array([[1, 0, 0], [0, np.cos(_B), -np.sin(_B)], [0, np.sin(_B), np.cos(_B)]])
    @ np.diag([1.5, 1.1, 3.2])
)
OBLIQUE[:3, 3] = (-71.5, 33.25, 812.0)


SHIFTED = np.diag([2.0, 1.0, 3.5, 1.0])
SHIFTED[:3, 3] = (212.5, -1033.0, 47.25)


def save(folder, array, affine, codes="RAS", name="ct.nii.gz"):
    folder.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    turned = image.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(codes))
    )
    turned.set_qform(turned.affine, 1)
    turned.set_sform(turned.affine, 2)
    turned.header.set_xyzt_units("mm", "sec")
    nib.save(turned, folder / name)
    return folder / name


def canonical(path):
    return np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)


@pytest.mark.integration
@pytest.mark.parametrize("affine", [SHIFTED, OBLIQUE], ids=["straight", "oblique"])
def test_all_48_orientations_give_the_canonical_volumes_labels(affine, ct_array, run_pipeline, tmp_path):
    first = run_pipeline(save(tmp_path / "RAS", ct_array, affine))["lesions"].to_frame()
    expected = {name: canonical(tmp_path / "RAS" / f"{name}.nii.gz") for name in ("labels", "ids")}
    assert set(np.unique(expected["labels"])) >= {0, 1, 2, 3}
    assert len(first) >= 2
    frame = [name for name in first.columns if "slice" not in name]
    for codes in ORIENTATIONS:
        path = save(tmp_path / codes, ct_array, affine, codes)
        table = run_pipeline(path)["lesions"].to_frame()
        source = nib.load(path)
        assert "".join(nib.aff2axcodes(source.affine)) == codes
        for name, array in expected.items():
            written = nib.load(path.parent / f"{name}.nii.gz")
            assert written.shape == source.shape
            np.testing.assert_array_equal(written.affine, source.affine)
            assert int(written.header["qform_code"]) == 1
            assert int(written.header["sform_code"]) == 2
            assert written.header.get_xyzt_units() == ("mm", "sec")
            np.testing.assert_array_equal(canonical(path.parent / f"{name}.nii.gz"), array, err_msg=codes)
        # header affines are float32: hundredths of a mm may round to either side
        found, reference = (rows[frame[2:]].astype(float) for rows in (table, first))
        np.testing.assert_allclose(found, reference, atol=0.021, err_msg=codes)
        assert table["type"].tolist() == first["type"].tolist()


@pytest.mark.parametrize("codes", [(0, 1), (1, 0), (0, 0), (3, 4)])
def test_codes_and_units_that_are_not_set_stay_so(codes, ct_array, run_pipeline, tmp_path):
    path = save(tmp_path / "in", ct_array, SHIFTED)
    image = nib.load(path)
    for set_form, code in zip((image.set_qform, image.set_sform), codes, strict=True):
        set_form(SHIFTED if code else None, code)
    image.header.set_xyzt_units("unknown", "unknown")
    nib.save(nib.Nifti1Image(ct_array, None, image.header), path)
    assert (run_pipeline(path)["pred"].inside >= 2).any()
    source, written = nib.load(path), nib.load(path.parent / "labels.nii.gz")
    np.testing.assert_array_equal(written.affine, source.affine)
    assert tuple(int(written.header[code]) for code in ("qform_code", "sform_code")) == codes
    assert written.header.get_xyzt_units() == source.header.get_xyzt_units() == ("unknown", "unknown")


@pytest.mark.parametrize("slices", [1, 2, 3])
def test_few_slices(slices, ct_array, run_pipeline, tmp_path):
    path = save(tmp_path / "in", ct_array[:, :, 3 : 3 + slices], np.diag([2.0, 2.0, 3.0, 1.0]))
    data = run_pipeline(path)
    assert nib.load(path.parent / "labels.nii.gz").shape == (38, 34, slices)
    assert data["lesions"].to_frame()["slices"].max() <= slices


def test_a_two_dimensional_file_keeps_its_shape_and_has_the_labels_of_its_one_slice(ct_array, run_pipeline, tmp_path):
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    run_pipeline(save(tmp_path / "one", ct_array[:, :, 3:4], affine))
    (tmp_path / "flat").mkdir()
    nib.save(nib.Nifti1Image(ct_array[:, :, 3], affine), tmp_path / "flat" / "ct.nii")
    run_pipeline(tmp_path / "flat" / "ct.nii")
    flat = nib.load(tmp_path / "flat" / "labels.nii.gz")
    assert flat.shape == nib.load(tmp_path / "flat" / "ct.nii").shape
    labels = np.asarray(nib.load(tmp_path / "one" / "labels.nii.gz").dataobj)
    np.testing.assert_array_equal(np.asarray(flat.dataobj).reshape(labels.shape), labels)


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz"])
@pytest.mark.parametrize("kind", ["int16", "uint16", "int32", "float32", "float64", "scaled", "turned", "big-endian"])
def test_number_types_and_endings_give_the_same_labels(kind, name, ct_array, run_pipeline, tmp_path):
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    run_pipeline(save(tmp_path / "int16", ct_array, affine))
    expected = np.asarray(nib.load(tmp_path / "int16" / "labels.nii.gz").dataobj)
    scalings = {"uint16": (1, -1024), "turned": (-1, 3000), "scaled": (0.5, -1100)}
    if kind in scalings:
        slope, shift = scalings[kind]
        image = nib.Nifti1Image(((ct_array - np.float64(shift)) / slope).astype(np.uint16), affine)
        image.header.set_slope_inter(slope, shift)
    elif kind == "big-endian":
        image = nib.Nifti1Image(ct_array, affine, nib.Nifti1Header(endianness=">"))
    else:
        image = nib.Nifti1Image(ct_array.astype(kind), affine)
    (tmp_path / "other").mkdir()
    image.to_filename(tmp_path / "other" / name)
    run_pipeline(tmp_path / "other" / name)
    written = nib.load(tmp_path / "other" / "labels.nii.gz")
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(written.dataobj), expected)
