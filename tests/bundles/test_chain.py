"""The chain of bundle commands on phantoms: files of each, and their use by the next."""

import json
from pathlib import Path

import nibabel as nib
import pandas as pd
import pytest
import torch
from commands import EVALUATE, EXPORT, INFER, JOINT, PRETRAIN, TINY, run_bundle, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from liverseg.cli.main import main
from liverseg.datalists import build_datalist, read_datalist
from liverseg.imageio.volume import case_name
from liverseg.inference import find_bundle
from liverseg.labels import JOINT_LABELS, PRETRAIN_LABELS, label_names
from liverseg.networks import SEResUNet, SlabInput, read_record, read_weights
from liverseg.results.case_folder import CASE_FILES
from liverseg.utils.files import sha256_file

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("run", "tree", "labels", "metric"),
    [
        ("pretrain_run", "lits_tree", PRETRAIN_LABELS, "val_lesion_dice"),
        ("joint_run", "cohort_tree", JOINT_LABELS, "val_class_aware_dice"),
    ],
)
def test_training_leaves_the_best_weights_and_says_what_they_are(run, tree, labels, metric, request):
    folder, datalist = request.getfixturevalue(run), request.getfixturevalue(tree) / "datalist.json"
    record = read_record(folder / "models" / "model.pt")
    assert record.labels == label_names(labels)
    assert record.input_spec == SlabInput((-200.0, 250.0))
    assert (record.datalist_name, record.datalist_sha256) == (read_datalist(datalist).name, sha256_file(datalist))
    best = torch.load(folder / "checkpoint.pt", weights_only=True)["parts"]["best"]
    assert 1 <= record.epoch == best["best_epoch"] <= 3
    assert record.metrics[metric] == best["best"]
    SEResUNet(**record.arguments).load_state_dict(torch.load(folder / "models" / "model.pt", weights_only=True))
    assert not [path for path in folder.rglob(".*") if path.is_file()]
    result = (folder / "training.err").read_text(encoding="utf-8")
    assert [line for line in result.splitlines() if line and not line.startswith("parsing config_file")] == []


def test_tensorboard_has_the_loss_of_every_batch(pretrain_run):
    events = EventAccumulator(str(pretrain_run / "tensorboard"))
    events.Reload()
    steps = [event.step for event in events.Scalars("train_loss")]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) % TINY["epochs"] == 0


def test_evaluating_scores_every_test_volume(pretrain_run, lits_tree):
    test = read_datalist(lits_tree / "datalist.json").test
    table = pd.read_csv(pretrain_run / "evaluation.csv")
    assert table["image"].tolist() == [item.image for item in test]
    scores = json.loads((pretrain_run / "evaluation.json").read_text(encoding="utf-8"))
    assert (scores["units"], scores["patients"]) == (2, 2)
    assert scores["liver_dice"] == pytest.approx(table["liver_dice"].mean(), abs=1e-4)
    assert scores["lesion_dice"] == pytest.approx(table["lesion_dice"].mean(), abs=1e-4)
    assert "type_accuracy" not in scores


def test_evaluating_scores_every_annotated_test_slice_with_its_type(joint_run, cohort_tree):
    test = read_datalist(cohort_tree / "datalist.json").test
    table = pd.read_csv(joint_run / "evaluation.csv", keep_default_na=False)
    assert table[["patient", "image", "slice", "true_type"]].to_numpy().tolist() == [
        [item.patient, item.image, item.slice, item.lesion_type] for item in test
    ]
    scores = json.loads((joint_run / "evaluation.json").read_text(encoding="utf-8"))
    assert scores["units"] == len(test)
    assert scores["type_accuracy"] == pytest.approx((table["true_type"] == table["pred_type"]).mean())
    assert {"liver_dice", "lesion_dice", "lesion_recall", "class_aware_dice"} <= set(scores)
    assert "joint, " in (joint_run / "evaluating.out").read_text(encoding="utf-8")


