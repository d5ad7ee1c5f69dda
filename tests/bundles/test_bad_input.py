"""What a user can get wrong, through the bundles' front door: one line that says what and where, nothing left over."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from commands import EVALUATE, EXPORT, INFER, JOINT, PRETRAIN, TINY, TRAIN, bundle_process, run_bundle
from safetensors.torch import save_file

from liverseg.networks import SEResUNet

IMAGE, LABEL = "volume-1.nii.gz", "segmentation-1.nii.gz"


@pytest.fixture
def tree(lits_tree, tmp_path):
    """Links to the phantom tree's volumes and a list of its own, to be damaged."""
    folder = tmp_path / "tree"
    folder.mkdir()
    for path in lits_tree.glob("*.nii.gz"):
        (folder / path.name).symlink_to(path)
    content = json.loads((lits_tree / "datalist.json").read_text())
    items = [*content["training"], *content["test"]]
    for fold, item in enumerate(items):  # volume 1 is trained on, whatever the split was
        item["fold"] = 0 if item["image"] == IMAGE else fold % 2
    (folder / "datalist.json").write_text(json.dumps({**content, "training": items, "test": []}))
    return folder


def train(folder, out, bundle=PRETRAIN, **overrides):
    run = {"dataset_dir": folder, "output_dir": out, "ckpt_dir": out / "models"}
    return run_bundle(bundle, "training", TRAIN, **{**run, **TINY, "fold": 1, **overrides})


def refusal(told, code=1):
    """The one line of a command that was refused."""
    assert told.code == code, told.err
    (line,) = told.errors
    assert line.startswith("liverseg: ")
    return line


def left_over(folder):
    """Files below a folder, whole volumes in the cache aside."""
    return [path for path in folder.rglob("*") if path.is_file() and not path.match("cache/[!.]*.npy")]


def replaced(path, change, affine=None):
    """Write a file anew, changed, in place of the link to it."""
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
        f"tree/{LABEL}: label value 3; this label table allows 0 to 2",
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
    line = refusal(train(tree, tmp_path / "out"))
    assert words in line
    assert f"{tree}/" in line
    assert left_over(tmp_path / "out") == []


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
        assert words in refusal(run_bundle(bundle, run_id, configs, **run))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["output_dir", "ckpt_dir", "cache_dir"])
@pytest.mark.parametrize("place", ["file", "file/below"])
def test_folders_that_cannot_be_written_to(key, place, tree, tmp_path):
    (tmp_path / "file").write_text("in the way")
    line = refusal(train(tree, tmp_path / "out", **{key: tmp_path / place}))
    assert f"{tmp_path}/{place}: " in line
    assert "cannot be" in line
    assert left_over(tmp_path / "out") == []
    assert (tmp_path / "file").read_text() == "in the way"


def weights_of(kind, good, folder):
    """A weights file that is wrong in one way."""
    path = folder / f"{kind.replace(' ', '-')}{good.suffix}"
    if kind == "truncated":
        path.write_bytes(good.read_bytes()[:5000])
    elif kind == "foreign" and good.suffix == ".pt":
        torch.save([1, 2], path)
    elif kind == "foreign":
        save_file({"weight": torch.ones(2)}, path)
    elif kind == "another architecture":
        torch.save(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)).state_dict(), path)
    return path


BROKEN_WEIGHTS = {
    "missing": "no such weights file; train and export first, or give another path",
    "truncated": "truncated",
    "foreign": "holds a list, not a state_dict",
    "another architecture": "does not fit: encoder.",
}


@pytest.mark.parametrize("kind", BROKEN_WEIGHTS)
def test_evaluating_refuses_weights(kind, lits_tree, pretrain_run, tmp_path):
    weights = weights_of(kind, pretrain_run / "models" / "model.pt", tmp_path)
    run = {"dataset_dir": lits_tree, "output_dir": tmp_path / "out", "weights": weights}
    line = refusal(run_bundle(PRETRAIN, "evaluating", EVALUATE, **run, **TINY))
    assert f"{weights}: " in line
    assert BROKEN_WEIGHTS[kind] in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("bundle", "other"), [(PRETRAIN, "joint_run"), (JOINT, "pretrain_run")])
