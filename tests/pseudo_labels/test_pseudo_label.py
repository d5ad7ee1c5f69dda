"""`liverseg pseudo-label` with trained networks, from CTs to a list for training."""

import json
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from dicom_files import write_slice
from liver_cts import SHAPE, SPACING, ct_of, to_file
from PIL import Image

from liverseg.cli.main import main
from liverseg.datalists import read_datalist
from liverseg.datalists.check import check_datalist
from liverseg.datasets.slabs import SlabDataset
from liverseg.labels import LIVER_OR_LESION
from liverseg.networks import export_weights, read_record, read_weights
from liverseg.pseudo_labels.checks import LiverOutline
from liverseg.pseudo_labels.montage import montage_slices

NAMED = ("--name", "ours", "--from", "a hospital", "--licence", "CC BY 4.0", "--min-agreement", 0.8)
"""Options of every run; the networks agree by .95, which may differ between machines."""


def label(*arguments):
    return main(["pseudo-label", *map(str, arguments)])


@pytest.fixture
def cts(tmp_path):
    """Return the folder of a CT, a CT with the liver on the left, and a truncated CT."""
    folder = tmp_path / "data" / "ct"
    folder.mkdir(parents=True)
    hu, _ = ct_of(99)
    to_file(folder / "good.nii.gz", hu)
    to_file(folder / "left.nii.gz", hu, mirrored=True)
    (folder / "bad.nii.gz").write_bytes((folder / "good.nii.gz").read_bytes()[:20000])
    return folder


