"""How far lesions lie below the liver's surface."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_erosion
from scipy.spatial import cKDTree

from liverseg.inference.components import reached_from

__all__ = ["LiverSurface", "shell"]

_FIRST = 64
_SAME_MM = 1e-6
"""Closer than two voxels ever are: rounding."""


class LiverSurface:
    """The outermost voxels of a liver: those that share a face with a voxel outside it.

    Holes inside the liver (vessels the network leaves out, say) are not outside. Where the scan ends, the liver does
    not: the volume's own edge is no surface.

    Args:
        liver: true in liver and lesions, shape (slice, row, column), of a box in a volume.
        steps: mm (x, y, z) from one slice, row and column to the next, one row each, shape (3, 3).
        cut: for each axis whether the box's first and last side are sides of the volume, shape (3, 2); what lies
            beyond the box's other sides is not liver.
    """

    def __init__(self, liver: np.ndarray, steps: np.ndarray, cut: np.ndarray) -> None:
        self._steps = np.asarray(steps, np.float64)
        around = np.pad(liver, 1)
        rim = np.ones(around.shape, bool)
        rim[1:-1, 1:-1, 1:-1] = False
        # beyond the scan nothing is known, so there is no way round either; but what is not liver at the edge of a
        # picture is outside it, while on the scan's last slice it may be a vessel
        for axis in range(3):
            for end, place, inner in ((0, 0, 1), (1, -1, -2)):
                if cut[axis][end]:
                    around[_plane(axis, place)] = True
                    rim[_plane(axis, inner)] |= axis > 0
        outside = reached_from(~around, rim)
        near = np.zeros_like(liver)
        for axis in range(3):
            for shift in (slice(None, -2), slice(2, None)):
                neighbour = [slice(1, -1)] * 3
                neighbour[axis] = shift
                near |= outside[tuple(neighbour)]
        self._voxels = np.argwhere(near & liver)
        self._tree = cKDTree(self._voxels @ self._steps) if len(self._voxels) else None

    def distance_mm(self, voxels: np.ndarray) -> float:
        """Least distance in mm between centres of a lesion's voxels and of the liver's outermost voxels.

        0 where the lesion itself reaches the surface; infinite where the scan shows no surface.

        Args:
            voxels: (slice, row, column) in the box, shape (n, 3), n at least 1; the lesion's `shell` is enough.
        """
        if self._tree is None:
            return float("inf")
        points = voxels @ self._steps
        # what some of the points find bounds the search of all of them, which is slow far below the surface
        some, _ = self._tree.query(points[:: max(1, len(points) // _FIRST)])
        found, _ = self._tree.query(points, distance_upper_bound=some.min())
        least = float(min(some.min(), found.min()))
        return least if least > _SAME_MM else 0.0


def shell(mask: np.ndarray) -> np.ndarray:
    """Voxels of a mask that not all 26 neighbours are of, shape (n, 3).

    From each other voxel of it a neighbour is nearer to any point outside (of grids whose axes are not far from at
    right angles), so that the least distance to something is that of the shell.
    """
    return np.argwhere(mask & ~binary_erosion(mask, np.ones((3, 3, 3), bool)))


def _plane(axis: int, place: int) -> tuple[slice | int, ...]:
    index: list[slice | int] = [slice(None)] * 3
    index[axis] = place
    return tuple(index)
