"""Plots of the report: confusion matrices, reliability curves, training curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from liverseg.bundle.validation import INITIALISATIONS
from liverseg.evaluation.lesion_types import FALSE_POSITIVE, confusion_table, reliability
from liverseg.labels import LESION_TYPES
from liverseg.study.curves import DRAWN, StudyCurves
from liverseg.study.estimates import COMPARED, Comparison, patient_means, with_predicted_type
from liverseg.study.measures import CONFUSION, LESION_CONFUSION, MEASURES
from liverseg.study.results import RowResults, StudyResults
from liverseg.utils.files import atomic_write

__all__ = ["plot_confusion", "plot_differences", "plot_reliability", "plot_training", "save_figure"]

_DOTS_PER_INCH = 110
_COLORS = {"scratch": "#7f7f7f", "imagenet": "#0072b2", "lits": "#d55e00"}
"""From the Okabe-Ito palette, and grey."""
_SIGNIFICANT, _NOT_SIGNIFICANT, _DETECTABLE = "#0072b2", "#7f7f7f", "#e8e8e8"
_SIDE = len(LESION_TYPES) + 1


def plot_differences(compared: Sequence[Comparison], path: Path) -> bool:
    """Plot paired differences with their intervals, over the differences that are too small to be detected.

    Peers are left out: differences to other software may be many times as large, and all others would be too small to
    see.

    Returns:
        False, and no picture, if there is nothing to draw.
    """
    found = {
        (item.question, item.row, item.other, item.measure): item
        for item in compared
        if item.question != "peer" and np.isfinite(item.difference.value)
    }
    measures = [measure for measure in COMPARED if any(key[-1] == measure for key in found)]
    pairs = list(dict.fromkeys(key[:-1] for key in found))
    if not pairs:
        return False
    figure, (panels,) = _figure(1, len(measures), width=2.9, height=0.22 * len(pairs) + 0.7)
    for axes, measure in zip(panels, measures, strict=True):
        axes.axvline(0, color="black", linewidth=0.8)
        axes.use_sticky_edges = False  # bars would cut off intervals
        for line, pair in enumerate(pairs):
            item = found.get((*pair, measure))
            if item is None:
                continue
            detectable, difference = item.detectable_in_family, item.difference
            axes.barh(line, 2 * detectable, left=-detectable, height=0.8, color=_DETECTABLE, zorder=0)
            color = _SIGNIFICANT if item.is_significant else _NOT_SIGNIFICANT
            axes.plot([difference.lower, difference.upper], [line, line], color=color, linewidth=1.6)
            axes.plot(difference.value, line, "o", color=color, markersize=4)
        axes.set_title(MEASURES[measure].title, fontsize=10)
        axes.set_ylim(len(pairs) - 0.4, -0.6)
        axes.set_yticks(range(len(pairs)), [], fontsize=8)
        axes.tick_params(labelsize=8)
    panels[0].set_yticks(range(len(pairs)), [f"{row} − {other}" for _, row, other in pairs], fontsize=8)
    handles = [
        Line2D([], [], color=_SIGNIFICANT, marker="o", markersize=4, label="significant (Holm)"),
        Line2D([], [], color=_NOT_SIGNIFICANT, marker="o", markersize=4, label="not significant"),
        Line2D([], [], color=_DETECTABLE, linewidth=7, label="true differences detected with less than 80 % power"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    save_figure(figure, path)
    return True


def plot_confusion(results: StudyResults, path: Path, of_lesions: bool) -> bool:
    """Plot confusion matrices of the rows without a plan, as shares of each true type. Counts are averaged over seeds.

    Args:
        results: of the study.
        path: the PNG to write.
        of_lesions: count lesions, with predicted ones that hit none, instead of annotated slices.

    Returns:
        False, and no picture, if there is nothing to draw.
    """
    measure = LESION_CONFUSION if of_lesions else CONFUSION
    counted = {}
    for row in _main_rows(results):
        counts = patient_means(row, measure)
        if counts is not None:
            counted[row.name] = confusion_table(counts.sum().to_numpy().reshape(_SIDE, _SIDE))
    rows = [row for row in _main_rows(results) if row.name in counted]
    if not rows:
        return False

    def draw(axes: Axes, row: RowResults) -> None:
        table = counted[row.name] if of_lesions else counted[row.name].drop(index=FALSE_POSITIVE)
        counts = table.to_numpy()
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-12)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (line, column), count in np.ndenumerate(counts):
            if line == column == _SIDE - 1:
                continue
            text = f"{count:.0f}" if line == _SIDE - 1 else f"{count:.0f}\n{100 * shares[line, column]:.0f} %"
            color = "white" if shares[line, column] > 0.6 else "black"
            axes.text(column, line, text, ha="center", va="center", fontsize=8, color=color)
        axes.set_xticks(range(_SIDE), table.columns, fontsize=8, rotation=30, ha="right")
        axes.set_yticks(range(len(table)), table.index, fontsize=8)

    _grid_of_rows(rows, draw, path, width=3.0, height=2.7 if of_lesions else 2.4, xlabel="predicted", ylabel="true")
    return True


def plot_reliability(results: StudyResults, path: Path) -> bool:
    """Plot the share of right types by predicted probability, pooled over folds and seeds.

    Returns:
        False, and no picture, if there is nothing to draw.
    """
    rows = [row for row in _main_rows(results) if "pred_type" in row.units and len(with_predicted_type(row.units))]
    if not rows:
        return False

    def draw(axes: Axes, row: RowResults) -> None:
        kept = with_predicted_type(row.units)
        bins = reliability(kept["true_type"].tolist(), kept["pred_type"].tolist(), kept["confidence"].tolist())
        axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1)
        color = _COLORS[row.row.initialisation]
        axes.plot(bins["confidence"], bins["accuracy"], color=color, linewidth=1.4)
        areas = 220 * bins["count"] / bins["count"].sum()
        axes.scatter(bins["confidence"], bins["accuracy"], s=areas + 6, color=color, alpha=0.6, linewidths=0)
        axes.set_xlim(0.25, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.tick_params(labelsize=8)
        axes.grid(color="#eeeeee")

    _grid_of_rows(
        rows, draw, path, width=2.6, height=2.3, xlabel="probability of predicted type", ylabel="share correct"
    )
    return True


def plot_training(results: StudyResults, curves: StudyCurves, path: Path) -> bool:
    """Plot validation scores against the epoch, a line per cell.

    Returns:
        False, and no picture, if there is nothing to draw.
    """
    known = {row.name: {name for found in curves[row.name] for name in found} for row in results.rows}
    rows = [row for row in _main_rows(results) if not known[row.name].isdisjoint(DRAWN)]
    if not rows:
        return False
    drawn = {name: title for name, title in DRAWN.items() if any(name in known[row.name] for row in rows)}
    strategies = list(dict.fromkeys(_title(row) for row in rows))
    figure, grid = _figure(len(drawn), len(strategies), width=2.7, height=2.2)
    for line, (name, title) in enumerate(drawn.items()):
        for column, strategy in enumerate(strategies):
            axes = grid[line][column]
            for row in (row for row in rows if _title(row) == strategy):
                for found in curves[row.name]:
                    if name in found:
                        color = _COLORS[row.row.initialisation]
                        axes.plot(*zip(*found[name], strict=True), color=color, linewidth=0.9, alpha=0.7)
            axes.set_ylim(-0.02, 1.02)
            axes.tick_params(labelsize=8)
            axes.grid(color="#eeeeee")
            if not axes.lines:
                axes.set_axis_off()
            if line == 0:
                axes.set_title(strategy, fontsize=10)
            if column == 0 or not grid[line][column - 1].axison:
                axes.set_ylabel(title, fontsize=9)
            axes.set_xlabel("epoch", fontsize=8)
    shown = [name for name in INITIALISATIONS if any(row.row.initialisation == name for row in rows)]
    lines = [Line2D([], [], color=_COLORS[name], label=name) for name in shown]
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), fontsize=9, frameon=False)
    save_figure(figure, path)
    return True


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG of 256 colours, which has a third of the size. The same figure gives the same bytes.

    Raises:
        OutputError: if it cannot be written.
    """
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(_DOTS_PER_INCH)
    canvas.draw()
    colors = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    image = colors.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    with atomic_write(path) as temporary:
        image.save(temporary, optimize=True)


