"""Windows contain the liver with its margin, follow its cross-section, and grow if it reaches a side."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liverseg.imageio.boxes import box_shape, pad_box
from liverseg.inference.prediction import SlabPrediction, join_predictions
from liverseg.inference.windows import grow_window, windows_around, windows_beyond

MARGIN = (4, 6, 6)


def cone(shape=(60, 256, 256), first=10, last=50):
    """Return a liver that is wide at its first slice and thin at its last."""
    liver = np.zeros(shape, bool)
    for index in range(first, last):
        half = 90 - 2 * (index - first)
        liver[index, 128 - half : 128 + half, 120 - half : 120 + half] = True
    return liver


def of_mask(liver, height=8):
    return windows_around(liver, np.arange(len(liver)), 1, height, MARGIN, liver.shape)


def along(windows):
    return [(window[0].start, window[0].stop) for window in windows]


def test_windows_follow_the_liver():
    liver = cone()
    windows = of_mask(liver)
    sides = [box_shape(window)[1] for window in windows]
    assert sides == sorted(sides, reverse=True) and sides[-1] < sides[0] / 2
    box = (windows[-1][0].stop - windows[0][0].start) * sides[0] ** 2
    assert sum(np.prod(box_shape(window)) for window in windows) < 0.7 * box
    assert of_mask(np.zeros_like(liver)) == []


@settings(deadline=None)
@given(
    shape=st.tuples(st.integers(1, 20), st.integers(1, 70), st.integers(1, 200)),
    seed=st.integers(0, 2**32 - 1),
    every=st.integers(1, 5),
    height=st.integers(1, 9),
)
def test_windows_tile_and_hold_what_was_seen_with_its_margin(shape, seed, every, height):
    random = np.random.default_rng(seed)
    liver = np.zeros(shape, bool)
    for _ in range(random.integers(1, 4)):  # parts that need not touch
        corner = [random.integers(0, length) for length in shape]
        liver[tuple(slice(at, at + random.integers(1, 30)) for at in corner)] = True
    slices = np.arange(0, shape[0], every)
    windows = windows_around(liver[slices], slices, 1, height, MARGIN, shape)
    seen = [number for number in slices if liver[number].any()]
    if not seen:
        assert windows == []
        return
    assert [stop for _, stop in along(windows[:-1])] == [start for start, _ in along(windows[1:])]
    assert windows[0][0].start == max(0, seen[0] - MARGIN[0])
    assert windows[-1][0].stop == min(shape[0], seen[-1] + 1 + MARGIN[0])
    for window in windows:
        for length, side in zip(shape[1:], window[1:], strict=True):
            assert 0 <= side.start < side.stop <= length
            assert (side.stop - side.start) % 32 == 0 or side == slice(0, length)
        for number in range(window[0].start, window[0].stop):
            below = max((slice_number for slice_number in seen if slice_number <= number), default=seen[0])
            above = min((slice_number for slice_number in seen if slice_number >= number), default=seen[-1])
            needed = pad_box(
                tuple(slice(int(found.min()), int(found.max()) + 1) for found in np.nonzero(liver[[below, above]])),
                MARGIN,
                (2, *shape[1:]),
            )
            for side, own in zip(needed[1:], window[1:], strict=True):
                assert own.start <= side.start and side.stop <= own.stop


@settings(deadline=None, max_examples=30)
@given(mm=st.floats(0.4, 1.4), pixel_mm=st.floats(1.5, 3.0), seed=st.integers(0, 2**32 - 1))
def test_windows_are_multiples_of_the_stride_in_the_pixels_the_network_sees(mm, pixel_mm, seed):
    random = np.random.default_rng(seed)
    liver = np.zeros((2, 512, 480), bool)
    row, column = random.integers(0, 400, 2)
    liver[:, row : row + random.integers(1, 80), column : column + random.integers(1, 80)] = True
    stride = (32 * pixel_mm / mm,) * 2
    plain = windows_around(liver, np.arange(2), 1, 1, MARGIN, liver.shape)
    for window, own in zip(windows_around(liver, np.arange(2), 1, 1, MARGIN, liver.shape, stride), plain, strict=True):
        assert window[0] == own[0]
        assert liver[window].sum() == liver[window[0]].sum()
        for length, side in zip(liver.shape[1:], window[1:], strict=True):
            resampled = int(np.floor((side.stop - side.start) * mm / pixel_mm + 0.5))
            assert side == slice(0, length) or resampled % 32 == 0
        found = predicted(np.zeros(box_shape(window), np.uint8), window, liver.shape)
        found.inside[:, 0, found.inside.shape[2] // 2] = 1  # reaches the first row only
        larger = grow_window(found, window, MARGIN, stride)
        assert larger is None or larger[2] == window[2]  # a side that is not reached is unchanged


def test_windows_between_the_slices_looked_at():
    liver = cone()
    slices = np.arange(3, 60, 10)
    windows = windows_around(liver[slices][:, ::2, ::2], slices, 2, 10, MARGIN, liver.shape)
    assert along(windows)[0][0] == 9 and along(windows)[-1][1] == 48
    covered = np.zeros_like(liver)
    for window in windows:
        covered[window] = True
    assert covered[9:48][liver[9:48]].all()
    alone = windows_around(liver[slices[1:2]][:, ::2, ::2], slices[1:2], 2, 10, MARGIN, liver.shape)
    assert along(alone) == [(9, 18)]


def predicted(inside, box, shape):
    lesions = np.count_nonzero(inside >= 2)
    return SlabPrediction(inside, np.zeros((lesions, 3), np.float32), box, shape)


def test_a_window_grows_at_the_sides_the_liver_reaches():
    inside = np.zeros((8, 64, 64), np.uint8)
    box = (slice(20, 28), slice(32, 96), slice(0, 64))
    inside[2:5, 0:30, 0:30] = 1  # reaches the first row of the box, and the volume's own first column
    found = predicted(inside, box, (60, 128, 128))
    slices, rows, columns = grow_window(found, box, MARGIN)
    assert (slices, columns) == (slice(21, 26), box[2])  # only those slices and their neighbours
    assert rows.start <= 26 and rows.stop >= 96 and (rows.stop - rows.start) % 32 == 0
    apart = (slice(26, 28), *box[1:])
    assert grow_window(found, apart, MARGIN) is None
    assert windows_beyond(found, box, box, MARGIN) == (None, None)
    inside[0, 40, 40] = 1
    inside[7, 40, 40] = 1
    before, after = windows_beyond(found, box, box, MARGIN)
    assert before == (slice(16, 20), *box[1:])
    assert after == (slice(28, 32), *box[1:])


def test_a_window_grows_to_what_its_neighbour_alone_looks_at():
    shape = (60, 128, 128)
    wide, narrow = (slice(20, 24), slice(0, 64), slice(0, 128)), (slice(24, 30), slice(0, 64), slice(0, 64))
    inside = np.zeros((10, 64, 128), np.uint8)
    inside[:, 20:30, 10:50] = 1
    inside[:4, 20:30, 80:110] = 1  # a lobe in the slices of the wide window only
    found = predicted(inside, (slice(20, 30), slice(0, 64), slice(0, 128)), shape)
    assert grow_window(found, wide, MARGIN) is None
    assert grow_window(found, narrow, MARGIN) == (slice(24, 25), narrow[1], slice(0, 128))
    inside[3, 20:30, 80:110] = 0  # it ends before the narrow window starts
    assert grow_window(found, narrow, MARGIN) is None


@pytest.mark.parametrize("seed", range(3))
def test_joined_parts_are_the_complete_volume(seed):
    random = np.random.default_rng(seed)
    shape = (12, 9, 11)
    windows = [(slice(2, 5), slice(0, 9), slice(3, 8)), (slice(5, 6), slice(4, 7), slice(0, 11))]
    windows.append((slice(6, 11), slice(2, 9), slice(1, 4)))
    labels = np.zeros(shape, np.uint8)
    for window in windows:
        labels[window] = random.integers(0, 5, box_shape(window))
    number = np.arange(labels.size).reshape(shape)
    parts = [
        SlabPrediction(labels[window], own[:, None], window, shape, lesion_probabilities=own)
        for window, own in ((window, number[window][labels[window] >= 2]) for window in windows)
    ]
    joined = join_predictions(parts)
    np.testing.assert_array_equal(joined.labels, labels)
    np.testing.assert_array_equal(joined.type_probabilities[:, 0], number[labels >= 2])
    np.testing.assert_array_equal(joined.lesion_probabilities, number[labels >= 2])
    some = join_predictions([part.on_slices(slice(part.box[0].stop - 1, part.box[0].stop)) for part in parts[1:]])
    labels[:5], labels[6:10] = 0, 0
    np.testing.assert_array_equal(some.labels, labels)
    np.testing.assert_array_equal(some.type_probabilities[:, 0], number[labels >= 2])
    np.testing.assert_array_equal(some.lesion_probabilities, number[labels >= 2])
