"""Distractors: normal structures that look like lesions, painted into livers and labelled as liver.

A first network trained on synthetic lesions alone called vessels without contrast medium, fissures, focal fat,
perfusion differences and the blurred edge of the liver lesions in patients, because it had never seen them as liver.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from liverseg.synthesis.shape import draw_shape

__all__ = ["DISTRACTORS", "Distractor", "draw_distractor"]

DISTRACTORS: Final = {"vein": 0.30, "vessel": 0.22, "wedge": 0.12, "focal fat": 0.06, "fissure": 0.30}
"""Probability of each kind. Wedges and focal fat resemble faint lesions at the liver's surface, which a network missed
when half of the distractors were of these kinds. With few bright vessels, a network outlined those of a patient whose
hepatic veins were wider and brighter than most."""

_RADIUS_MM: Final = {"vein": (1.2, 5.0), "vessel": (1.2, 8.0)}
"""Log-uniform. Hepatic veins are up to some 15 mm wide where they join."""

_Rng = np.random.Generator | np.random.RandomState


@dataclass(frozen=True)
class Distractor:
    """A structure that changes a liver's attenuation without being a lesion.

    Attributes:
        kind: one of `DISTRACTORS`.
        centre: mm along slices, rows and columns.
        reach: half the edge in mm of a cube around the centre that contains it.
        change_hu: change of the attenuation.
        share: function that returns the distractor's share of each voxel, 0 to 1, from offsets to the centre in mm
            along slices, rows and columns, each one-dimensional, and the in-plane pixel in mm.
    """

    kind: str
    centre: tuple[float, float, float]
    reach: float
    change_hu: float
    share: Any


def draw_distractor(
    rng: _Rng, kind: str, centre: tuple[float, float, float], inwards: np.ndarray, *, in_plane: bool = False
) -> Distractor:
    """Draw a distractor.

    Args:
        rng: source of random numbers.
        kind: one of `DISTRACTORS`.
        centre: a point of the liver; for wedges, focal fat and fissures at its surface.
        inwards: (row, column) unit vector from the centre into the liver.
        in_plane: whether vessels run within the slice. If neighbouring slices are copies, a vessel that crosses the
            slice cannot be distinguished from a lesion.

    Raises:
        ValueError: if the kind is not known.
    """
    if kind in ("vein", "vessel"):
        return _tube(rng, kind, centre, in_plane)
    if kind == "wedge":
        return _wedge(rng, centre, inwards)
    if kind == "focal fat":
        shape = draw_shape(rng, rng.uniform(10, 30))
        edge = rng.uniform(4, 8)

        def share(z: np.ndarray, y: np.ndarray, x: np.ndarray, pixel: float) -> np.ndarray:
            distance = shape.distance(shape.round_frame(z, y, x))
            return np.clip(0.5 - distance / np.float32(max(edge, pixel)), 0, 1)

        return Distractor(kind, centre, shape.reach + edge, -rng.uniform(15, 35), share)
    if kind == "fissure":
        return _fissure(rng, centre, inwards)
    raise ValueError(f"distractor {kind!r}; allowed: {', '.join(DISTRACTORS)}")


def _tube(rng: _Rng, kind: str, centre: tuple[float, float, float], in_plane: bool) -> Distractor:
    """Draw a bent, tapered piece of a vessel or bile duct: "vein" is darker than the liver, "vessel" brighter."""
    length, radius = rng.uniform(20, 60), float(np.exp(rng.uniform(*np.log(_RADIUS_MM[kind]))))
    direction = rng.standard_normal(3)
    if in_plane:
        direction[0] = rng.uniform(-0.1, 0.1) * np.linalg.norm(direction[1:])
    direction /= np.linalg.norm(direction)
    bend = np.cross(direction, rng.standard_normal(3))
    bend *= rng.uniform(0, 0.25) * length / max(float(np.linalg.norm(bend)), 1e-6)
    if in_plane:
        bend[0] = 0
    along = np.linspace(-0.5, 0.5, 5)
    points = along[:, None] * length * direction + (0.25 - along[:, None] ** 2) * 4 * bend - bend * 0.5
    radii = radius * np.linspace(1.15, 0.75, 5)
    edge = rng.uniform(0.8, 2.0)
    change = -rng.uniform(12, 55) if kind == "vein" else rng.uniform(25, 65)

    def share(z: np.ndarray, y: np.ndarray, x: np.ndarray, pixel: float) -> np.ndarray:
        z, y, x = z[:, None, None], y[None, :, None], x[None, None, :]
        nearest = np.full(np.broadcast_shapes(z.shape, y.shape, x.shape), np.inf, np.float32)
        for start, end, first, last in zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True):
            axis = (end - start).astype(np.float32)
            dz, dy, dx = z - np.float32(start[0]), y - np.float32(start[1]), x - np.float32(start[2])
            t = np.clip((dz * axis[0] + dy * axis[1] + dx * axis[2]) / np.float32(max(axis @ axis, 1e-6)), 0, 1)
            squared = (dz - t * axis[0]) ** 2 + (dy - t * axis[1]) ** 2 + (dx - t * axis[2]) ** 2
            nearest = np.minimum(nearest, np.sqrt(squared) - (np.float32(first) + t * np.float32(last - first)))
        return np.clip(0.5 - nearest / np.float32(max(edge, pixel)), 0, 1)

    return Distractor(kind, centre, length / 2 + radius + edge + float(np.linalg.norm(bend)), change, share)


def _wedge(rng: _Rng, centre: tuple[float, float, float], inwards: np.ndarray) -> Distractor:
    """Draw a perfusion difference: a triangle with its base at the surface and its tip inside the liver."""
    depth, half_angle = rng.uniform(20, 50), rng.uniform(0.25, 0.6)
    height, edge = rng.uniform(8, 25), rng.uniform(2.5, 6)
    slope = np.float32(np.tan(half_angle))
    direction = inwards.astype(np.float32)

    def share(z: np.ndarray, y: np.ndarray, x: np.ndarray, pixel: float) -> np.ndarray:
        dy, dx = y[None, :, None], x[None, None, :]
        along = depth - (dy * direction[0] + dx * direction[1])  # from the tip back to the surface
        across = np.abs(dy * direction[1] - dx * direction[0])
        width = np.float32(max(edge, pixel))
        wedge = np.clip(0.5 - (across - slope * along) / width, 0, 1) * np.clip(along / width, 0, 1)
        across_slices = np.clip((height - np.abs(z)) / width, 0, 1)[:, None, None]
        return (wedge * across_slices).astype(np.float32)

    change = -rng.uniform(10, 25) if rng.uniform() < 0.75 else rng.uniform(8, 20)
    return Distractor("wedge", centre, depth + 10.0, change, share)


def _fissure(rng: _Rng, centre: tuple[float, float, float], inwards: np.ndarray) -> Distractor:
    """Draw a fissure: a cleft with some fat that leads from the surface into the liver."""
    length, half_width = rng.uniform(12, 40), rng.uniform(0.5, 2.2)
    height, edge = rng.uniform(10, 40), rng.uniform(1.0, 2.5)
    turn = rng.uniform(-0.7, 0.7)
    cosine, sine = np.cos(turn), np.sin(turn)
    direction = np.array([cosine * inwards[0] - sine * inwards[1], sine * inwards[0] + cosine * inwards[1]], np.float32)
    tilt = np.float32(rng.uniform(-0.4, 0.4))

    def share(z: np.ndarray, y: np.ndarray, x: np.ndarray, pixel: float) -> np.ndarray:
        dz, dy, dx = z[:, None, None], y[None, :, None], x[None, None, :]
        along = dy * direction[0] + dx * direction[1]
        across = np.abs(dy * direction[1] - dx * direction[0] + tilt * dz)
        beyond = np.maximum(along - length, -8 - along)
        taper = np.clip(1 - along / np.float32(1.2 * length), 0.3, 1)
        width = np.float32(max(edge, pixel))
        cleft = np.clip(0.5 - (across - half_width * taper) / width, 0, 1) * np.clip(0.5 - beyond / width, 0, 1)
        return (cleft * np.clip((height - np.abs(dz)) / width, 0, 1)).astype(np.float32)

    return Distractor("fissure", centre, length + 10.0, -rng.uniform(40, 150), share)
