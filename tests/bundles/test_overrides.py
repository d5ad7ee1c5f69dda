"""Overrides that no config has, or that MONAI would ignore silently."""

import contextlib
import io
import json
import re
import sqlite3

import pytest
from commands import (
    EVALUATE,
    EXPORT,
    INFER,
    JOINT,
    PRETRAIN,
    TRAIN,
    CommandOutput,
    run_bundle,
    run_monai_bundle,
    train,
)
from monai.bundle import ConfigParser

from liverseg.bundle.setup import refuse_unknown_overrides
from liverseg.errors import UsageError
from liverseg.inference import find_bundle


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
    result = run_bundle(bundle, run_id, configs, output_dir=tmp_path / "out", **{given: 3})
    assert result.refusal(code=2) == f"liverseg: unknown override --{given}; did you mean --{closest}?"
    assert not (tmp_path / "out").exists()


def test_an_override_like_no_other_is_refused_with_all_there_are(tmp_path):
    line = run_bundle(JOINT, "export", EXPORT, zzz=1).refusal(code=2)
    assert line.startswith("liverseg: unknown override --zzz; known keys: bundle_root, ckpt_dir, export, exported, ")


@pytest.mark.parametrize("bundle", [PRETRAIN, JOINT])
def test_an_override_monai_would_drop_is_refused(bundle, tmp_path):
    result = run_bundle(bundle, "training", TRAIN, output_dir=tmp_path / "out", datalist=None)
    line = result.refusal(code=2)
    assert line == "liverseg: --datalist None: MONAI would use the config's own value; write null or leave it out"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("bundle", [PRETRAIN, JOINT])
