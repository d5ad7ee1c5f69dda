"""Functions that read the config from which they are called."""

import copy

import pytest
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS
from monai.handlers import from_engine

from liverseg.bundle import config as bundle_config
from liverseg.bundle.config import NOT_SETTINGS, running_config, training_settings
from liverseg.bundle.validation import RULES
from liverseg.errors import UsageError, user_error
from liverseg.utils.files import sha256_file

IMPORTS = ["$import liverseg.bundle.setup as bundle", "$import liverseg.bundle.config as config"]


def run(content, expression):
    """Return the value of an expression in a config."""
    return ConfigParser({"imports": IMPORTS, **content, "settings": expression}).get_parsed_content("settings")


def settings(**content):
    return run(content, "$bundle.training_settings()")


def check(expression="$bundle.check_config()", **content):
    """Check a config and raise its error as a run does."""
    try:
        run(content, expression)
    except RuntimeError as error:
        raise user_error(error) from error


def test_config_of_an_expression():
    assert run({"epochs": 3}, "$config.running_config().get('epochs')") == 3
    with pytest.raises(RuntimeError, match="no MONAI config is being evaluated"):
        running_config()
    with pytest.raises(RuntimeError, match="no MONAI config is being evaluated"):
        training_settings()


def test_every_key_with_a_rule_is_checked():
    check(epochs=3, unknown="anything", fold="$1 + 1")
    with pytest.raises(UsageError, match="epochs is 0; it must be a whole number, 1 or more"):
        check(epochs=0)
    with pytest.raises(UsageError, match="fold is -1; it must be a whole number, 0 or more"):
        check(epochs=3, fold="$@epochs - 4")


@pytest.mark.parametrize("key", sorted(RULES))
def test_rule_of_each_key(key):
    content = {"train": {"dataset": {"labels": RULES[key].labels or 5}}}
    with pytest.raises(UsageError, match=f"^{key} is .*; it must be "):
        check(**content, **{key: [["no", "value"]]})


def test_settings_of_an_inference_are_its_keys_with_a_rule(monkeypatch):
    content = {
        "output_dir": "results",
        "batch_size": "auto",
        "slabs_at_a_time": "$2 + 2",
        "liver": "masks:5",
        "lesion_threshold": "$@recorded",
        "recorded": 0.8,
        "voxel_threshold": "null",
        "preview": False,
        "network": {"_target_": "torch.nn.Identity"},
    }
    recorded = run(content, "$bundle.inference_settings()")
    assert [*recorded.items()] == [
        ("batch_size", 4),
        ("liver", "masks:5"),
        ("lesion_threshold", 0.8),
        ("voxel_threshold", None),
    ]
    monkeypatch.setitem(bundle_config.RULES, "new_threshold", RULES["lesion_threshold"])
    assert run({**content, "new_threshold": 0.1}, "$bundle.inference_settings()")["new_threshold"] == 0.1


def test_a_new_rule_needs_no_other_edit(monkeypatch):
    check(new_weight=-1)
    monkeypatch.setitem(bundle_config.RULES, "new_weight", RULES["dice_weight"])
    with pytest.raises(UsageError, match="new_weight is -1; it must be a number, 0 or more"):
        check(new_weight=-1)


def test_words_for_null_are_allowed_for_optional_keys_only():
    check(patience="null", pixel_mm="none", lesion_ranges=None)
    with pytest.raises(UsageError, match="epochs is 'null'"):
        check(epochs="null")
    with pytest.raises(UsageError, match="lesion_threshold is None"):
        check(lesion_threshold=None)
    check("$bundle.check_config(optional=['lesion_threshold'])", lesion_threshold="null")
    with pytest.raises(UsageError, match="lesion_threshold is 2; it must be a number, 0 to 1"):
        check("$bundle.check_config(optional=['lesion_threshold'])", lesion_threshold=2)


def test_lists_have_a_number_for_each_label_of_the_config():
    check(class_weights=[1, 1, 1], train={"dataset": {"labels": 3}})
    with pytest.raises(UsageError, match=r"3 numbers; it must have 5, one for each label"):
        check(class_weights=[1, 1, 1], train={"dataset": {"labels": 5}})


def test_key_score_is_checked_by_rule_for_the_pretraining_only():
    check(key_score="class_aware_dice", train={"dataset": {"labels": 5}})
    with pytest.raises(UsageError, match="key_score is 'class_aware_dice'; it must be lesion_dice or liver_dice"):
        check(key_score="class_aware_dice", train={"dataset": {"labels": 3}})


def test_batch_size_of_an_inference_is_checked_as_resolved():
    check(batch_size="auto", slabs_at_a_time=2)
    with pytest.raises(UsageError, match="batch_size is 0"):
        check(batch_size=0, slabs_at_a_time="@batch_size")
    with pytest.raises(UsageError, match="batch_size is 'auto'"):
        check(batch_size="auto")


