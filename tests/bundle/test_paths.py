"""Search for bundles."""

import os
import subprocess
import sys
import sysconfig

import pytest

from liverseg.bundle import paths, weights_files
from liverseg.errors import LiversegError
from liverseg.inference import find_bundle
from liverseg.networks import read_weights


def test_the_checkouts_bundles_are_found(monkeypatch):
    monkeypatch.delenv("LIVERSEG_BUNDLES", raising=False)
    for name in ("liver_lesion_joint", "liver_lesion_pretrain"):
        assert (find_bundle(name) / "configs" / "inference.yaml").is_file()


def test_the_environment_comes_first_and_alone(tmp_path, monkeypatch):
    (tmp_path / "mine" / "configs").mkdir(parents=True)
    monkeypatch.setenv("LIVERSEG_BUNDLES", str(tmp_path))
    assert find_bundle("mine") == tmp_path / "mine"
    with pytest.raises(LiversegError, match=f"bundle liver_lesion_joint: not in {tmp_path}; set LIVERSEG_BUNDLES"):
        find_bundle("liver_lesion_joint")


def test_installed_bundles_are_found_in_the_environments_share(tmp_path, monkeypatch):
    monkeypatch.delenv("LIVERSEG_BUNDLES", raising=False)
    installed = tmp_path / "share" / "liverseg" / "bundles" / "other"
    (installed / "configs").mkdir(parents=True)
    monkeypatch.setattr(sysconfig, "get_path", lambda *_, **__: str(tmp_path))
    assert find_bundle("other") == installed


def test_bundles_a_user_installed_for_himself_are_found(tmp_path):
    installed = tmp_path / "share" / "liverseg" / "bundles" / "other"
    (installed / "configs").mkdir(parents=True)
    environment = {**os.environ, "PYTHONUSERBASE": str(tmp_path)}
    environment.pop("LIVERSEG_BUNDLES", None)
    code = "from liverseg.bundle.paths import find_bundle; print(find_bundle('other'))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(installed)


def test_a_trained_bundle_uses_its_own_weights_and_others_those_of_the_software(tmp_path, monkeypatch):
    starter = tmp_path / "weights"
    starter.mkdir()
    monkeypatch.setattr(paths, "STARTER_FOLDER", starter)
    monkeypatch.delenv("LIVERSEG_WEIGHTS", raising=False)
    bundle = tmp_path / "liver_lesion_joint"
    config = bundle / "configs" / "inference.yaml"
    own = bundle / "models" / "model.pt"
    assert paths.weights_path(config) == own  # neither exists: the path that training writes
    (starter / "joint.safetensors").touch()
    (starter / "LICENSE").write_text("CC BY-SA 4.0")
    assert paths.weights_path(config) == starter / "joint.safetensors"
    own.parent.mkdir(parents=True)
    own.touch()
    assert paths.weights_path(config) == own
    monkeypatch.setenv("LIVERSEG_WEIGHTS", str(tmp_path / "named.pt"))
    assert paths.weights_path(config) == tmp_path / "named.pt"
    assert paths.weights_path(config, tmp_path / "given.pt") == tmp_path / "given.pt"


@pytest.mark.parametrize("empty", [False, True])
def test_weights_without_their_licence_are_not_used(tmp_path, monkeypatch, empty):
    monkeypatch.setattr(paths, "STARTER_FOLDER", tmp_path)
    (tmp_path / "joint.safetensors").touch()
    if empty:
        (tmp_path / "LICENSE").touch()
    with pytest.raises(LiversegError, match=r"joint.safetensors: its licence, LICENSE, is missing .*install liverseg"):
        paths.default_weights(tmp_path / "liver_lesion_joint")
    assert paths.default_weights(tmp_path / "other") == str(tmp_path / "other" / "models" / "model.pt")


def test_damaged_weights_of_the_software_are_to_be_installed_again(tmp_path, monkeypatch):
    monkeypatch.setattr(weights_files, "STARTER_FOLDER", tmp_path)
    path = tmp_path / "joint.safetensors"
    path.write_bytes(b"damaged")
    with pytest.raises(LiversegError, match=r"joint.safetensors: cannot be read .*; install liverseg again"):
        read_weights(path)