@pytest.mark.integration
def test_from_cts_to_a_list_that_training_reads(cts, liver_weights, tmp_path, capsys):
    out = tmp_path / "data" / "out"
    both = ("--weights", liver_weights / "a.safetensors", "--second-weights", liver_weights / "b.safetensors")
    assert label(cts, "-o", out, *both, *NAMED) == 3
    captured = capsys.readouterr()
    assert "1 accepted, 1 refused, 1 failed; 1 kept" in captured.out.splitlines()
    assert "bad: failed: " in captured.err and captured.err.splitlines()[-1].startswith(
        "liverseg: 1 of 3 CTs failed: bad"
    )

    table = pd.read_csv(out / "pseudo_labels.csv").set_index("case")
    assert table["status"].to_dict() == {"good": "accepted", "left": "refused", "bad": "failed"}
    assert "is the file truncated?" in table["reason"]["bad"]
    assert table["reason"]["left"].startswith("its centroid is ") and " to the left" in table["reason"]["left"]
    assert (table.loc[["good", "left"], ["flip_agreement", "network_agreement"]] > 0.8).all(axis=None)

    _, liver = ct_of(99)
    ct, mask = nib.load(cts / "good.nii.gz"), nib.load(out / "labels" / "good.nii.gz")
    inside = np.asarray(mask.dataobj)
    assert mask.get_data_dtype() == np.uint8 and np.array_equal(mask.affine, ct.affine)
    assert set(np.unique(inside)) == {0, 1}
    expected = liver.transpose(2, 1, 0)
    assert 2 * (inside * expected).sum() / (inside.sum() + expected.sum()) > 0.9
    assert table["volume_ml"]["good"] == pytest.approx(inside.sum() * np.prod(SPACING) / 1000, abs=0.5)
    right = (ct.affine @ [*np.argwhere(inside).mean(axis=0), 1])[0] + 23.5 * SPACING[2]  # RAS+ mm from the middle
    assert table["right_of_midline_mm"]["good"] == pytest.approx(right, abs=0.5)

    listed = read_datalist(out / "datalist.json")
    (item,) = listed.training
    assert (item.image, item.label, item.patient) == ("ct/good.nii.gz", "out/labels/good.nii.gz", "ours-good")
    assert "a.safetensors (SHA-256 " in listed.source
    assert check_datalist(out / "datalist.json", tmp_path / "data").query("level == 'error'").empty
    slabs = SlabDataset(listed.training, tmp_path / "data", None, labels=3, progress=False)
    assert len(slabs) == SHAPE[0]
    assert set(np.unique(slabs[SHAPE[0] // 2]["label"].numpy())) == {0, LIVER_OR_LESION}

    for case in ("good", "left"):
        with Image.open(out / "cases" / case / "outlines.png") as picture:
            assert picture.size[0] > 1000
    page = (out / "index.html").read_text(encoding="utf-8")
    assert all(f'src="cases/{case}/outlines.png"' in page for case in ("good", "left"))


@pytest.mark.integration
def test_what_is_outlined_is_not_computed_again(cts, liver_weights, tmp_path, capsys):
    (cts / "bad.nii.gz").unlink()
    out = tmp_path / "out"
    same = (cts, "-o", out, "--weights", liver_weights / "a.safetensors", *NAMED)
    assert label(*same) == 0
    records = {case: out / "cases" / case / "record.json" for case in ("good", "left")}
    first = {case: path.read_bytes() for case, path in records.items()}
    capsys.readouterr()

    # other limits, and a person's decision
    table = pd.read_csv(out / "pseudo_labels.csv", dtype=str, keep_default_na=False)
    table.loc[table["case"] == "good", "keep"] = "no"
    table.to_csv(out / "pseudo_labels.csv", index=False)
    assert label(*same, "--min-right-mm", "-200") == 0
    captured = capsys.readouterr().out.splitlines()
    assert captured[0] == "2 accepted, 2 of them outlined by an earlier run; 1 kept"
    assert {case: path.read_bytes() for case, path in records.items()} == first
    assert [item.patient for item in read_datalist(out / "datalist.json").training] == ["ours-left"]

    # a damaged mask and another CT are computed; a decision is kept for its mask only
    (out / "labels" / "good.nii.gz").write_bytes(b"")
    to_file(cts / "left.nii.gz", ct_of(98)[0])
    assert label(*same) == 0
    assert capsys.readouterr().out.splitlines()[2] == "2 accepted; 1 kept"
    assert json.loads(records["left"].read_text(encoding="utf-8"))["input"]["sha256"] not in first["left"].decode()

    # without the mirrored CT, all cases are computed
    assert label(*same, "--min-flip-agreement", "0") == 0
    assert capsys.readouterr().out.splitlines()[2] == "2 accepted; 1 kept"
    assert json.loads(records["good"].read_text(encoding="utf-8"))["measures"]["flip_agreement"] is None


@pytest.mark.integration
def test_a_study_in_dicom_gets_a_ct_to_train_on(liver_weights, tmp_path):
    hu, _ = ct_of(7)
    for number, pixels in enumerate(hu):
        write_slice(
            tmp_path / "study" / f"{number:02}.dcm", pixels, (0, 0, 8 * number), spacing=(6.0, 6.0), thickness="8"
        )
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "study")
    options = ("--weights", liver_weights / "a.safetensors", *NAMED)
    assert label(tmp_path / "packed.zip", tmp_path / "study", "-o", tmp_path / "out", *options) == 0
    listed = read_datalist(tmp_path / "out" / "datalist.json")
    for item, case in zip(listed.training, ("packed", "study"), strict=True):
        assert item.image == f"out/cases/{case}/ct.nii.gz"
        ct, mask = (nib.load(tmp_path / path) for path in (item.image, item.label))
        assert ct.shape == mask.shape and np.allclose(ct.affine, mask.affine)
        assert np.median(np.asarray(ct.dataobj)[np.asarray(mask.dataobj) > 0]) == pytest.approx(110, abs=3)
    assert label(tmp_path / "study", "-o", tmp_path / "study" / "out", *options) == 2


@pytest.mark.integration
def test_mistakes_are_one_line_and_leave_nothing(cts, liver_weights, tmp_path, capsys):
    weights = liver_weights / "a.safetensors"
    twin = tmp_path / "twin"
    twin.mkdir()
    to_file(twin / "good.nii", ct_of(1)[0])
    wrong = [
        ((cts, "--weights", tmp_path / "none.pt"), 1, "no such weights file"),
        ((tmp_path / "none", "--weights", weights), 1, "no such folder or file"),
        ((cts, twin, "--weights", weights), 1, "both would be case good"),
        ((cts, "--weights", weights, "--second-weights", weights), 2, "the same weights as"),
        ((cts, "--weights", weights, "--dataset-dir", cts), 2, "not within dataset_dir"),
        ((cts, "--weights", weights, "--fold", "-1"), 2, "fold -1"),
        ((cts, "--weights", weights, "--series", "portal"), 2, "only DICOM has series"),
        ((cts, "--weights", weights, "--min-agreement", "90"), 2, "min_flip_agreement is 90.0"),
        ((cts, "--weights", weights, "--device", "tpu9"), 2, "device 'tpu9' is not known"),
        ((cts, "--weights", weights, "--name", " "), 2, "name is empty"),
    ]
    for arguments, code, message in wrong:
        assert label("-o", tmp_path / "out", *NAMED, *arguments) == code
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
        assert not (tmp_path / "out").exists()


@pytest.mark.integration
def test_one_damaged_ct_is_its_own_error_and_nothing_kept_is_no_list(cts, liver_weights, tmp_path, capsys):
    network = ("--weights", liver_weights / "a.safetensors", *NAMED)
    assert label(cts / "bad.nii.gz", "-o", tmp_path / "out", *network) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"liverseg: {cts / 'bad.nii.gz'}: voxels cannot be read")
    assert label(cts / "left.nii.gz", "-o", tmp_path / "out", *network, "--volume-ml", "1", "2") == 1
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1].startswith("liverseg: none of 1 outlines is kept, so no data list is written")
    assert not (tmp_path / "out" / "datalist.json").exists()
    assert (tmp_path / "out" / "index.html").is_file()


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([(10, 40)], [9, 12, 15, 17, 20, 23, 26, 29, 32, 34, 37, 40]),
        ([(10, 12), (14, 16)], list(range(9, 17))),
        ([(0, 50)], [0, 4, 9, 13, 18, 22, 27, 31, 36, 40, 45, 49]),
        ([], [0, 4, 9, 13, 18, 22, 27, 31, 36, 40, 45, 49]),
    ],
)
def test_slices_are_shown_from_below_the_liver_to_above_it(boxes, expected):
    outlines = [
        LiverOutline(
            np.ones((stop - start, 1, 1), bool), (slice(start, stop), slice(0, 1), slice(0, 1)), (50, 4, 4), 1.0
        )
        for start, stop in boxes
    ]
    nothing = LiverOutline(np.zeros((0, 0, 0), bool), (slice(0, 0),) * 3, (50, 4, 4), 0.0)
    assert montage_slices([*outlines, nothing]) == expected


@pytest.mark.integration
def test_weights_with_a_pixel_size_of_their_own(cts, liver_weights, tmp_path):
    source_weights = liver_weights / "a.safetensors"
    record = read_record(source_weights)
    weights = tmp_path / "coarse.safetensors"
    seen = replace(record.input_spec, pixel_mm=1.1 * SPACING[1])
    export_weights(weights, read_weights(source_weights), replace(record, input_spec=seen))
    label(cts / "good.nii.gz", "-o", tmp_path / "out", "--weights", weights, *NAMED)
    table = pd.read_csv(tmp_path / "out" / "pseudo_labels.csv").set_index("case")
    assert table["status"]["good"] in ("accepted", "refused")  # measured either way
    assert table["volume_ml"]["good"] > 0
