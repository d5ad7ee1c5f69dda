"""`liverseg train` is the bundle's command: same files, same refusals, same exit codes, relative paths from here."""

import subprocess
import sys

import pytest
from commands import TINY

from liverseg.cli.main import main


def train(*words, cwd=None, **overrides):
    keys = [word for key, value in overrides.items() for word in (f"--{key}", str(value))]
    command = [sys.executable, "-m", "liverseg.cli.main", "train", *words, *keys]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, encoding="utf-8", errors="replace", check=False, timeout=300
    )


def test_a_training_is_that_of_the_bundle(lits_tree, tmp_path):
    (tmp_path / "data").symlink_to(lits_tree)
    run = {"dataset_dir": "data", "output_dir": "run", "ckpt_dir": "run/models", **TINY, "epochs": 1}
    done = train("pretrain", "--config", "configs/phantom.yaml", cwd=tmp_path, **run)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "models" / "model.pt").is_file()
    done = train("pretrain", "--run", "export", cwd=tmp_path, ckpt_dir="run/models", output_dir="run")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "pretrain.safetensors").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "run"]


def test_a_misspelt_key_is_refused_as_the_bundle_refuses_it(tmp_path):
    done = train("joint", "--epoch", "3", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "liverseg: unknown override --epoch; did you mean --epochs?"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["jont"], "did you mean joint?"),
        (["joint", "--run", "inference"], "invalid choice: 'inference'"),
        (["joint", "--config", "strategies/ynet_stronger"], "configs has evaluate, export, inference, "),
        (["joint", "--processes", "0"], "0 processes; at least 1 is needed"),
    ],
)
def test_what_is_no_training(words, told, capsys):
    assert main(["train", *words]) == 2
    assert told in capsys.readouterr().err
