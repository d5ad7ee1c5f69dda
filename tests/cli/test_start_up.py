"""What a command imports until it reports a mistake, its help or a result: modules are counted, not seconds."""

import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from liverseg.results.case_folder import CASE_FILES

NOT_FOR_NIFTI = {"monai", "ignite", "matplotlib", "pandas", "sklearn", "highdicom", "SimpleITK", "torch._dynamo"}
HEAVY = {"torch", "scipy.ndimage", *NOT_FOR_NIFTI}
MODULES = 800
"""Limit of imported modules: nibabel brings some 500, torch with MONAI more than 4,000."""
PREDICTION_MODULES = 2000
"""Limit for a prediction: torch and nibabel bring some 1,500, SciPy 250."""
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
        *(
            [name, "--help"]
            for name in ("predict", "compare", "train", "prepare", "synthesize", "pseudo-label", "study")
        ),
        ["predict", "--lesion-treshold", "1"],
        ["compare", "none", "neither", "out", "--lesion-treshold", "1"],
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
        (["ct.nii.gz", "out", "--output-types", "nrrd"], 2),
        (["ct.nii.gz", "out", "--output-types", "rtstruct"], 2),
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


@pytest.fixture(scope="module")
def abdomen(tmp_path_factory):
    """A CT with a liver and two lesions in it, and the mask of the liver."""
    folder = tmp_path_factory.mktemp("abdomen")
    i, j, k = np.indices((96, 96, 12))
    hu = np.where(((i - 48) / 44) ** 2 + ((j - 48) / 36) ** 2 < 1, -80, -1000)
    liver = ((i - 34) / 20) ** 2 + ((j - 48) / 24) ** 2 + ((k - 6) / 7) ** 2 < 1
    hu[liver] = 110
    for x, y, z, radius, value in ((30, 44, 6, 4, 10), (40, 56, 5, 3, 40)):
        hu[(i - x) ** 2 + (j - y) ** 2 + 4 * (k - z) ** 2 < radius**2] = value
    hu += np.random.default_rng(0).normal(0, 8, hu.shape).astype(int)
    affine = np.diag([-3.0, -3.0, 5.0, 1.0])
    nib.save(nib.Nifti1Image(hu.astype(np.int16), affine), folder / "ct.nii.gz")
    nib.save(nib.Nifti1Image(liver.astype(np.uint8), affine), folder / "liver.nii.gz")
    return folder


@pytest.mark.integration
def test_a_prediction_imports_no_library_that_it_can_do_without(abdomen):
    words = [abdomen / "ct.nii.gz", abdomen / "out", "--liver", abdomen / "liver.nii.gz"]
    code, modules, heavy = started("predict", *words)
    assert code == 0
    assert {path.name for path in (abdomen / "out" / "ct").iterdir()} == {*CASE_FILES}
    assert len((abdomen / "out" / "ct" / "lesions.csv").read_text(encoding="utf-8").splitlines()) > 1
    assert modules < PREDICTION_MODULES
    assert heavy == ["scipy.ndimage", "torch"]


@pytest.mark.integration
def test_without_a_liver_scipy_is_not_imported_either(cts):
    code, modules, heavy = started("predict", cts / "ct.nii.gz", cts / "no_liver")
    assert code == 0
    assert (cts / "no_liver" / "ct" / "record.json").exists()
    assert modules < PREDICTION_MODULES
    assert heavy == ["torch"]


@pytest.mark.integration
def test_a_worker_of_a_batch_imports_as_little():
    script = "import sys; import liverseg.batch.worker_main, liverseg.batch.worker; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    modules = {*run.stdout.split()}
    assert len(modules) < PREDICTION_MODULES
    assert HEAVY & modules == {"torch"}
