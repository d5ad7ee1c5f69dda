"""The bounding box of nonzero voxels, for every type and memory order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liverseg.imageio.boxes import bounding_box, box_shape, crop_to_box, embed, full_box, pad_box, to_global, to_local


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


@given(
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    by=st.tuples(*[st.integers(0, 3)] * 3),
    ends=st.lists(st.integers(0, 6), min_size=6, max_size=6),
)
def test_an_enlarged_box_is_what_so_many_voxels_reach(shape, by, ends):
    box = tuple(
        slice(min(a, b, n - 1), max(min(max(a, b), n), min(a, b, n - 1) + 1))
        for a, b, n in zip(ends[::2], ends[1::2], shape, strict=True)
    )
    reached = np.zeros(shape, bool)
    for index in np.ndindex(shape):
        reached[index] = all(
            side.start - more <= i < side.stop + more for i, side, more in zip(index, box, by, strict=True)
        )
    assert pad_box(box, by, shape) == bounding_box(reached)


def test_what_is_spread_lies_in_its_box_and_0_elsewhere():
    inside = np.arange(1, 25, dtype=np.uint16).reshape(2, 3, 4)
    box = (slice(1, 3), slice(0, 3), slice(2, 6))
    volume = embed(inside, box, (4, 5, 6))
    assert volume.dtype == np.uint16
    np.testing.assert_array_equal(volume[box], inside)
    assert np.count_nonzero(volume) == 24
    assert box_shape(box) == inside.shape
    np.testing.assert_array_equal(embed(inside, full_box((2, 3, 4)), (2, 3, 4)), inside)


def test_a_part_of_another_box():
    volume = np.zeros((6, 7, 8), np.uint8)
    box = (slice(1, 4), slice(2, 6), slice(0, 5))
    volume[box] = np.random.default_rng(0).integers(1, 200, (3, 4, 5))
    for part in (
        full_box(volume.shape),
        (slice(0, 3), slice(3, 7), slice(4, 8)),
        (slice(4, 6), slice(0, 1), slice(5, 8)),
    ):
        np.testing.assert_array_equal(crop_to_box(volume[box], box, part), volume[part])
    inner = (slice(2, 3), slice(2, 5), slice(1, 4))
    assert to_global(to_local(inner, box), box) == inner
    np.testing.assert_array_equal(volume[box][to_local(inner, box)], volume[inner])
