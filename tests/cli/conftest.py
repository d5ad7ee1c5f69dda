import pytest
import torch

from liverseg.labels import JOINT_LABELS, label_names
from liverseg.networks import SEResUNet, SlabInput, WeightsRecord, export_weights, package_versions


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of a small joint network, random."""
    torch.manual_seed(2)
    network = SEResUNet("small", out_channels=5)
    path = tmp_path_factory.mktemp("weights") / "joint.safetensors"
    record = WeightsRecord(
        "SEResUNet", network.arguments(), SlabInput((-200.0, 250.0)), label_names(JOINT_LABELS), "none", "ab" * 32,
        0, {}, package_versions(),
    )  # fmt: skip
    export_weights(path, network.state_dict(), record)
    return path
