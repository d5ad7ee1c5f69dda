"""Settings of both bundles' trainings: all keys that can change the result."""

import pytest
from commands import JOINT, PRETRAIN, TINY, TRAIN
from monai.bundle import ConfigParser

from liverseg.bundle import validation
from liverseg.bundle.config import NOT_SETTINGS
from liverseg.errors import UsageError, user_error
from liverseg.inference import find_bundle

OVERLAY = """
new_weight: 0.5
train::view::zoom: '@new_weight'
"""


@pytest.fixture
def start(lits_tree, cohort_tree, bundle_workflow, tmp_path):
    """Return a function that initialises a tiny training with additional configs."""

    def start(bundle, *configs, **overrides):
        tree = lits_tree if bundle == PRETRAIN else cohort_tree
        run = {**TINY, "dataset_dir": tree, "output_dir": tmp_path / "out", "ckpt_dir": tmp_path / "models"}
        if bundle == JOINT:
            run["pretrain_weights"] = "null"
        return bundle_workflow(bundle, [*TRAIN, *configs], **{**run, **overrides})

    return start


def settings_of(workflow):
    return workflow.parser.get_parsed_content("settings")


@pytest.mark.parametrize("bundle", [PRETRAIN, JOINT])
def test_a_new_key_is_a_setting_and_is_checked(bundle, start, tmp_path, monkeypatch):
    """A new setting needs only a default and a use in YAML, and one rule."""
    (tmp_path / "new.yaml").write_text(OVERLAY)
    monkeypatch.setitem(validation.RULES, "new_weight", validation.RULES["lesion_free"])
    settings = settings_of(start(bundle, tmp_path / "new"))
    assert settings["new_weight"] == settings["train"]["view"]["zoom"] == 0.5
    with pytest.raises(RuntimeError) as caught:
        start(bundle, tmp_path / "new", new_weight=2)
    assert isinstance(user_error(caught.value), UsageError)
    assert str(user_error(caught.value)) == "new_weight is 2; it must be a number, 0 to 1"


@pytest.mark.parametrize("bundle", [PRETRAIN, JOINT])
def test_every_key_of_the_config_is_a_setting(bundle, start):
    settings = settings_of(start(bundle))
    configs = find_bundle(bundle) / "configs"
    keys = ConfigParser.load_config_files([configs / f"{name}.yaml" for name in TRAIN])
    assert {*keys} - {*settings} <= {*NOT_SETTINGS}
    assert {*settings} - {*keys} <= {"pretrain_weights"}  # in the joint bundle only
    assert (settings["crop_size"], settings["train"]["view"]["crop_size"]) == (
        64,
        64,
    )  # the override and its use
    assert settings["lr_scheduler"]["T_max"] == TINY["epochs"]  # the schedule of the phantom overlay depends on it
    assert "max_epochs" not in settings["train"]["trainer"]


@pytest.mark.parametrize("bundle", [PRETRAIN, JOINT])
def test_device_folders_and_progress_do_not_change_the_settings(bundle, start, tmp_path):
    others = {"device": "auto", "progress": True, "num_workers": 1, "val_batch_size": 4, "patience": 5, "resume": False}
    others |= {"cache_dir": "null", "output_dir": tmp_path / "other", "ckpt_dir": tmp_path / "other" / "models"}
    assert settings_of(start(bundle)) == settings_of(start(bundle, **others))


@pytest.mark.parametrize("bundle", [PRETRAIN, JOINT])
def test_several_processes_have_the_settings_of_one(bundle, start, monkeypatch):
    """The overlay for several devices replaces no setting; batch_size is the global size, divided among devices."""
    monkeypatch.setattr("liverseg.bundle.setup.init_process_group", lambda device, _: device)
    monkeypatch.setattr("liverseg.bundle.config.world_size", lambda: 2)
    several = settings_of(start(bundle, "multi_gpu_train", batch_size=4))
    monkeypatch.undo()
    assert several == settings_of(start(bundle, batch_size=8))
