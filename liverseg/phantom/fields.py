"""Smooth 3-D fields on a coarse lattice: implicit shapes, random warps, and interpolation to any position.

The frame is the patient's: x towards the left, y towards the back, z towards the head (LPS+), in mm. A shape is a
signed distance in mm, negative inside, approximate away from its surface. Organs are smooth, so a lattice with a step
of a few mm represents them. Cubic B-spline weights interpolate them to the scanner's grid without steps or corners.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from liverseg.synthesis import smooth_min

__all__ = [
    "Field",
    "Lattice",
    "Region",
    "ellipsoid",
    "interpolate",
    "smooth_max",
    "smooth_min",
    "smooth_noise",
    "spline_weights",
    "tube",
]

Triple = tuple[float, float, float]

_INTERPOLATED, _EVALUATED = 65_536, 16_384
"""Points interpolated and points at which a shape is evaluated at a time, few enough for the processor's cache."""


@dataclass(frozen=True)
class Lattice:
    """A regular grid in mm.

    Attributes:
        origin: (z, y, x) of its first point, mm.
        step: distance between points, mm, the same along each axis.
        shape: number of points along (z, y, x).
    """

    origin: Triple
    step: float
    shape: tuple[int, int, int]

    def axis(self, number: int) -> np.ndarray:
        """Return positions along one axis (0 is z), mm, float32."""
        return (self.origin[number] + self.step * np.arange(self.shape[number])).astype(np.float32)


