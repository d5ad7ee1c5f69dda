"""The smallest box around what is not 0, for every type and order in memory."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liverseg.boxes import bounding_box


@given(
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    order=st.permutations(range(3)),
    flips=st.tuples(*[st.sampled_from([1, -1])] * 3),
    kind=st.sampled_from([bool, np.uint8, np.int16, np.float32]),
    share=st.sampled_from([0.0, 0.02, 0.1, 0.5]),
    seed=st.integers(0, 99),
)
def test_nothing_is_outside_the_box_and_every_side_touches(shape, order, flips, kind, share, seed):
    filled = np.random.default_rng(seed).random(shape) < share
    array = filled.astype(kind).transpose(order)[tuple(slice(None, None, step) for step in flips)]
    box = bounding_box(array)
    places = np.argwhere(array)
    if len(places) == 0:
        assert box is None
        return
    ends = zip(places.min(axis=0), places.max(axis=0), strict=True)
    assert box == tuple(slice(low, high + 1) for low, high in ends)


@pytest.mark.parametrize("value", [-1, 0.25])
def test_what_is_below_1_is_not_0(value):
    array = np.zeros((5, 6, 7), np.float32, order="F")
    array[1, 2, 6] = array[3, 2, 4] = value
    assert bounding_box(array) == (slice(1, 4), slice(2, 3), slice(4, 7))
    assert bounding_box(array[2:4, 1:]) == (slice(1, 2), slice(1, 2), slice(4, 5))
