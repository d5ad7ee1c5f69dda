"""Repaired copies: header from the image, voxels by the HU under the liver, originals unchanged."""

import gzip
import logging

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from ct_tree import AFFINE, LABEL, SHAPE, make_case, save, write_list, write_tree

from liverseg.datalists import read_datalist
from liverseg.datalists.check import check_datalist
from liverseg.datalists.repair import RECORD, repair_copies
from liverseg.errors import LiversegError

FLIPPED = AFFINE * np.array([-1, -1, 1, 1])


@pytest.fixture
def tree(tmp_path):
    write_tree(tmp_path / "tree")
    return tmp_path / "tree"


def repaired(root, output):
    findings = check_datalist(root / "datalist.json", root, progress=False)
    return repair_copies(root / "datalist.json", root, output, findings)


def hidden_codes(header):
    header["qform_code"] = header["sform_code"] = 0


@pytest.mark.parametrize(
    ("affine", "change", "turned", "done"),
    [
        (FLIPPED, None, (), "affine replaced"),
        (FLIPPED, None, (0, 1), "affine replaced and voxels turned"),
        (AFFINE * np.array([1, 1, -1, 1]), None, (), "affine replaced"),
        (AFFINE * np.array([1, 1, -1, 1]), None, (2,), "affine replaced and voxels turned"),
        (np.eye(4), None, (), "affine replaced"),
        (np.eye(4), None, (0, 1), "affine replaced and voxels turned"),
        (AFFINE, hidden_codes, (), "affine replaced"),
    ],
    ids=["flipped", "flipped voxels", "head down", "head down voxels", "identity", "identity, RAS voxels", "no codes"],
)
def test_a_copy_is_on_the_grid_of_its_image(affine, change, turned, done, tree):
    label = make_case(0)[1]
    save(tree / LABEL, np.flip(label, turned), affine, change)
    before = {path.name: path.read_bytes() for path in tree.iterdir()}
    path = repaired(tree, tree.parent / "mended")
    assert path == tree.parent / "mended" / "datalist.json"
    assert check_datalist(path, tree, progress=False).empty
    copy, image = nib.load(tree.parent / "mended" / LABEL), nib.load(tree / "volume-0.nii.gz")
    np.testing.assert_array_equal(copy.dataobj, label)
    np.testing.assert_array_equal(copy.affine, image.affine)
    assert copy.get_data_dtype() == np.uint8
    for field in ("qform_code", "sform_code", "xyzt_units"):
        assert copy.header[field] == image.header[field]
    new = read_datalist(path)
    assert [item.label for item in new.training] == [str(tree.parent / "mended" / LABEL), "segmentation-1.nii.gz"]
    assert new.test == read_datalist(tree / "datalist.json").test
    record = pd.read_csv(tree.parent / "mended" / RECORD)
    assert record.loc[0, ["file", "copy", "done"]].tolist() == [LABEL, str(tree.parent / "mended" / LABEL), done]
    assert "as they are" in record["why"][0] and " HU" in record["why"][0]
    assert {path.name: path.read_bytes() for path in tree.iterdir() if path.is_file()} == before


def test_a_label_that_fits_neither_way_is_left_with_a_warning(tree, caplog):
    # the liver of another scan: half of it is in air
    save(tree / LABEL, np.roll(make_case(0)[1], 14, axis=1), FLIPPED)
    with caplog.at_level(logging.WARNING):
        path = repaired(tree, tree.parent / "mended")
    assert f"{LABEL}: not repaired; " in caplog.text and "none looks like liver" in caplog.text
    assert read_datalist(path).training == read_datalist(tree / "datalist.json").training
    assert not (tree.parent / "mended" / LABEL).exists()
    assert pd.read_csv(tree.parent / "mended" / RECORD)["done"].tolist() == ["not repaired"]


def test_a_label_that_fits_both_ways_is_left_with_a_warning(tree, caplog):
    hu, label = make_case(0)
    label[:] = 0
    label[12:28, 10:26, 3:9] = 1  # symmetric, unlike any liver
    hu[:] = np.random.default_rng(0).normal(100, 15, SHAPE)
    save(tree / "volume-0.nii.gz", hu)
    save(tree / LABEL, label, FLIPPED)
    repaired(tree, tree.parent / "mended")
    assert "both look like liver" in caplog.text


def test_copies_elsewhere_are_named_absolutely_and_stay_in_their_folder(tree, tmp_path_factory):
    root, output = tree / "lists", tmp_path_factory.mktemp("elsewhere") / "mended"
    root.mkdir()
    content = write_tree(tree)
    content["training"][0]["label"] = f"../labels/{LABEL}"
    for row in content["training"] + content["test"]:
        row["image"] = f"../{row['image']}"
        row["label"] = row["label"] if row["label"].startswith("..") else f"../{row['label']}"
    write_list(root, content)
    save(tree / "labels" / LABEL, make_case(0)[1], FLIPPED)
    path = repaired(root, output)
    assert check_datalist(path, root, progress=False).empty
    assert read_datalist(path).training[0].label == str(output / "labels" / LABEL)
    assert read_datalist(path).training[1].label == "../segmentation-1.nii.gz"


def test_stored_voxels_are_kept(tree):
    """Scaling, byte order, extensions and a file without gzip: only the geometry in the header changes."""
    image = nib.Nifti1Image(make_case(0)[1].astype(">i2") * 5, FLIPPED, nib.Nifti1Header(endianness=">"))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"by hand"))
    image.header.set_slope_inter(0.2, 0)
    (tree / "label.nii").write_bytes(image.to_bytes())
    content = write_tree(tree)
    content["training"][0]["label"] = "label.nii"
    write_list(tree, content)
    path = repaired(tree, tree.parent / "mended")
    assert check_datalist(path, tree, progress=False).empty
    old, new = ((tree.parent / name / "label.nii").read_bytes() for name in ("tree", "mended"))
    assert len(old) == len(new) and old[348:] == new[348:] and old[:40] == new[:40]


def test_the_same_findings_give_the_same_bytes_and_sound_trees_a_list_alone(tree):
    path = repaired(tree, tree.parent / "sound")
    assert sorted(p.name for p in path.parent.iterdir()) == ["datalist.json", RECORD]
    save(tree / LABEL, make_case(0)[1], FLIPPED)
    first = repaired(tree, tree.parent / "mended")
    before = {p.name: p.read_bytes() for p in first.parent.iterdir()}
    repaired(tree, tree.parent / "mended")
    assert {p.name: p.read_bytes() for p in first.parent.iterdir()} == before
    assert gzip.decompress(before[LABEL])


def test_folders_that_hold_originals_are_refused(tree):
    save(tree / LABEL, make_case(0)[1], FLIPPED)
    with pytest.raises(LiversegError, match="holds originals; choose another folder"):
        repaired(tree, tree / "." / "")
    with pytest.raises(LiversegError, match="holds originals; choose another folder"):
        repaired(tree, tree.parent)
    with pytest.raises(
        LiversegError, match=r"it is inside .*, where an importer would find every repaired label twice"
    ):
        repaired(tree, tree / "deep" / "mended")
    (tree.parent / "file").touch()
    with pytest.raises(LiversegError, match="cannot be"):
        repaired(tree, tree.parent / "file")
    content = write_tree(tree)
    content["training"][1]["patient"] = "p0"
    write_list(tree, content)
    with pytest.raises(LiversegError, match="patient p0 is in fold 0 and in fold 1"):
        repaired(tree, tree.parent / "mended")
    assert not (tree.parent / "mended").exists()
