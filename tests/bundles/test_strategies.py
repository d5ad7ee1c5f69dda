"""Every strategy as a configuration of the joint bundle: training, scores, and refused uses."""

import json

import pandas as pd
import pytest
from commands import EXPORT, INFER, JOINT, PRETRAIN, TINY, run_bundle
from monai.bundle import ConfigParser

from liverseg.bundle.validation import RULES
from liverseg.inference import find_bundle
from liverseg.networks import read_record

ONCE = {**TINY, "epochs": 1, "liver_crop": 64}
STRATEGIES = {
    "classification": {"type_accuracy"},
    "segmentation": {"lesion_dice"},
    "ynet": {"lesion_dice", "type_accuracy", "class_aware_dice"},
    "ynet_strong": {"lesion_dice", "type_accuracy", "class_aware_dice"},
    "joint": {"lesion_dice", "type_accuracy", "class_aware_dice"},
    "ours": {"lesion_dice", "type_accuracy", "class_aware_dice"},
    "regions": {"lesion_dice", "type_accuracy", "class_aware_dice"},
}


def configs(strategy, *more):
    return ("train", "phantom", f"strategies/{strategy}", *more)


def trained(strategy, cohort_tree, weights, folder, **more):
    run = {"dataset_dir": cohort_tree, "output_dir": folder, "ckpt_dir": folder / "models", **ONCE, **more}
    return run_bundle(JOINT, "training", configs(strategy), pretrain_weights=weights, **run)


@pytest.mark.parametrize(
    "strategy",
    # the joint strategy is trained once for many tests, see `joint_run`
    [pytest.param(name, marks=[pytest.mark.slow] * (name in ("joint", "ynet_strong"))) for name in STRATEGIES],
)
def test_it_is_trained_from_weights_and_scored(strategy, cohort_tree, pretrain_run, tmp_path):
    result = trained(strategy, cohort_tree, pretrain_run / "pretrain.safetensors", tmp_path)
    assert result.code == 0, result.err
    transfer = json.loads((tmp_path / "transfer.json").read_text(encoding="utf-8"))
    assert transfer["loaded"]
    decoder = [name for name in transfer["loaded"] if name.startswith("decoder.")]
    assert bool(decoder) == (strategy != "classification")

    run = {"dataset_dir": cohort_tree, "output_dir": tmp_path, "ckpt_dir": tmp_path / "models", **ONCE}
    result = run_bundle(JOINT, "evaluating", configs(strategy, "evaluate"), **run)
    assert result.code == 0, result.err
    scores = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    named = {"lesion_dice", "type_accuracy", "class_aware_dice"}
    assert named & {*scores} == STRATEGIES[strategy]
    assert len(pd.read_csv(tmp_path / "evaluation.csv")) == scores["units"]
    assert (tmp_path / "lesions.csv").exists() == (strategy != "classification")
    assert (tmp_path / "predictions.npz").exists() == (strategy != "classification")


@pytest.mark.parametrize(("bundle", "tree"), [(PRETRAIN, "lits_tree"), (JOINT, "cohort_tree")])
def test_every_optional_setting_can_be_null_on_the_command_line(bundle, tree, tmp_path, request):
    names = configs("regions") if bundle == JOINT else ("train", "phantom")
    content = ConfigParser.load_config_files([find_bundle(bundle) / "configs" / f"{name}.yaml" for name in names])
    optional = {key: "null" for key, rule in RULES.items() if rule.optional and key in content}
    assert {"batch_norm_momentum", "patience"} <= {*optional}
    assert ("pixel_type_weight" in optional) == (bundle == JOINT)
    if bundle == JOINT:
        optional["pretrain_weights"] = "null"
    run = {"dataset_dir": request.getfixturevalue(tree), "output_dir": tmp_path, "ckpt_dir": tmp_path / "models"}
    result = run_bundle(bundle, "training", names, **{**TINY, "epochs": 1, **run, **optional})
    assert result.code == 0, result.err
    assert read_record(tmp_path / "models" / "model.pt").epoch == 1


