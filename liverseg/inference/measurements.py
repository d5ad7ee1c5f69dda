"""Measurements of lesions: size, place, HU, distance to the surface of the liver."""

from __future__ import annotations

from dataclasses import replace

import cc3d
import numpy as np

from liverseg.imageio.boxes import pad_box
from liverseg.imageio.volume import Volume
from liverseg.inference.components import components_touching
from liverseg.inference.diameters import axial_diameters
from liverseg.inference.lesion_measurements import LesionMeasurements, MeasuredLesion, lesion_columns
from liverseg.inference.lesions import LesionMap
from liverseg.labels import LESION, LIVER, Label

__all__ = [
    "LiverSurface",
    "boundary_voxels",
    "file_slice_indices",
    "lesion_table",
    "with_types",
]

_TOLERANCE_MM = 1e-6
"""Two voxels are never closer; a smaller distance is rounding."""


class LiverSurface:
    """The outermost voxels of a liver: those that share a face with a voxel outside it.

    Holes inside the liver, such as vessels that the network leaves out, are not outside. The edge of the volume is no
    surface, because the liver may extend beyond the scan.

    Args:
        liver: true in liver and lesions, shape (slice, row, column), of a box in a volume.
        steps: mm (x, y, z) from one slice, row and column to the next, one row each, shape (3, 3).
        cut: for each axis, whether the first and the last side of the box are sides of the volume, shape (3, 2). Beyond
            the other sides of the box there is no liver.
    """

    def __init__(self, liver: np.ndarray, steps: np.ndarray, cut: np.ndarray) -> None:
        self._steps = np.asarray(steps, np.float64)
        around = np.pad(liver, 1)
        rim = np.ones(around.shape, bool)
        rim[1:-1, 1:-1, 1:-1] = False
        # beyond the scan nothing is known, so no path leads through it; at the edge of a slice, voxels that are not
        # liver are outside it, but on the scan's first or last slice they may be a vessel
        for axis in range(3):
            for end, place, inner in ((0, 0, 1), (1, -1, -2)):
                if cut[axis][end]:
                    around[_plane(axis, place)] = True
                    rim[_plane(axis, inner)] |= axis > 0
        outside = components_touching(~around, rim)
        near = np.zeros_like(liver)
        for axis in range(3):
            for shift in (slice(None, -2), slice(2, None)):
                neighbour = [slice(1, -1)] * 3
                neighbour[axis] = shift
                near |= outside[tuple(neighbour)]
        self._voxels = np.argwhere(near & liver)
        from scipy.spatial import cKDTree  # a tenth of a second

        self._make_tree = cKDTree
        self._tree = cKDTree(self._voxels @ self._steps) if len(self._voxels) else None

    def distance_mm(self, voxels: np.ndarray) -> float:
        """Return the smallest distance in mm between centres of a lesion's voxels and of the outermost liver voxels.

        It is 0 if the lesion reaches the surface, and infinite if the scan shows no surface.

        Args:
            voxels: (slice, row, column) in the box, shape (n, 3), n at least 1; the lesion's `boundary_voxels` suffice.
        """
        if self._tree is None:
            return float("inf")
        points = voxels @ self._steps
        # deep in the liver, a search from every point takes long: all of the surface is about equally far. The surface
        # voxel nearest to the lesion's middle bounds the distance, and few surface voxels are near enough to matter
        middle = points.mean(axis=0)
        _, nearest = self._tree.query(middle)
        bound = np.linalg.norm(points - self._tree.data[nearest], axis=1).min() + _TOLERANCE_MM
        radius = np.linalg.norm(points - middle, axis=1).max()
        near = self._tree.data[self._tree.query_ball_point(middle, bound + radius)]
        distances, _ = self._make_tree(points).query(near, distance_upper_bound=bound)
        smallest = float(distances.min())
        return smallest if smallest > _TOLERANCE_MM else 0.0


def boundary_voxels(mask: np.ndarray) -> np.ndarray:
    """Return the voxels of a mask with a neighbour, of 26, outside it, shape (n, 3).

    Every other voxel has a neighbour that is nearer to any point outside the mask, if the grid's axes are nearly at
    right angles. The smallest distance of the mask to a point is therefore that of its boundary.
    """
    from scipy.ndimage import binary_erosion  # a tenth of a second

    return np.argwhere(mask & ~binary_erosion(mask, np.ones((3, 3, 3), bool)))


def _plane(axis: int, place: int) -> tuple[slice | int, ...]:
    index: list[slice | int] = [slice(None)] * 3
    index[axis] = place
    return tuple(index)


_MARGIN_MM = 10.0
_MIN_VOXELS, _MAX_VOXELS = 30, 100_000
"""Smallest and largest number of liver voxels around a lesion for a median."""