@dataclass(frozen=True)
class Field:
    """Values on a box of a lattice.

    Attributes:
        values: (z, y, x), float32.
        start: (z, y, x) index of the box's first point in the lattice.
        lattice: the complete lattice.
    """

    values: np.ndarray
    start: tuple[int, int, int]
    lattice: Lattice

    def bounds(self, axis: int, margin: float = 0.0) -> tuple[float, float]:
        """Return the first and last position in mm along `axis` with values below `margin`; (inf, -inf) if none."""
        return self.box(margin)[axis]

    def box(self, margin: float = 0.0) -> list[tuple[float, float]]:
        """Return the bounds along z, y and x, see `bounds`."""
        inside = np.asarray(self.values < margin)
        in_plane = np.asarray(inside.any(axis=0))
        return [
            self._extent(axis, np.flatnonzero(some))
            for axis, some in enumerate((inside.any(axis=(1, 2)), in_plane.any(axis=1), in_plane.any(axis=0)))
        ]

    def _extent(self, axis: int, below: np.ndarray) -> tuple[float, float]:
        if below.size == 0:
            return (np.inf, -np.inf)
        first = self.lattice.origin[axis] + self.lattice.step * (self.start[axis] + below[0] - 1)
        last = self.lattice.origin[axis] + self.lattice.step * (self.start[axis] + below[-1] + 1)
        return (float(first), float(last))

    def resample(self, positions: np.ndarray, axis: int) -> np.ndarray:
        """Interpolate one axis to `positions` (mm) with cubic B-spline weights; edge values repeat outside the box."""
        return _resample(self.values, self._index(positions, axis), axis)

    def at(self, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Interpolate at points (three arrays of one shape, mm), trilinear; too slow for complete grids."""
        result = np.zeros(np.shape(z), dtype=np.float32)
        indices = [self._index(np.asarray(p, dtype=np.float64), axis) for axis, p in enumerate((z, y, x))]
        clipped = [np.clip(i, 0, n - 1.001) for i, n in zip(indices, self.values.shape, strict=True)]
        lower = [i.astype(int) for i in clipped]
        fraction = [i - low for i, low in zip(clipped, lower, strict=True)]
        for corner in np.ndindex(2, 2, 2):
            weight = np.ones_like(result)
            for axis in range(3):
                weight = weight * (fraction[axis] if corner[axis] else 1 - fraction[axis])
            result += weight * self.values[tuple(lower[axis] + corner[axis] for axis in range(3))]
        return result

    def _index(self, positions: np.ndarray, axis: int) -> np.ndarray:
        return (positions - self.lattice.origin[axis]) / self.lattice.step - self.start[axis]


def spline_weights(index: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return four neighbours of each fractional index and their cubic B-spline weights, each of shape (4, n).

    The weights are those of the uniform cubic B-spline (de Boor, A Practical Guide to Splines, 1978). Without a
    prefilter they smooth a little, which gives the rounded edges of tissue.
    """
    lower = np.floor(index).astype(int)
    f = (index - lower).astype(np.float32)
    weights = np.stack([(1 - f) ** 3, 4 - 6 * f**2 + 3 * f**3, 1 + 3 * f + 3 * f**2 - 3 * f**3, f**3]) / 6
    return np.clip(lower + np.arange(-1, 3)[:, None], 0, length - 1), weights.astype(np.float32)


def interpolate(values: np.ndarray, neighbours: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    """Return the weighted sums of neighbours along an axis of (z, y, x) values; see `spline_weights`."""
    starts = np.arange(0, weights.size + 1, len(weights))
    shape = (*values.shape[:axis], weights.shape[1], *values.shape[axis + 1 :])
    matrix = sparse.csr_array((weights.T.ravel(), neighbours.T.ravel(), starts), (shape[axis], values.shape[axis]))
    if axis == 0:
        return (matrix @ values.reshape(len(values), -1)).reshape(shape)
    result = np.empty(shape, dtype=np.float32)
    step = max(_INTERPOLATED * len(result) // max(result.size, 1), 1)
    for start in range(0, len(values), step):
        block = slice(start, start + step)
        first = np.moveaxis(values[block], axis, 0)
        resampled = (matrix @ first.reshape(len(first), -1)).reshape(-1, *first.shape[1:])
        result[block] = np.moveaxis(resampled, 0, axis)
    return result


def _resample(values: np.ndarray, index: np.ndarray, axis: int) -> np.ndarray:
    return interpolate(values, *spline_weights(index, values.shape[axis]), axis)


def smooth_noise(rng: np.random.Generator, lattice: Lattice, grain: float, amplitude: float) -> np.ndarray:
    """Draw a random field on the lattice, (z, y, x) float32.

    Args:
        rng: source of random numbers.
        lattice: the lattice.
        grain: size of the finest features, about, mm.
        amplitude: standard deviation, about.
    """
    coarse = Lattice(
        lattice.origin,
        grain,
        tuple(int(np.ceil(n * lattice.step / grain)) + 4 for n in lattice.shape),  # type: ignore[arg-type]
    )
    values = rng.standard_normal(coarse.shape, dtype=np.float32)
    for axis in range(3):
        values = _resample(values, (lattice.axis(axis) - lattice.origin[axis]) / grain + 1.0, axis)
    # on average, interpolation reduces the standard deviation of white noise to 0.479^(3/2)
    return values * np.float32(amplitude / 0.33)


class Region:
    """A box of the lattice with warped coordinates, in which shapes are evaluated.

    Args:
        lattice: the complete lattice.
        warp: displacement in mm, three fields (z, y, x) of the lattice's shape, or None for straight coordinates.
        box: ((z0, z1), (y0, y1), (x0, x1)) in mm, clipped to the lattice; None for the complete lattice.
    """

    def __init__(
        self,
        lattice: Lattice,
        warp: Sequence[np.ndarray] | None = None,
        box: tuple[tuple[float, float], ...] | None = None,
    ) -> None:
        self.lattice = lattice
        self._warp = warp
        slices = []
        for axis in range(3):
            low, high = box[axis] if box else (-np.inf, np.inf)
            first = np.clip((low - lattice.origin[axis]) / lattice.step, 0, lattice.shape[axis] - 2)
            last = np.clip((high - lattice.origin[axis]) / lattice.step + 1, first + 2, lattice.shape[axis])
            slices.append(slice(int(first), int(last)))
        self.slices = tuple(slices)
        shapes = ((-1, 1, 1), (1, -1, 1), (1, 1, -1))
        axes = [lattice.axis(axis)[self.slices[axis]].reshape(shapes[axis]) for axis in range(3)]
        if warp is not None:
            axes = [line + field[self.slices] for line, field in zip(axes, warp, strict=True)]
        self.z, self.y, self.x = axes

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of points along (z, y, x)."""
        return tuple(s.stop - s.start for s in self.slices)  # type: ignore[return-value]

    def around(self, centre: Triple, radii: Triple, margin: float = 14.0) -> Region:
        """Return the region around an ellipsoid given in (x, y, z) mm."""
        box = tuple((centre[k] - radii[k] - margin, centre[k] + radii[k] + margin) for k in (2, 1, 0))
        return self.box(box)

    def box(self, box: tuple[tuple[float, float], ...]) -> Region:
        """Return the region in a box ((z0, z1), (y0, y1), (x0, x1)) in mm, clipped to the lattice."""
        return Region(self.lattice, self._warp, box)

    def slabs(self) -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray]]:
        """Iterate over parts of the region, few enough points for the processor's cache: slice along z, x, y and z."""
        count, rows, columns = self.shape
        step = max(_EVALUATED // (rows * columns), 1)
        for start in range(0, count, step):
            slab = slice(start, start + step)
            x, y, z = (axis[slab] if len(axis) == count else axis for axis in (self.x, self.y, self.z))
            yield slab, x, y, z

    def cut(self, values: np.ndarray) -> np.ndarray:
        """Crop an array of the complete lattice to this region."""
        return values[self.slices]

    def field(self, values: np.ndarray) -> Field:
        """Return the values as a field on this region."""
        start = tuple(s.start for s in self.slices)
        full = np.broadcast_to(np.asarray(values, dtype=np.float32), self.shape)
        return Field(full, start, self.lattice)  # type: ignore[arg-type]


def ellipsoid(
    region: Region, centre: Triple, radii: Triple, rotation: np.ndarray | None = None, taper: float = 0.0
) -> np.ndarray:
    """Return the approximate signed distance to an ellipsoid, mm.

    Args:
        region: region in which to evaluate it.
        centre: (x, y, z) in mm.
        radii: half axes in mm.
        rotation: 3×3, rows are the directions of the half axes in (x, y, z).
        taper: share by which the second and third half axis shrink per first half axis, -1 to 1.
    """
    a, b, c = (np.float32(radius) for radius in radii)
    distance = np.empty(region.shape, dtype=np.float32)
    for slab, *position in region.slabs():
        x, y, z = (p - np.float32(middle) for p, middle in zip(position, centre, strict=True))
        if rotation is not None:
            r = rotation.astype(np.float32)
            x, y, z = (r[k, 0] * x + r[k, 1] * y + r[k, 2] * z for k in range(3))
        if taper:
            shrink = np.clip(1 - np.float32(taper) * x / a, 0.25, 2.0)
            y, z = y / shrink, z / shrink
        u, v, w = (x / a) ** 2, (y / b) ** 2, (z / c) ** 2
        inside = np.sqrt(u + v + w) + np.float32(1e-6)
        slope = np.sqrt(u / a**2 + v / b**2 + w / c**2) + np.float32(1e-6)
        distance[slab] = inside * (inside - 1) / slope
    return distance


def tube(region: Region, points: np.ndarray, radii: np.ndarray | float) -> np.ndarray:
    """Return the signed distance to a bent, tapered tube through `points`, (n, 3) in (x, y, z) mm, radii in mm."""
    points = np.asarray(points, dtype=np.float32)
    radius = np.broadcast_to(np.asarray(radii, dtype=np.float32), len(points))
    nearest = np.full(region.shape, np.inf, dtype=np.float32)
    for slab, x, y, z in region.slabs():
        for start, end, first, last in zip(points[:-1], points[1:], radius[:-1], radius[1:], strict=True):
            axis = end - start
            px, py, pz = x - start[0], y - start[1], z - start[2]
            t = px * axis[0] + py * axis[1]
            t = t + pz * axis[2]
            t /= max(float(axis @ axis), 1e-6)
            np.clip(t, 0, 1, out=t)
            distance = np.square(px - t * axis[0])
            distance += np.square(py - t * axis[1])
            distance += np.square(pz - t * axis[2])
            np.sqrt(distance, out=distance)
            t *= last - first
            t += first
            distance -= t
            np.minimum(nearest[slab], distance, out=nearest[slab])
    return nearest


def smooth_max(a: np.ndarray, b: np.ndarray, k: float) -> np.ndarray:
    """Intersect two shapes with a fillet of about `k` mm; `smooth_max(a, -b, k)` subtracts b from a."""
    share = np.float32(k) - np.abs(a - b)
    np.maximum(share, 0, out=share)
    share /= np.float32(k)
    share *= share
    share *= np.float32(k / 4)
    share += np.maximum(a, b)
    return share
