"""Fixtures of several test folders: small phantoms and small trainings, made once for all test processes.

Fixtures import torch and MONAI themselves, since the process that distributes the tests does not need them.
"""

import os

# Before torch is imported, here and in every process that a test starts: test processes share the cores, and threads
# that wait for a core would spin.
os.environ["OMP_NUM_THREADS"] = "1"

import fcntl
import re
import shutil
from pathlib import Path

import pytest

_COSTLY = {
    **dict.fromkeys(["lits_tree", "cohort_tree", "pretrain_run", "joint_run"], "integration"),
    "two_processes_run": "slow",
}
"""Fixtures that make phantoms or train networks, and the marker of the tests that use them."""

_PUBLISHED = (
    (r"(layer\d\.\d\.conv\d)\.conv\.", r"\1."),
    (r"(layer\d\.\d)\.conv(\d)\.adn\.N\.", r"\1.bn\2."),
    (r"(layer\d\.\d)\.se_layer\.fc\.0\.", r"\1.se_module.fc1."),
    (r"(layer\d\.\d)\.se_layer\.fc\.2\.", r"\1.se_module.fc2."),
    (r"(layer\d\.\d)\.project\.conv\.", r"\1.downsample.0."),
    (r"(layer\d\.\d)\.project\.adn\.N\.", r"\1.downsample.1."),
)


def pytest_collection_modifyitems(items):
    """Mark tests that use a costly fixture."""
    for item in items:
        for fixture, marker in _COSTLY.items():
            if fixture in item.fixturenames:
                item.add_marker(marker)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """Return a function that returns a folder, which the first test process that needs it fills.

    Tests only read the folder.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made-once"
    shared.mkdir(exist_ok=True)

    def folder(name, fill):
        path, made = shared / name, shared / f".{name}.made"
        with (shared / f".{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                shutil.rmtree(path, ignore_errors=True)
                fill(path)
                made.touch()
        return path

    return folder


@pytest.fixture(scope="session")
def lits_tree(made_once):
    """Six LiTS-like phantoms with a data list: 3 folds, two test volumes."""
    from liverseg.datalists import build_datalist
    from liverseg.phantom import write_lits_tree

    def fill(root):
        write_lits_tree(root, volumes=6, matrix=64, seed=5, workers=1, progress=False)
        build_datalist("lits", root, folds=3, test=0.33)

    return made_once("lits", fill)


@pytest.fixture(scope="session")
def cohort_tree(made_once):
    """Twelve typed phantoms, 24 slices, with a data list: 3 folds, about three test patients."""
    from liverseg.datalists import build_datalist
    from liverseg.phantom import write_cohort

    def fill(root):
        write_cohort(root, patients=12, slices=24, matrix=64, seed=17, workers=1, progress=False)
        build_datalist("cohort", root, folds=3, test=0.25)

    return made_once("cohort", fill)


@pytest.fixture(scope="session")
def pretrain_run(made_once, lits_tree):
    """Folder of an uninterrupted pre-training, with evaluation and export."""

    def fill(folder):
        _train_evaluate_export("liver_lesion_pretrain", folder, dataset_dir=lits_tree)

    return made_once("pretrain", fill)


@pytest.fixture(scope="session")
def joint_run(made_once, cohort_tree, pretrain_run):
    """Folder of a joint training from the pre-training's weights, with evaluation and export."""

    def fill(folder):
        weights = pretrain_run / "pretrain.safetensors"
        _train_evaluate_export("liver_lesion_joint", folder, dataset_dir=cohort_tree, pretrain_weights=weights)

    return made_once("joint", fill)


def _train_evaluate_export(bundle, folder, **data):
    from commands import EVALUATE, EXPORT, TINY, TRAIN, run_bundle

    run = {"output_dir": folder, "ckpt_dir": folder / "models"}
    for run_id, configs, more in (
        ("training", TRAIN, {**data, **TINY}),
        ("evaluating", EVALUATE, {**data, **TINY}),
        ("export", EXPORT, {}),
    ):
        result = run_bundle(bundle, run_id, configs, **run, **more)
        assert result.code == 0, f"{run_id}: {result.out}{result.err}"
        (folder / f"{run_id}.out").write_text(result.out)
        (folder / f"{run_id}.err").write_text(result.err)


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """A file with the published names and shapes, and other numbers."""
    import torch
    from monai.networks.nets import senet

    torch.manual_seed(3)
    model = senet.SEResNet50(spatial_dims=2, in_channels=3, num_classes=1000)
    state = {}
    for name, tensor in model.state_dict().items():
        for own, theirs in _PUBLISHED:
            name = re.sub(own, theirs, name)
        if "se_module" in name and name.endswith("weight"):
            tensor = tensor[:, :, None, None]
        if not name.endswith("num_batches_tracked"):
            state[name] = torch.randn_like(tensor)
    path = tmp_path_factory.mktemp("imagenet") / "se_resnet50.pth"
    torch.save(state, path)
    return path


@pytest.fixture
def bundle_workflow():
    """Return a function that returns a bundle's initialized ConfigWorkflow; undo its changes in this process."""
    from commands import state_put_back
    from monai.bundle import ConfigWorkflow

    from liverseg.inference import find_bundle

    def make(bundle, configs, workflow_type="train", **overrides):
        folder = find_bundle(bundle)
        workflow = ConfigWorkflow(
            [str(folder / "configs" / f"{name}.yaml") for name in configs],
            workflow_type=workflow_type,
            logging_file=False,
            bundle_root=str(folder),
            **{key: str(value) if isinstance(value, Path) else value for key, value in overrides.items()},
        )
        workflow.initialize()
        return workflow

    with state_put_back():
        yield make


@pytest.fixture
def write_nifti():
    """Return a function that writes an array as NIfTI, by default with 2 mm voxels, and returns the path."""
    import nibabel as nib
    import numpy as np

    def write(path, array, affine=None):
        affine = np.diag([2.0, 2.0, 2.0, 1.0]) if affine is None else affine
        nib.save(nib.Nifti1Image(array, affine), path)
        return path

    return write


@pytest.fixture(scope="session")
def weights(made_once):
    """Random weights of a small joint network."""
    import torch

    from liverseg.labels import JOINT_LABELS, label_names
    from liverseg.networks import SEResUNet, SlabInput, WeightsRecord, export_weights, package_versions

    def fill(folder):
        torch.manual_seed(2)
        network = SEResUNet("small", out_channels=5)
        record = WeightsRecord(
            "SEResUNet", network.arguments(), SlabInput((-200.0, 250.0)), label_names(JOINT_LABELS), "none",
            "ab" * 32, 0, {}, package_versions(),
        )  # fmt: skip
        export_weights(folder / "joint.safetensors", network.state_dict(), record)

    return made_once("weights", fill) / "joint.safetensors"
