"""The chain of random transforms: one stream of random numbers, and every member's arguments."""

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


def test_a_member_behind_another_leaves_what_that_draws_as_it_was():
    alone = RandSlabViewd(16, [1, 1])
    chains = SlabAugmentation([RandSlabViewd(16, [1, 1]), None]), SlabAugmentation([alone, RandScannerd(**NOISY)])
    for seed in range(5):
        expected = drawn(alone, seed)
        for chain in chains:
            told = drawn(chain, seed)
            assert all(torch.equal(told[key], expected[key]) for key in ("view", "hu_offset"))
            assert told["noisy"] == expected["noisy"]
            assert ("scanner" in told) == (chain is chains[1])


def test_the_same_state_draws_the_same_and_another_draws_another():
    chain = SlabAugmentation([RandSlabViewd(16, [1, 1]), RandScannerd(noise_prob=1)])
    first, second, third = (drawn(chain, seed)["scanner"] for seed in (3, 3, 4))
    assert torch.equal(first, second) and not torch.equal(first, third)


def test_arguments_are_those_of_all_members_as_json_holds_them():
    view, scanner = RandSlabViewd(16, [1, 1]), RandScannerd(**NOISY)
    assert SlabAugmentation([view, None]).arguments() == view.arguments()
    told = json.loads(json.dumps(SlabAugmentation([view, scanner]).arguments()))
    assert told["crop_size"] == 16
    assert told["scanner"]["noise_prob"] == 0.5 and told["scanner"]["clip"][0] == [0, 255]
    assert set(told) == {*view.arguments(), "scanner"}
    with pytest.raises(ValueError, match="scanner belongs to two transforms"):
        SlabAugmentation([scanner, view, RandScannerd()])


@pytest.mark.parametrize("member", [3, "noise", torch.zeros])
def test_what_is_no_random_transform_is_refused(member):
    with pytest.raises(UsageError, match="is not a random transform of liverseg"):
        SlabAugmentation([RandSlabViewd(16, [1, 1]), member])
