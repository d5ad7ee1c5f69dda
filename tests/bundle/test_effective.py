"""Settings of configs that affect results, without the wiring."""

import pytest
import yaml

from liverseg.bundle.effective import RECORDED_SETTINGS, effective_settings, merge_configs
from liverseg.bundle.paths import find_bundle
from liverseg.networks.registry import RecordedSettings
from liverseg.utils.fingerprints import settings_hash

CONFIG = {
    "imports": ["$import torch"],
    "output_dir": "results",
    "epochs": 60,
    "initialisation": "scratch",
    "learning_rate": "$1e-3 if @initialisation == 'scratch' else 1e-4",
    "fine_tuning": "none",
    "plans": {"none": [{"epochs": None, "frozen": []}], "heads": [{"epochs": None, "frozen": ["encoder"]}]},
    "network_def": {"_target_": "liverseg.networks.SEResUNet", "size": "@network_size", "in_channels": 3},
    "optimizer": {"_target_": "torch.optim.Adam", "lr": "@learning_rate"},
    "train": {"view": {"_target_": "liverseg.View", "rotation": 15}, "handlers": [{"_target_": "X", "interval": 3}]},
    "initialize": ["$bundle.check_config()"],
    "run": "%initialize",
}


def changed(**overrides):
    return effective_settings(merge_configs([CONFIG, overrides]))


def test_values_are_settings():
    assert effective_settings(CONFIG) == {
        "epochs": 60,
        "initialisation": "scratch",
        "learning_rate": 0.001,
        "fine_tuning": "none",
        "plans": [{"epochs": None, "frozen": []}],
        "::in_channels": 3,
        "::_target_": "torch.optim.Adam",
        "::rotation": 15,
    }


@pytest.mark.parametrize(
    "overrides",
    [
        {"imports": []},
        {"output_dir": "elsewhere"},
        {"epochs": 60.0},
        {"learning_rate": 0.001},
        {"pixel_mm": None},
        {"balanced_types": False},
        {"lesion_threshold": 0.0},
        {"network_def::_target_": "liverseg.models.SEResUNet"},
        {"network_def::windows": [15]},
        {"train": {"preprocessing": {"view": {"_target_": "liverseg.View", "rotation": 15}}}},
        {"plans::heads": [{"epochs": 3, "frozen": []}]},
        {"initialize": ["$bundle.check()", "$@data"]},
        {"train::handlers": []},
    ],
)
def test_wiring_and_neutral_values_are_no_settings(overrides):
    assert changed(**overrides) == effective_settings(CONFIG)


@pytest.mark.parametrize(
    "overrides",
    [
        {"epochs": 61},
        {"initialisation": "lits"},
        {"learning_rate": "$2e-3 if @initialisation == 'scratch' else 1e-4"},
        {"pixel_mm": 1.5},
        {"balanced_types": True},
        {"fine_tuning": "heads"},
        {"plans::none": [{"epochs": 3, "frozen": []}]},
        {"network_def::windows": [5, 15]},
        {"train::view::rotation": 20},
        {"optimizer::_target_": "torch.optim.SGD"},
        {"optimizer::weight_decay": 0.1},
        {"optimizer::_target_": "elsewhere.Adam"},
    ],
)
def test_other_values_are_other_settings(overrides):
    assert changed(**overrides) != effective_settings(CONFIG)


def test_expressions_are_not_run():
    settings = changed(a="$__import__('os').getcwd()", b="$open('x')", c="$1 / 0", d="$@epochs * 2", e="$[@epochs, 1]")
    assert (settings.get("a"), settings.get("b"), settings.get("c")) == (None, None, None)
    assert (settings["d"], settings["e"]) == (120, [60, 1])


def test_overlays_replace_and_add():
    merged = merge_configs([{"a": {"b": [1, 2]}, "c": 1}, {"a::b": [3], "+a::b": [4]}, {"a::b::0": 5, "c::d": 6}])
    assert merged == {"a": {"b": [5, 4]}, "c": 1, "c::d": 6}


def test_defaults_of_recorded_settings_are_those_of_inference():
    defaults = RecordedSettings()
    assert {name: getattr(defaults, name) for name in RECORDED_SETTINGS} == RECORDED_SETTINGS


@pytest.mark.parametrize(
    ("bundle", "configs", "sha256"),
    [
        ("liver_lesion_joint", ["inference"], "8b5bddfaafada8087f9a79278329ed813fd671f8613f26f196583bf73093d746"),
        ("liver_lesion_pretrain", ["inference"], "00914d83bd7bf1eed2c244f6a95170a85034f30bd5a4fc800de55b91172511b0"),
        (
            "liver_lesion_joint",
            ["train", "strategies/joint"],
            "68737d10b17a436340d32c5470dbab2c4cf3467597f760007814422e21aa94fa",
        ),
        (
            "liver_lesion_joint",
            ["train", "phantom", "strategies/ours"],
            "fa304c6635349db257e165884dd2cc4e51bc590c4f67a5b968f29755086d29e7",
        ),
        (
            "liver_lesion_joint",
            ["train", "real_ct", "strategies/ours"],
            "28bcb97a406fd243d1433a3b049937981538899f8bd9ca7a0994fce80f032f4e",
        ),
    ],
)
def test_settings_of_the_bundles_have_not_changed(bundle, configs, sha256):
    """With other hashes, results of the last version are not recognised.

    If a config has changed and means the same, see `NEUTRAL` of `liverseg.bundle.effective`. If it gives other
    results, change the hash here.
    """
    folder = find_bundle(bundle) / "configs"
    contents = [yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8")) for name in configs]
    assert (
        settings_hash(effective_settings(merge_configs(contents), {} if configs == ["inference"] else None)) == sha256
    )


def test_the_rule_of_earlier_joint_trainings_gives_their_settings():
    folder = find_bundle("liver_lesion_joint") / "configs"
    names = ("train", "strategies/joint")
    contents = [yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8")) for name in names]
    settings = effective_settings(merge_configs([*contents, {"sum_types": False}]))
    assert settings_hash(settings) == "6e4aaa440b4725f34f78faf0e263cdcbe10fe36bf9f1882874f002f4babd4776"
