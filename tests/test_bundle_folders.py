"""Where bundles are found."""

import os
import subprocess
import sys
import sysconfig

import pytest

from liverseg.errors import LiversegError
from liverseg.inference import find_bundle


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
    code = "from liverseg.bundle_folders import find_bundle; print(find_bundle('other'))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(installed)
