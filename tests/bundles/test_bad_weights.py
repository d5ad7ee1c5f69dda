"""Unusable weights in bundle runs: refused with their name before anything is written."""

import pytest
import torch
from commands import EVALUATE, EXPORT, INFER, JOINT, PRETRAIN, TINY, left_over, run_bundle, train
from safetensors.torch import save_file


def weights_of(kind, good, folder):
    """Write a weights file with one defect."""
    path = folder / f"{kind.replace(' ', '-')}{good.suffix}"
    if kind == "truncated":
        path.write_bytes(good.read_bytes()[:5000])
    elif kind == "foreign" and good.suffix == ".pt":
        torch.save([1, 2], path)
    elif kind == "foreign":
        save_file({"weight": torch.ones(2)}, path)
    return path


BROKEN_WEIGHTS = {
    "missing": "no such weights file; train and export first, or give another path",
    "truncated": "cannot be read, truncated or foreign; copy or export it again",
    "foreign": "holds a list, not a state_dict",
}


@pytest.mark.parametrize("kind", BROKEN_WEIGHTS)
def test_evaluating_refuses_weights(kind, lits_tree, pretrain_run, tmp_path):
    weights = weights_of(kind, pretrain_run / "models" / "model.pt", tmp_path)
    run = {"dataset_dir": lits_tree, "output_dir": tmp_path / "out", "weights": weights}
    line = run_bundle(PRETRAIN, "evaluating", EVALUATE, **run, **TINY).refusal()
    assert f"{weights}: " in line
    assert BROKEN_WEIGHTS[kind] in line
    assert not (tmp_path / "out").exists()


@pytest.mark.integration
@pytest.mark.parametrize(("bundle", "other"), [(PRETRAIN, "joint_run"), (JOINT, "pretrain_run")])
def test_the_other_bundles_weights_are_refused_with_three_differences(bundle, other, request, ct_folder, tmp_path):
    weights = request.getfixturevalue(other) / "models" / "model.pt"
    run = {"dataset_dir": ct_folder, "output_dir": tmp_path / "out", "weights": weights}
    line = run_bundle(bundle, "inference", INFER, **run).refusal()
    theirs, ours = ("5", "3") if bundle == PRETRAIN else ("3", "5")
    assert f"{weights}: does not fit: out_channels {theirs} in the file, {ours} in the network; labels back" in line
    assert f"; head.weight {theirs}×" in line
    assert line.endswith("use weights of the same network, or the bundle of these weights")
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
    line = train(JOINT, cohort_tree, tmp_path / "out", pretrain_weights=weights).refusal()
    assert line == f"liverseg: {weights}: {words}"
    assert not (tmp_path / "out").exists()


def test_joint_training_of_another_size_is_refused_with_three_differences(cohort_tree, pretrain_run, tmp_path):
    weights = pretrain_run / "pretrain.safetensors"
    line = train(JOINT, cohort_tree, tmp_path / "out", pretrain_weights=weights, network_size="full").refusal()
    assert f"{weights}: does not fit: size small in the file, full in the network; encoder." in line
    assert line.count(" in the file, ") == 3
    assert line.endswith(" others; pre-train with this network, window and slab")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["missing", "truncated"])
def test_export_refuses_weights(kind, pretrain_run, tmp_path):
    weights = weights_of(kind, pretrain_run / "models" / "model.pt", tmp_path)
    if weights.exists():
        weights.with_suffix(".json").write_bytes((pretrain_run / "models" / "model.json").read_bytes())
    line = run_bundle(PRETRAIN, "export", EXPORT, weights=weights, output_dir=tmp_path / "out").refusal()
    assert f"{weights}: " in line
    assert left_over(tmp_path / "out") == []


def test_export_to_a_place_below_a_file_is_refused(pretrain_run, tmp_path):
    (tmp_path / "file").write_text("in the way")
    run = {"ckpt_dir": pretrain_run / "models", "output_dir": tmp_path / "out"}
    line = run_bundle(PRETRAIN, "export", EXPORT, **run, exported=tmp_path / "file" / "w.safetensors").refusal()
    assert f"{tmp_path}/file/w.safetensors: weights cannot be written" in line
    assert left_over(tmp_path / "out") == []


@pytest.mark.integration
@pytest.mark.parametrize("bundle", [PRETRAIN, JOINT])
def test_weights_of_another_architecture_are_refused_with_three_differences(bundle, ct_folder, tmp_path):
    weights = tmp_path / "linear.pt"
    torch.save(torch.nn.Linear(2, 2).state_dict(), weights)
    run = {"dataset_dir": ct_folder, "output_dir": tmp_path / "out", "weights": weights, "network_size": "small"}
    line = run_bundle(bundle, "inference", INFER, **run).refusal()
    assert f"{weights}: does not fit: encoder." in line
    assert line.count(" missing in the file; ") == 3
    assert line.endswith(" others; use weights of the same network, or the bundle of these weights")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("bundle", [PRETRAIN, JOINT])
def test_inference_without_input_weights_or_device_is_refused(bundle, ct_folder, joint_run, tmp_path):
    (tmp_path / "empty").mkdir()
    for change, words in (
        ({"dataset_dir": tmp_path / "none"}, f"{tmp_path}/none: no such folder or file; "),
        ({"dataset_dir": tmp_path / "empty"}, f"{tmp_path}/empty: no CT in this folder"),
        ({"weights": tmp_path / "none.pt"}, f"{tmp_path}/none.pt: no such weights file; train and export first"),
        ({"weights": joint_run / "transfer.json"}, "transfer.json: not the name of a weights file"),
        ({"device": "cuda:99"}, "cuda:99"),
    ):
        run = {"dataset_dir": ct_folder, "output_dir": tmp_path / "out", "weights": tmp_path / "none.safetensors"}
        result = run_bundle(bundle, "inference", INFER, **{**run, **change})
        assert words in result.refusal(code=2 if "device" in change else 1)
    assert not (tmp_path / "out").exists()
