import pytest
import torch

from liverseg.labels import PRETRAIN_LABELS, label_names
from liverseg.networks import SEResUNet, SlabInput, WeightsRecord, export_weights, package_versions


@pytest.fixture
def pretrained():
    """A pre-training network with random weights."""
    torch.manual_seed(1)
    return SEResUNet("small", out_channels=3)


@pytest.fixture
def record(pretrained):
    return WeightsRecord(
        network="SEResUNet",
        arguments=pretrained.arguments(),
        input_spec=SlabInput((-200.0, 250.0)),
        labels=label_names(PRETRAIN_LABELS),
        datalist_name="phantom",
        datalist_sha256="ab" * 32,
        epoch=7,
        metrics={"val_lesion_dice": 0.625},
        versions=package_versions(),
    )


@pytest.fixture
def exported(tmp_path, pretrained, record):
    """The exported weights of the pre-training network."""
    export_weights(tmp_path / "pretrain.safetensors", pretrained.state_dict(), record)
    return tmp_path / "pretrain.safetensors"