def test_build_raises_the_errors_of_constructors():
    broken = {"_target_": "liverseg.training.SlabScores", "key": "dice"}
    check("$bundle.build('scores')", scores={**broken, "key": "lesion_dice"})
    with pytest.raises(UsageError, match="key_score is 'dice'"):
        check("$bundle.build('validate::scores')", validate={"scores": broken})


def test_a_new_key_is_a_setting():
    assert settings(new_key=0.5)["new_key"] == 0.5
    assert settings(train={"new_part": {"gamma": [1, 2]}})["train"] == {"new_part": {"gamma": [1, 2]}}


def test_keys_that_do_not_change_the_result_are_no_settings():
    content = {key: "x" for key in NOT_SETTINGS if "::" not in key and key not in ("imports", "settings")}
    nested = {"train": {"handlers": [1], "trainer": {"max_epochs": 3, "amp": True}, "dataset": {"progress": True}}}
    found = settings(**content, **nested, seed=1)
    empty = dict.fromkeys(("datalist", "pretrain_weights", "imagenet_weights"))
    assert found == {"train": {"trainer": {"amp": True}, "dataset": {}}, "seed": 1, **empty}


def test_computed_values_count_by_value_and_objects_by_their_expression():
    found = settings(
        factor=2,
        learning_rate="$0.1 * @factor",
        optimizer={"_target_": "torch.optim.SGD", "lr": "@learning_rate", "params": "$@network.parameters()"},
        network={"_target_": "torch.nn.ReLU"},
        function="$max",
    )
    assert found["learning_rate"] == found["optimizer"]["lr"] == 0.2
    assert found["optimizer"]["_target_"] == "torch.optim.SGD"
    assert (found["optimizer"]["params"], found["function"]) == ("$@network.parameters()", "$max")


def test_values_of_other_keys_count_where_they_are_replaced():
    content = {"patience": 3, "ckpt_dir": "models", "epochs": 7}
    best = {"patience": "@patience", "path": "$@ckpt_dir + '/model.pt'", "T_max": "@epochs"}
    assert settings(**content, best=best)["best"] == {**best, "T_max": 7}
    assert settings(**content, best={**best, "patience": 5})["best"]["patience"] == 5


def test_words_for_null_are_null():
    found = settings(pixel_mm="none", synthetic_lesions="null", fine_tuning="none")
    assert (found["pixel_mm"], found["synthetic_lesions"], found["fine_tuning"]) == (None, None, "none")


def test_files_count_by_content(tmp_path):
    for name in ("list.json", "weights"):
        (tmp_path / name).write_text(name)
    files = {"datalist": str(tmp_path / "list.json"), "pretrain_weights": str(tmp_path / "weights")}
    found = settings(**files, initialisation="lits")
    assert found["datalist"] == sha256_file(tmp_path / "list.json")
    assert found["pretrain_weights"] == sha256_file(tmp_path / "weights")
    assert settings(**files, initialisation="scratch")["pretrain_weights"] is None
    assert settings(pretrain_weights="null", initialisation="lits")["pretrain_weights"] is None


def test_the_batch_is_that_of_all_processes(monkeypatch):
    monkeypatch.setattr(bundle_config, "world_size", lambda: 2)
    assert settings(batch_size=4)["batch_size"] == 8


@pytest.mark.parametrize("before", [0, 1, 3])
def test_tracking_logs_the_loss_of_a_batch_kept_as_one_dictionary(before):
    """MONAI's default tracking is added as MONAI adds it; dict stands for its MLFlowHandler, which needs mlflow."""
    settings = copy.deepcopy(DEFAULT_MLFLOW_SETTINGS)
    for engine in ("trainer", "validator", "evaluator"):
        settings["configs"][engine]["_target_"] = "builtins.dict"
    settings["configs"]["save_execute_config"] = False
    content = {
        "imports": ["$import operator", "$import liverseg.bundle.setup as bundle", "$import monai", "$import torch"],
        "output_dir": "out",
        "bundle_root": ".",
        "train": {"trainer": {}, "handlers": [{"_target_": "builtins.dict", "name": "other"}] * before},
        "validate": {"evaluator": {}, "handlers": []},
        "initialize": ["$bundle.adapt_tracking()"],
    }
    config = ConfigParser(content)
    ConfigWorkflow.patch_bundle_tracking(config, settings)
    config.parse(reset=True)
    output = {"loss": 0.5, "pred": None}
    assert from_engine(["loss"], first=True)(output) == (0.5,)  # what MONAI's handler cannot log
    config.get_parsed_content("initialize::0")
    handler = config.get_parsed_content("train::handlers")[before]
    assert handler["output_transform"](output) == 0.5
    assert settings["configs"]["trainer"]["output_transform"].startswith("$monai.handlers.from_engine")


def test_without_tracking_no_handler_changes():
    content = {
        "imports": ["$import liverseg.bundle.setup as bundle"],
        "train": {"handlers": [{"_target_": "builtins.dict", "output_transform": "$len"}]},
        "initialize": ["$bundle.adapt_tracking()"],
    }
    config = ConfigParser(content)
    config.get_parsed_content("initialize::0")
    assert config.get("train::handlers") == content["train"]["handlers"]
