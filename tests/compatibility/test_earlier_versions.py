"""Files of an earlier version are read, recognised and continued. data/README.md describes how they were written."""

import json
import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from make_earlier_configs import COMMITS, earlier_configs, git

import liverseg
from liverseg.batch.job import run_spec
from liverseg.batch.run import run_batch
from liverseg.batch.settings import all_lesions_in_liver, run_settings
from liverseg.bundle.commands import OWN_CONFIGS
from liverseg.bundle.paths import find_bundle, inference_config
from liverseg.cases.discover import find_batch
from liverseg.cli.main import main
from liverseg.datalists import read_datalist
from liverseg.errors import SomeCasesFailed
from liverseg.inference.predict import run_inference
from liverseg.networks import WeightsRecord, read_record, read_weights
from liverseg.networks.registry import recorded_settings
from liverseg.results.tables import summary_of
from liverseg.study import read_study
from liverseg.study.cells import study_cells
from liverseg.study.fingerprint import StudyFingerprint
from liverseg.study.folds import fold_lists
from liverseg.study.results import read_results
from liverseg.study.run import cell_commands, run_study

JOINT = "liver_lesion_joint"


def slab_of(path, index=3):
    """Return three slices of a CT as input of the networks."""
    hu = np.asanyarray(nib.load(path).dataobj)[:, :, index - 1 : index + 2]
    window = np.clip((hu + 200) / 450, 0, 1) * 2 - 1
    return torch.from_numpy(window.astype(np.float32)).permute(2, 0, 1)[None]


@pytest.fixture
def paper_bundles(tmp_path, monkeypatch):
    """A copy of the joint bundle with the rule for types of all earlier versions; the default is another one now."""
    bundles = tmp_path / "bundles"
    shutil.copytree(find_bundle(JOINT), bundles / JOINT, ignore=shutil.ignore_patterns("models"))
    config = bundles / JOINT / "configs" / "train.yaml"
    text = config.read_text(encoding="utf-8")
    assert "\nsum_types: true" in text
    config.write_text(text.replace("\nsum_types: true", "\nsum_types: false"), encoding="utf-8")
    monkeypatch.setenv("LIVERSEG_BUNDLES", str(bundles))
    return bundles


def log(output):
    return [json.loads(line) for line in (output / "run.jsonl").read_text(encoding="utf-8").splitlines()]


def cases_of(folder):
    return {case.name: case for case in find_batch(folder / "ct", folder / "batch")}


def spec_of(folder, config=None, **overrides):
    weights = folder / "weights" / "joint.safetensors"
    return run_spec(config or inference_config(), weights, {"device": "cpu", **overrides})


