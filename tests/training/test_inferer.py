"""The forward pass of a batch: the network's own output, float32, from channels-last memory."""

import pytest
import torch

from liverseg.errors import UsageError
from liverseg.networks import SEResUNet
from liverseg.training import SlabBatchInferer


class Remember(torch.nn.Module):
    """Gives its input back in the type autocast computes in, and keeps it."""

    def forward(self, slabs):
        self.slabs = slabs
        return torch.nn.functional.conv2d(slabs, torch.eye(3)[..., None, None])


def test_logits_are_the_networks_own():
    torch.manual_seed(0)
    network = SEResUNet("small", out_channels=3).eval()
    slabs = torch.rand(2, 3, 32, 40) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(SlabBatchInferer(amp=False)(slabs, network), network(slabs))


@pytest.mark.parametrize("amp", ["auto", False])
def test_memory_is_channels_last_and_logits_are_float32(amp):
    network = Remember()
    logits = SlabBatchInferer(amp)(torch.rand(2, 3, 8, 8), network)
    assert network.slabs.is_contiguous(memory_format=torch.channels_last)
    assert logits.dtype == torch.float32


def test_an_unknown_precision_is_refused():
    with pytest.raises(UsageError, match="amp is 'half'; it must be auto, true or false"):
        SlabBatchInferer("half")(torch.rand(1, 3, 8, 8), Remember())
