"""Example slices: the CT, the reference, and the outlines and types of each strategy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from liverseg.datalists import DataItem
from liverseg.datasets.store import VolumeStore
from liverseg.errors import LiversegError
from liverseg.imageio.boxes import bounding_box
from liverseg.labels import JOINT_LABELS, LESION, LESION_TYPES, LIVER
from liverseg.study.plots import save_figure
from liverseg.study.results import RowResults, StudyResults
from liverseg.transforms import HUWindow
from liverseg.utils.drawing import draw_contour, hex_color

__all__ = ["ExampleSlice", "choose_rows", "choose_slices", "plot_slices"]

_WINDOW = HUWindow()  # that of the networks
_MARGIN = 12
"""Pixels around the liver."""
_PANEL_INCHES = 2.0
_WRONG = "#b00020"
_UNTYPED = "white"


@dataclass(frozen=True)
class ExampleSlice:
    """A slice of the picture.

    Attributes:
        image: path of the CT, as the data list has it.
        slice: slice number in the file.
        reason: why it was chosen.
    """

    image: str
    slice: int
    reason: str


def choose_rows(results: StudyResults) -> list[RowResults]:
    """Choose the rows of the picture: those without plan or label, from LiTS weights or else from scratch. No peers."""
    for initialisation in ("lits", "scratch", "imagenet"):
        rows = [
            row
            for row in results.with_results
            if not row.row.peer
            and (row.row.initialisation, row.row.plan, row.row.label) == (initialisation, "none", "")
        ]
        if rows:
            return rows
    return []


def choose_slices(rows: Sequence[RowResults]) -> list[ExampleSlice]:
    """Choose each type's median slice and the worst slice, by joint's class-aware Dice with the first seed.

    Of equally bad slices, the one with the largest lesion is the worst. Without joint, another strategy with a type map
    is used.
    """
    with_type_map = [row for row in rows if "class_aware_dice" in row.units]
    if not with_type_map:
        return []
    judge = next((row for row in with_type_map if row.row.strategy == "joint"), with_type_map[0])
    units = judge.units[(judge.units["seed"] == judge.units["seed"].min()) & judge.units["slice"].notna()]
    if units.empty:  # volumes were scored instead of slices
        return []
    chosen = []
    for name in LESION_TYPES:
        of_type = units[units["true_type"] == name].sort_values(["class_aware_dice", "image", "slice"])
        if len(of_type):
            chosen.append((of_type.iloc[len(of_type) // 2], f"{name}, median"))
    worst = units.assign(small=-units["lesion_true"]).sort_values(["class_aware_dice", "small", "image", "slice"])
    chosen.append((worst.iloc[0], f"{worst.iloc[0]['true_type']}, worst"))
    return [ExampleSlice(str(line["image"]), int(line["slice"]), reason) for line, reason in chosen]


def plot_slices(results: StudyResults, path: Path) -> bool:
    """Draw one row per slice, seen from the feet; columns are the CT, the reference, and each strategy's first seed.

    Returns:
        False, and no picture, if there are no slices to show.

    Raises:
        LiversegError: if the images are missing or cannot be read.
    """
    rows = choose_rows(results)
    examples = choose_slices(rows)
    if not examples:
        return False
    items = [_item(results, example) for example in examples]
    store = VolumeStore(items, results.study.dataset_dir, None, len(JOINT_LABELS), progress=False)
    columns = 2 + len(rows)
    size = (_PANEL_INCHES * columns, (_PANEL_INCHES + 0.35) * len(examples) + 0.5)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    grid = figure.subplots(len(examples), columns, squeeze=False)
    for line, (example, item) in enumerate(zip(examples, items, strict=True)):
        volume = store[item]
        index = volume.axial_index(example.slice)
        hu, truth = volume.image.read([index])[0], volume.label.read([index])[0]
        box = _view(truth)
        aspect = volume.spacing_mm[1] / volume.spacing_mm[2]
        for axes in grid[line]:
            axes.imshow(hu[box], cmap="gray", vmin=_WINDOW.lower, vmax=_WINDOW.upper, aspect=aspect)
            axes.set_xticks([])
            axes.set_yticks([])
        grid[line][0].set_ylabel(f"{example.reason}\n{item.patient}, slice {example.slice}", fontsize=8)
        _draw_labels(grid[line][1], truth[box], typed=True)
        grid[line][1].set_xlabel(item.lesion_type or "", fontsize=8)
        for axes, row in zip(grid[line][2:], rows, strict=True):
            _draw_prediction(axes, row, example, box)
    for axes, title in zip(grid[0], ("CT", "truth", *(row.row.strategy for row in rows)), strict=True):
        axes.set_title(title, fontsize=10)
    lines = [Line2D([], [], color=_color(number), label=JOINT_LABELS[number].name) for number in range(1, 5)]
    lines.append(Line2D([], [], color="#999999", label="lesion without a type (drawn white)"))
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), fontsize=8, frameon=False)
    save_figure(figure, path)
    return True


def _item(results: StudyResults, example: ExampleSlice) -> DataItem:
    for item in (*results.datalist.training, *results.datalist.test):
        if item.image == example.image and item.slice == example.slice:
            return item
    raise LiversegError(
        f"{results.study.datalist}: slice {example.slice} of {example.image} was scored, but is no longer in the list"
    )


def _view(truth: np.ndarray) -> tuple[slice, ...]:
    """Return the part of a slice around the liver."""
    box = bounding_box((truth >= LIVER)[None])
    if box is None:
        return (slice(None), slice(None))
    return tuple(
        slice(max(0, side.start - _MARGIN), min(length, side.stop + _MARGIN))
        for side, length in zip(box[1:], truth.shape, strict=True)
    )


def _draw_prediction(axes: Axes, row: RowResults, example: ExampleSlice, box: tuple[slice, ...]) -> None:
    units = row.units[row.units["seed"] == row.units["seed"].min()]
    found = units[(units["image"] == example.image) & (units["slice"] == example.slice)]
    if found.empty:
        axes.set_xlabel("not scored", fontsize=8)
        return
    unit = found.iloc[0]
    cell = next(cell for cell in row.complete if (cell.fold, cell.seed) == (unit["fold"], unit["seed"]))
    maps = cell.folder / "predictions.npz"
    if maps.is_file():
        with np.load(maps) as stored:
            _draw_labels(axes, stored[str(unit["number"])][box], typed="pred_type" in unit)
    wrong = "pred_type" in unit and unit["pred_type"] != unit["true_type"]
    axes.set_xlabel(_describe(unit), fontsize=8, color=_WRONG if wrong else "black")


def _describe(unit: pd.Series) -> str:
    parts = []
    if "pred_type" in unit:
        name = unit["pred_type"]
        parts.append(f"{name} {unit[f'probability_{name}']:.2f}" if name else "nothing named")
    if "lesion_dice" in unit:
        parts.append(f"Dice {unit['lesion_dice']:.2f}")
    return ", ".join(parts)


def _draw_labels(axes: Axes, labels: np.ndarray, typed: bool) -> None:
    draw_contour(axes, labels >= LIVER, _color(LIVER), 0.7)
    if not typed:
        draw_contour(axes, labels >= LESION, _UNTYPED, 1.2)
        return
    for index in range(LESION, len(JOINT_LABELS)):
        draw_contour(axes, labels == index, _color(index), 1.2)


def _color(index: int) -> str:
    return hex_color(JOINT_LABELS[index].color)
