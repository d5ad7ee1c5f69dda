"""The lesion table: one row a lesion, in the patient's own frame."""

from __future__ import annotations

import cc3d
import numpy as np
import pandas as pd

from liverseg.imageio.boxes import enlarged
from liverseg.imageio.volume import Volume
from liverseg.inference.diameters import axial_diameters
from liverseg.inference.lesions import LesionMap
from liverseg.inference.surface import LiverSurface, shell
from liverseg.labels import INDETERMINATE, LESION, LIVER, Label

__all__ = ["lesion_columns", "lesion_table", "own_slices", "renamed"]

_LOCAL_MM = 10.0
_FEWEST_AROUND, _ENOUGH_AROUND = 30, 100_000
"""Voxels of liver around a lesion that a median needs, and that are enough for one."""


def lesion_columns(labels: tuple[Label, ...]) -> list[str]:
    """The table's columns; those of the probabilities are missing where the label table knows but one lesion."""
    types = [f"probability_{label.name}" for label in labels[LESION:] if label is not INDETERMINATE]
    return [
        "id",
        "type",
        *(types if len(types) > 1 else []),
        "volume_ml",
        "longest_diameter_mm",
        "perpendicular_diameter_mm",
        "diameter_slice",
        "centroid_x_mm",
        "centroid_y_mm",
        "centroid_z_mm",
        "first_slice",
        "last_slice",
        "slices",
        "mean_hu",
        "std_hu",
        "surface_distance_mm",
        "touches_surface",
        "liver_contrast_hu",
        "lesion_score",
        *(["indeterminate_because"] if len(types) > 1 else []),
    ]


def lesion_table(lesions: LesionMap, volume: Volume, labels: tuple[Label, ...]) -> pd.DataFrame:
    """Measure every lesion.

    Volumes are in ml, diameters in mm (`axial_diameters`), the centroid is the mean of the voxel centres in RAS+ mm.
    Slices are voxel indices along the file's own slice axis, counted from 0: first and last slice, the one the
    diameters were taken on, and on how many the lesion is. HU are those of the CT in all of the lesion's voxels, their
    spread is the standard deviation. The distance to the liver's surface is that of `LiverSurface`; it is empty where
    the scan shows no surface. The contrast is mean HU less the median HU of the liver in the lesion's box, 10 mm
    larger at each side; it is empty where there is too little liver.

    Args:
        lesions: of the volume, in axial order.
        volume: the CT.
        labels: label table the lesions' types are from.

    Returns:
        `lesion_columns`, one row a lesion in order of id; no rows where there is no lesion.
    """
    columns = lesion_columns(labels)
    names = {label.index: label.name for label in labels}
    hu, affine = volume.axial[lesions.box], volume.axial_affine
    corner = np.array([side.start for side in lesions.box])
    row_step, column_step = affine[:3, 1], affine[:3, 2]
    own_slice = own_slices(volume)
    if not len(lesions.voxels):
        return pd.DataFrame(columns=columns)
    boxes = cc3d.statistics(lesions.ids_inside)["bounding_boxes"]
    surface = _surface(lesions, affine)
    margin = [max(1, round(_LOCAL_MM / mm)) for mm in volume.axial_spacing]
    rows = []
    for number, (voxels, label, probabilities) in enumerate(
        zip(lesions.voxels, lesions.types, lesions.probabilities, strict=True), start=1
    ):
        box = boxes[number]
        mask = lesions.ids_inside[box] == number
        own = np.array([side.start for side in box])
        start = corner + own
        middle = affine @ np.append(np.argwhere(mask).mean(axis=0) + start, 1.0)
        diameters = axial_diameters(mask, row_step, column_step)
        on = own_slice[start[0] + np.flatnonzero(mask.any(axis=(1, 2)))]
        values, distance = hu[box][mask], surface.distance_mm(shell(mask) + own)
        around = enlarged(box, margin, lesions.inside.shape)
        contrast = _contrast(values, hu[around][lesions.inside[around] == LIVER])
        score = float(lesions.scores[number - 1])
        row = {
            "id": number,
            "type": names[int(label)],
            "volume_ml": round(float(voxels) * volume.voxel_ml, 4),
            "longest_diameter_mm": round(diameters.longest_mm, 2),
            "perpendicular_diameter_mm": round(diameters.perpendicular_mm, 2),
            "diameter_slice": int(own_slice[start[0] + diameters.slice]),
            "centroid_x_mm": round(float(middle[0]), 2),
            "centroid_y_mm": round(float(middle[1]), 2),
            "centroid_z_mm": round(float(middle[2]), 2),
            "first_slice": int(on.min()),
            "last_slice": int(on.max()),
            "slices": len(on),
            "mean_hu": round(float(values.mean(dtype=np.float64)), 1),
            "std_hu": round(float(values.std(dtype=np.float64)), 1),
            "surface_distance_mm": round(distance, 2) if np.isfinite(distance) else float("nan"),
            "touches_surface": distance == 0,
            "liver_contrast_hu": round(contrast, 1),
            "lesion_score": round(score, 4),
            "indeterminate_because": lesions.reasons.get(number),
        }
        row |= {
            f"probability_{names[LESION + index]}": round(float(share), 4) for index, share in enumerate(probabilities)
        }
        rows.append({name: row[name] for name in columns})
    return pd.DataFrame(rows, columns=columns)


def renamed(table: pd.DataFrame, lesions: LesionMap, labels: tuple[Label, ...]) -> pd.DataFrame:
    """A lesion table with the types that its lesions have now, and the reasons; nothing is measured again.

    Args:
        table: of the same lesions, in order of id.
        lesions: with their types.
        labels: label table the types are from.
    """
    names = {label.index: label.name for label in labels}
    types = [names[int(label)] for label in lesions.types]
    reasons = pd.Series([lesions.reasons.get(number) for number in table["id"]], table.index, dtype=object)
    return table.assign(type=types, indeterminate_because=reasons)


def _contrast(lesion: np.ndarray, liver: np.ndarray) -> float:
    """Mean of a lesion's HU less the median of the liver's around it; NaN where that are hardly any voxels."""
    if len(liver) < _FEWEST_AROUND:
        return float("nan")
    return float(lesion.mean(dtype=np.float64) - np.median(liver[:: max(1, len(liver) // _ENOUGH_AROUND)]))


def _surface(lesions: LesionMap, affine: np.ndarray) -> LiverSurface:
    ends = zip(lesions.box, lesions.shape, strict=True)
    cut = np.array([(side.start == 0, side.stop == length) for side, length in ends])
    return LiverSurface(lesions.inside >= LIVER, affine[:3, :3].T, cut)


def own_slices(volume: Volume) -> np.ndarray:
    """For each slice of `volume.axial` its voxel index, from 0, along the file's own slice axis."""
    depth = volume.array.shape[volume.slice_axis]
    ends = np.array([[0, 0, 0, 1], [depth - 1, 0, 0, 1]]).T
    first, last = np.rint(np.linalg.solve(volume.affine, volume.axial_affine @ ends))[volume.slice_axis].astype(int)
    return np.linspace(first, last, depth).round().astype(int)