def lesion_table(lesions: LesionMap, volume: Volume, labels: tuple[Label, ...]) -> LesionMeasurements:
    """Measure every lesion.

    Volumes are in ml and diameters in mm (`axial_diameters`). The centroid is the mean of the voxel centres in RAS+ mm.
    Slices are voxel indices along the file's own slice axis, from 0: the first and last slice, the slice of the
    diameters, and the number of slices. Mean and standard deviation of the HU are over all voxels of the lesion. The
    distance to the liver's surface is that of `LiverSurface`; it is empty if the scan shows no surface. The contrast is
    the mean HU minus the median HU of the liver in the lesion's box, enlarged by 10 mm on each side; it is empty if
    there is too little liver.

    Args:
        lesions: of the volume, in axial order.
        volume: the CT.
        labels: label table of the lesions' types.

    Returns:
        One row a lesion, in order of id.
    """
    columns = lesion_columns(labels)
    names = {label.index: label.name for label in labels}
    types = [names[LESION + index] for index in range(lesions.probabilities.shape[1])]
    hu, affine = volume.axial[lesions.box], volume.axial_affine
    corner = np.array([side.start for side in lesions.box])
    row_step, column_step = affine[:3, 1], affine[:3, 2]
    file_slices = file_slice_indices(volume)
    if not len(lesions.voxels):
        return LesionMeasurements(columns, ())
    boxes = cc3d.statistics(lesions.ids_inside)["bounding_boxes"]
    surface = _surface(lesions, affine)
    margin = [max(1, round(_MARGIN_MM / mm)) for mm in volume.axial_spacing]
    rows = []
    for number, (voxels, label, probabilities) in enumerate(
        zip(lesions.voxels, lesions.types, lesions.probabilities, strict=True), start=1
    ):
        box = boxes[number]
        mask = lesions.ids_inside[box] == number
        own = np.array([side.start for side in box])
        start = corner + own
        middle = affine @ np.append(_mean_position(mask) + start, 1.0)
        diameters = axial_diameters(mask, row_step, column_step)
        on = file_slices[start[0] + np.flatnonzero(mask.any(axis=(1, 2)))]
        values, distance = hu[box][mask], surface.distance_mm(boundary_voxels(mask) + own)
        around = pad_box(box, margin, lesions.inside.shape)
        contrast = _contrast(values, hu[around][lesions.inside[around] == LIVER])
        score = float(lesions.scores[number - 1])
        rows.append(
            MeasuredLesion(
                id=number,
                type=names[int(label)],
                probabilities=dict(zip(types, (round(float(share), 4) for share in probabilities), strict=True))
                if len(types) > 1
                else {},
                volume_ml=round(float(voxels) * volume.voxel_ml, 4),
                longest_diameter_mm=round(diameters.longest_mm, 2),
                perpendicular_diameter_mm=round(diameters.perpendicular_mm, 2),
                diameter_slice=int(file_slices[start[0] + diameters.slice]),
                centroid_x_mm=round(float(middle[0]), 2),
                centroid_y_mm=round(float(middle[1]), 2),
                centroid_z_mm=round(float(middle[2]), 2),
                first_slice=int(on.min()),
                last_slice=int(on.max()),
                slices=len(on),
                mean_hu=round(float(values.mean(dtype=np.float64)), 1),
                std_hu=round(float(values.std(dtype=np.float64)), 1),
                surface_distance_mm=round(distance, 2) if np.isfinite(distance) else float("nan"),
                touches_surface=distance == 0,
                liver_contrast_hu=round(contrast, 1),
                lesion_score=round(score, 4),
                indeterminate_because=lesions.reasons.get(number),
            )
        )
    return LesionMeasurements(columns, tuple(rows))


def with_types(table: LesionMeasurements, lesions: LesionMap, labels: tuple[Label, ...]) -> LesionMeasurements:
    """Return a lesion table with updated types and reasons, without measuring again.

    Args:
        table: of the same lesions.
        lesions: with their current types.
        labels: label table of the types.
    """
    names = {label.index: label.name for label in labels}
    rows = [
        replace(row, type=names[int(label)], indeterminate_because=lesions.reasons.get(row.id))
        for row, label in zip(table.rows, lesions.types, strict=True)
    ]
    return replace(table, rows=tuple(rows))


def _mean_position(mask: np.ndarray) -> np.ndarray:
    """Return the mean index of a mask's voxels along each axis, without an array of their indices."""
    others = ((1, 2), (0, 2), (0, 1))
    sums = [
        np.arange(length) @ np.count_nonzero(mask, axis=axes) for length, axes in zip(mask.shape, others, strict=True)
    ]
    return np.array(sums) / np.count_nonzero(mask)


def _contrast(lesion: np.ndarray, liver: np.ndarray) -> float:
    """Return the mean of a lesion's HU minus the median of the liver's around it; NaN with too few liver voxels."""
    if len(liver) < _MIN_VOXELS:
        return float("nan")
    return float(lesion.mean(dtype=np.float64) - np.median(liver[:: max(1, len(liver) // _MAX_VOXELS)]))


def _surface(lesions: LesionMap, affine: np.ndarray) -> LiverSurface:
    ends = zip(lesions.box, lesions.shape, strict=True)
    cut = np.array([(side.start == 0, side.stop == length) for side, length in ends])
    return LiverSurface(lesions.inside >= LIVER, affine[:3, :3].T, cut)


def file_slice_indices(volume: Volume) -> np.ndarray:
    """Return the voxel index along the file's own slice axis, from 0, of each slice of `volume.axial`."""
    depth = volume.array.shape[volume.slice_axis]
    ends = np.array([[0, 0, 0, 1], [depth - 1, 0, 0, 1]]).T
    first, last = np.rint(np.linalg.solve(volume.affine, volume.axial_affine @ ends))[volume.slice_axis].astype(int)
    return np.linspace(first, last, depth).round().astype(int)
