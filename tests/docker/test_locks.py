"""The image's locks agree with constraints.txt, are complete and hashed; steps of docker/lock.py."""

import configparser
import importlib.metadata
import importlib.util
import re
import sys
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
LOCKS = {name: ROOT / "docker" / f"{name}.lock" for name in ("requirements", "torch-cpu", "torch-cuda", "build")}
THE_IMAGE = {**default_environment(), "python_version": "3.11", "python_full_version": "3.11.2", "extra": ""}


@pytest.fixture(scope="module")
def lock():
    """The module docker/lock.py."""
    spec = importlib.util.spec_from_file_location("lock", ROOT / "docker" / "lock.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pins(lock, name):
    """Return a lock's packages and their versions."""
    entries = lock.entries(LOCKS[name].read_text(encoding="utf-8"))
    return {package: re.match(r"\S+?==(\S+)", lines)[1] for package, lines in entries.items()}


def constraints(lock):
    """Return constraints.txt for Python 3.11."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {
        lock.canonical(requirement.name): str(requirement.specifier).removeprefix("==")
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate(THE_IMAGE)
    }


@pytest.mark.parametrize("name", LOCKS)
def test_versions_are_those_of_the_constraints(lock, name):
    ours = constraints(lock)
    other = {package: version for package, version in pins(lock, name).items() if package in ours}
    assert {package: version.split("+")[0] for package, version in other.items()} == {
        package: ours[package] for package in other
    }


def test_what_the_image_holds_is_constrained(lock):
    assert set(pins(lock, "requirements")) <= set(constraints(lock))
    assert set(pins(lock, "torch-cuda")) & set(constraints(lock)) == {"torch"}


def test_torch_is_the_build_the_lock_names(lock):
    assert pins(lock, "torch-cpu") == {"torch": constraints(lock)["torch"] + "+cpu"}
    assert any(package.startswith("nvidia-") for package in pins(lock, "torch-cuda"))
    assert "torch" not in pins(lock, "requirements")


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_hashed(lock, name):
    entries = lock.entries(LOCKS[name].read_text(encoding="utf-8"))
    assert entries
    for lines in entries.values():
        pin, *hashes = lines.replace(" \\\n", "\n").splitlines()
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[\w.+]+", pin)
        assert hashes and all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}", line) for line in hashes), pin


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the image's Python is 3.11; others need other packages")
def test_the_locks_hold_what_liverseg_needs_and_no_more(lock):
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    wanted = setup["options"]["install_requires"] + setup["options.extras_require"]["pacs"]
    open_, needed = wanted.splitlines(), set()
    while open_:
        line = open_.pop()
        if not line or line.startswith("#"):
            continue
        requirement = Requirement(line)
        package = lock.canonical(requirement.name)
        if package in needed or (requirement.marker and not requirement.marker.evaluate(THE_IMAGE)):
            continue
        needed.add(package)
        open_ += importlib.metadata.requires(package) or []
    assert needed - set(pins(lock, "torch-cuda")) == set(pins(lock, "requirements"))


def test_tools_of_the_build_stay_out_of_the_image(lock):
    assert {"setuptools", "cyclonedx-bom"} <= set(pins(lock, "build"))
    assert not {"cyclonedx-bom", "cyclonedx-python-lib", "pip", "uv"} & set(pins(lock, "requirements"))


def test_a_lock_is_read_back_as_it_was_written(lock, tmp_path):
    hashed = f"    --hash=sha256:{'0' * 64} \\\n    --hash=sha256:{'1' * 64}\n"
    packages = {"b": "B==1.0+cpu \\\n" + hashed, "a-c": "a_c==2 \\\n" + hashed}
    lock.write(tmp_path / "some.lock", "Two packages.", packages)
    text = (tmp_path / "some.lock").read_text(encoding="utf-8")
    assert lock.entries(text) == packages
    assert text.startswith("# Two packages.\n") and text.index("a_c==2") < text.index("B==1.0")
