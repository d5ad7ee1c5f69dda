"""An interrupted training resumes and ends like an uninterrupted one; a checkpoint of another run is refused."""

import json
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from commands import JOINT, PRETRAIN, TINY, TRAIN, bundle_process, run_bundle
from ignite.engine import Engine, Events

from liverseg.bundle.effective import EarlierConfigs, earlier_configs
from liverseg.errors import LiversegError, OutputError
from liverseg.networks import read_record, read_weights
from liverseg.training import RunCheckpoint
from liverseg.utils.files import sha256_file

LISTED = json.loads((Path(__file__).parent / "listed_settings.json").read_text(encoding="utf-8"))
"""Settings in a checkpoint of a version with a fixed list of them, by bundle; file hashes are placeholders."""


def same(first, second):
    """Return whether two checkpoints' contents are bitwise equal."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, Mapping):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


def assert_same_end(folder, unbroken):
    """Check that network, optimizer, schedule, best score and best weights with record equal those of another run."""
    first, second = (torch.load(run / "checkpoint.pt", weights_only=True) for run in (folder, unbroken))
    assert first["epoch"] == second["epoch"] == TINY["epochs"]
    for part in second["parts"]:
        assert same(first["parts"][part], second["parts"][part]), part
    best, expected = folder / "models" / "model.pt", unbroken / "models" / "model.pt"
    assert read_record(best) == read_record(expected)
    assert same(read_weights(best), read_weights(expected))


@pytest.fixture
def joint_settings(cohort_tree, pretrain_run, tmp_path):
    """Overrides of the training of `joint_run`, for a run in another folder."""
    return {
        "dataset_dir": cohort_tree,
        "output_dir": tmp_path,
        "ckpt_dir": tmp_path / "models",
        "pretrain_weights": pretrain_run / "pretrain.safetensors",
        **TINY,
    }


class BrokenOff:
    """Part of a checkpoint that interrupts the training when the second epoch is saved."""

    def __init__(self):
        self.saved = 0

    def state_dict(self):
        self.saved += 1
        if self.saved == 2:
            raise KeyboardInterrupt
        return {}


@pytest.mark.parametrize(
    "place",
    [
        "in an epoch",
        pytest.param("before its checkpoint", marks=pytest.mark.slow),
        pytest.param("after its checkpoint", marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_training_ends_like_an_unbroken_one(place, joint_settings, joint_run, bundle_workflow, tmp_path):
    workflow = bundle_workflow(JOINT, TRAIN, **joint_settings)
    trainer = workflow.parser.get_parsed_content("train::trainer")

    def interrupt(*_):
        raise KeyboardInterrupt

    if place == "in an epoch":
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=trainer.state.epoch_length + 1), interrupt)
    elif place == "after its checkpoint":
        trainer.add_event_handler(Events.EPOCH_COMPLETED(once=2), interrupt)
    else:
        handlers = workflow.parser.get_parsed_content("train::handlers")
        (checkpoint,) = [handler for handler in handlers if isinstance(handler, RunCheckpoint)]
        checkpoint.parts["broken off"] = BrokenOff()
    with pytest.raises(KeyboardInterrupt):
        workflow.run()
    done = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["epoch"]
    assert done == (2 if place == "after its checkpoint" else 1)
    result = run_bundle(JOINT, "training", TRAIN, **joint_settings)
    assert result.code == 0, result.err
    assert f"checkpoint.pt after epoch {done}" in result.out
    assert_same_end(tmp_path, joint_run)


@pytest.mark.slow
def test_a_plan_interrupted_in_a_stage_goes_on_in_it(joint_settings, bundle_workflow, tmp_path):
    """The checkpoint is of the plan's first stage, and its learning rates contain that stage's factor."""
    stages = [
        {"epochs": 2, "frozen": ["encoder"], "learning_rate_factor": 0.5},
        {"epochs": None, "frozen": ["encoder.layer0"]},
    ]
    ends = []
    for name in ("unbroken", "interrupted"):
        folder = tmp_path / name
        settings = {**joint_settings, "output_dir": folder, "ckpt_dir": folder / "models", "plans::none": stages}
        if name == "interrupted":
            workflow = bundle_workflow(JOINT, TRAIN, **settings)
            trainer = workflow.parser.get_parsed_content("train::trainer")

            def interrupt(*_):
                raise KeyboardInterrupt

            trainer.add_event_handler(Events.ITERATION_COMPLETED(once=trainer.state.epoch_length + 1), interrupt)
            with pytest.raises(KeyboardInterrupt):
                workflow.run()
            assert torch.load(folder / "checkpoint.pt", weights_only=True)["epoch"] == 1
        result = run_bundle(JOINT, "training", TRAIN, **settings)
        assert result.code == 0, result.err
        assert "epoch 2: frozen encoder; learning rates" in result.out
        ends.append(torch.load(folder / "checkpoint.pt", weights_only=True)["parts"])
    assert same(*ends)


@pytest.mark.slow
def test_a_killed_training_ends_like_an_unbroken_one(lits_tree, pretrain_run, tmp_path):
    settings = {"dataset_dir": lits_tree, "output_dir": tmp_path, "ckpt_dir": tmp_path / "models", **TINY}
    process = bundle_process(PRETRAIN, "training", TRAIN, **settings)
    while not (tmp_path / "checkpoint.pt").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["epoch"] < TINY["epochs"]
    result = run_bundle(PRETRAIN, "training", TRAIN, **settings)
    assert result.code == 0, result.err
    assert "resumed from" in result.out
    assert_same_end(tmp_path, pretrain_run)


def test_a_finished_training_started_again_changes_nothing(joint_settings, joint_run, tmp_path):
    for name in ("checkpoint.pt", "models"):
        (tmp_path / name).symlink_to(joint_run / name)
    before = (joint_run / "models" / "model.pt").stat().st_mtime_ns
    result = run_bundle(JOINT, "training", TRAIN, **joint_settings)
    assert result.code == 0, result.err
    assert f"after epoch {TINY['epochs']}" in result.out
    assert (joint_run / "models" / "model.pt").stat().st_mtime_ns == before
    assert_same_end(tmp_path, joint_run)


def test_a_last_epoch_without_validation_is_validated_once(joint_settings, monkeypatch, tmp_path):
    monkeypatch.setattr("liverseg.training.calibration.fit_temperature", lambda *_: 1.5)
    written = []
    for _ in range(2):
        result = run_bundle(JOINT, "training", TRAIN, **{**joint_settings, "val_interval": TINY["epochs"] - 1})
        assert result.code == 0, result.err
        assert read_record(tmp_path / "models" / "model.pt").type_temperature == 1.5
        written.append([(tmp_path / name).stat().st_mtime_ns for name in ("models/model.pt", "models/model.json")])
    assert written[0] == written[1]
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["parts"]["best"]["validated"] == TINY["epochs"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0.5),
        ("seed", 1),
        ("fold", 1),
        ("initialisation", "scratch"),
        ("lesion_free", 0.7),
        ("repeats", 2),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused_by_name(name, value, joint_settings, joint_run, tmp_path):
    (tmp_path / "checkpoint.pt").symlink_to(joint_run / "checkpoint.pt")
    result = run_bundle(JOINT, "training", TRAIN, **{**joint_settings, name: value})
    line = result.refusal()
    assert line.startswith(f"liverseg: {tmp_path}/checkpoint.pt: the checkpoint is of a run with ")
    assert f"{name} " in line
    ours = repr(value)
    assert line.endswith(
        f", this run has {ours}; choose another output_dir and ckpt_dir, or start over with --resume False"
    )
    assert not list((tmp_path / "models").iterdir())


def as_listed(checkpoint, settings):
    """Convert a checkpoint to one of a version with a fixed list of settings."""
    content = torch.load(checkpoint, weights_only=True)
    checkpoint.unlink()  # a link to the run of other tests
    listed = {name: content[name] for name in ("epoch", "parts")}
    torch.save({**listed, "settings": json.dumps(settings)}, checkpoint)


@pytest.mark.parametrize("bundle", [PRETRAIN, JOINT])
def test_a_checkpoint_of_an_earlier_version_is_resumed(
    bundle, lits_tree, cohort_tree, joint_settings, pretrain_run, joint_run, tmp_path, monkeypatch
):
    run, tree = (pretrain_run, lits_tree) if bundle == PRETRAIN else (joint_run, cohort_tree)
    for name in ("checkpoint.pt", "models"):
        (tmp_path / name).symlink_to(run / name)
    overrides = {**joint_settings, "dataset_dir": tree}
    files = {"datalist": sha256_file(tree / "datalist.json")}
    if bundle == PRETRAIN:
        del overrides["pretrain_weights"]
    else:
        files["pretrain_weights"] = sha256_file(overrides["pretrain_weights"])
    as_listed(tmp_path / "checkpoint.pt", {**LISTED[bundle], **files})
    if bundle == JOINT:
        line = run_bundle(bundle, "training", TRAIN, **overrides).refusal()
        assert "the checkpoint is of a run with sum_types null, this run has True" in line
        overrides["sum_types"] = False
    result = run_bundle(bundle, "training", TRAIN, **overrides)
    assert result.code == 0, result.err
    assert f"after epoch {TINY['epochs']}" in result.out

    for changed, words in (
        ({"seed": 1}, "seed 1, this run has 0"),
        ({"hu_window": [0, 250]}, "hu_window [0, 250], this run has [-200, 250]"),
        ({"optimizer": "SGD(momentum=0.9)"}, "optimizer 'SGD(momentum=0.9)', this run has 'Adam("),
    ):
        as_listed(tmp_path / "checkpoint.pt", {**LISTED[bundle], **files, **changed})
        line = run_bundle(bundle, "training", TRAIN, **overrides).refusal()
        assert f"the checkpoint is of a run with {words}" in line

    as_listed(tmp_path / "checkpoint.pt", {**LISTED[bundle], **files})
    keys = earlier_configs().keys("train") - {"val_every"}
    monkeypatch.setattr(EarlierConfigs, "keys", lambda *_: keys)  # as if val_every were new
    line = run_bundle(bundle, "training", TRAIN, **overrides).refusal()
    assert "the checkpoint is of a run with val_every null, this run has " in line


class Counter:
    """Part of a checkpoint whose state is its number of epochs."""

    def __init__(self):
        self.epochs = 0

    def state_dict(self):
        return {"epochs": self.epochs}

    def load_state_dict(self, state):
        self.epochs = state["epochs"]


def counted(path, epochs, settings=None, **more):
    """Return the number of epochs that a training counted, and the number that it ran."""
    counter, trainer, gone = Counter(), Engine(lambda *_: None), []

    @trainer.on(Events.EPOCH_COMPLETED)
    def _count(engine):
        counter.epochs += 1
        gone.append(engine.state.epoch)

    RunCheckpoint(path, {"counter": counter}, settings or {}, **more).attach(trainer)
    trainer.run([0], max_epochs=epochs)
    return counter.epochs, gone


def test_a_longer_training_goes_on_and_resume_false_starts_over(tmp_path):
    path = tmp_path / "checkpoint.pt"
    assert counted(path, 2) == (2, [1, 2])
    assert counted(path, 5) == (5, [3, 4, 5])
    assert counted(path, 3, {"seed": 1}, resume=False) == (3, [1, 2, 3])
    assert counted(path, 4, {"seed": 1}) == (4, [4])
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_setting_only_one_of_the_runs_has_is_a_difference(tmp_path):
    counted(tmp_path / "checkpoint.pt", 1, {"seed": 0})
    with pytest.raises(LiversegError, match="a run with fold null, this run has 2"):
        counted(tmp_path / "checkpoint.pt", 1, {"seed": 0, "fold": 2})
    with pytest.raises(LiversegError, match="a run with seed 0, this run has null"):
        counted(tmp_path / "checkpoint.pt", 1, {})


def test_a_key_that_the_checkpoint_does_not_know_counts_as_off(tmp_path):
    path = tmp_path / "checkpoint.pt"
    counted(path, 1, {"seed": 0, "nested": {"old": 1}})
    assert counted(path, 2, {"seed": 0, "new": False, "nested": {"old": 1, "new": None}}) == (2, [2])
    with pytest.raises(LiversegError, match="a run with nested::new null, this run has 0;"):
        counted(path, 3, {"seed": 0, "new": False, "nested": {"old": 1, "new": 0}})


def test_a_new_key_at_its_neutral_value_is_no_difference(tmp_path):
    path = tmp_path / "checkpoint.pt"
    counted(path, 1, {"seed": 0})
    assert counted(path, 2, {"seed": 0, "lesion_threshold": 0}) == (2, [2])
    counted(tmp_path / "old.pt", 1, {"seed": 0})
    with pytest.raises(LiversegError, match=r"a run with lesion_threshold null, this run has 0\.5;"):
        counted(tmp_path / "old.pt", 2, {"seed": 0, "lesion_threshold": 0.5})


def test_nested_settings_are_named_by_their_path(tmp_path):
    path = tmp_path / "checkpoint.pt"
    counted(path, 1, {"train": {"transforms": [{"zoom": 0.1}, None], "sizes": (1, 2)}})
    with pytest.raises(LiversegError, match=r"a run with train::transforms::0::zoom 0\.1, this run has 0\.2;"):
        counted(path, 2, {"train": {"transforms": [{"zoom": 0.2}, None], "sizes": (1, 2)}})
    with pytest.raises(LiversegError, match=r"a run with train::sizes \[1, 2\], this run has \[1, 3\];"):
        counted(path, 2, {"train": {"transforms": [{"zoom": 0.1}, None], "sizes": (1, 3)}})


def test_expressions_are_compared_within_a_version(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    counted(path, 1, {"params": "$training.groups(@network)", "network": "@network", "seed": 0})
    renamed = {"params": "$training.parameter_groups(@network)", "network": "@module", "seed": 0}
    with pytest.raises(LiversegError, match=r"a run with params '\$training\.groups\(@network\)', this run has "):
        counted(path, 2, renamed)
    monkeypatch.setattr("liverseg.__version__", "99")
    assert counted(path, 2, renamed) == (2, [2])
    with pytest.raises(LiversegError, match="a run with seed 0, this run has 1;"):
        counted(path, 3, {**renamed, "seed": 1})


@pytest.mark.parametrize("kind", ["empty", "text", "truncated", "list", "folder"])
def test_a_checkpoint_that_cannot_be_read_is_reported(kind, tmp_path):
    path = tmp_path / "checkpoint.pt"
    counted(path, 1)
    content = {"empty": b"", "text": b"no checkpoint", "truncated": path.read_bytes()[:600]}
    if kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "list":
        torch.save([1], path)
    else:
        path.write_bytes(content[kind])
    with pytest.raises(LiversegError, match=r"checkpoint\.pt: the checkpoint cannot be read; choose another output"):
        counted(path, 2)


def test_a_checkpoint_that_cannot_be_written_is_reported_and_leaves_nothing(tmp_path):
    (tmp_path / "checkpoint.pt").mkdir()
    with pytest.raises(OutputError, match=r"checkpoint\.pt: the checkpoint cannot be written"):
        counted(tmp_path / "checkpoint.pt", 1, resume=False)
    with pytest.raises(OutputError, match=r"none/checkpoint\.pt: the checkpoint cannot be written"):
        counted(tmp_path / "none" / "checkpoint.pt", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
