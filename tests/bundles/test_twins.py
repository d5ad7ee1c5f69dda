"""Configs of both bundles are equal, key by key, except for the differences listed here.

Common keys are repeated in both. MONAI has two ways to share them, and neither keeps a bundle's commands:

- A list of config files is merged, but every command would have to name the common file, and MONAI Label and the zoo's
  checks read only `configs/train.yaml`.
- A macro (`%configs/common.yaml::train`) is replaced after overlays and overrides, so `--train::view::rotation 20` and
  an overlay's `train::view::rotation` would find a text instead of a mapping. Its path is relative to the current
  folder, so a config could not be used from another folder, as `liverseg train` and Python do.

With a file outside, a bundle would no longer be one self-contained folder.
"""

import re

import pytest
from commands import JOINT, PRETRAIN
from monai.bundle import ConfigParser

from liverseg.inference import find_bundle

FINE_TUNING = {"carry_heads", "fine_tuner", "fine_tuning", "plan", "plans", "pretrain_weights", "stage_epochs"}
TYPES = {
    "balanced_types",
    "map_loss",
    "network_def::sum_types",
    "pixel_type_weight",
    "strategy",
    "sum_types",
    "type_head_factor",
    "type_weight",
}
TYPED_LESIONS = {"lesion_ranges", "min_confidence", "type_temperature"}
LABELS = {
    "class_weights",
    "crop_ratios",
    "data",
    "network_def::out_channels",
    "train::dataset::labels",
    "validate::dataset::labels",
}
DIFFERENCES = {
    "train": {
        *("dataset_dir", "output_dir", "initialize"),
        *FINE_TUNING,
        *TYPES,
        *LABELS,
        # their own numbers
        *("head_factor", "initialisation", "key_score", "learning_rate", "loss", "optimizer::params"),
        # from pre-trained weights
        *("transfer::carry_heads", "transfer::pretrain_weights", "best::patience_from"),
        *("train::handlers::shared_handler(@fine_tuner)", "train::handlers::RunCheckpoint::parts::fine_tuner"),
        # around the liver, by type
        *("liver_crop", "validate::preprocessing::transforms::LiverCropd", "train::handlers::TypeTemperature"),
        *("train::handlers::Progress::name", "train::handlers::Progress::metrics"),
    },
    "evaluate": {"data", "initialize", "sum_types", "validate::handlers::EvaluationWriter::name"},
    "inference": {
        "output_dir",
        *TYPED_LESIONS,
        *("network_class", "network_def::_target_", "network_def::out_channels", "slabs::type_temperature"),
        "postprocessing::transforms::FindLesionsd::min_confidence",
        *(f"postprocessing::transforms::MeasureLesionsd::{key}" for key in ("lesion_ranges", "num_channels")),
    },
    "export": {"imports", "output_dir", "exported", "lesion_ranges", "lesion_ranges_from", "export"},
    "multi_gpu_train": {"+initialize", "train::trainer::network::some_frozen"},
}
"""Keys that differ or that only one bundle has, by config. A key includes all keys below it."""


def read(bundle, name):
    return ConfigParser.load_config_file(find_bundle(bundle) / "configs" / f"{name}.yaml")


def leaves(content, key=""):
    """Return every value by its key; entries of lists have their target as key."""
    if isinstance(content, list) and any(isinstance(entry, dict) for entry in content):
        content = {_name(entry, position): entry for position, entry in enumerate(content)}
    if not isinstance(content, dict):
        return {key: content}
    found = {}
    for name, child in content.items():
        found |= leaves(child, f"{key}::{name}" if key else name)
    return found


def _name(entry, position):
    if not isinstance(entry, dict) or "_target_" not in entry:
        return position
    name = entry["_target_"].rsplit(".", 1)[-1]
    return f"{name}({entry['handler']})" if name == "shared_handler" else name


def is_listed(key, differences):
    return any(key == name or key.startswith(f"{name}::") for name in differences)


@pytest.mark.parametrize("name", DIFFERENCES)
def test_both_bundles_have_the_same_keys_and_values(name):
    pretrain, joint = (leaves(read(bundle, name)) for bundle in (PRETRAIN, JOINT))
    differing = {key for key in {**pretrain, **joint} if pretrain.get(key, "missing") != joint.get(key, "missing")}
    assert {key for key in differing if not is_listed(key, DIFFERENCES[name])} == set()
    assert {name for name in DIFFERENCES[name] if not any(is_listed(key, {name}) for key in differing)} == set()


@pytest.mark.parametrize("name", DIFFERENCES)
def test_keys_stand_in_the_same_order(name):
    pretrain, joint = ([*leaves(read(bundle, name))] for bundle in (PRETRAIN, JOINT))
    assert [key for key in joint if key in pretrain] == [key for key in pretrain if key in joint]


@pytest.mark.parametrize("name", DIFFERENCES)
def test_the_same_line_has_the_same_comment(name):
    comments = []
    for bundle in (PRETRAIN, JOINT):
        text = (find_bundle(bundle) / "configs" / f"{name}.yaml").read_text(encoding="utf-8")
        lines = re.findall(r"^( *[^#\n]*\S)(?: # (.*))?$", text, re.MULTILINE)
        comments.append({line: comment for line, comment in lines if not line.lstrip().startswith("- _target_")})
    pretrain, joint = comments
    assert {line: pretrain[line] for line in pretrain.keys() & joint} == {
        line: joint[line] for line in pretrain.keys() & joint
    }


def test_why_a_macro_cannot_share_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "common.yaml").write_text("view: {rotation: 15}")
    (tmp_path / "train.yaml").write_text("train: '%common.yaml'")
    (tmp_path / "overlay.yaml").write_text("train::view::rotation: 20")
    assert ConfigParser(ConfigParser.load_config_file("train.yaml")).get_parsed_content("train::view::rotation") == 15
    with pytest.raises(ValueError, match="config must be dict or list for key `view`"):
        ConfigParser.load_config_files(["train.yaml", "overlay.yaml"])
    config = ConfigParser(ConfigParser.load_config_file("train.yaml"))
    with pytest.raises(ValueError, match="config must be dict or list for key `view`"):
        config.update({"train::view::rotation": 20})
