"""Unusable data and folders in bundle runs: one line names the file, and nothing is left."""

import json

import nibabel as nib
import numpy as np
import pytest
from commands import EVALUATE, INFER, JOINT, PRETRAIN, TINY, TRAIN, bundle_process, left_over, run_bundle, train

IMAGE, LABEL = "volume-1.nii.gz", "segmentation-1.nii.gz"


def replaced(path, change, affine=None):
    """Replace a link by a changed copy of its file."""
    image = nib.load(path)
    array = change(np.asanyarray(image.dataobj))
    path.unlink()
    nib.save(nib.Nifti1Image(array, image.affine if affine is None else affine), path)


def cut(path):
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])


def with_value(value):
    def change(array):
        array = array.astype(np.float32)
        array[5, 5, 1] = value
        return array

    return change


DAMAGES = {
    "missing image": (lambda tree: (tree / IMAGE).unlink(), f"tree/{IMAGE} does not exist; is dataset_dir right?"),
    "missing label": (lambda tree: (tree / LABEL).unlink(), f"tree/{LABEL} does not exist; is dataset_dir right?"),
    "shape": (
        lambda tree: replaced(tree / LABEL, lambda array: array[:, :, 1:]),
        f"tree/{LABEL}: shape 64×64×",
    ),
    "affine": (
        lambda tree: replaced(tree / LABEL, lambda array: array, np.diag([5.0, 5.0, 5.0, 1.0])),
        f"tree/{LABEL}: its affine places voxels up to ",
    ),
    "label value": (
        lambda tree: replaced(tree / LABEL, lambda array: array + np.uint8(1)),
        f"tree/{LABEL}: label value 3; this label table allows integers from 0 to 2",
    ),
    "four dimensions": (
        lambda tree: replaced(tree / IMAGE, lambda array: np.stack([array, array], axis=3)),
        f"tree/{IMAGE}: a volume of 4 dimensions",
    ),
    "not a CT": (
        lambda tree: replaced(tree / IMAGE, lambda array: ((array + 1000) / 2000).astype(np.float32)),
        f"tree/{IMAGE}: values from ",
    ),
    "NaN": (lambda tree: replaced(tree / IMAGE, with_value(np.nan)), f"tree/{IMAGE}: 1 voxels are NaN or infinite"),
    "infinite": (lambda tree: replaced(tree / IMAGE, with_value(np.inf)), f"tree/{IMAGE}: 1 voxels are NaN or inf"),
    "truncated image": (lambda tree: cut(tree / IMAGE), "is the file truncated?"),
    "truncated label": (lambda tree: cut(tree / LABEL), "is the file truncated?"),
    "no image": (
        lambda tree: (tree / IMAGE).unlink() or (tree / IMAGE).write_text("hello"),
        f"tree/{IMAGE}: cannot be read as NIfTI",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_volume_that_cannot_be_trained_on(damage, tree, tmp_path):
    do, words = DAMAGES[damage]
    do(tree)
    line = train(PRETRAIN, tree, tmp_path / "out", fold=1).refusal()
    assert words in line
    assert f"{tree}/" in line
    assert left_over(tmp_path / "out") == []


@pytest.mark.integration
@pytest.mark.parametrize("bundle", [PRETRAIN, JOINT])
@pytest.mark.parametrize("run_id", ["training", "evaluating"])
def test_folders_and_lists_that_are_not_there(bundle, run_id, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "unlisted").mkdir()
    (tmp_path / "unlisted" / "volume-0.nii").touch()
    configs = TRAIN if run_id == "training" else EVALUATE
    for name, words in (
        ("none", f"dataset_dir {tmp_path}/none: no such folder; give --dataset_dir"),
        ("empty", f"dataset_dir {tmp_path}/empty: the folder is empty"),
        ("unlisted", f"{tmp_path}/unlisted/datalist.json: no such data list; `liverseg datalist` writes one"),
    ):
        run = {"dataset_dir": tmp_path / name, "output_dir": tmp_path / "out"}
        assert words in run_bundle(bundle, run_id, configs, **run).refusal()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["output_dir", "ckpt_dir", "cache_dir"])
@pytest.mark.parametrize("place", ["file", "file/below"])
def test_folders_that_cannot_be_written_to(key, place, tree, tmp_path):
    (tmp_path / "file").write_text("in the way")
    line = train(PRETRAIN, tree, tmp_path / "out", fold=1, **{key: tmp_path / place}).refusal()
    assert f"{tmp_path}/{place}: " in line
    assert "cannot be" in line
    assert left_over(tmp_path / "out") == []
    assert (tmp_path / "file").read_text(encoding="utf-8") == "in the way"


BAD_CT = {
    "four dimensions": (lambda array: np.stack([array, array], axis=3), "a.nii.gz: a volume of 4 dimensions"),
    "not a CT": (lambda array: ((array + 1000) / 2000).astype(np.float32), "do not look like a CT in HU"),
    "NaN": (with_value(np.nan), "a.nii.gz: 1 voxels are NaN or infinite"),
    "truncated": (None, "is the file truncated?"),
}


@pytest.mark.parametrize("kind", BAD_CT)
def test_inference_refuses_a_volume(kind, ct_folder, joint_run, tmp_path):
    change, words = BAD_CT[kind]
    if change is None:
        cut(ct_folder / "a.nii.gz")
    else:
        replaced(ct_folder / "a.nii.gz", change)
    run = {"dataset_dir": ct_folder, "output_dir": tmp_path / "out", "weights": joint_run / "joint.safetensors"}
    line = run_bundle(JOINT, "inference", INFER, **run, progress=False).refusal()
    assert str(ct_folder / "a.nii.gz") in line
    assert words in line
    assert left_over(tmp_path / "out") == []


@pytest.mark.integration
def test_slices_without_a_third_dimension_are_trained_on_and_evaluated(cohort_tree, tmp_path):
    folder = tmp_path / "flat"
    folder.mkdir()
    content = json.loads((cohort_tree / "datalist.json").read_text(encoding="utf-8"))
    for number, item in enumerate(content["training"] + content["test"]):
        for key in ("image", "label"):
            volume = nib.load(cohort_tree / item[key])
            flat = np.asanyarray(volume.dataobj)[:, :, item["slice"]]
            item[key] = f"{key}-{number}.nii.gz"
            nib.save(nib.Nifti1Image(flat, volume.affine), folder / item[key])
        item["slice"] = 0
    (folder / "datalist.json").write_text(json.dumps(content))
    result = train(JOINT, folder, tmp_path / "out", pretrain_weights="null", epochs=1)
    assert result.code == 0, result.err
    run = {"dataset_dir": folder, "output_dir": tmp_path / "out", "ckpt_dir": tmp_path / "out" / "models"}
    result = run_bundle(JOINT, "evaluating", EVALUATE, **run, **TINY)
    assert result.code == 0, result.err
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))["units"] == len(
        content["test"]
    )


@pytest.mark.integration
def test_a_process_of_its_own_says_the_same_and_exits_with_the_same_code(tree, tmp_path):
    (tree / IMAGE).unlink()
    run = {"dataset_dir": tree, "output_dir": tmp_path / "out", "ckpt_dir": tmp_path / "models", "fold": 1, **TINY}
    here = run_bundle(PRETRAIN, "training", TRAIN, **run)
    process = bundle_process(PRETRAIN, "training", TRAIN, **run)
    _, errors = process.communicate()
    assert process.returncode == here.code == 1
    assert errors.splitlines()[-1] == here.refusal()
    assert "Traceback" not in errors
