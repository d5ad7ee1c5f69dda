"""`liverseg train` equals the bundle's command: files, refusals, exit codes; paths are relative to the folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import TINY, run_monai_bundle

from liverseg.cli.main import main


def keys_of(overrides):
    return [word for key, value in overrides.items() for word in (f"--{key}", str(value))]


@pytest.fixture
def train_here(tmp_path, monkeypatch):
    """Return a function that runs `liverseg train` in this process, in the test's folder, and returns its exit code."""

    def become(program, command, environment):
        assert (program, command[1:3]) == (sys.executable, ["-m", "monai.bundle"])
        raise SystemExit(run_monai_bundle(command[3:], Path.cwd(), sys.stdout, sys.stderr))

    def train(*words, **overrides):
        with pytest.raises(SystemExit) as ended:
            main(["train", *words, *keys_of(overrides)])
        return ended.value.code

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "execve", become)
    return train


@pytest.mark.integration
def test_a_training_is_that_of_the_bundle(lits_tree, train_here, tmp_path):
    (tmp_path / "data").symlink_to(lits_tree)
    run = {"dataset_dir": "data", "output_dir": "run", "ckpt_dir": "run/models", **TINY, "epochs": 1}
    words = ["train", "pretrain", "--config", "configs/phantom.yaml", *keys_of(run)]
    done = subprocess.run(
        [sys.executable, "-m", "liverseg.cli.main", *words],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "models" / "model.pt").is_file()
    assert train_here("pretrain", "--run", "export", ckpt_dir="run/models", output_dir="run") == 0
    assert (tmp_path / "run" / "pretrain.safetensors").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "run"]


def test_a_misspelt_key_is_refused_as_the_bundle_refuses_it(train_here, capsys):
    assert train_here("joint", "--epoch", "3") == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "liverseg: unknown override --epoch; did you mean --epochs?"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["jont"], "did you mean joint?"),
        (["joint", "--run", "inference"], "invalid choice: 'inference'"),
        (["joint", "--config", "strategies/ynet_stronger"], "configs has average, evaluate, export, inference, "),
        (["joint", "--processes", "0"], "0 processes; at least 1 is needed"),
    ],
)
def test_what_is_no_training(words, message, capsys):
    assert main(["train", *words]) == 2
    assert message in capsys.readouterr().err
