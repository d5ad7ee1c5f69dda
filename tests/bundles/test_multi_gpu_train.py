"""Both bundles' overlay for several devices: two processes on the CPU, compared with one process."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from commands import INFER, JOINT, PRETRAIN, TINY, TRAIN, left_over, run_bundle, train, two_processes_started
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from liverseg.networks import read_record, read_weights

# Adam's first steps are as long for a gradient of 1e-10 as for one of 1, which would amplify rounding errors
SGD = {"optimizer::_target_": "torch.optim.SGD", "optimizer::momentum": 0.9, "learning_rate": 0.01}
RUN = {**TINY, **SGD, "epochs": 2, "amp": False}


def losses(folder):
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {event.step: event.value for event in events.Scalars("train_loss")}


def assert_same_course(folder, alone):
    """Check that losses equal those of one process, up to the growth of float32 rounding errors.

    One process with two threads differs as much from one with one thread: 5e-7 in the first step, 2e-5 in the third,
    8e-4 in the eighteenth. tests/training/test_distributed.py tests in float64, with `make test-all`, that only
    rounding differs.
    """
    own, expected = losses(folder), losses(alone)
    assert own.keys() == expected.keys()
    assert own[1] == pytest.approx(expected[1], rel=5e-6)
    assert own == pytest.approx(expected, rel=0.02)


@pytest.mark.slow
def test_a_killed_process_ends_both_and_they_go_on_together(lits_tree, ct_folder, tmp_path):
    alone, folder = tmp_path / "alone", tmp_path / "two"
    result = train(PRETRAIN, lits_tree, alone, **RUN)
    assert result.code == 0, result.err
    settings = {**RUN, "batch_size": 4, "dataset_dir": lits_tree, "output_dir": folder, "ckpt_dir": folder / "models"}
    process = two_processes_started(PRETRAIN, (*TRAIN, "multi_gpu_train"), **settings)
    while not (folder / "checkpoint.pt").exists() and process.poll() is None:
        time.sleep(0.01)
    first, second = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="utf-8").split()[:2]
    os.kill(int(second), signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1, errors
    assert not Path(f"/proc/{first}").exists()
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["epoch"] == 1

    process = two_processes_started(PRETRAIN, (*TRAIN, "multi_gpu_train"), **settings)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert out.count("checkpoint.pt after epoch 1") == 1  # the second process does not repeat it
    assert_same_course(folder, alone)
    written = {path.relative_to(folder) for path in left_over(folder) if "tensorboard" not in path.parts}
    assert written == {path.relative_to(alone) for path in left_over(alone) if "tensorboard" not in path.parts}
    assert len(list((folder / "tensorboard").iterdir())) == 2  # one per start

    weights, own = folder / "models" / "model.pt", read_record(folder / "models" / "model.pt")
    expected = read_record(alone / "models" / "model.pt")
    assert own.to_json().keys() == expected.to_json().keys()
    assert own.arguments == expected.arguments and own.network == expected.network == "SEResUNet"
    state, theirs = read_weights(weights), read_weights(alone / "models" / "model.pt")
    assert [(name, value.shape, value.dtype) for name, value in state.items()] == [
        (name, value.shape, value.dtype) for name, value in theirs.items()
    ]
    run = {"dataset_dir": ct_folder, "output_dir": tmp_path / "out", "weights": weights, "device": "cpu"}
    result = run_bundle(PRETRAIN, "inference", INFER, **run)
    assert result.code == 0, result.err

    # one process with twice the batch size resumes from it, unless it is complete
    result = train(PRETRAIN, lits_tree, folder, **RUN)
    assert result.code == 0, result.err
    assert "checkpoint.pt after epoch 2" in result.out


@pytest.mark.integration
def test_a_strategy_and_a_plan_go_with_it(cohort_tree, pretrain_run, tmp_path):
    stages = [
        {"epochs": 1, "frozen": ["encoder"], "learning_rate_factor": 0.5},
        {"epochs": None, "frozen": ["encoder.layer0"]},
    ]
    more = {**RUN, "plans::none": stages, "pretrain_weights": pretrain_run / "pretrain.safetensors"}
    more |= {"batch_size": 6, "dataset_dir": cohort_tree}
    configs = (*TRAIN, "strategies/ours")
    alone, folder = tmp_path / "alone", tmp_path / "two"
    result = run_bundle(JOINT, "training", configs, output_dir=alone, ckpt_dir=alone / "models", **more)
    assert result.code == 0, result.err
    more["batch_size"] = 3
    two = {"output_dir": folder, "ckpt_dir": folder / "models"}
    process = two_processes_started(JOINT, (*configs, "multi_gpu_train"), **two, **more)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert out.count("epoch 1: frozen encoder; learning rates") == 1
    assert_same_course(folder, alone)
    assert json.loads((folder / "transfer.json").read_text(encoding="utf-8")) == json.loads(
        (alone / "transfer.json").read_text(encoding="utf-8")
    )
    assert len(list((folder / "tensorboard").iterdir())) == 1
    start = read_weights(pretrain_run / "pretrain.safetensors")
    end = torch.load(folder / "checkpoint.pt", weights_only=True)["parts"]["network"]
    frozen = [name for name in start if name.startswith("encoder.layer0.")]
    assert frozen and all(torch.equal(start[name], end[name]) for name in frozen)
    assert not torch.equal(start["encoder.layer1.0.conv1.conv.weight"], end["encoder.layer1.0.conv1.conv.weight"])
    assert read_record(folder / "models" / "model.pt").network == "LesionTypeUNet"


@pytest.mark.parametrize("bundle", [PRETRAIN, JOINT])
def test_without_torchrun_it_is_refused_in_one_line(bundle, tmp_path):
    result = run_bundle(bundle, "training", (*TRAIN, "multi_gpu_train"), output_dir=tmp_path / "out", **TINY)
    line = result.refusal(code=2)
    assert line.startswith("liverseg: configs/multi_gpu_train.yaml is for processes that torchrun starts, and there is")
    assert not (tmp_path / "out").exists()


@pytest.mark.integration
@pytest.mark.parametrize("bundle", [PRETRAIN, JOINT])
def test_torchrun_without_it_is_refused_in_one_line(bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for configs, run_id in ((TRAIN, "training"), ((*TRAIN, "evaluate"), "evaluating")):
        result = run_bundle(bundle, run_id, configs, output_dir=tmp_path / "out", device="cpu")
        assert result.refusal(code=2).startswith("liverseg: torchrun has started 2 processes, ")
    assert not (tmp_path / "out").exists()
