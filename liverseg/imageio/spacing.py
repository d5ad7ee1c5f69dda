"""Are a volume's voxels of a size that a scanner makes?"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from liverseg.errors import GeometryError

__all__ = ["check_spacing"]

_SHORTEST_MM, _LONGEST_MM = 1e-3, 1e3
"""Our choice: far beyond every scanner, and near enough to each other that what is computed from them are numbers."""


def check_spacing(path: Path, affine: np.ndarray) -> None:
    """Refuse voxels no scanner makes.

    Args:
        path: where they came from.
        affine: 4×4, to RAS+ mm.

    Raises:
        GeometryError: if an edge is shorter than a thousandth of a millimetre or longer than a metre.
    """
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    if not (edges.min() >= _SHORTEST_MM and edges.max() <= _LONGEST_MM):
        told = " × ".join(f"{edge:.3g}" for edge in edges)
        raise GeometryError(f"{path}: voxels of {told} mm; 0.001 to 1000 mm are allowed: export it with its spacing")