@pytest.mark.parametrize(("run", "name"), [("pretrain_run", "pretrain"), ("joint_run", "joint")])
def test_export_is_the_trained_state_with_its_record(run, name, request):
    folder = request.getfixturevalue(run)
    trained, exported = folder / "models" / "model.pt", folder / f"{name}.safetensors"
    assert read_record(exported).metrics == read_record(trained).metrics
    state = read_weights(trained)
    assert all(torch.equal(tensor, state[key]) for key, tensor in read_weights(exported).items())
    assert (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["tensors_sha256"]
        == read_record(exported).tensors_sha256
    )


def test_joint_training_starts_from_the_pretrained_encoder_and_decoder(joint_run):
    transfer = json.loads((joint_run / "transfer.json").read_text(encoding="utf-8"))
    names = SEResUNet("small", out_channels=5, deep_supervision=True).state_dict()
    carried = (name for name in names if name.startswith(("encoder.", "decoder.")))
    assert sorted(transfer["loaded"]) == sorted(carried)
    assert sorted(transfer["left"]) == sorted(name for name in names if "head" in name)
    line = f"transfer: {len(transfer['loaded'])} tensors loaded, {len(transfer['left'])} left"
    assert line in (joint_run / "training.out").read_text(encoding="utf-8")


def test_inference_with_the_exported_weights(joint_run, cohort_tree, tmp_path):
    image = cohort_tree / read_datalist(cohort_tree / "datalist.json").test[0].image
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / image.name).symlink_to(image)
    overrides = {"output_dir": tmp_path / "out", "weights": joint_run / "joint.safetensors", "progress": False}
    result = run_bundle(JOINT, "inference", INFER, dataset_dir=tmp_path / "in", **overrides)
    assert result.code == 0
    # after one epoch the result has warnings
    assert all(f"{case_name(image)}: warning: " in line for line in result.errors), result.errors
    case = tmp_path / "out" / image.name.removesuffix(".nii.gz")
    assert sorted(path.name for path in case.iterdir()) == sorted(CASE_FILES)
    assert json.loads((case / "record.json").read_text(encoding="utf-8"))["status"] == "done"


def test_joint_training_without_weights_refuses_to_start_from_scratch(cohort_tree, tmp_path):
    result = train(JOINT, cohort_tree, tmp_path / "run", pretrain_weights=tmp_path / "none.safetensors")
    assert result.refusal() == (
        f"liverseg: pretrain_weights {tmp_path}/none.safetensors: no such file; export it with the pretrain bundle, "
        "or say --pretrain_weights null to train from scratch"
    )
    result = train(JOINT, cohort_tree, tmp_path / "run")  # the file that the config names is missing too
    assert "models/pretrain.safetensors: no such file" in result.refusal()
    assert not (tmp_path / "run").exists()


def test_joint_training_from_scratch_is_the_same_twice_and_another_with_another_seed(cohort_tree, tmp_path):
    trained = []
    for name, seed in (("once", 0), ("twice", 0), ("other", 1)):
        result = train(JOINT, cohort_tree, tmp_path / name, epochs=1, pretrain_weights="null", seed=seed)
        assert result.code == 0, result.err
        assert "transfer: none, training from scratch" in result.out
        assert json.loads((tmp_path / name / "transfer.json").read_text(encoding="utf-8")) == {"loaded": [], "left": {}}
        trained.append(read_record(tmp_path / name / "models" / "model.pt").tensors_sha256)
    assert trained[0] == trained[1] != trained[2]


def test_a_training_shorter_than_the_validation_interval_leaves_weights(cohort_tree, tmp_path):
    result = train(JOINT, cohort_tree, tmp_path, epochs=1, pretrain_weights="null", val_interval=2)
    assert result.code == 0, result.err
    assert read_record(tmp_path / "models" / "model.pt").epoch == 1


