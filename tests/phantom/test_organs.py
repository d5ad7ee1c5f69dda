"""Organs of a patient as shapes, before they are scanned."""

from __future__ import annotations

import numpy as np
import pytest

from liverseg.phantom.fields import Field
from liverseg.phantom.organs import Organs
from liverseg.phantom.patient import _lattice, _warp
from liverseg.phantom.scene import Layer
from liverseg.phantom.tissue import draw_tissues
from liverseg.phantom.trunk import Trunk, draw_habitus


def cut_faces(shape: Field) -> list[float]:
    """Return the depth in mm to which each side of its box cuts a shape, without the border of the lattice."""
    depths = []
    for axis, (start, size) in enumerate(zip(shape.start, shape.values.shape, strict=True)):
        if start > 0:
            depths.append(-float(np.take(shape.values, 0, axis).min()))
        if start + size < shape.lattice.shape[axis]:
            depths.append(-float(np.take(shape.values, -1, axis).min()))
    return depths


@pytest.mark.parametrize("seed", [1, 8, 9, 12, 32, 36])
def test_no_organ_ends_in_the_flat_face_of_its_box(seed: int) -> None:
    rng = np.random.default_rng(seed)
    habitus, hu = draw_habitus(rng), draw_tissues(rng)
    lattice = _lattice(habitus)
    organs = Organs(rng, Trunk(rng, habitus, lattice, _warp(rng, lattice), {**hu, "blood": 150.0}))
    for layer in [*organs.layers(), *organs.gallbladder_layers()]:
        if isinstance(layer, Layer):
            assert max(cut_faces(layer.shape), default=0.0) < 0.5, layer.name
