"""A small study with real trainings: resumed, killed, distributed, and with rows that cannot be run."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from commands import run_logged_in_process

from liverseg.cli.arguments import read_shard
from liverseg.errors import ExitCode, LiversegError, OutputError, UsageError
from liverseg.inference import SomeCasesFailed, find_bundle
from liverseg.study import read_study
from liverseg.study.cells import study_cells
from liverseg.study.curves import read_curves, row_progress
from liverseg.study.fingerprint import StudyFingerprint, code_state
from liverseg.study.folds import fold_lists
from liverseg.study.results import read_results
from liverseg.study.run import cell_commands, run_study

TINY = {"epochs": 2, "crop_size": 64, "val_interval": 1, "device": "cpu", "liver_crop": None}


@pytest.fixture(scope="session")
def write_in(cohort_tree, pretrain_run):
    """Return a function that writes a study of the small cohort into a folder."""

    def study(folder, name, **keys):
        content = {
            "configs": ["train", "phantom"],
            "dataset_dir": str(cohort_tree),
            "output_dir": name,
            "lits_weights": str(pretrain_run / "pretrain.safetensors"),
            "validation_share": 0.45,
            "folds": [0],
            "overrides": TINY,
            "rows": [{"strategy": ["classification", "ynet"], "initialisation": "lits"}],
        }
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**content, **keys}))
        return path

    return study


@pytest.fixture
def write(tmp_path, write_in):
    """Return a function that writes a study of the small cohort."""

    def study(name="study", **keys):
        return write_in(tmp_path, name, **keys)

    return study


@pytest.fixture(scope="session")
def unbroken(made_once, write_in):
    """Folder of an uninterrupted study."""

    def fill(folder):
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("liverseg.study.run.run_logged", run_logged_in_process)
            run_study(read_study(write_in(folder, "study")), workers=2)

    return made_once("unbroken-study", fill) / "study"


@pytest.fixture
def in_process(monkeypatch):
    """Train and evaluate cells in this process."""
    monkeypatch.setattr("liverseg.study.run.run_logged", run_logged_in_process)


def results(folder):
    """Return the files of every complete cell that the report reads."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for cell in folder.glob("cells/*/*/cell.json")
        for path in sorted(cell.parent.glob("*.csv"))
    }


