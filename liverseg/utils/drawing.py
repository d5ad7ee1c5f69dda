"""Contours and colours of labels in matplotlib figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_contour", "hex_color"]


def draw_contour(axes: Axes, mask: np.ndarray, color: str, width: float) -> None:
    """Draw the outline of a mask over its slice. An empty mask draws nothing.

    Args:
        axes: showing the slice, a pixel's centre at its integer index.
        mask: shape (row, column).
        color: any of matplotlib's.
        width: of the line, in points.
    """
    if not mask.any():
        return
    # padded, so that outlines are closed at the slice's edge and a slice of one row can be drawn
    rows, columns = mask.shape
    padded = np.pad(mask, 1).astype(np.float32)
    x, y = np.arange(-1, columns + 1), np.arange(-1, rows + 1)
    axes.contour(x, y, padded, levels=[0.5], colors=[color], linewidths=width)
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)


def hex_color(rgb: tuple[int, int, int]) -> str:
    """Return an RGB colour, each 0 to 255, as `#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*rgb)