def _main_rows(results: StudyResults) -> list[RowResults]:
    return [row for row in results.with_results if row.row.plan == "none"]


def _title(row: RowResults) -> str:
    return f"{row.row.strategy}, {row.row.label}" if row.row.label else row.row.strategy


def _figure(lines: int, columns: int, width: float, height: float) -> tuple[Figure, list[list[Axes]]]:
    figure = Figure(figsize=(width * columns + 0.4, height * lines + 0.6), layout="constrained", facecolor="white")
    return figure, [list(axes) for axes in figure.subplots(lines, columns, squeeze=False)]


def _grid_of_rows(
    rows: Sequence[RowResults],
    draw: Callable[[Axes, RowResults], None],
    path: Path,
    *,
    width: float,
    height: float,
    xlabel: str,
    ylabel: str,
) -> None:
    """Draw a panel for each row of the study; columns are strategies and rows are initialisations."""
    strategies = list(dict.fromkeys(_title(row) for row in rows))
    initialisations = [name for name in INITIALISATIONS if any(row.row.initialisation == name for row in rows)]
    panels = {(row.row.initialisation, _title(row)): row for row in rows}
    figure, grid = _figure(len(initialisations), len(strategies), width, height)
    for line, initialisation in enumerate(initialisations):
        for column, strategy in enumerate(strategies):
            axes, row = grid[line][column], panels.get((initialisation, strategy))
            if row is None:
                axes.set_axis_off()
                continue
            draw(axes, row)
            axes.set_title(f"{strategy}, {initialisation}", fontsize=10)
    figure.supxlabel(xlabel, fontsize=9)
    figure.supylabel(ylabel, fontsize=9)
    save_figure(figure, path)
