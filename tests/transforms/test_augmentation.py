"""The chain of random transforms: one stream of random numbers, and the arguments of all transforms."""

import json

import numpy as np
import pytest
import torch

from liverseg.errors import UsageError
from liverseg.transforms import RandScannerd, RandSlabViewd, SlabAugmentation

NOISY = {"noise_prob": 0.5, "clip_prob": 0.5}


def element():
    return {"image": torch.zeros(3, 40, 40, dtype=torch.int16), "label": torch.ones(1, 40, 40, dtype=torch.uint8)}


def drawn(transform, seed):
    return transform.set_random_state(state=np.random.RandomState(np.random.PCG64(seed)))(element())


def test_adding_a_member_keeps_the_draws_of_earlier_members():
    alone = RandSlabViewd(16, [1, 1])
    chains = SlabAugmentation([RandSlabViewd(16, [1, 1]), None]), SlabAugmentation([alone, RandScannerd(**NOISY)])
    for seed in range(5):
        expected = drawn(alone, seed)
        for chain in chains:
            result = drawn(chain, seed)
            assert all(torch.equal(result[key], expected[key]) for key in ("view", "hu_offset"))
            assert result["noisy"] == expected["noisy"]
            assert ("scanner" in result) == (chain is chains[1])


def test_draws_depend_on_the_random_state():
    chain = SlabAugmentation([RandSlabViewd(16, [1, 1]), RandScannerd(noise_prob=1)])
    first, second, third = (drawn(chain, seed)["scanner"] for seed in (3, 3, 4))
    assert torch.equal(first, second) and not torch.equal(first, third)


def test_arguments_of_all_members_are_json_values():
    view, scanner = RandSlabViewd(16, [1, 1]), RandScannerd(**NOISY)
    assert SlabAugmentation([view, None]).arguments() == view.arguments()
    result = json.loads(json.dumps(SlabAugmentation([view, scanner]).arguments()))
    assert result["crop_size"] == 16
    assert result["scanner"]["noise_prob"] == 0.5 and result["scanner"]["clip"][0] == [0, 255]
    assert set(result) == {*view.arguments(), "scanner"}
    with pytest.raises(ValueError, match="scanner belongs to two transforms"):
        SlabAugmentation([scanner, view, RandScannerd()])


@pytest.mark.parametrize("member", [3, "noise", torch.zeros])
def test_what_is_no_random_transform_is_refused(member):
    with pytest.raises(UsageError, match="is not a random transform of liverseg"):
        SlabAugmentation([RandSlabViewd(16, [1, 1]), member])
