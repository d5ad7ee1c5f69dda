"""A user id without an entry in the system's list of users, as containers and clusters assign them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ct_files import write_ct

import liverseg
from liverseg.utils.torch_imports import ensure_user_name

UID = "54321"
SHARED = str(Path(liverseg.__file__).parents[1])
LIVERSEG = [sys.executable, "-m", "liverseg.cli.main"]


@pytest.fixture
def run_as_nobody(tmp_path):
    """Return a function that runs a command without environment, as a user id without a name."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("another user id needs root and setpriv")
    capability = "+dac_read_search"  # the folders above the tests' may be closed to others
    user = ["--reuid", UID, "--regid", UID, "--clear-groups", "--inh-caps", capability, "--ambient-caps", capability]
    tmp_path.chmod(0o777)

    def run(*command, **environment):
        variables = {"PATH": "/usr/bin:/bin", "PYTHONPATH": SHARED, "OMP_NUM_THREADS": "1", **environment}
        words = ["setpriv", *user, "env", "-i", *(f"{name}={value}" for name, value in variables.items())]
        return subprocess.run([*words, *map(str, command)], capture_output=True, text=True, cwd="/", check=False)

    return run


@pytest.mark.parametrize("variable", ["USER", "LOGNAME", "USERNAME"])
def test_a_name_that_is_given_stays(variable, monkeypatch):
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "somebody")
    before = dict(os.environ)
    ensure_user_name()
    assert dict(os.environ) == before


def test_a_user_id_with_a_name_needs_none(monkeypatch):
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 0)
    ensure_user_name()
    assert "USER" not in os.environ


@pytest.mark.integration
def test_torch_and_monai_find_a_name(run_as_nobody):
    code = "import getpass, liverseg, monai.config, torch._dynamo.config; print(getpass.getuser())"
    result = run_as_nobody(sys.executable, "-W", "ignore", "-c", code)
    assert (result.returncode, result.stdout.strip()) == (0, f"uid{UID}"), result.stderr
    result = run_as_nobody(sys.executable, "-W", "ignore", "-c", "import monai.config")
    assert "uid not found" in result.stderr  # the fault that the name is for


@pytest.mark.integration
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_every_command_runs(engine, run_as_nobody, joint_run, tmp_path):
    if engine == "ray":
        pytest.importorskip("ray")
    weights = tmp_path / "joint.safetensors"
    for path in joint_run.rglob("*"):
        if (
            path.name.endswith((".safetensors", ".json"))
            and path.parent == next(joint_run.rglob("*.safetensors")).parent
        ):
            shutil.copy(path, tmp_path / path.name)
    weights = next(tmp_path.glob("*.safetensors"))
    write_ct(tmp_path / "in" / "a.nii.gz")
    for path in tmp_path.rglob("*"):
        path.chmod(0o777)
    batch = ["batch", tmp_path / "in", tmp_path / "batch", "--weights", weights, "--liver", "none", "--engine", engine]
    commands = [batch]
    if engine == "local":
        predict = ["predict", tmp_path / "in", tmp_path / "out", "--weights", weights, "--liver", "none"]
        commands += [["doctor"], predict]
    for command in commands:
        result = run_as_nobody(*LIVERSEG, *command)
        assert result.returncode == 0, result.stderr
    assert (tmp_path / "batch" / "a" / "record.json").is_file()
    result = run_as_nobody(*LIVERSEG, "train", "joint", "--dataset_dir", "/none", "--output_dir", tmp_path / "train")
    assert result.stderr.strip().endswith("dataset_dir /none: no such folder; give --dataset_dir"), result.stderr
