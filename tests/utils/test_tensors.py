import pytest
import torch

from liverseg.utils.tensors import channel_argmax


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_largest_channel_is_that_of_argmax(dtype, memory_format):
    maps = torch.randn(2, 5, 7, 9, generator=torch.manual_seed(0)).to(dtype).contiguous(memory_format=memory_format)
    maps[0, :, 0, 0] = 1  # a tie
    assert torch.equal(channel_argmax(maps), maps.argmax(dim=1))
