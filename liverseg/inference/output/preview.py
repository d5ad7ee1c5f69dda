"""preview.png: three key slices of a case with its outlines and largest lesions, for looking through many cases."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.ndimage import find_objects

from liverseg.imageio.volume import Volume
from liverseg.inference.lesion_measurements import LesionMeasurements
from liverseg.inference.lesions import LesionMap, liver_volume_ml
from liverseg.inference.measurements import file_slice_indices
from liverseg.labels import LESION, LIVER, Label
from liverseg.utils.drawing import draw_contour, hex_color

__all__ = ["NOTICE", "WINDOW_HU", "draw_preview", "key_slices"]

WINDOW_HU = (-160.0, 240.0)
"""The usual abdominal window: level 40, width 400."""
_SLICES = 3
_LISTED_LESIONS = 6
_DOTS_PER_INCH = 110
_PANEL_INCHES = 4.2
_HEAD_INCHES = 0.6
_FOOT_INCHES = 1.25
NOTICE = "Research only, not a medical device"


def key_slices(lesions: LesionMap, slices: int = _SLICES) -> list[int]:
    """Choose axial slices to show: the widest ones of the largest lesions, then those of the liver, then the middle.

    Returns:
        Up to `slices` different axial slice numbers, the most important first; fewer if the volume has fewer.
    """
    depth, first = lesions.shape[0], lesions.box[0].start
    area = np.zeros(depth, int)
    area[lesions.box[0]] = [np.count_nonzero(plane) for plane in lesions.inside >= LIVER]
    # one slice per lesion; neighbours of a chosen slice would show nothing new
    near = max(1, depth // 40)
    chosen: list[int] = []
    for lesion, box in enumerate(find_objects(lesions.ids_inside, 4 * slices)[: len(lesions.voxels)], start=1):
        areas = np.count_nonzero(lesions.ids_inside[box] == lesion, axis=(1, 2))
        best = first + box[0].start + int(np.argmax(areas))
        if all(abs(best - other) > near for other in chosen):
            chosen.append(best)
    found = np.flatnonzero(area) if area.any() else np.arange(depth)
    widest = int(np.argmax(area)) if area.any() else depth // 2
    spread = [int(found[int(share * (len(found) - 1))]) for share in (0.5, 0.25, 0.75, 0.0, 1.0)]
    for candidate in (widest, *spread, *range(depth)):
        if candidate not in chosen:
            chosen.append(candidate)
    return chosen[: min(slices, depth)]


def draw_preview(
    case: str, volume: Volume, lesions: LesionMap, table: LesionMeasurements, labels: Sequence[Label]
) -> bytes:
    """Draw the key slices in radiological convention: seen from the feet, with the patient's left on the right.

    Args:
        case: name of the case, for the title.
        volume: the CT.
        lesions: of the volume, in axial order.
        table: lesion table.
        labels: label table with the colours.

    Returns:
        The content of a PNG file.
    """
    hu, numbers = volume.axial, file_slice_indices(volume)
    _, row_mm, column_mm = volume.axial_spacing
    proportion = float(np.clip(hu.shape[1] * row_mm / (hu.shape[2] * column_mm), 0.4, 2.0))
    height = _PANEL_INCHES * proportion + _HEAD_INCHES + _FOOT_INCHES
    figure = Figure(figsize=(_PANEL_INCHES * _SLICES, height), dpi=_DOTS_PER_INCH, facecolor="black")
    FigureCanvasAgg(figure)
    top, bottom = 1 - _HEAD_INCHES / height, _FOOT_INCHES / height
    grid = figure.add_gridspec(1, _SLICES, left=0.01, right=0.99, wspace=0.02, top=top, bottom=bottom)
    for place, index in enumerate(key_slices(lesions)):
        axes = figure.add_subplot(grid[0, place])
        axes.imshow(hu[index], cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], aspect=row_mm / column_mm)
        _draw_outlines(axes, lesions, index, labels)
        axes.set_title(f"slice {numbers[index]}", color="white", fontsize=9, pad=4)
        for x, side, anchor in ((0.01, "R", "left"), (0.99, "L", "right")):
            axes.text(x, 0.5, side, transform=axes.transAxes, color="white", fontsize=9, ha=anchor)
        axes.set_axis_off()
    counted = f"{len(table)} lesion{'' if len(table) == 1 else 's'}"
    title = f"{case}   liver {liver_volume_ml(lesions, volume.voxel_ml):.0f} ml, {counted}"
    # without parse_math: a file name between dollar signs is not a formula
    figure.text(0.01, 0.985, title, color="white", fontsize=12, va="top", parse_math=False)
    figure.text(0.99, 0.985, NOTICE, color="white", fontsize=10, va="top", ha="right")
    lines = "\n".join(_lesion_lines(table))
    figure.text(0.01, bottom - 0.1 / height, lines, color="white", fontsize=8.5, va="top", family="monospace")
    _legend(figure, labels)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", facecolor="black")
    return picture.getvalue()


def _draw_outlines(axes: Axes, lesions: LesionMap, index: int, labels: Sequence[Label]) -> None:
    labelled, ids = lesions.on_slice(index)
    draw_contour(axes, labelled >= LIVER, hex_color(labels[LIVER].color), 0.9)
    for label in labels[LESION:]:
        draw_contour(axes, labelled == label.index, hex_color(label.color), 1.3)
    for lesion in np.unique(ids[ids > 0])[:_LISTED_LESIONS]:
        found = np.argwhere(ids == lesion)
        color = hex_color(labels[int(lesions.types[lesion - 1])].color)
        corner = (found[:, 1].max(), found[:, 0].min())
        axes.annotate(
            str(lesion), corner, xytext=(3, 3), textcoords="offset points", color=color, fontsize=8, weight="bold"
        )


def _lesion_lines(table: LesionMeasurements) -> list[str]:
    """Describe the largest lesions, a line each, and count the rest."""
    names = [name for name in table.columns if name.startswith("probability_")]
    lines = []
    for row in table.records()[:_LISTED_LESIONS]:
        probabilities = ", ".join(f"{name.removeprefix('probability_')} {row[name]:.2f}" for name in names)
        size = f"{row['longest_diameter_mm']:.0f} × {row['perpendicular_diameter_mm']:.0f} mm"
        line = f"{row['id']:>3}  {row['type']:<13} {size:>12} {row['volume_ml']:>8.1f} ml {row['mean_hu']:>6.0f} HU"
        lines.append(f"{line}  {probabilities}")
    if len(table) > _LISTED_LESIONS:
        lines.append(f"     and {len(table) - _LISTED_LESIONS} smaller")
    return lines or ["no lesion found"]


def _legend(figure: Figure, labels: Sequence[Label]) -> None:
    handles = [Line2D([], [], color=hex_color(label.color), lw=2, label=label.name) for label in labels[LIVER:]]
    figure.legend(
        handles=handles, loc="lower right", frameon=False, labelcolor="white", fontsize=9, bbox_to_anchor=(0.995, 0.005)
    )
