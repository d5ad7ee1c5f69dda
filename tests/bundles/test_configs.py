"""Configs of both bundles: MONAI's checks, agreement of both, and of training with inference."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from commands import JOINT, PRETRAIN, TINY, TRAIN
from monai.bundle import ConfigParser, ckpt_export, verify_metadata, verify_net_in_out
from packaging.requirements import Requirement

from liverseg import __version__
from liverseg.inference import find_bundle
from liverseg.labels import label_names, labels_for
from liverseg.networks import load_weights, recorded_settings
from liverseg.transforms import SLAB_SLICES, HUWindow

BUNDLES = (PRETRAIN, JOINT)
SCHEMA = Path(
    os.environ.get("LIVERSEG_META_SCHEMA")
    or Path(__file__).parents[3] / "shared" / "schema" / "meta_schema_20240725.json"
)


def config(bundle, *names):
    """Return the merged config without evaluation."""
    return ConfigParser.load_config_files([find_bundle(bundle) / "configs" / f"{name}.yaml" for name in names])


def overlay(bundle, name):
    """Return one config as in its file; its nested keys need another config below it."""
    return ConfigParser.load_config_file(find_bundle(bundle) / "configs" / f"{name}.yaml")


def metadata(bundle):
    return json.loads((find_bundle(bundle) / "configs" / "metadata.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("bundle", BUNDLES)
def test_the_training_workflow_has_monais_properties(bundle, lits_tree, cohort_tree, bundle_workflow, tmp_path):
    tree = lits_tree if bundle == PRETRAIN else cohort_tree
    overrides = {"dataset_dir": tree, "output_dir": tmp_path, "ckpt_dir": tmp_path / "models", **TINY}
    if bundle == JOINT:
        overrides["pretrain_weights"] = "null"
    workflow = bundle_workflow(bundle, TRAIN, **overrides)
    assert workflow.check_properties() == []
    assert workflow.max_epochs == TINY["epochs"]
    assert workflow.val_interval == TINY["val_interval"]
    assert workflow.network_def.out_channels == (3 if bundle == PRETRAIN else 5)


@pytest.mark.parametrize("bundle", BUNDLES)
def test_metadata_has_what_is_required(bundle):
    content = metadata(bundle)
    required = {"schema", "version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version"}
    required |= {"task", "description", "authors", "copyright", "network_data_format"}
    assert required <= set(content)
    assert "optional_packages_version" not in content
    assert isinstance(content["supported_apps"], dict)
    needed = {"type", "format", "num_channels", "spatial_shape", "dtype", "value_range"}
    tensors = content["network_data_format"]
    assert needed <= set(tensors["inputs"]["image"])
    assert needed <= set(tensors["outputs"]["pred"])


@pytest.mark.parametrize("bundle", BUNDLES)
def test_metadata_follows_monais_schema(bundle, tmp_path):
    if not SCHEMA.is_file():
        pytest.skip(f"{SCHEMA} is not here; set LIVERSEG_META_SCHEMA to a copy of the schema metadata.json names")
    schema = shutil.copy(SCHEMA, tmp_path)  # MONAI downloads it only if it is missing
    verify_metadata(meta_file=str(find_bundle(bundle) / "configs" / "metadata.json"), filepath=schema)
    unsound = {key: value for key, value in metadata(bundle).items() if key != "task"}
    (tmp_path / "metadata.json").write_text(json.dumps(unsound))
    with pytest.raises(ValueError, match="'task' is a required property"):
        verify_metadata(meta_file=str(tmp_path / "metadata.json"), filepath=schema)


@pytest.mark.integration
@pytest.mark.parametrize("bundle", BUNDLES)
def test_the_inference_network_takes_and_gives_what_metadata_says(bundle, tmp_path):
    configs = find_bundle(bundle) / "configs"
    paths = {"meta_file": str(configs / "metadata.json"), "config_file": str(configs / "inference.yaml")}
    verify_net_in_out("network_def", **paths, device="cpu", n=2, bundle_root=str(tmp_path))
    wrong = {"_meta_#network_data_format#outputs#pred#num_channels": 4}
    with pytest.raises(ValueError, match="output channel number"):
        verify_net_in_out("network_def", **paths, device="cpu", bundle_root=str(tmp_path), **wrong)


@pytest.mark.integration
@pytest.mark.parametrize(("bundle", "run", "channels"), [(PRETRAIN, "pretrain_run", 3), (JOINT, "joint_run", 5)])
def test_trained_weights_are_exported_to_torchscript(bundle, run, channels, request, tmp_path):
    weights = request.getfixturevalue(run) / "models" / "model.pt"
    configs = find_bundle(bundle) / "configs"
    ckpt_export(
        "network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(weights),
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "inference.yaml"),
        weights=str(weights),
    )
    network = recorded_settings(weights).network_class("small", in_channels=3, out_channels=channels)
    load_weights(network, weights)
    assert network.sum_types is (bundle == JOINT)
    slabs = torch.rand(2, 3, 64, 96) * 2 - 1
    with torch.no_grad():
        expected, scripted = network.eval()(slabs), torch.jit.load(tmp_path / "model.ts").eval()(slabs)
    torch.testing.assert_close(scripted, expected)


@pytest.mark.parametrize("bundle", BUNDLES)
def test_run_ids(bundle):
    for names, run_id in (
        (("train",), "training"),
        (("train", "phantom"), "training"),
        (("train", "real_ct"), "training"),
        (("train", "multi_gpu_train"), "training"),
        (("train", "evaluate"), "evaluating"),
        (("train", "phantom", "evaluate"), "evaluating"),
        (("inference",), "inference"),
        (("export",), "export"),
    ):
        merged = config(bundle, *names)
        assert merged["run"] == f"%{run_id}"
        assert isinstance(merged[run_id], list)
        assert merged["initialize"][:2] == ["$bundle.install_excepthook()", "$bundle.refuse_unknown_overrides()"]


def test_both_bundles_have_the_keys_of_a_run():
    for bundle in BUNDLES:
        train, infer = config(bundle, "train"), config(bundle, "inference")
        assert {"dataset_dir", "datalist", "output_dir", "epochs", "device", "weights"} <= set(train)
        assert {"dataset_dir", "output_dir", "device", "weights"} <= set(infer)
    pretrain, joint = (config(bundle, "train") for bundle in BUNDLES)
    loss, map_loss = (
        {**part, "loss": {**part["loss"], "weight": ""}} for part in (pretrain["loss"], joint["map_loss"])
    )
    assert loss == map_loss  # the joint strategies have maps of three or five channels


def test_both_bundles_have_the_same_overlays():
    small = [overlay(bundle, "phantom") for bundle in BUNDLES]
    assert small[0]["network_size"] == small[1]["network_size"]  # otherwise the transfer would be refused
    real = [overlay(bundle, "real_ct") for bundle in BUNDLES]
    own = ("class_weights", "crop_ratios", "epochs", "head_factor", "learning_rate", "lesion_free", "liver_crop")
    own += ("synthetic_lesions", "balanced_types", "type_head_factor", "train::view::hu_offset")
    own += ("initialisation", "val_interval")  # from ImageNet, then from the pre-training
    for key in ("gamma_prob", "contrast_prob"):  # types differ by HU
        assert real[0]["scanner_augmentation"].pop(key) > real[1]["scanner_augmentation"].pop(key) == 0
    for key in ("liver_enhancement", "vessel_enhancement"):  # and in contrast medium
        low, high = (content["scanner_augmentation"].pop(key) for content in real)
        assert low[0] < high[0]
        assert low[1] == high[1]
    assert [len(content["class_weights"]) for content in real] == [3, 5]
    assert [content["synthetic_lesions"].pop("labels") for content in real] == [3, 5]
    assert real[0]["synthetic_lesions"] == real[1]["synthetic_lesions"]
    shared = [{key: value for key, value in content.items() if key not in own} for content in real]
    assert shared[0] == shared[1]


@pytest.mark.parametrize("bundle", BUNDLES)
def test_training_evaluation_and_inference_agree_on_network_window_and_labels(bundle):
    train, infer, merged = config(bundle, "train"), config(bundle, "inference"), config(bundle, "train", "evaluate")
    network = {key: value for key, value in train["network_def"].items() if key != "deep_supervision"}
    if bundle == JOINT:  # ours uses the same config
        assert infer["network_def"]["_target_"] == "@network_class"
        assert infer["network_class"] == "$@weights_record.network_class"
        infer["network_def"]["_target_"] = network["_target_"]
        assert network.pop("sum_types") == "@sum_types"  # inference has it from the class of the record
    assert network == infer["network_def"]
    assert merged["network_size"] == infer["network_size"]
    assert merged["deep_supervision"] is False
    assert train["hu_window"] == [HUWindow().lower, HUWindow().upper]
    assert infer["weights_record"] == merged["weights_record"] == "$networks.recorded_settings(@weights)"
    assert infer["hu_window"] == merged["hu_window"] == "$@weights_record.hu_window"
    window = train["validate"]["preprocessing"]["transforms"][-1]
    assert window["window"] == train["train"]["prepare_batch"]["hu_window"] == "@hu_window"
    assert train["slab_input"]["hu_window"] == infer["slabs"]["hu_window"] == "@hu_window"
    pixel = "$bundle.none_if_null(@pixel_mm)"
    assert train["slab_input"]["pixel_mm"] == infer["slabs"]["pixel_mm"] == pixel
    assert infer["settings"] == "$bundle.inference_settings()"  # every key above; see tests/bundle/test_config.py
    views, (resampling, _) = train["train"]["view"], train["validate"]["preprocessing"]["transforms"][-2:]
    assert [part["pixel_mm"] for part in (views, resampling)] == ["$@slab_input.pixel_mm"] * 2
    assert infer["pixel_mm"] == merged["pixel_mm"] == "$@weights_record.pixel_mm"
    spacing = "$bundle.none_if_null(@slab_spacing_mm)"
    assert train["slab_input"]["slab_spacing_mm"] == infer["slabs"]["slab_spacing_mm"] == spacing
    of_slabs = [train[part]["dataset"]["slab_spacing_mm"] for part in ("train", "validate")]
    assert of_slabs == ["$@slab_input.slab_spacing_mm"] * 2
    assert infer["slab_spacing_mm"] == merged["slab_spacing_mm"] == "$@weights_record.slab_spacing_mm"

    channels = network["out_channels"]
    labels = label_names(labels_for(channels))
    assert network["in_channels"] == SLAB_SLICES
    assert train["train"]["dataset"]["labels"] == train["validate"]["dataset"]["labels"] == channels
    assert len(train["class_weights"]) == len(train["crop_ratios"]) == channels
    assert len(config(bundle, "train", "phantom")["class_weights"]) == channels
    assert infer["postprocessing"]["transforms"][-1]["num_channels"] == channels

    content = metadata(bundle)
    image, pred = content["network_data_format"]["inputs"]["image"], content["network_data_format"]["outputs"]["pred"]
    assert (image["num_channels"], pred["num_channels"]) == (SLAB_SLICES, channels)
    assert tuple(pred["channel_def"].values()) == labels
    assert "[-200, 250]" in content["image_classes"]
    assert content["label_classes"].endswith(", ".join(f"{index} {name}" for index, name in enumerate(labels)))


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("phantom", set()),
        ("real_ct", set()),
        ("evaluate", {"evaluating", "weights_record"}),
        (
            "multi_gpu_train",
            {
                "wait_minutes",
                "batch_sampler",
                "finalize",
                "+train::handlers",
                "+initialize",
                "train::prepare_batch::noise",
            }
            | {"validate::dataloader::sampler"},
        ),
    ],
)
def test_overlays_only_change_what_training_has(name, more, bundle):
    known = ConfigParser(config(bundle, "train"))
    assert {key for key in overlay(bundle, name) if key not in known} <= more


def test_metadata_names_versions_that_are_pinned():
    lines = (Path(__file__).parents[2] / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {str(Requirement(line)).split(";")[0] for line in lines if line and not line.startswith("#")}
    for bundle in BUNDLES:
        content = metadata(bundle)
        versions = dict(content["required_packages_version"])
        versions.update(
            monai=content["monai_version"], torch=content["pytorch_version"], numpy=content["numpy_version"]
        )
        assert versions.pop("liverseg") == __version__
        assert [f"{name}=={version}" for name, version in versions.items() if f"{name}=={version}" not in pinned] == []


@pytest.mark.parametrize("bundle", [PRETRAIN, JOINT])
def test_every_key_of_a_training_is_in_the_table_of_the_bundles_page(bundle):
    keys = overridable(bundle, "train")
    assert {"epochs", "hu_window", "batch_size"} <= keys
    page = (find_bundle(bundle) / "docs" / "README.md").read_text(encoding="utf-8")
    rows = {
        key
        for line in page.splitlines()
        if line.startswith("| `")
        for key in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    assert keys - rows == set()


def overridable(bundle, name):
    """The keys of a config that stand before its objects."""
    text = (find_bundle(bundle) / "configs" / f"{name}.yaml").read_text(encoding="utf-8")
    head = text.split("# objects")[0].split("# keys to override")[1]
    return set(re.findall(r"^(\w+):", head, re.MULTILINE))