@pytest.mark.parametrize(("name", "network"), [("joint", "SEResUNet"), ("ours", "LesionTypeUNet")])
def test_weights_give_the_same_network(earlier, name, network):
    path = earlier / "weights" / f"{name}.safetensors"
    written = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    record = read_record(path)
    assert record == WeightsRecord.from_json(written)
    assert record.to_json() == {**written, "network": network}
    assert (record.epoch, record.fold, record.type_temperature) == (3, 0, 1.5)
    settings = recorded_settings(path)
    model = settings.network_class(size=settings.network_size, in_channels=3, out_channels=5)
    assert type(model).__name__ == network
    model.load_state_dict(read_weights(path))
    with torch.no_grad():
        logits = model.eval()(slab_of(earlier / "cohort" / "images" / "p01.nii.gz"))[..., ::4, ::4]
    expected = np.load(earlier / "weights" / f"{name}-logits.npz")["logits"]
    np.testing.assert_allclose(logits.numpy(), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.integration
def test_weights_give_the_same_results(earlier, tmp_path):
    weights = earlier / "weights" / "joint.safetensors"
    # in float32: one lesion has 15 voxels, and bfloat16's rounding depends on the processor
    options = {"weights": weights, "device": "cpu", "amp": False, "progress": False}
    run_inference(earlier / "ct" / "a.nii.gz", tmp_path / "now", **options)
    for name in ("labels.nii.gz", "lesions.nii.gz"):
        then, now = (nib.load(folder / "a" / name) for folder in (earlier / "predict", tmp_path / "now"))
        assert np.array_equal(then.affine, now.affine)
        assert np.mean(np.asanyarray(then.dataobj) == np.asanyarray(now.dataobj)) > 0.999
    columns = ["id", "type", "volume_ml", "longest_diameter_mm", "diameter_slice", "mean_hu"]
    then, now = (pd.read_csv(folder / "a" / "lesions.csv") for folder in (earlier / "predict", tmp_path / "now"))
    assert len(then)
    pd.testing.assert_frame_equal(then[columns], now[columns], rtol=0.02)


def test_case_folder_goes_into_tables(earlier):
    summary, lesions = summary_of(earlier / "predict", ["a"])
    written = pd.read_csv(earlier / "predict" / "summary.csv")
    pd.testing.assert_frame_equal(summary[written.columns], written, check_dtype=False)
    pd.testing.assert_frame_equal(lesions, pd.read_csv(earlier / "predict" / "lesions.csv"))


def test_batch_leaves_finished_cases_and_known_failures(earlier, monkeypatch):
    def start(*_, **__):
        raise AssertionError("no case has to be computed")

    monkeypatch.setattr("liverseg.batch.run.LocalWorker", start)
    output = earlier / "batch"
    before = {path: path.read_bytes() for path in output.glob("[ab]/*")}
    written = {name: pd.read_csv(output / name) for name in ("summary.csv", "lesions.csv", "failed.csv")}
    with pytest.raises(SomeCasesFailed, match="1 of 3 cases failed"):
        run_batch(earlier / "ct", output, weights=earlier / "weights" / "joint.safetensors", device="cpu")
    assert {path: path.read_bytes() for path in output.glob("[ab]/*")} == before
    events = [line["event"] for line in log(output)]
    assert (events.count("run begun"), events.count("done"), events.count("failed")) == (2, 2, 1)
    for name, table in written.items():
        now = pd.read_csv(output / name)
        pd.testing.assert_frame_equal(now[table.columns], table)


@pytest.mark.parametrize(
    ("overrides", "recognised"),
    [
        ({}, True),
        ({"min_liver_contact": 0}, True),  # as in versions without this setting
        ({"min_confidence": 0.5}, True),  # the config's own value
        ({"batch_size": 3}, True),
        ({"min_confidence": 0.6}, False),
        ({"min_liver_contact": 1.0}, False),
        ({"lesion_threshold": 0.4}, False),
        ({"pixel_mm": 1.5}, False),
        ({"report": True}, False),
        ({"output_types": ["labels", "dicom-seg", "dicom-sr"]}, True),
        ({"output_types": ["labels", "seg-nrrd"]}, False),
        ({"liver": "none"}, False),
    ],
)
def test_case_is_complete_with_the_same_settings(earlier, overrides, recognised):
    spec, cases = spec_of(earlier, **overrides), cases_of(earlier)
    assert [spec.verify(cases[name], earlier / "batch") for name in ("a", "b")] == [recognised] * 2


def test_changed_results_or_input_are_not_complete(earlier):
    spec, cases = spec_of(earlier), cases_of(earlier)
    with (earlier / "batch" / "a" / "lesions.csv").open("a") as table:
        table.write("\n")
    shutil.copy(earlier / "ct" / "a.nii.gz", earlier / "ct" / "b.nii.gz")
    assert [spec.verify(cases[name], earlier / "batch") for name in ("a", "b")] == [False] * 2


def test_bundle_with_other_values_is_another(earlier, tmp_path):
    content = yaml.safe_load(inference_config().read_text(encoding="utf-8"))
    bundle = tmp_path / "bundle" / "configs"
    bundle.mkdir(parents=True)
    case = cases_of(earlier)["a"]
    for changes, same in (
        ({}, True),
        ({"imports": ["$import torch"], "evaluator": {"_target_": "liverseg.elsewhere.Evaluator"}}, True),
        ({"min_lesion_ml": 0.05}, False),
        ({"network_def": {"_target_": "elsewhere.Network", "in_channels": 3, "out_channels": 5}}, False),
    ):
        (bundle / "inference.yaml").write_text(yaml.safe_dump({**content, **changes}))
        spec = spec_of(earlier, bundle / "inference.yaml")
        assert spec.verify(case, earlier / "batch") is same
        assert (spec.configuration(case) == spec_of(earlier).configuration(case)) is same


def test_weights_whose_record_sets_a_later_setting(earlier):
    """A setting that did not exist is neutral only if the record of the weights does not set it."""
    weights = earlier / "weights" / "joint.safetensors"
    settings = run_settings(inference_config(), weights, {})
    assert settings["settings"]["type_temperature"] == 1.5
    state, beside = weights.with_suffix(".pt"), weights.with_suffix(".json")
    torch.save(read_weights(weights), state)
    content = json.loads(beside.read_text(encoding="utf-8"))
    for changes, same in (({}, True), ({"lesion_threshold": 0.3}, False), ({"hu_window": [0, 250]}, False)):
        beside.write_text(json.dumps({**content, **changes}))
        spec = run_spec(inference_config(), state, {})
        configs = [found.hashed["config"] for found in spec.earlier if "lesion_threshold" not in found.hashed["config"]]
        assert any(config["hu_window"] == [-200, 250] for config in configs) is same  # in the first version


def test_liver_contact_is_no_setting_with_a_mask_of_the_liver(earlier):
    case = cases_of(earlier)["a"]
    for liver, same in (("auto", False), ("none", False), (str(earlier / "liver.nii.gz"), True)):
        hashes = {spec_of(earlier, liver=liver, min_liver_contact=least).configuration(case) for least in (0, 0.5)}
        assert (len(hashes) == 1) is same


def test_lesions_outside_the_liver_are_seen(tmp_path):
    labels, lesions = np.zeros((2, 20, 20, 8), np.uint8)
    labels[2:10, 2:18, 1:7] = 1
    lesions[4:7, 4:7, 3:5], lesions[14:17, 8:11, 3:5] = 1, 2
    labels[lesions == 1], labels[lesions == 2] = 2, 4
    for keep, expected in ((lesions, False), (lesions * (lesions == 1), True), (lesions * 0, True)):
        nib.save(
            nib.Nifti1Image(np.where((labels > 1) & (keep == 0), 0, labels).astype(np.uint8), np.eye(4)),
            tmp_path / "labels.nii.gz",
        )
        nib.save(nib.Nifti1Image(keep.astype(np.uint16), np.eye(4)), tmp_path / "lesions.nii.gz")
        assert all_lesions_in_liver(tmp_path, {"settings": {"min_liver_contact": 0.5}}) is expected


def test_cells_of_a_study_are_complete(earlier, paper_bundles, capsys):
    study = read_study(earlier / "study.yaml")
    run_study(study, dry_run=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "2 cells, 2 complete, 0 to run" in err
    for row in read_results(study).rows:
        assert len(row.complete) == 1
        assert len(row.units)


def test_cell_of_other_settings_is_not_complete(earlier, paper_bundles, monkeypatch):
    study = read_study(earlier / "study.yaml")
    lists = fold_lists(study)
    cells = study_cells(study, tuple(lists))
    complete = [StudyFingerprint(study, lists).find_record(cell) is not None for cell in cells]
    assert complete == [True, True]
    overlay = paper_bundles / JOINT / "configs" / "phantom.yaml"
    overlay.write_text(overlay.read_text(encoding="utf-8").replace("learning_rate: 0.002", "learning_rate: 0.003"))
    assert not any(StudyFingerprint(study, lists).find_record(cell) for cell in cells)
    monkeypatch.delenv("LIVERSEG_BUNDLES")
    content = yaml.safe_load((earlier / "study.yaml").read_text(encoding="utf-8"))
    content["overrides"]["epochs"] = 2
    (earlier / "study.yaml").write_text(yaml.safe_dump(content))
    study = read_study(earlier / "study.yaml")
    assert not any(StudyFingerprint(study, lists).find_record(cell) for cell in study_cells(study, tuple(lists)))


def test_interrupted_cell_is_resumed(earlier, paper_bundles):
    study = read_study(earlier / "study.yaml")
    lists = fold_lists(study)
    fingerprint = StudyFingerprint(study, lists)
    (cell,) = (cell for cell in study_cells(study, tuple(lists)) if cell.row.strategy == "joint")
    (cell.folder / "cell.json").unlink()
    assert fingerprint.find_record(cell) is None
    fingerprint.adopt(cell)
    codes = cell.prepare(fingerprint.of(cell), "commit now")
    assert (cell.folder / "checkpoint.pt").exists()
    assert len(codes) == 2
    assert codes[-1] == "commit now"


def test_cells_with_another_rule_for_types_are_not_complete(earlier):
    study = read_study(earlier / "study.yaml")
    lists = fold_lists(study)
    complete = {
        cell.row.strategy: StudyFingerprint(study, lists).find_record(cell) is not None
        for cell in study_cells(study, tuple(lists))
    }
    assert complete == {"joint": False, "ours": True}  # the outlines of ours never depend on the types


@pytest.mark.integration
def test_checkpoint_is_resumed(earlier, paper_bundles):
    """The training had one epoch, so nothing is left to train once its checkpoint is loaded."""
    study = read_study(earlier / "study.yaml")
    lists = fold_lists(study)
    (cell,) = (cell for cell in study_cells(study, tuple(lists)) if cell.row.strategy == "joint")
    (cell.folder / "training.log").unlink()
    command = cell_commands(study, lists, cell)["training"]
    run = subprocess.run(
        [command[0], "-W", OWN_CONFIGS, *command[1:]],
        cwd=find_bundle(JOINT),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "resumed from" in run.stdout + run.stderr


def test_datalist_is_read_and_checked(earlier, capsys):
    path = earlier / "cohort" / "datalist.json"
    datalist = read_datalist(path)
    assert (datalist.name, datalist.licence, len(datalist.training)) == ("hand-made", "CC0-1.0", 12)
    assert {item.lesion_type for item in datalist.training} == {"cyst", "hemangioma", "metastasis"}
    assert main(["datalist", "check", str(path)]) == 0, capsys.readouterr()


def test_earlier_configs_are_those_of_the_history():
    first, last = COMMITS
    if git("merge-base", "--is-ancestor", first, last) is None:
        pytest.skip("no git history with the earlier versions")
    path = Path(liverseg.__file__).parent / "bundle" / "earlier_configs.json"
    assert json.loads(path.read_text(encoding="utf-8")) == earlier_configs()
