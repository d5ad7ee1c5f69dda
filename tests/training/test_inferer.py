"""The forward pass of a batch: the network's own output, float32, from channels-last memory."""

import pytest
import torch

from liverseg.errors import UsageError
from liverseg.networks import LesionTypeUNet, SEResUNet, SlabClassifier, SlabOutput, YNet
from liverseg.training import SlabBatchInferer, UncroppedBatch, pad_collate
from liverseg.transforms import ResamplePixelsd, to_pixel_mm


class RecordInput(torch.nn.Module):
    """Identity in the dtype of autocast; keeps its input."""

    def forward(self, slabs):
        self.slabs = slabs
        return torch.nn.functional.conv2d(slabs, torch.eye(3)[..., None, None])


def test_logits_are_the_networks_own():
    torch.manual_seed(0)
    network = SEResUNet("small", out_channels=3).eval()
    slabs = torch.rand(2, 3, 32, 40) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(SlabBatchInferer(amp=False)(slabs, network), network(slabs))


@pytest.mark.parametrize(
    ("network_class", "arguments"),
    [
        (SEResUNet, {"out_channels": 5}),
        (LesionTypeUNet, {}),
        (YNet, {"out_channels": 3}),
        (SlabClassifier, {}),
    ],
    ids=["map", "measured", "map and types", "types"],
)
def test_logits_of_a_slab_are_independent_of_its_batch(network_class, arguments):
    torch.manual_seed(0)
    network = network_class("small", **arguments).eval()
    slabs = [torch.rand(3, *size) * 2 - 1 for size in ((32, 64), (64, 64), (32, 64), (64, 32))]
    batch = pad_collate([{"image": slab, "label": torch.zeros(1, *slab.shape[1:])} for slab in slabs])
    inferer = SlabBatchInferer(amp=False)
    image, _, args, kwargs = UncroppedBatch()(batch, torch.device("cpu"))
    with torch.no_grad():
        together = inferer(image, network, *args, **kwargs)
        alone = [inferer(slab[None], network) for slab in slabs]
    if not isinstance(together, SlabOutput):
        together = SlabOutput(together, torch.empty(4, 0))
        alone = [SlabOutput(maps, torch.empty(1, 0)) for maps in alone]
    for row, output in enumerate(alone):
        torch.testing.assert_close(together.types[row], output.types[0])
        if output.maps is not None:
            height, width = output.maps.shape[-2:]
            torch.testing.assert_close(together.maps[row, :, :height, :width], output.maps[0])
            assert not together.maps[row, :, height:].any()
            assert not together.maps[row, :, :, width:].any()


def test_maps_are_resampled_to_label_sizes():
    torch.manual_seed(0)
    network = YNet("small", out_channels=3).eval()
    resample = ResamplePixelsd("image", 1.5)
    grids = [((64, 96), (0.75, 0.5)), ((64, 64), (0.75, 0.75)), ((40, 40), (1.5, 1.5)), ((64, 96), (0.75, 0.5))]
    elements = [
        {"image": torch.rand(3, *shape) * 2 - 1, "label": torch.ones(1, *shape), "spacing": torch.tensor([5.0, *mm])}
        for shape, mm in grids
    ]
    batch = pad_collate([resample(element) for element in elements])
    assert batch["image"].shape == (4, 3, 40, 40) and batch["label"].shape == (4, 1, 64, 96)
    image, label, args, kwargs = UncroppedBatch()(batch, torch.device("cpu"))
    with torch.no_grad():
        together = SlabBatchInferer(amp=False)(image, network, *args, **kwargs)
        assert together.maps.shape == (4, 3, *label.shape[2:])
        for row, ((height, width), mm) in enumerate(grids):
            alone = network(to_pixel_mm(elements[row]["image"][None], mm, 1.5))
            expected = torch.nn.functional.interpolate(alone.maps, size=(height, width), mode="bilinear")
            torch.testing.assert_close(together.types[row], alone.types[0], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(together.maps[row, :, :height, :width], expected[0], atol=1e-4, rtol=1e-4)
            assert not together.maps[row, :, height:].any() and not together.maps[row, :, :, width:].any()


@pytest.mark.parametrize("amp", ["auto", False])
def test_memory_is_channels_last_and_logits_are_float32(amp):
    network = RecordInput()
    logits = SlabBatchInferer(amp)(torch.rand(2, 3, 8, 8), network)
    assert network.slabs.is_contiguous(memory_format=torch.channels_last)
    assert logits.dtype == torch.float32


def test_an_unknown_precision_is_refused():
    with pytest.raises(UsageError, match="amp is 'half'; it must be auto, true or false"):
        SlabBatchInferer("half")(torch.rand(1, 3, 8, 8), RecordInput())