@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("train::trainer::max_epoch", "did you mean --train::trainer::max_epochs?"),
        ("train#handlers#0#sed", "did you mean --train::handlers::0::seed?"),
        ("train::dataloader::num_worker", "did you mean --train::dataloader::num_workers?"),
        ("optimizer::weight_decai", "did you mean --optimizer::weight_decay?"),
        ("slab_input::pixel_m", "did you mean --slab_input::pixel_mm?"),
        ("validate::evaluator::zzz", "known keys: _target_, "),
    ],
)
def test_a_nested_override_no_config_knows_is_refused_with_the_closest(bundle, given, hint, tmp_path):
    line = train(bundle, tmp_path / "none", tmp_path / "out", **{given: 3}).refusal(code=2)
    assert line.startswith(f"liverseg: unknown override --{given}; {hint}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "given",
    [
        {"train::trainer::max_epochs": 2},
        {"train::handlers::0::seed": 2},
        {"train::view::keys": ["image", "label"]},  # missing in the config, but an argument
        {"train::dataloader::persistent_workers": False},  # an argument of a function with **kwargs
        {"optimizer::weight_decay": 0.1, "lr_scheduler::_disabled_": False},
        {"optimizer::_target_": "torch.optim.SGD", "optimizer::momentum": 0.9},
        {"lr_scheduler": "{'_target_':'torch.optim.lr_scheduler.ExponentialLR'}", "lr_scheduler::gamma": 0.9},
    ],
)
def test_a_nested_override_of_what_is_there_or_can_be_is_taken(given, tmp_path):
    line = train(JOINT, tmp_path / "none", tmp_path / "out", **given).refusal(code=1)
    assert "no such folder; give --dataset_dir" in line


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("train::handlers::99", "train::handlers is a list, it has 0 to {last}"),
        ("train::handlers::first", "train::handlers is a list, it has 0 to {last}"),
        ("train::trainr::max_epochs", "did you mean --train::trainer?"),
        ("epochs::more", "epochs is 60, nothing is below it"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(key, words):
    config = str(find_bundle(JOINT) / "configs" / "train.yaml")
    words = words.format(last=len(ConfigParser.load_config_file(config)["train"]["handlers"]) - 1)
    argv = ["/monai/bundle/__main__.py", "run", "training", "--config_file", config, f"--{key}=3"]
    with pytest.raises(UsageError, match=f"unknown override --{key}; {re.escape(words)}"):
        refuse_unknown_overrides(argv)


@pytest.mark.parametrize("given", [["-epoch", "3"], ["-epoch=3"], ["--epoch", "-1"]])
def test_one_dash_is_an_override_too_and_a_negative_number_is_none(given):
    config = str(find_bundle(JOINT) / "configs" / "train.yaml")
    argv = ["/monai/bundle/__main__.py", "run", "training", "--config_file", config, *given]
    with pytest.raises(UsageError, match=r"unknown override --epoch; did you mean --epochs\?"):
        refuse_unknown_overrides(argv)


@pytest.mark.parametrize("config_in_file", [True, False])
def test_overrides_in_an_args_file_are_looked_at(config_in_file, tmp_path):
    config = {"config_file": str(find_bundle(JOINT) / "configs" / "inference.yaml")}
    (tmp_path / "args.json").write_text(json.dumps({"batch_sise": 4, **(config if config_in_file else {})}))
    line = run_bundle(JOINT, "inference", INFER, args_file=tmp_path / "args.json").refusal(code=2)
    assert line == "liverseg: unknown override --batch_sise; did you mean --batch_size?"
    argv = ["/monai/bundle/__main__.py", "run", "inference", "--args_file", str(tmp_path / "args.json")]
    if config_in_file:
        with pytest.raises(UsageError, match="batch_sise"):
            refuse_unknown_overrides(argv)
    else:
        refuse_unknown_overrides(argv)  # without a config, MONAI asks for one


NAMES = [
    "20240105",
    "2024_01_05",
    "1e5",
    "0x10",
    "True",
    "[a]",
    "(b)",
    "a,b",
    "{c}",
    "run#2",
    "a'#\"b\\",
    "x#é",
    "1.20",
    "-5",
    "'1'x",
]
"""Names of folders that fire takes for numbers, lists and other values of Python."""


def _infer(folder, *words):
    """Run the joint bundle's inference in a folder; return its output."""
    out, err = io.StringIO(), io.StringIO()
    bundle = find_bundle(JOINT)
    arguments = ["run", "inference", "--config_file", str(bundle / "configs" / "inference.yaml"), *words]
    code = run_monai_bundle(arguments, folder, out, err)
    return CommandOutput(code, out.getvalue(), err.getvalue())


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_has_the_name_that_was_given(name, tmp_path):
    line = _infer(tmp_path, f"--dataset_dir={name}", "--bundle_root", str(find_bundle(JOINT))).refusal()
    assert line.startswith(f"liverseg: {tmp_path / name}: no such folder or file")


@pytest.mark.parametrize("key", ["weights", "liver"])
def test_a_file_has_the_name_that_was_given(key, ct_folder, tmp_path):
    words = ["--dataset_dir", str(ct_folder), "--bundle_root", str(find_bundle(JOINT)), f"--{key}", "2024_01_05"]
    assert "2024_01_05" in _infer(tmp_path, *words).refusal()


def test_quotes_of_python_still_make_a_text(tmp_path):
    line = _infer(tmp_path, "--dataset_dir", "'20240105'", "--bundle_root", str(find_bundle(JOINT))).refusal()
    assert line.startswith(f"liverseg: {tmp_path / '20240105'}: no such")


@pytest.mark.parametrize("text", ["20240105", "2024_01_05", "2024-01-05", "1.0e+5", "[a]", "no"])
def test_a_path_in_a_file_that_yaml_takes_for_another_value_is_refused(text, tmp_path):
    (tmp_path / "args.yaml").write_text(f"output_dir: {text}\n", encoding="utf-8")
    line = _infer(tmp_path, "--args_file", "args.yaml", "--bundle_root", str(find_bundle(JOINT))).refusal(code=2)
    assert re.fullmatch(r"liverseg: output_dir is .* in its file, which YAML does not take for text; .*quotes", line)


@pytest.mark.integration
def test_results_go_into_a_folder_of_digits(ct_folder, joint_run, tmp_path):
    words = ["--dataset_dir", str(ct_folder), "--output_dir", "2024_01_05", "--device", "cpu", "--liver", "none"]
    weights = next(joint_run.rglob("*.safetensors"))
    result = _infer(tmp_path, *words, "--weights", str(weights), "--bundle_root", str(find_bundle(JOINT)))
    assert result.code == 0, result.err
    assert (tmp_path / "2024_01_05" / "a" / "record.json").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2024_01_05", "ct"]


def test_tracking_is_for_runs_with_a_loss_or_a_score(ct_folder, tmp_path):
    settings = tmp_path / "tracking.json"
    settings.write_text(json.dumps({"handlers_id": {}, "configs": {"save_execute_config": False}}), encoding="utf-8")
    words = ["--dataset_dir", str(ct_folder), "--bundle_root", str(find_bundle(JOINT)), "--tracking", str(settings)]
    line = _infer(tmp_path, *words).refusal(code=2)
    assert line == "liverseg: --tracking is for training and evaluating; this run has neither loss nor score to log"


@pytest.mark.integration
@pytest.mark.parametrize("bundle", [PRETRAIN, JOINT])
def test_a_training_is_tracked_by_mlflow(bundle, request, tmp_path):
    pytest.importorskip("mlflow")
    tree = request.getfixturevalue("lits_tree" if bundle == PRETRAIN else "cohort_tree")
    more = {} if bundle == PRETRAIN else {"pretrain_weights": "null"}
    result = train(bundle, tree, tmp_path / "out", tracking="mlflow", epochs=1, **more)
    assert result.code == 0, result.err
    with contextlib.closing(sqlite3.connect(tmp_path / "out" / "mlruns.db")) as database:
        logged = dict(database.execute("select key, value from metrics").fetchall())
    assert logged["train_loss"] > 0 and "val_liver_dice" in logged
