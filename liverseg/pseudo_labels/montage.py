"""A picture of a case: axial slices from the lowest to the highest of the liver, with outlines of the networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from liverseg.imageio.boxes import bounding_box
from liverseg.imageio.ct_check import BODY_HU
from liverseg.inference.output.preview import NOTICE, WINDOW_HU
from liverseg.labels import JOINT_LABELS, LIVER
from liverseg.pseudo_labels.checks import LiverOutline
from liverseg.utils.drawing import draw_contour, hex_color

__all__ = ["montage_slices", "write_montage"]

_COLORS = (JOINT_LABELS[LIVER].color, (86, 180, 233))
"""The liver's colour, and the sky blue of the Okabe-Ito palette."""
_COLUMNS, _ROWS = 4, 3
_PANEL_INCHES = 3.2
_HEAD_INCHES = 0.5
_DOTS_PER_INCH = 110


def montage_slices(outlines: Sequence[LiverOutline], count: int = _COLUMNS * _ROWS) -> list[int]:
    """Choose evenly spaced axial slices, from one slice below the outlines to one above.

    Args:
        outlines: outlines of one volume. If all are empty, the slices are from the complete volume.
        count: largest number of slices.

    Returns:
        Distinct slice numbers in ascending order.
    """
    depth = outlines[0].shape[0]
    ranges = [outline.box[0] for outline in outlines if outline.voxels] or [slice(0, depth)]
    first = max(0, min(slices.start for slices in ranges) - 1)
    last = min(depth - 1, max(slices.stop for slices in ranges))
    return sorted({round(position) for position in np.linspace(first, last, count).tolist()})


def write_montage(
    path: Path,
    case: str,
    hu: np.ndarray,
    spacing: Sequence[float],
    outlines: Sequence[LiverOutline],
    names: Sequence[str],
) -> None:
    """Plot a case in radiological orientation: the patient's left is on the picture's right.

    Args:
        path: the PNG to write.
        case: name of the case, for the title.
        hu: the CT in axial order.
        spacing: distance of slices, rows and columns, mm.
        outlines: outlines of one or two networks.
        names: names of the networks, for the legend.
    """
    slices = montage_slices(outlines)
    body = bounding_box(hu[slices] > BODY_HU)
    rows, columns = (slice(0, hu.shape[1]), slice(0, hu.shape[2])) if body is None else body[1:]
    shape = (rows.stop - rows.start) * spacing[1], (columns.stop - columns.start) * spacing[2]
    aspect_ratio = float(np.clip(shape[0] / shape[1], 0.4, 2.0))
    height = _PANEL_INCHES * aspect_ratio * _ROWS + _HEAD_INCHES
    figure = Figure(figsize=(_PANEL_INCHES * _COLUMNS, height), dpi=_DOTS_PER_INCH, facecolor="black")
    FigureCanvasAgg(figure)
    sides = {"left": 0.003, "right": 0.997, "bottom": 0.003, "top": 1 - _HEAD_INCHES / height}
    grid = figure.add_gridspec(_ROWS, _COLUMNS, **sides, wspace=0.01, hspace=0.01)
    for panel, index in enumerate(slices):
        axes = figure.add_subplot(grid[panel // _COLUMNS, panel % _COLUMNS])
        image = hu[index, rows, columns]
        axes.imshow(image, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], aspect=spacing[1] / spacing[2])
        for outline, color in reversed(list(zip(outlines, _COLORS, strict=False))):
            draw_contour(axes, outline.on_slice(index)[rows, columns], hex_color(color), 1.0)
        for x, y, text, anchor in (
            (0.02, 0.97, str(index), "left"),
            (0.01, 0.5, "R", "left"),
            (0.99, 0.5, "L", "right"),
        ):
            axes.text(x, y, text, transform=axes.transAxes, color="white", fontsize=8, ha=anchor, va="top")
        axes.set_axis_off()
    title = f"{case}   axial slices from the lowest (0) to the highest ({len(hu) - 1})"
    # parse_math off, because a file name with dollar signs is no formula
    figure.text(0.005, 0.99, title, color="white", fontsize=11, va="top", parse_math=False)
    figure.text(0.995, 0.99, NOTICE, color="white", fontsize=9, va="top", ha="right")
    handles = [Line2D([], [], color=hex_color(color), lw=2) for color, _ in zip(_COLORS, outlines, strict=False)]
    legend = figure.legend(
        handles, list(names), loc="upper left", bbox_to_anchor=(0.0, 1 - 0.2 / height), ncols=len(handles),
        frameon=False, labelcolor="white", fontsize=9,
    )  # fmt: skip
    for text_object in legend.get_texts():
        text_object.set_parse_math(False)
    figure.savefig(path, format="png", facecolor="black")
