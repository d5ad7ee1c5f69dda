"""What a patient is made of before the scanner sees it: layers and tubes, painted one over the other."""

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
        name: organ, as in the organ map.
        shape: signed distance, mm.
        hu: attenuation inside.
        texture: standard deviation of the tissue's own variation, HU.
        offset: moves the surface, mm: a negative one shrinks the shape (a wall is a shape and the same one shrunk).
        blur: width of the organ's edge in mm where it is wider than the pixel.
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
        name: organ, as in the organ map.
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
    """Everything to paint, in order: `under` the liver, the liver with its vessels, `over` it.

    Attributes:
        table: HU of the empty scanner with its table, function of in-plane positions (x, y) in mm.
    """

    under: list[Layer | Tubes] = field(default_factory=list)
    liver: list[Layer | Tubes] = field(default_factory=list)
    over: list[Layer | Tubes] = field(default_factory=list)


def segments(lines: Iterable[tuple[np.ndarray, np.ndarray | float]]) -> np.ndarray:
    """Capsules (n, 8) of polylines given as ((m, 3) points in mm, radii in mm)."""
    parts = []
    for points, radii in lines:
        points = np.asarray(points, dtype=np.float32)
        radius = np.broadcast_to(np.asarray(radii, dtype=np.float32), len(points))
        parts.append(np.concatenate([points[:-1], points[1:], radius[:-1, None], radius[1:, None]], axis=1))
    return np.concatenate(parts) if parts else np.zeros((0, 8), dtype=np.float32)