@pytest.mark.parametrize(("bundle", "tree"), [(JOINT, "cohort_tree"), (PRETRAIN, "lits_tree")])
def test_a_training_that_finds_no_lesion_says_so(bundle, tree, tmp_path, request):
    """Lesions without weight are never learnt, and liver and background take their pixels."""
    more = {"pretrain_weights": "null"} if bundle == JOINT else {}
    more |= {"class_weights": [1, 1, *[0] * (3 if bundle == JOINT else 1)], "dice_weight": 0, "learning_rate": 0.02}
    result = train(bundle, request.getfixturevalue(tree), tmp_path, epochs=5, val_interval=5, **more)
    assert result.code == 0, result.err
    record = read_record(tmp_path / "models" / "model.pt")
    assert record.metrics["val_prediction_rate"] == record.metrics["val_success_rate"] == 0
    (line,) = (line for line in result.out.splitlines() if "warning: " in line)
    assert f"after epoch 5, and its best weights (epoch 5, {tmp_path}/models/model.pt) outline no lesion" in line
    assert "try a lower learning_rate" in line


def test_evaluating_without_test_patients_takes_the_held_out_fold(pretrain_run, lits_tree, tmp_path):
    content = json.loads((lits_tree / "datalist.json").read_text(encoding="utf-8"))
    content["test"] = []
    (tmp_path / "list.json").write_text(json.dumps(content))
    overrides = {"dataset_dir": lits_tree, "datalist": tmp_path / "list.json", "output_dir": tmp_path / "out"}
    overrides |= {"weights": pretrain_run / "models" / "model.pt", "fold": 1}
    result = run_bundle(PRETRAIN, "evaluating", EVALUATE, **overrides, **TINY)
    assert result.code == 0, result.err
    assert "evaluating the held-out fold" in result.out
    images = pd.read_csv(tmp_path / "out" / "evaluation.csv")["image"].tolist()
    assert images == [item["image"] for item in content["training"] if item["fold"] == 1]


def test_slabs_at_a_distance_are_trained_and_predicted_alike(cohort_tree, tmp_path):
    made = train(JOINT, cohort_tree, tmp_path, epochs=1, pretrain_weights="null", slab_spacing_mm=6)
    assert made.code == 0, made.err
    weights = tmp_path / "models" / "model.pt"
    assert read_record(weights).input_spec.slab_spacing_mm == 6.0
    case = sorted((cohort_tree / "images").iterdir())[0]
    run = {"dataset_dir": case, "weights": weights, "progress": False}
    result = run_bundle(JOINT, "inference", INFER, output_dir=tmp_path / "out", **run)
    assert result.code == 0, result.err
    (record,) = (tmp_path / "out").rglob("record.json")
    assert json.loads(record.read_text(encoding="utf-8"))["settings"]["slab_spacing_mm"] == 6.0
    line = run_bundle(JOINT, "inference", INFER, output_dir=tmp_path / "no", slab_spacing_mm="null", **run).refusal()
    assert "slab spacing 6 mm in the file, adjacent slices in the network" in line
    scored = run_bundle(
        JOINT, "evaluating", EVALUATE, dataset_dir=cohort_tree, weights=weights, output_dir=tmp_path, **TINY
    )
    assert scored.code == 0, scored.err


