"""What a command imports before it reports a mistake or its help: modules are counted, not seconds."""

import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

HEAVY = {"torch", "monai", "ignite", "matplotlib", "sklearn", "highdicom"}
MODULES = 800
"""Limit of imported modules: nibabel brings some 500, torch with MONAI more than 4,000."""
SCRIPT = """
import sys
from liverseg.cli.main import main
try:
    code = main(sys.argv[1:])
except SystemExit as stop:
    code = stop.code
print(code, len(sys.modules), *sorted(HEAVY & {*sys.modules}), file=sys.stderr)
"""


def started(*words):
    """Run a command in a process of its own; return its exit code, its number of modules, and the heavy ones."""
    script = SCRIPT.replace("HEAVY", repr(HEAVY))
    run = subprocess.run([sys.executable, "-c", script, *map(str, words)], capture_output=True, text=True, check=True)
    code, modules, *heavy = run.stderr.splitlines()[-1].split()
    return int(code), int(modules), heavy


@pytest.fixture(scope="module")
def cts(tmp_path_factory):
    """A CT, a mask far away from it, and a mask of two labels."""
    folder = tmp_path_factory.mktemp("cts")
    zeros = np.zeros((8, 8, 8), np.int16)
    liver = np.ones((8, 8, 8), np.uint8)
    nib.save(nib.Nifti1Image(zeros, np.eye(4)), folder / "ct.nii.gz")
    far = np.eye(4)
    far[:3, 3] = 1000
    nib.save(nib.Nifti1Image(liver, far), folder / "far.nii.gz")
    liver[0] = 2
    nib.save(nib.Nifti1Image(liver, np.eye(4)), folder / "two.nii.gz")
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["doctor"],
        *([name, "--help"] for name in ("predict", "train", "prepare", "synthesize", "pseudo-label", "study")),
        ["predict", "--lesion-treshold", "1"],
    ],
)
def test_help_and_wrong_options_import_nothing_heavy(words):
    code, modules, heavy = started(*words)
    assert code == (2 if "--lesion-treshold" in words else 0)
    assert modules < MODULES
    assert heavy == []


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["none.nii.gz", "out"], 1),
        (["ct.nii.gz", "out", "--lesion-threshold", "2"], 2),
        (["ct.nii.gz", "out", "--series", "portal"], 2),
        (["ct.nii.gz", "out", "--weights", "none.safetensors"], 1),
        (["ct.nii.gz", "out", "--bundle", "none"], 1),
        (["ct.nii.gz", "out", "--liver", "none.nii.gz"], 1),
        (["ct.nii.gz", "out", "--liver", "far.nii.gz"], 1),
        (["ct.nii.gz", "out", "--liver", "two.nii.gz"], 1),
        (["ct.nii.gz", "out", "--liver", "two.nii.gz:7"], 1),
    ],
)
def test_mistakes_in_a_prediction_import_nothing_heavy(options, code, cts):
    words = [cts / word if word.endswith(("gz", "out", "safetensors", "none", "gz:7")) else word for word in options]
    found, modules, heavy = started("predict", *words)
    assert found == code
    assert modules < MODULES
    assert heavy == []
    assert not (cts / "out").exists()


@pytest.mark.parametrize("command", ["datalist", "phantom", "batch", "demo"])
def test_other_commands_start_without_a_network(command):
    code, _, heavy = started(command, "--help")
    assert code == 0
    assert {"torch", "monai", "matplotlib"} & {*heavy} == set()
