"""Description of a patient before the scan: layers and tubes, painted in order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from liverseg.phantom.fields import Field

__all__ = ["Layer", "Scene", "Tubes", "segments"]


@dataclass(frozen=True)
class Layer:
    """An organ: an implicit shape filled with one tissue.

    Attributes:
        name: name in the organ map.
        shape: signed distance, mm.
        hu: attenuation inside.
        texture: standard deviation of the tissue's texture, HU.
        offset: shift of the surface in mm; negative values shrink the shape. Walls are a shape and its shrunk copy.
        blur: width of the organ's edge in mm, if it is larger than the pixel.
    """

    name: str
    shape: Field
    hu: float
    texture: float = 0.0
    offset: float = 0.0
    blur: float = 0.0


@dataclass(frozen=True)
class Tubes:
    """Many thin tapered capsules: vessels, ribs.

    Attributes:
        name: name in the organ map.
        parts: (n, 8) float32: start (x, y, z), end (x, y, z), radius at start and end, all mm.
        hu: attenuation inside.
        lumen: mm by which every radius is reduced.
    """

    name: str
    parts: np.ndarray
    hu: float
    lumen: float = 0.0


@dataclass
class Scene:
    """Everything to paint, in order.

    Attributes:
        under: organs painted before the liver.
        liver: the liver and then its vessels.
        over: organs painted over the liver.
    """

    under: list[Layer | Tubes] = field(default_factory=list)
    liver: list[Layer | Tubes] = field(default_factory=list)
    over: list[Layer | Tubes] = field(default_factory=list)


def segments(lines: Iterable[tuple[np.ndarray, np.ndarray | float]]) -> np.ndarray:
    """Convert polylines, each ((m, 3) points in mm, radii in mm), to capsules (n, 8)."""
    parts = []
    for points, radii in lines:
        points = np.asarray(points, dtype=np.float32)
        radius = np.broadcast_to(np.asarray(radii, dtype=np.float32), len(points))
        parts.append(np.concatenate([points[:-1], points[1:], radius[:-1, None], radius[1:, None]], axis=1))
    return np.concatenate(parts) if parts else np.zeros((0, 8), dtype=np.float32)
