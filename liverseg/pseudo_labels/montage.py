"""One picture a case: axial slices from the liver's lowest to its highest, with the outlines of one network or two."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from liverseg.imageio.boxes import bounding_box
from liverseg.imageio.ct_check import BODY_HU
from liverseg.inference.output.preview import NOTICE, WINDOW_HU, draw_contour
from liverseg.labels import JOINT_LABELS, LIVER
from liverseg.pseudo_labels.checks import LiverOutline

__all__ = ["shown_slices", "write_montage"]

_COLORS = (JOINT_LABELS[LIVER].color, (86, 180, 233))
"""The liver's own, and the sky blue of the Okabe-Ito palette."""
_COLUMNS, _ROWS = 4, 3
_PANEL_INCHES = 3.2
_HEAD_INCHES = 0.5
_DOTS_PER_INCH = 110


def shown_slices(outlines: Sequence[LiverOutline], count: int = _COLUMNS * _ROWS) -> list[int]:
    """Axial slices evenly from one below the outlines to one above them; over all of a volume without any.

    Args:
        outlines: of one volume.
        count: slices at most.

    Returns:
        Different slice numbers, rising.
    """
    depth = outlines[0].shape[0]
    slices = [outline.box[0] for outline in outlines if outline.voxels] or [slice(0, depth)]
    first = max(0, min(one.start for one in slices) - 1)
    last = min(depth - 1, max(one.stop for one in slices))
    return sorted({round(place) for place in np.linspace(first, last, count).tolist()})


def write_montage(
    path: Path,
    case: str,
    hu: np.ndarray,
    spacing: Sequence[float],
    outlines: Sequence[LiverOutline],
    names: Sequence[str],
) -> None:
    """Draw a case, seen from the feet as radiologists do: the patient's left is on the picture's right.

    Args:
        path: the PNG to write.
        case: its name, for the title.
        hu: the CT in axial order.
        spacing: mm between slices, rows and columns.
        outlines: of the CT, of one network or two.
        names: of the networks, for the legend.
    """
    slices = shown_slices(outlines)
    body = bounding_box(hu[slices] > BODY_HU)
    rows, columns = (slice(0, hu.shape[1]), slice(0, hu.shape[2])) if body is None else body[1:]
    shape = (rows.stop - rows.start) * spacing[1], (columns.stop - columns.start) * spacing[2]
    proportion = float(np.clip(shape[0] / shape[1], 0.4, 2.0))
    height = _PANEL_INCHES * proportion * _ROWS + _HEAD_INCHES
    figure = Figure(figsize=(_PANEL_INCHES * _COLUMNS, height), dpi=_DOTS_PER_INCH, facecolor="black")
    FigureCanvasAgg(figure)
    sides = {"left": 0.003, "right": 0.997, "bottom": 0.003, "top": 1 - _HEAD_INCHES / height}
    grid = figure.add_gridspec(_ROWS, _COLUMNS, **sides, wspace=0.01, hspace=0.01)
    for place, index in enumerate(slices):
        axes = figure.add_subplot(grid[place // _COLUMNS, place % _COLUMNS])
        seen = hu[index, rows, columns]
        axes.imshow(seen, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], aspect=spacing[1] / spacing[2])
        for outline, color in reversed(list(zip(outlines, _COLORS, strict=False))):
            draw_contour(axes, outline.on_slice(index)[rows, columns], _unit_rgb(color), 1.0)
        for x, y, text, anchor in (
            (0.02, 0.97, str(index), "left"),
            (0.01, 0.5, "R", "left"),
            (0.99, 0.5, "L", "right"),
        ):
            axes.text(x, y, text, transform=axes.transAxes, color="white", fontsize=8, ha=anchor, va="top")
        axes.set_axis_off()
    told = f"{case}   axial slices from the lowest (0) to the highest ({len(hu) - 1})"
    # parse_math off: a file's name between dollar signs is no formula
    figure.text(0.005, 0.99, told, color="white", fontsize=11, va="top", parse_math=False)
    figure.text(0.995, 0.99, NOTICE, color="white", fontsize=9, va="top", ha="right")
    handles = [Line2D([], [], color=_unit_rgb(color), lw=2) for color, _ in zip(_COLORS, outlines, strict=False)]
    legend = figure.legend(
        handles, list(names), loc="upper left", bbox_to_anchor=(0.0, 1 - 0.2 / height), ncols=len(handles),
        frameon=False, labelcolor="white", fontsize=9,
    )  # fmt: skip
    for name in legend.get_texts():
        name.set_parse_math(False)
    figure.savefig(path, format="png", facecolor="black")


def _unit_rgb(color: tuple[int, int, int]) -> tuple[float, float, float]:
    red, green, blue = color
    return red / 255, green / 255, blue / 255
