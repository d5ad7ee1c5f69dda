"""A few slices as every strategy saw them: the CT, the truth, and each strategy's outlines and names."""

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
from liverseg.study.plots import save_picture
from liverseg.study.results import RowResults, StudyResults
from liverseg.transforms import HUWindow

__all__ = ["ChosenSlice", "choose_slices", "qualitative_picture", "shown_rows"]

_WINDOW = HUWindow()  # what the networks see
_MARGIN = 12  # pixels around the liver
_PANEL_INCHES = 2.0
_WRONG = "#b00020"
_WHITE = "white"  # a lesion without a name


@dataclass(frozen=True)
class ChosenSlice:
    """A slice of the picture: where it is, and why it was chosen."""

    image: str
    slice: int
    reason: str


def shown_rows(results: StudyResults) -> list[RowResults]:
    """The rows of the picture: every strategy without plan or label, from LiTS weights or else from scratch."""
    for initialisation in ("lits", "scratch", "imagenet"):
        rows = [
            row
            for row in results.with_results
            if (row.row.initialisation, row.row.plan, row.row.label) == (initialisation, "none", "")
        ]
        if rows:
            return rows
    return []


def choose_slices(rows: Sequence[RowResults]) -> list[ChosenSlice]:
    """By joint's class-aware Dice with the first seed: each type's median slice, and the worst of all.

    Of several equally bad ones it is that with the largest lesion. Without joint another strategy that names lesions on
    a map decides.
    """
    able = [row for row in rows if "class_aware_dice" in row.units]
    if not able:
        return []
    judge = next((row for row in able if row.row.strategy == "joint"), able[0])
    units = judge.units[(judge.units["seed"] == judge.units["seed"].min()) & judge.units["slice"].notna()]
    if units.empty:  # whole volumes were scored
        return []
    chosen = []
    for name in LESION_TYPES:
        of_type = units[units["true_type"] == name].sort_values(["class_aware_dice", "image", "slice"])
        if len(of_type):
            chosen.append((of_type.iloc[len(of_type) // 2], f"{name}, median"))
    worst = units.assign(small=-units["lesion_true"]).sort_values(["class_aware_dice", "small", "image", "slice"])
    chosen.append((worst.iloc[0], f"{worst.iloc[0]['true_type']}, worst"))
    return [ChosenSlice(str(line["image"]), int(line["slice"]), reason) for line, reason in chosen]


def qualitative_picture(results: StudyResults, path: Path) -> bool:
    """Draw the grid: a line a slice, seen from the feet; columns are the CT, the truth, and each strategy's first seed.

    Returns:
        Whether there was anything to draw.

    Raises:
        LiversegError: if the images are not there or cannot be read.
    """
    rows = shown_rows(results)
    chosen = choose_slices(rows)
    if not chosen:
        return False
    items = [_item(results, one) for one in chosen]
    store = VolumeStore(items, results.study.dataset_dir, None, len(JOINT_LABELS), progress=False)
    columns = 2 + len(rows)
    size = (_PANEL_INCHES * columns, (_PANEL_INCHES + 0.35) * len(chosen) + 0.5)
    figure = Figure(figsize=size, layout="constrained", facecolor=_WHITE)
    grid = figure.subplots(len(chosen), columns, squeeze=False)
    for line, (one, item) in enumerate(zip(chosen, items, strict=True)):
        volume = store[item]
        index = volume.axial_index(one.slice)
        hu, truth = volume.image.read([index])[0], volume.label.read([index])[0]
        box = _view(truth)
        aspect = volume.spacing_mm[1] / volume.spacing_mm[2]
        for axes in grid[line]:
            axes.imshow(hu[box], cmap="gray", vmin=_WINDOW.lower, vmax=_WINDOW.upper, aspect=aspect)
            axes.set_xticks([])
            axes.set_yticks([])
        grid[line][0].set_ylabel(f"{one.reason}\n{item.patient}, slice {one.slice}", fontsize=8)
        _outline(grid[line][1], truth[box], named=True)
        grid[line][1].set_xlabel(item.lesion_type or "", fontsize=8)
        for axes, row in zip(grid[line][2:], rows, strict=True):
            _draw_prediction(axes, row, one, box)
    for axes, title in zip(grid[0], ("CT", "truth", *(row.row.strategy for row in rows)), strict=True):
        axes.set_title(title, fontsize=10)
    lines = [Line2D([], [], color=_color(number), label=JOINT_LABELS[number].name) for number in range(1, 5)]
    lines.append(Line2D([], [], color="#999999", label="lesion without a name (drawn white)"))
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), fontsize=8, frameon=False)
    save_picture(figure, path)
    return True


def _item(results: StudyResults, one: ChosenSlice) -> DataItem:
    for item in (*results.datalist.training, *results.datalist.test):
        if item.image == one.image and item.slice == one.slice:
            return item
    raise LiversegError(
        f"{results.study.datalist}: slice {one.slice} of {one.image} was scored, but is no longer in the data list"
    )


def _view(truth: np.ndarray) -> tuple[slice, ...]:
    """The part of a slice around the liver."""
    box = bounding_box((truth >= LIVER)[None])
    if box is None:
        return (slice(None), slice(None))
    return tuple(
        slice(max(0, side.start - _MARGIN), min(length, side.stop + _MARGIN))
        for side, length in zip(box[1:], truth.shape, strict=True)
    )


def _draw_prediction(axes: Axes, row: RowResults, one: ChosenSlice, box: tuple[slice, ...]) -> None:
    units = row.units[row.units["seed"] == row.units["seed"].min()]
    found = units[(units["image"] == one.image) & (units["slice"] == one.slice)]
    if found.empty:
        axes.set_xlabel("not scored", fontsize=8)
        return
    unit = found.iloc[0]
    cell = next(cell for cell in row.complete if (cell.fold, cell.seed) == (unit["fold"], unit["seed"]))
    maps = cell.folder / "predictions.npz"
    if maps.is_file():
        with np.load(maps) as stored:
            _outline(axes, stored[str(unit["number"])][box], named="pred_type" in unit)
    wrong = "pred_type" in unit and unit["pred_type"] != unit["true_type"]
    axes.set_xlabel(_told(unit), fontsize=8, color=_WRONG if wrong else "black")


def _told(unit: pd.Series) -> str:
    told = []
    if "pred_type" in unit:
        name = unit["pred_type"]
        told.append(f"{name} {unit[f'probability_{name}']:.2f}" if name else "nothing named")
    if "lesion_dice" in unit:
        told.append(f"Dice {unit['lesion_dice']:.2f}")
    return ", ".join(told)


def _outline(axes: Axes, labels: np.ndarray, named: bool) -> None:
    masks = [(labels >= LIVER, _color(LIVER), 0.7)]
    if named:
        masks += [(labels == number, _color(number), 1.2) for number in range(LESION, len(JOINT_LABELS))]
    else:
        masks.append((labels >= LESION, _WHITE, 1.2))
    rows, columns = labels.shape
    # padded, so that what touches the picture's edge is closed
    x, y = np.arange(-1, columns + 1), np.arange(-1, rows + 1)
    for mask, color, width in masks:
        if mask.any():
            axes.contour(x, y, np.pad(mask, 1).astype(np.float32), levels=[0.5], colors=[color], linewidths=width)
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)


def _color(number: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*JOINT_LABELS[number].color)
