"""A data list in one picture: lesion sizes, HU, lesions a patient, slice spacing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from liverseg.datalists.items import LABELLED
from liverseg.errors import LiversegError
from liverseg.labels import JOINT_LABELS, LIVER, PRETRAIN_LABELS
from liverseg.utils.files import whole_file

__all__ = ["write_picture"]

_COLOURS = {label.name: "#{:02x}{:02x}{:02x}".format(*label.color) for label in (*PRETRAIN_LABELS, *JOINT_LABELS)}
_OTHER = "#808080"
_BINS = 24


def write_picture(lesions: pd.DataFrame, images: pd.DataFrame, name: str, noun: str, path: Path) -> None:
    """Draw the tables of a `Description` as a PNG, by rename.

    Args:
        lesions, images: its tables.
        name: the list's, for the title.
        noun: what a row of `lesions` is called, in the plural.
        path: target, in an existing folder.

    Raises:
        LiversegError: if it cannot be written.
    """
    figure = Figure(figsize=(11, 7), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{name}: {images['patient'].nunique()} patients, {len(lesions)} {noun}")
    axes = figure.subplots(2, 2).ravel()
    kinds = sorted(lesions["lesion_type"].unique())
    _by_kind(axes[0], lesions, "diameter_mm", kinds, "diameter, mm", noun)
    _by_kind(axes[1], lesions, "mean_hu", kinds, "mean HU", noun)
    liver = images["liver_hu"].dropna()
    if len(liver):
        axes[1].axvspan(
            *liver.quantile([0.05, 0.95]), color=_COLOURS[JOINT_LABELS[LIVER].name], alpha=0.3, lw=0, zorder=0
        )
        axes[1].set_title("band: the middle nine tenths of the livers", fontsize="medium")
    outlined = images.loc[images["labelled"] != LABELLED[0][0], "patient"]  # of the others nobody knows the lesions
    counts = pd.Series(0, index=outlined.unique())
    counts = counts.add(lesions.groupby("patient").size(), fill_value=0).astype(int)
    axes[2].bar(*np.unique(counts, return_counts=True), color=_OTHER)
    axes[2].set(xlabel=f"{noun} a patient", ylabel="patients")
    axes[3].hist(images["slice_mm"], bins=_BINS, color=_OTHER)
    axes[3].set(xlabel="slice spacing, mm", ylabel="volumes")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    try:
        with whole_file(path) as unfinished:
            figure.savefig(unfinished, dpi=110, format="png")
    except OSError as error:
        raise LiversegError(f"{path}: the picture cannot be written ({error.strerror or error})") from error


def _by_kind(axis: Axes, lesions: pd.DataFrame, column: str, kinds: list[str], words: str, noun: str) -> None:
    """Stacked histogram of a column, a colour a lesion type."""
    axis.set(xlabel=words, ylabel=noun)
    if not kinds:
        return
    values = [lesions.loc[lesions["lesion_type"] == kind, column] for kind in kinds]
    colours = [_COLOURS.get(kind, _OTHER) for kind in kinds]
    axis.hist(values, bins=_BINS, stacked=True, color=colours, label=kinds)
    axis.legend(frameon=False)
