import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

from liverseg.imageio.volume import write_box_like
from liverseg.inference import FindLesionsd, LiverCascade, MeasureLesionsd, Pipeline, ReadCTd, SlabInferer, find_cases
from liverseg.labels import JOINT_LABELS, PRETRAIN_LABELS, label_names
from liverseg.networks import SEResUNet, SlabInput, WeightsRecord, export_weights, package_versions


@pytest.fixture(scope="session")
def ct_array():
    """A CT, HU as int16, RAS+ order (38, 34, 9): air, a body, a liver on the patient's right, two lesions in it."""
    x, y, z = np.meshgrid(np.arange(38), np.arange(34), np.arange(9), indexing="ij")
    hu = np.full(x.shape, -1000, np.int16)
    hu[((x - 19) / 17) ** 2 + ((y - 16) / 14) ** 2 < 1] = 40
    hu[((x - 25) / 9) ** 2 + ((y - 17) / 9) ** 2 + ((z - 4) / 5) ** 2 < 1] = 110
    hu[(x - 24) ** 2 + (y - 20) ** 2 + (2 * (z - 3)) ** 2 < 12] = 10
    hu[(x - 28) ** 2 + (y - 13) ** 2 + (2 * (z - 5)) ** 2 < 8] = 180
    return hu + np.random.default_rng(3).integers(-4, 5, hu.shape).astype(np.int16)


@pytest.fixture
def ct_file(ct_array, tmp_path):
    path = tmp_path / "in" / "ct.nii.gz"
    path.parent.mkdir()
    nib.save(nib.Nifti1Image(ct_array, np.diag([2.0, 2.0, 3.0, 1.0])), path)
    return path


def _exported(path, out_channels):
    torch.manual_seed(4)
    network = SEResUNet("small", out_channels=out_channels)
    labels = JOINT_LABELS if out_channels == 5 else PRETRAIN_LABELS
    record = WeightsRecord(
        network="SEResUNet",
        arguments=network.arguments(),
        input_spec=SlabInput((-200.0, 250.0)),
        labels=label_names(labels),
        datalist_name="none",
        datalist_sha256="ab" * 32,
        epoch=0,
        metrics={"val_lesion_dice": float("nan")},
        versions=package_versions(),
    )
    export_weights(path, network.state_dict(), record)
    return path


@pytest.fixture(scope="session")
def joint_weights(tmp_path_factory):
    """Random weights of a small joint network."""
    return _exported(tmp_path_factory.mktemp("weights") / "joint.safetensors", 5)


@pytest.fixture(scope="session")
def pretrain_weights(tmp_path_factory):
    """Random weights of a small pre-training network."""
    return _exported(tmp_path_factory.mktemp("weights") / "pretrain.safetensors", 3)


class HUClasses(nn.Module):
    """Network that labels a voxel by its HU and by its neighbours above, behind and to the left.

    It has no symmetry: a flipped axis or slices in a wrong order change its labels.
    """

    def __init__(self):
        super().__init__()
        self.register_buffer("centres", torch.tensor([-1000.0, 110.0, 10.0, 180.0, 60.0]).view(1, 5, 1, 1))

    def forward(self, slabs):
        hu = slabs * 225 + 25
        below, middle, above = hu[:, 0:1], hu[:, 1:2], hu[:, 2:3]
        mixed = 0.7 * middle + 0.15 * above + 0.05 * below
        mixed = mixed + 0.06 * torch.roll(middle, 1, 2) + 0.04 * torch.roll(middle, 1, 3)
        centres = self.centres.clamp(-200, 250)
        return -((mixed - centres) ** 2) / 200


@pytest.fixture
def hu_classes():
    return HUClasses().eval()


@pytest.fixture
def run_pipeline(hu_classes):
    """Return a function that computes labels, ids and table of a file with the HU network, and writes labels, ids."""

    def run(path, find=True):
        cascade = LiverCascade(SlabInferer(amp=False), find)
        pipeline = Pipeline(ReadCTd(), hu_classes, cascade, FindLesionsd(min_lesion_ml=0.01), MeasureLesionsd())
        data = pipeline(*find_cases(path))
        for name, inside in (("labels", data["pred"].inside), ("ids", data["pred"].ids_inside)):
            write_box_like(path.parent / f"{name}.nii.gz", inside, data["pred"].box, data["volume"])
        return data

    return run