def test_the_other_bundles_weights_are_refused_with_three_differences(bundle, other, request, ct_folder, tmp_path):
    weights = request.getfixturevalue(other) / "models" / "model.pt"
    run = {"dataset_dir": ct_folder, "output_dir": tmp_path / "out", "weights": weights}
    line = refusal(run_bundle(bundle, "inference", INFER, **run))
    theirs, ours = ("5", "3") if bundle == PRETRAIN else ("3", "5")
    assert f"{weights}: does not fit: out_channels {theirs} in the file, {ours} in the network; labels back" in line
    assert f"; head.weight {theirs}×" in line
    assert line.endswith("take the weights of this very network")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("truncated", "cannot be read as safetensors, truncated or foreign; copy or export it again"),
        ("foreign", "no record in its header, so not exported by liverseg; run a bundle's export"),
    ],
)
def test_joint_training_refuses_pretrain_weights(kind, words, cohort_tree, pretrain_run, tmp_path):
    weights = weights_of(kind, pretrain_run / "pretrain.safetensors", tmp_path)
    line = refusal(train(cohort_tree, tmp_path / "out", JOINT, pretrain_weights=weights))
    assert line == f"liverseg: {weights}: {words}"
    assert not (tmp_path / "out").exists()


def test_joint_training_of_another_size_is_refused_with_three_differences(cohort_tree, pretrain_run, tmp_path):
    weights = pretrain_run / "pretrain.safetensors"
    line = refusal(train(cohort_tree, tmp_path / "out", JOINT, pretrain_weights=weights, network_size="full"))
    assert f"{weights}: does not fit: size small in the file, full in the network; encoder." in line
    assert line.count(" in the file, ") == 3
    assert line.endswith(" others; pre-train with this network, window and slab")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["missing", "truncated"])
def test_export_refuses_weights(kind, pretrain_run, tmp_path):
    weights = weights_of(kind, pretrain_run / "models" / "model.pt", tmp_path)
    if weights.exists():
        weights.with_suffix(".json").write_bytes((pretrain_run / "models" / "model.json").read_bytes())
    line = refusal(run_bundle(PRETRAIN, "export", EXPORT, weights=weights, output_dir=tmp_path / "out"))
    assert f"{weights}: " in line
    assert left_over(tmp_path / "out") == []


def test_export_to_a_place_below_a_file_is_refused(pretrain_run, tmp_path):
    (tmp_path / "file").write_text("in the way")
    run = {"ckpt_dir": pretrain_run / "models", "output_dir": tmp_path / "out"}
    line = refusal(run_bundle(PRETRAIN, "export", EXPORT, **run, exported=tmp_path / "file" / "w.safetensors"))
    assert f"{tmp_path}/file/w.safetensors: weights cannot be written" in line
    assert left_over(tmp_path / "out") == []


@pytest.fixture
def ct_folder(tmp_path, write_nifti):
    """One small CT of noise."""
    folder = tmp_path / "ct"
    folder.mkdir()
    write_nifti(folder / "a.nii.gz", np.random.default_rng(0).integers(-1000, 1000, (32, 40, 4)).astype(np.int16))
    return folder


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
    line = refusal(run_bundle(JOINT, "inference", INFER, **run, progress=False))
    assert str(ct_folder / "a.nii.gz") in line
    assert words in line
    assert left_over(tmp_path / "out") == []


