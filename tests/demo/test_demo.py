"""The smallest demo, run by its subcommand, with all its results."""

import json

import pandas as pd
import pytest
from commands import run_logged_in_process
from matplotlib.image import imread

from liverseg.cli.main import main
from liverseg.datalists import read_datalist
from liverseg.networks import read_record

pytestmark = pytest.mark.integration

SIZE = ["--volumes", "8", "--patients", "8", "--slices", "16", "--matrix", "64"]
EPOCHS = ["--pretrain-epochs", "1", "--joint-epochs", "1"]


@pytest.fixture(scope="session", params=["in one process", pytest.param("in processes", marks=pytest.mark.slow)])
def demo(request, made_once):
    """Run a demo and return its folder; bundle commands run in this process or in separate ones."""

    def fill(folder):
        with pytest.MonkeyPatch.context() as patch:
            if request.param == "in one process":
                patch.setattr("liverseg.demo.stages.run_logged", run_logged_in_process)
            assert main(["demo", str(folder), *SIZE, *EPOCHS]) == 0

    return made_once(f"demo-{request.param.replace(' ', '-')}", fill)


@pytest.fixture
def summary(demo):
    return json.loads((demo / "summary.json").read_text(encoding="utf-8"))


def test_scores_of_all_three_networks(summary, demo):
    for name in ("pretrain", "joint_scratch", "joint_transfer"):
        scores = summary[name]
        assert scores == json.loads((demo / name / "evaluation.json").read_text(encoding="utf-8"))
        expected = {"liver_dice", "lesion_dice", "lesion_recall"} | ({"type_accuracy"} if "joint" in name else set())
        assert expected <= set(scores)
        assert all(0 <= scores[score] <= 1 for score in expected)
    test = read_datalist(demo / "data" / "cohort" / "datalist.json").test
    assert summary["joint_scratch"]["units"] == summary["joint_transfer"]["units"] == len(test)
    assert summary["pretrain"]["units"] == 2


def test_both_exports_say_what_they_are(demo):
    for name, bundle in (("pretrain", "pretrain"), ("joint", "joint_transfer")):
        exported = read_record(demo / f"{name}.safetensors")
        assert exported == read_record(demo / bundle / "model.pt")
        assert exported.epoch == 1
    assert read_record(demo / "pretrain.safetensors").datalist_name == "phantom-lits"
    assert read_record(demo / "joint.safetensors").datalist_name == "phantom-cohort"


def test_the_hand_over_is_counted_and_explained(summary, demo):
    transfer = json.loads((demo / "joint_transfer" / "transfer.json").read_text(encoding="utf-8"))
    assert summary["transfer"]["loaded"] == len(transfer["loaded"]) > 100
    assert summary["transfer"]["left"] == len(transfer["left"])
    assert summary["transfer"]["left_because"]["head.weight"] == "5 channels here, 3 in the file"
    assert json.loads((demo / "joint_scratch" / "transfer.json").read_text(encoding="utf-8"))["loaded"] == []


def test_seconds_of_every_stage(summary, demo):
    stages = list(summary["seconds"])
    assert stages[:3] == ["phantoms", "pretrain", "pretrain evaluation"]
    assert any("joint" in stage for stage in stages[3:-1])
    assert stages[-1] == "inference"
    assert all(seconds >= 0 for seconds in summary["seconds"].values())


def test_the_predicted_patient_is_a_typical_test_patient_and_has_a_preview(summary, demo):
    preview = demo / summary["preview"]
    assert imread(preview).ndim == 3
    case = preview.parent
    assert json.loads((case / "record.json").read_text(encoding="utf-8"))["status"] == "done"
    test = {item.image for item in read_datalist(demo / "data" / "cohort" / "datalist.json").test}
    assert f"images/{case.name}.nii.gz" in test
    scores = pd.read_csv(demo / "joint_transfer" / "evaluation.csv").groupby("image")["class_aware_dice"].mean()
    case_score = scores[f"images/{case.name}.nii.gz"]
    assert (scores < case_score).sum() <= len(scores) // 2 <= (scores <= case_score).sum()


def test_the_table_for_people_has_the_same_numbers(summary, demo):
    text = (demo / "summary.md").read_text(encoding="utf-8")
    for name, row in (
        ("pretrain", "| pretrain (volumes) |"),
        ("joint_scratch", "| joint, from scratch (slices) |"),
        ("joint_transfer", "| joint, from exported weights (slices) |"),
    ):
        (line,) = [line for line in text.splitlines() if line.startswith(row)]
        cells = [cell.strip() for cell in line.split("|")[2:-1]]
        assert cells[0] == f"{summary[name]['liver_dice']:.2f}"
        assert cells[3] == (f"{summary[name]['type_accuracy']:.2f}" if "joint" in name else "")
    assert f"Hand-over: {summary['transfer']['loaded']} tensors loaded" in text
    assert "not patients" in text


def test_no_file_is_outside_its_folders(demo):
    names = {"cache", "data", "input", "joint_scratch", "joint_transfer", "logs", "predictions", "pretrain"}
    names |= {f"{name}.{end}" for name in ("pretrain", "joint") for end in ("json", "safetensors")}
    assert {path.name for path in demo.iterdir()} == names | {"summary.json", "summary.md", "stages.json"}
    assert len(list((demo / "logs").glob("*.log"))) == 9


def test_a_place_below_a_file_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert main(["demo", str(tmp_path / "file" / "demo"), *SIZE]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"liverseg: {tmp_path}/file/demo: the demo cannot write there")


def test_a_demo_of_another_size_is_refused_and_the_finished_one_kept(demo, capsys):
    before = {
        path: path.stat().st_mtime_ns for path in demo.rglob("*") if path.is_file() and path.name != "stages.json"
    }
    assert main(["demo", str(demo), *SIZE[:-1], "96", *EPOCHS]) == 1
    assert "matrix 64, now matrix 96" in capsys.readouterr().err
    after = {path: path.stat().st_mtime_ns for path in demo.rglob("*") if path.is_file() and path.name != "stages.json"}
    assert after == before


@pytest.mark.parametrize(
    ("option", "value"), [("--volumes", "0"), ("--volumes", "7"), ("--patients", "7"), ("--matrix", "12")]
)
def test_a_size_that_cannot_be_made_is_refused_before_anything_is_written(option, value, tmp_path, capsys):
    assert main(["demo", str(tmp_path / "demo"), *SIZE, option, value]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"liverseg: {option[2:]} {value}")
    assert not (tmp_path / "demo").exists()