def test_networks_with_a_pixel_size_are_trained_scored_handed_over_and_used_at_it(lits_tree, tmp_path):
    # phantoms of 64 x 64 pixels have pixels of 5 or 6 mm
    made = train(PRETRAIN, lits_tree, tmp_path, epochs=1, pixel_mm=8)
    assert made.code == 0, made.err
    assert read_record(tmp_path / "models" / "model.pt").input_spec == SlabInput((-200, 250), pixel_mm=8)
    run = {"output_dir": tmp_path, "ckpt_dir": tmp_path / "models"}
    scored = run_bundle(PRETRAIN, "evaluating", EVALUATE, dataset_dir=lits_tree, **run, **TINY)
    assert scored.code == 0, scored.err
    table = pd.read_csv(tmp_path / "evaluation.csv")
    truth = nib.load(lits_tree / table["image"][0].replace("volume", "segmentation"))
    assert run_bundle(PRETRAIN, "export", EXPORT, **run).code == 0
    weights = tmp_path / "pretrain.safetensors"
    case = lits_tree / table["image"][0]
    arguments = [case, tmp_path / "out", "--weights", weights, "--bundle", find_bundle(PRETRAIN), "--device", "cpu"]
    assert main(["predict", *map(str, arguments), "--liver", "none"]) == 0
    (record,) = (tmp_path / "out").rglob("record.json")
    assert json.loads(record.read_text(encoding="utf-8"))["settings"]["pixel_mm"] == 8.0
    assert nib.load(record.parent / "labels.nii.gz").shape == truth.shape
    given = {"dataset_dir": case, "weights": weights, "progress": False, "pixel_mm": "null"}
    line = run_bundle(PRETRAIN, "inference", INFER, output_dir=tmp_path / "no", **given).refusal()
    assert "pixel size 8 mm in the file, each CT's own in the network" in line


@pytest.mark.slow
def test_both_bundles_train_from_lists_that_lie_elsewhere(lits_tree, cohort_tree, tmp_path):
    """Fixed folds of a public list for other paths, and a list outside its images' folder; nothing else."""
    public = Path(__file__).parents[2] / "data_lists" / "lits.json"
    lists = {
        "lits": build_datalist("lits", lits_tree, output=tmp_path / "lits.json", folds_from=public),
        "cohort": build_datalist("cohort", cohort_tree, output=tmp_path / "cohort.json", folds=3),
    }
    folds = {item.patient: item.fold for item in read_datalist(public).training}
    fold = read_datalist(lists["lits"]).training[0].fold
    assert all(item.fold == folds[item.patient] for item in read_datalist(lists["lits"]).training)
    made = train(PRETRAIN, lits_tree, tmp_path / "pre", epochs=1, datalist=lists["lits"], fold=fold)
    assert made.code == 0, made.err
    run = {"output_dir": tmp_path / "pre", "ckpt_dir": tmp_path / "pre" / "models"}
    assert run_bundle(PRETRAIN, "export", EXPORT, **run).code == 0
    weights = tmp_path / "pre" / "pretrain.safetensors"
    made = train(JOINT, cohort_tree, tmp_path / "joint", epochs=1, datalist=lists["cohort"], pretrain_weights=weights)
    assert made.code == 0, made.err
    assert read_record(tmp_path / "joint" / "models" / "model.pt").datalist_sha256 == sha256_file(lists["cohort"])


def test_a_damaged_slice_in_the_cache_ends_a_training_in_one_line(lits_tree, tmp_path):
    assert main(["prepare", str(lits_tree / "datalist.json"), "-o", str(tmp_path / "cache")]) == 0
    for path in (tmp_path / "cache").glob("*.image.slices"):
        content = bytearray(path.read_bytes())
        content[: len(content) // 2] = bytes(len(content) // 2)
        path.write_bytes(content)
    line = train(PRETRAIN, lits_tree, tmp_path / "out", epochs=1, cache_dir=tmp_path / "cache").refusal()
    assert ": the checksum of slice " in line
    assert " differs; delete it and run `liverseg prepare` again" in line


@pytest.mark.slow
def test_a_training_straight_from_the_files_ends_as_one_from_the_cache(lits_tree, tmp_path):
    for name, cache in (("cached", tmp_path / "cache"), ("straight", "null")):
        made = train(PRETRAIN, lits_tree, tmp_path / name, epochs=1, cache_dir=cache)
        assert made.code == 0, made.err
    states = [read_weights(tmp_path / name / "models" / "model.pt") for name in ("cached", "straight")]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not [path for path in tmp_path.rglob("*.slices") if tmp_path / "cache" not in path.parents]