@pytest.mark.parametrize("bundle", [PRETRAIN, JOINT])
def test_inference_without_input_weights_or_output_is_refused(bundle, ct_folder, joint_run, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("in the way")
    for change, words in (
        ({"dataset_dir": tmp_path / "none"}, f"dataset_dir {tmp_path}/none: no such folder or file; give a folder"),
        ({"dataset_dir": tmp_path / "empty"}, f"dataset_dir {tmp_path}/empty: no .nii.gz or .nii file in this folder"),
        ({"weights": tmp_path / "none.pt"}, f"{tmp_path}/none.pt: no such weights file; train and export first"),
        ({"weights": joint_run / "transfer.json"}, "transfer.json: not the name of a weights file"),
        ({"device": "cuda:99"}, "cuda:99"),
    ):
        run = {"dataset_dir": ct_folder, "output_dir": tmp_path / "out", "weights": tmp_path / "none.safetensors"}
        told = run_bundle(bundle, "inference", INFER, **{**run, **change})
        assert words in refusal(told, code=2 if "device" in change else 1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("bundle", [PRETRAIN, JOINT])
@pytest.mark.parametrize(
    ("run_id", "configs", "given", "closest"),
    [
        ("training", TRAIN, "epoch", "epochs"),
        ("evaluating", EVALUATE, "weigths", "weights"),
        ("export", EXPORT, "exportd", "exported"),
        ("inference", INFER, "datasetdir", "dataset_dir"),
    ],
)
def test_an_override_no_config_knows_is_refused_with_the_closest(bundle, run_id, configs, given, closest, tmp_path):
    told = run_bundle(bundle, run_id, configs, output_dir=tmp_path / "out", **{given: 3})
    assert refusal(told, code=2) == f"liverseg: unknown override --{given}; did you mean --{closest}?"
    assert not (tmp_path / "out").exists()


def test_an_override_like_no_other_is_refused_with_all_there_are(tmp_path):
    line = refusal(run_bundle(JOINT, "export", EXPORT, zzz=1), code=2)
    assert line.startswith("liverseg: unknown override --zzz; known keys: bundle_root, ckpt_dir, export, exported, ")


@pytest.mark.parametrize("bundle", [PRETRAIN, JOINT])
def test_an_override_monai_would_drop_is_refused(bundle, tmp_path):
    told = run_bundle(bundle, "training", TRAIN, output_dir=tmp_path / "out", datalist=None)
    line = refusal(told, code=2)
    assert line == "liverseg: --datalist None: MONAI would go on with the config's own value; say null or leave it out"
    assert not (tmp_path / "out").exists()


def test_a_process_of_its_own_says_the_same_and_exits_with_the_same_code(tree, tmp_path):
    (tree / IMAGE).unlink()
    run = {"dataset_dir": tree, "output_dir": tmp_path / "out", "ckpt_dir": tmp_path / "models", "fold": 1, **TINY}
    here = run_bundle(PRETRAIN, "training", TRAIN, **run)
    process = bundle_process(PRETRAIN, "training", TRAIN, **run)
    _, errors = process.communicate()
    assert process.returncode == here.code == 1
    assert errors.splitlines()[-1] == refusal(here)
    assert "Traceback" not in errors


def test_slices_without_a_third_dimension_are_trained_on_and_evaluated(cohort_tree, tmp_path):
    folder = tmp_path / "flat"
    folder.mkdir()
    content = json.loads((cohort_tree / "datalist.json").read_text())
    for number, item in enumerate(content["training"] + content["test"]):
        for key in ("image", "label"):
            volume = nib.load(cohort_tree / item[key])
            flat = np.asanyarray(volume.dataobj)[:, :, item["slice"]]
            item[key] = f"{key}-{number}.nii.gz"
            nib.save(nib.Nifti1Image(flat, volume.affine), folder / item[key])
        item["slice"] = 0
    (folder / "datalist.json").write_text(json.dumps(content))
    told = train(folder, tmp_path / "out", JOINT, pretrain_weights="null", epochs=1)
    assert told.code == 0, told.err
    run = {"dataset_dir": folder, "output_dir": tmp_path / "out", "ckpt_dir": tmp_path / "out" / "models"}
    told = run_bundle(JOINT, "evaluating", EVALUATE, **run, **TINY)
    assert told.code == 0, told.err
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["units"] == len(content["test"])


def test_weights_of_another_network_are_named_by_their_first_three_differences(ct_folder, tmp_path):
    weights = tmp_path / "five-slices.pt"
    torch.save(SEResUNet("small", in_channels=5, out_channels=5).state_dict(), weights)
    run = {"dataset_dir": ct_folder, "output_dir": tmp_path / "out", "weights": weights, "network_size": "small"}
    line = refusal(run_bundle(JOINT, "inference", INFER, **run))
    assert f"{weights}: does not fit: encoder." in line
    assert not (tmp_path / "out").exists()
