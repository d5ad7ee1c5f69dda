"""ImageNet's SE-ResNet-50: MONAI's own reading of the published names against ours, and what is refused."""

import pytest
import torch
from monai.networks.nets import senet

from liverseg.errors import LiversegError, UsageError
from liverseg.networks import SEResUNet, SlabClassifier, transfer_imagenet


@pytest.mark.integration
def test_the_encoder_is_the_one_monai_loads(published, monkeypatch):
    network = SEResUNet("full")
    report = transfer_imagenet(network, published)
    # MONAI reads the same file where it would read its download
    state = torch.load(published, weights_only=True)
    monkeypatch.setattr(senet, "load_state_dict_from_url", lambda *_, **__: dict(state))
    monais = senet.SEResNet50(spatial_dims=2, in_channels=3, num_classes=1000, pretrained=True)
    own, theirs = network.encoder.state_dict(), monais.state_dict()
    loaded = [name.removeprefix("encoder.") for name in report.loaded]
    assert len(loaded) > 200
    assert all(torch.equal(own[name], theirs[name]) for name in loaded)
    missing = {name for name in own if name not in loaded}
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
    with pytest.raises(UsageError, match=r"there are ImageNet weights of SE-ResNet-50 alone, .*network_size is small"):
        transfer_imagenet(SEResUNet("small"), published)


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
def test_a_download_that_fails_says_how_to_supply_the_file(monkeypatch, tmp_path):
    from liverseg.networks import imagenet

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(imagenet, "IMAGENET_URL", "http://127.0.0.1:9/se_resnet50.pth")
    with pytest.raises(
        LiversegError, match=r"initialisation imagenet: http://127.0.0.1:9/.* cannot be had \(.*refused"
    ):
        transfer_imagenet(SEResUNet("full"), None)