@pytest.mark.slow
def test_imagenet_weights_start_the_full_encoder(cohort_tree, published, tmp_path):
    run = {"dataset_dir": cohort_tree, "output_dir": tmp_path, "ckpt_dir": tmp_path / "models", **ONCE}
    more = {"network_size": "full", "initialisation": "imagenet", "imagenet_weights": published}
    more |= {"crop_size": 64, "liver_crop": 64}
    result = run_bundle(JOINT, "training", configs("joint"), **{**run, **more})
    assert result.code == 0, result.err
    transfer = json.loads((tmp_path / "transfer.json").read_text(encoding="utf-8"))
    assert "encoder.layer4.2.conv3.conv.weight" in transfer["loaded"]
    assert transfer["left"]["decoder.stage16.block.conv1.conv.weight"] == "ImageNet has no such part"


@pytest.mark.parametrize(("strategy", "network"), [("ours", "LesionTypeUNet"), ("regions", "RegionTypeUNet")])
def test_our_networks_are_used_on_volumes_as_the_joint_network_is(
    strategy, network, cohort_tree, pretrain_run, ct_folder, tmp_path
):
    assert trained(strategy, cohort_tree, pretrain_run / "pretrain.safetensors", tmp_path).code == 0
    run = {"ckpt_dir": tmp_path / "models", "output_dir": tmp_path}
    assert run_bundle(JOINT, "export", EXPORT, **run).code == 0
    exported = tmp_path / "joint.safetensors"
    assert read_record(exported).network == network
    run = {"dataset_dir": ct_folder, "output_dir": tmp_path / "out", "weights": exported, "device": "cpu"}
    result = run_bundle(JOINT, "inference", INFER, **run)
    assert result.code == 0, result.err
    assert (tmp_path / "out" / "a" / "record.json").exists()


@pytest.mark.integration
def test_a_ynet_cannot_be_used_on_volumes(cohort_tree, tmp_path, ct_folder):
    assert trained("ynet", cohort_tree, "null", tmp_path).code == 0
    weights = tmp_path / "models" / "model.pt"
    run = {"dataset_dir": ct_folder, "output_dir": tmp_path / "out", "weights": weights, "device": "cpu"}
    line = run_bundle(JOINT, "inference", INFER, **run).refusal()
    assert "does not fit: network YNet in the file, SEResUNet in the network" in line


@pytest.mark.slow
def test_a_plan_freezes_and_says_so(cohort_tree, pretrain_run, tmp_path):
    more = {"fine_tuning": "hierarchical_unfreezing", "stage_epochs": 1, "epochs": 6}
    result = trained("joint", cohort_tree, pretrain_run / "pretrain.safetensors", tmp_path, **more)
    assert result.code == 0, result.err
    frozen = [line.split("epoch ")[1] for line in result.out.splitlines() if ": frozen" in line]
    assert frozen[0].startswith("1: frozen encoder; learning rates ")
    assert frozen[1].startswith("2: frozen encoder.layer0, encoder.layer1, encoder.layer2, encoder.layer3; learning ")


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        ({"fine_tuning": "slow"}, 2, "fine_tuning is 'slow'; it must be one of none, freeze_encoder, hierarchical_fre"),
        ({"initialisation": "jpeg"}, 2, "initialisation is 'jpeg'; it must be scratch, imagenet or lits"),
        (
            {"initialisation": "imagenet"},
            2,
            "initialisation imagenet: there are ImageNet weights of SE-ResNet-50 and EfficientNet-Lite0, which",
        ),
        ({"key_score": "dice"}, 2, "key_score is 'dice'; it must be one of liver_dice, lesion_dice"),
        ({"liver_crop": 0}, 2, "liver_crop is 0; it must be a whole number, 64 or more, or null"),
    ],
)
def test_what_is_not_known_is_refused(more, code, words, cohort_tree, tmp_path):
    assert words in trained("joint", cohort_tree, "null", tmp_path, **more).refusal(code)
