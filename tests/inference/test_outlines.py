"""Outlines of masks hold the mask's pixels, with holes as rings of their own or joined by a channel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.path import Path as Polygon

from liverseg.inference.output.outlines import join_holes, trace_polygons


def crossings(ring, points):
    """Return how often a ray from each point towards lower columns crosses a ring: odd numbers are inside."""
    count = np.zeros(len(points), int)
    for (x1, y1), (x2, y2) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        for number, (x, y) in enumerate(points):
            if (y1 <= y) != (y2 <= y) and x1 + (y - y1) / (y2 - y1) * (x2 - x1) < x:
                count[number] += 1
    return count


def pixel_centres(shape):
    columns, rows = np.meshgrid(np.arange(shape[1]), np.arange(shape[0]))
    return np.stack([columns.ravel(), rows.ravel()], axis=1)


@settings(max_examples=60, deadline=None)
@given(arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))), st.sampled_from([0.5, 0.49]))
def test_any_mask_is_filled_again(mask, outward):
    points = pixel_centres(mask.shape)
    separate, joined = np.zeros(len(points), int), np.zeros(len(points), int)
    for rings in trace_polygons(mask, outward):
        ring = join_holes(rings)
        if outward < 0.5:  # rounded points are pixels of the mask
            columns, rows = np.round(ring).astype(int).T
            assert mask[rows, columns].all()
        joined += crossings(ring, points) % 2
        separate += sum(crossings(ring, points) for ring in rings) % 2
        area = sum(_area(ring) for ring in rings)  # holes have the other direction
        assert _area(ring) == pytest.approx(area)
    np.testing.assert_array_equal(separate.reshape(mask.shape), mask)
    np.testing.assert_array_equal(joined.reshape(mask.shape), mask)


def _area(ring):
    after = np.roll(ring, -1, axis=0)
    return np.sum(ring[:, 0] * after[:, 1] - after[:, 0] * ring[:, 1]) / 2


def test_outlines_of_a_square_with_a_hole():
    mask = np.zeros((8, 9), bool)
    mask[1:7, 1:8] = True
    mask[3:5, 3:5] = False
    ((outer, hole),) = trace_polygons(mask)
    assert {tuple(point) for point in hole} == {
        (2.5, 3),
        (2.5, 4),
        (3, 4.5),
        (4, 4.5),
        (4.5, 4),
        (4.5, 3),
        (4, 2.5),
        (3, 2.5),
    }
    assert len(outer) == 8
    assert outer.min() == 0.5
    joined = join_holes([outer, hole])
    assert len(joined) == len(outer) + len(hole) + 3
    inside = Polygon(joined).contains_points(pixel_centres(mask.shape) + 1e-4)
    np.testing.assert_array_equal(inside.reshape(mask.shape), mask)


def test_an_empty_mask_has_no_outline():
    assert trace_polygons(np.zeros((3, 4), bool)) == []