def with_children(process):
    """Kill a process and its children, as a machine that fails."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def parent_alone(process):
    """Kill a process only; its commands continue and hold their cells."""
    process.kill()
    process.wait()


def run_by_command(path):
    """Run `liverseg study run` in a process."""
    command = [sys.executable, "-m", "liverseg.cli.main", "study", "run", str(path), "--workers", "2"]
    return subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)


@pytest.mark.integration
def test_curves_have_the_scores_by_which_weights_were_chosen(write, unbroken):
    study = read_results(read_study(write(output_dir=str(unbroken))))
    curves = read_curves(study)
    progress = row_progress(study, curves)
    assert [(of_row.row.name, of_row.key_score) for of_row in progress] == [
        ("classification-lits-none", "type_accuracy"),
        ("ynet-lits-none", "class_aware_dice"),
    ]
    for of_row in progress:
        (cell,) = of_row.row.complete
        record = cell.read("model.json")
        assert of_row.trainings == 1
        ((_, first), (_, last)) = curves[of_row.row.name][0]["val_score"]
        assert (of_row.half, of_row.end) == (first, last)
        chosen = (first, last)[record["epoch"] - 1]
        assert chosen == pytest.approx(record["metrics"][f"val_{of_row.key_score}"], abs=1e-6)  # float32 in events


@pytest.mark.integration
@pytest.mark.parametrize(
    ("killed", "strategies"),
    [
        (with_children, ["ynet"]),
        pytest.param(with_children, ["classification", "ynet"], marks=pytest.mark.slow),
        pytest.param(parent_alone, ["classification", "ynet"], marks=pytest.mark.slow),
    ],
)
def test_a_killed_study_goes_on_and_gives_the_same_results(write, unbroken, tmp_path, killed, strategies):
    broken = write("broken", rows=[{"strategy": strategies, "initialisation": "lits"}])
    cells = study_cells(read_study(broken), (0,))
    process = run_by_command(broken)
    checkpoint = tmp_path / "broken" / "cells" / "ynet-lits-none" / "fold0-seed0" / "checkpoint.pt"
    while not checkpoint.exists():
        assert process.poll() is None
        time.sleep(0.05)
    killed(process)
    (cell,) = (open_cell for open_cell in cells if open_cell.folder == checkpoint.parent)
    if killed is parent_alone:
        with cell.lock() as lock:
            assert lock is None
    assert not (checkpoint.parent / "cell.json").exists()
    assert run_by_command(broken).wait() == ExitCode.DONE
    expected = results(unbroken)
    assert len(expected) == 3  # units and lesions of the Y-Net, units of the classifier
    assert results(tmp_path / "broken") == {
        path: content for path, content in expected.items() if any(name in path for name in strategies)
    }

    record = json.loads((checkpoint.parent / "cell.json").read_text(encoding="utf-8"))
    assert record["ingredients"]["strategy"] == "ynet"
    assert record["ingredients"]["weights_sha256"]
    assert {*record["seconds"]} == {"training", "evaluating"}
    first = (checkpoint.parent / "training.log").read_text(encoding="utf-8").splitlines()[0]
    words = shlex.split(first)  # a shell parses the same words, including quotes and brackets
    assert words[:2] == ["cd", str(find_bundle("liver_lesion_joint"))]
    assert words[words.index("--config_file") + 1] == (
        "['configs/train.yaml','configs/phantom.yaml','configs/strategies/ynet.yaml']"
    )
    assert words[words.index("--initialisation") + 1] == "lits"
    assert record["device"] == "cpu" and record["threads"] >= 1
    assert record["code"] == [code_state()]

    # a complete study runs nothing
    before = (checkpoint.parent / "cell.json").stat().st_mtime_ns
    run_study(read_study(broken), workers=2)
    assert (checkpoint.parent / "cell.json").stat().st_mtime_ns == before


@pytest.mark.integration
def test_a_changed_study_begins_its_changed_cells_anew_and_keeps_the_old_ones(write, in_process, tmp_path):
    rows = [{"strategy": "ynet", "initialisation": "lits"}]
    of = tmp_path / "study" / "cells" / "ynet-lits-none" / "fold0-seed0" / "cell.json"
    records = []
    for epochs in (1, 2):
        run_study(read_study(write("study", overrides={**TINY, "epochs": epochs}, rows=rows)), workers=1)
        records.append(json.loads(of.read_text(encoding="utf-8")))
    assert [record["ingredients"]["overrides"]["epochs"] for record in records] == [1, 2]
    aside = tmp_path / "study" / "superseded" / "ynet-lits-none" / "fold0-seed0-1" / "cell.json"
    assert json.loads(aside.read_text(encoding="utf-8")) == records[0]


@pytest.mark.slow
def test_sigterm_ends_it_and_its_children(write, tmp_path):
    command = [sys.executable, "-m", "liverseg.cli.main", "study", "run", str(write(overrides={**TINY, "epochs": 500}))]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    cells = tmp_path / "study" / "cells"
    while not list(cells.glob("*/*/checkpoint.pt")):
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(cells) not in running
    assert not list(cells.glob("*/*/cell.json"))


def test_shards_cover_every_cell_once(write, capsys):
    study = read_study(write(folds=[0, 1], seeds=[0, 1]))
    names = {cell.name for cell in study_cells(study, (0, 1))}
    parts = []
    for part in (1, 2):
        run_study(study, shard=(part, 2), dry_run=True)
        parts.append(capsys.readouterr().out.split("\n")[:-1])
    assert sorted(name for part in parts for name in part) == sorted(names)
    assert {len(part) for part in parts} == {4}


@pytest.mark.integration
def test_what_cannot_be_had_is_recorded_and_the_rest_goes_on(write, in_process, tmp_path, capsys):
    rows = [{"strategy": "classification", "initialisation": ["scratch", "imagenet"]}]
    with pytest.raises(SomeCasesFailed, match="1 of 2 rows have cells that failed: classification-imagenet-none"):
        run_study(read_study(write(rows=rows, overrides={**TINY, "epochs": 1})), workers=1)
    cells = tmp_path / "study" / "cells"
    failed = json.loads(
        (cells / "classification-imagenet-none" / "fold0-seed0" / "failed.json").read_text(encoding="utf-8")
    )
    assert failed["reason"].startswith("initialisation imagenet: there are ImageNet weights of SE-ResNet-50 and Effi")
    assert (cells / "classification-scratch-none" / "fold0-seed0" / "cell.json").exists()
    assert failed["reason"] in capsys.readouterr().err


@pytest.mark.integration
def test_a_folder_that_cannot_be_written_ends_the_study_at_once(write, tmp_path):
    cells = tmp_path / "study" / "cells"
    cells.mkdir(parents=True)
    (cells / "classification-lits-none").write_text("a file where the row's folder should be")
    with pytest.raises(OutputError, match=r"fold0-seed0: the study cannot write there"):
        run_study(read_study(write()), workers=1)
    ended = {path.name for path in cells.glob("ynet-lits-none/*/*.json")} - {"started.json"}
    assert not ended  # neither complete nor failed: the run did not wait for it


def test_a_cell_is_scored_as_it_was_trained(write):
    overrides = {"liver_crop": None, "deep_supervision": False, "device": "cuda:7"}
    study = read_study(write(overrides=overrides))
    lists = fold_lists(study)
    (cell, *_) = study_cells(study, (0,))
    commands = cell_commands(study, lists, cell, device="cpu")
    for words in commands.values():
        assert words[words.index("--liver_crop") + 1] == "null"
        assert words[words.index("--device") + 1] == "cpu"  # the command line takes precedence
    assert "--deep_supervision" in commands["training"]
    assert "--deep_supervision" not in commands["evaluating"]  # read from the weights' record there


def test_other_imagenet_weights_make_another_cell(write, tmp_path):
    rows = [{"strategy": "joint", "initialisation": ["imagenet", "scratch"]}]
    study = read_study(write(rows=rows, imagenet_weights="published.pth"))
    lists = fold_lists(study)
    made_of = []
    for content in ("one", "two"):
        (tmp_path / "published.pth").write_text(content)
        made_of.append([StudyFingerprint(study, lists).of(cell) for cell in study_cells(study, (0,))])
    (imagenet, scratch), (imagenet_after, scratch_after) = made_of
    assert imagenet != imagenet_after
    assert scratch == scratch_after


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b", "1/"])
def test_a_shard_that_is_none(text):
    with pytest.raises(UsageError, match=r"it must be i/n"):
        read_shard(text)


def test_first_seeds_come_first(write):
    study = read_study(write(seeds=[3, 5], folds=None))
    assert [(cell.seed, cell.row.strategy, cell.fold) for cell in study_cells(study, (0, 1))] == [
        (seed, strategy, fold) for seed in (3, 5) for strategy in ("classification", "ynet") for fold in (0, 1)
    ]


@pytest.mark.integration
def test_a_cell_that_another_run_has_in_hand_is_waited_for_last(write, in_process, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("liverseg.study.run._POLL_SECONDS", 0.1)
    study = read_study(write(overrides={**TINY, "epochs": 1}))
    first, second = study_cells(study, (0,))
    with ThreadPoolExecutor(1) as pool:
        with first.lock() as lock:
            assert lock is not None
            done = pool.submit(run_study, study, workers=2)
            while not (second.folder / "cell.json").exists():
                assert not done.done()
                time.sleep(0.05)
            assert not first.folder.exists()
        done.result()
    assert (first.folder / "cell.json").exists()
    assert "waiting for another run, which works on 1 cells" in capsys.readouterr().err


def test_weights_that_are_not_of_pre_training_are_refused(write, tmp_path, joint_run):
    with pytest.raises(LiversegError, match=r"none.safetensors: no such file, and rows start from it"):
        run_study(read_study(write(lits_weights="none.safetensors")), dry_run=True)
    with pytest.raises(LiversegError, match=r"^lits_weights is missing, and rows start from it"):
        run_study(read_study(write(lits_weights=None)), dry_run=True)
    with pytest.raises(LiversegError, match=r"its labels are background, liver, cyst, .* weights of pre-training have"):
        run_study(read_study(write(lits_weights=str(joint_run / "models" / "model.pt"))), dry_run=True)
    assert not (tmp_path / "study").exists()
