"""Statistics of a data list, as for the data section of a paper: patients, lesions by type, sizes, spacing, HU."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cc3d
import numpy as np
import pandas as pd
from tqdm.contrib.concurrent import thread_map

from liverseg.datalists.model import LABELLED, DataItem, read_datalist
from liverseg.errors import LiversegError, OutputError
from liverseg.imageio.volume import Volume, read_volume
from liverseg.labels import FACE_CONNECTIVITY, JOINT_LABELS, LESION, LIVER, PRETRAIN_LABELS
from liverseg.utils.files import atomic_write, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Description", "describe_datalist"]

_QUANTILES = (0.05, 0.5, 0.95)

_COLOURS = {label.name: "#{:02x}{:02x}{:02x}".format(*label.color) for label in (*PRETRAIN_LABELS, *JOINT_LABELS)}
_GREY = "#808080"
_BINS = 24


@dataclass(frozen=True)
class Description:
    """Statistics of a data list.

    Attributes:
        name: name of the list.
        by_slice: whether the annotated slices are described, one by one, instead of the volumes.
        images: one row per image and label map: `image`, `patient`, `part` ("training" or "test"), `volume_slices`,
            `annotated_slices`, `labelled` (structures of a partial label map, else empty), `pixel_mm` (the larger
            in-plane spacing), `slice_mm`, `clipped_hu` ("0 to 255", else empty), `liver_ml` (NaN by slice), `liver_hu`
            and `liver_sd` (mean and standard deviation where the label is liver, HU; without lesions if these are
            outlined).
        lesions: one row per lesion, connected by faces: `image`, `patient`, `part`, `slice` (NaN for volumes),
            `lesion_type`, `diameter_mm` (of a ball, or by slice a disc, of equal size), `volume_ml` or `area_mm2`,
            `mean_hu`, `sd_hu`.
    """

    name: str
    by_slice: bool
    images: pd.DataFrame
    lesions: pd.DataFrame

    @property
    def table(self) -> pd.DataFrame:
        """Summary with one row per fact, columns `training`, `test` and `all`, and cells as text."""
        parts = [part for part in ("training", "test") if (self.images["part"] == part).any()]
        columns = {part: self._facts(part) for part in parts} | {"all": self._facts(None)}
        return pd.DataFrame(columns).fillna("")

    def write(self, folder: str | os.PathLike) -> Path:
        """Write `summary.csv`, `images.csv`, `lesions.csv` and `picture.png` into a folder, created if needed.

        Raises:
            OutputError: if they cannot be written.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: the folder cannot be created ({error.strerror})") from error
        write_text(folder / "summary.csv", self.table.to_csv(index_label="fact", lineterminator="\n"))
        for name, table in (("images", self.images), ("lesions", self.lesions)):
            write_text(folder / f"{name}.csv", table.to_csv(index=False, float_format="%.5g", lineterminator="\n"))
        _write_picture(self.lesions, self.images, self.name, self._noun, folder / "picture.png")
        return folder

    @property
    def _noun(self) -> str:
        """Name of the rows of `lesions`: a lesion on two annotated slices is outlined, and counted, on each."""
        return "outlines of lesions" if self.by_slice else "lesions"

    def _facts(self, part: str | None) -> dict[str, str]:
        images = self.images if part is None else self.images[self.images["part"] == part]
        lesions = self.lesions if part is None else self.lesions[self.lesions["part"] == part]
        with_lesion = lesions["image"].nunique()
        facts = {
            "patients": str(images["patient"].nunique()),
            "volumes": str(images["image"].nunique()),
            "slices": str(images["annotated_slices"].sum() if self.by_slice else images["volume_slices"].sum()),
            "volumes with a lesion": str(with_lesion),
            self._noun: str(len(lesions)),
        }
        not_outlined = images.loc[images["labelled"] == _format_labelled(LABELLED[0]), "image"].nunique()
        if not_outlined:
            facts["volumes whose lesions are not outlined"] = str(not_outlined)
        for clipped, rows in images[images["clipped_hu"] != ""].groupby("clipped_hu"):
            facts[f"volumes clipped to {clipped} HU"] = str(rows["image"].nunique())
        for lesion_type, rows in lesions.groupby("lesion_type"):
            facts[f"... {lesion_type}"] = f"{len(rows)} in {rows['patient'].nunique()} patients"
        facts[f"{self._noun} a patient"] = _format_quantiles(lesions.groupby("patient").size(), 0)
        facts["lesion diameter, mm"] = _format_quantiles(lesions["diameter_mm"], 0)
        if self.by_slice:
            facts["lesion area, mm²"] = _format_quantiles(lesions["area_mm2"], 0)
        else:
            facts["lesion volume, ml"] = _format_quantiles(lesions["volume_ml"], 2)
        for lesion_type, rows in lesions.groupby("lesion_type"):
            facts[f"HU of {lesion_type}"] = _format_quantiles(rows["mean_hu"], 0)
        facts["HU of liver"] = _format_quantiles(images["liver_hu"], 0)
        facts["HU within a liver, SD"] = _format_quantiles(images["liver_sd"], 0)
        if not self.by_slice:
            facts["liver, ml"] = _format_quantiles(images["liver_ml"], 0)
        facts["pixel, mm"] = _format_quantiles(images["pixel_mm"], 2)
        facts["slice spacing, mm"] = _format_quantiles(images["slice_mm"], 1)
        facts["slices a volume"] = _format_quantiles(images["volume_slices"], 0)
        return facts


def describe_datalist(
    path: str | os.PathLike, dataset_dir: str | os.PathLike, *, workers: int | None = None, progress: bool = True
) -> Description:
    """Read all labelled images of a list and compute their statistics.

    Args:
        path: the list.
        dataset_dir: folder its paths are relative to.
        workers: number of images read at a time; the number of processors by default.
        progress: show a progress bar on stderr.

    Raises:
        LiversegError: if the list or a file cannot be read, or an image and its label differ in shape;
            `liverseg datalist check` reports all such defects at once.
    """
    datalist = read_datalist(path)
    groups: dict[tuple[str, str, str], list[DataItem]] = {}
    for part, items in (("training", datalist.training), ("test", datalist.test)):
        for item in items:
            if item.label is not None:
                groups.setdefault((part, item.image, item.label), []).append(item)
    if not groups:
        raise LiversegError(f"{path}: no item has a label; there is nothing to describe")
    names = {int(index): name for index, name in datalist.labels.items()}

    def describe(group: tuple[str, str, str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        part, image_name, label_name = group
        return _describe_image(part, image_name, label_name, groups[group], Path(dataset_dir), names)

    described = thread_map(
        describe,
        groups,
        max_workers=workers or os.cpu_count(),
        desc="reading",
        unit="image",
        disable=not progress,
    )
    by_slice = any(item.slice is not None for items in groups.values() for item in items)
    size_column = "area_mm2" if by_slice else "volume_ml"
    columns = ["image", "patient", "part", "slice", "lesion_type", "diameter_mm", size_column, "mean_hu", "sd_hu"]
    images = pd.DataFrame([image_row for image_row, _ in described])
    lesions = pd.DataFrame([row for _, lesion_rows in described for row in lesion_rows], columns=columns)
    return Description(datalist.name, by_slice, images, lesions)


def _format_labelled(labelled: Sequence[str]) -> str:
    return ", ".join(labelled)


def _describe_image(
    part: str, image_name: str, label_name: str, items: Sequence[DataItem], dataset_dir: Path, names: dict[int, str]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the row of an image, and a row for each of its lesions."""
    volume, label = read_volume(dataset_dir / image_name), read_volume(dataset_dir / label_name).array
    if volume.array.shape != label.shape:
        raise LiversegError(f"{dataset_dir / label_name}: another shape than its image; see `liverseg datalist check`")
    axis, depth = volume.slice_axis, volume.array.shape[volume.slice_axis]
    slices = sorted({item.slice for item in items if item.slice is not None})
    if slices and slices[-1] >= depth:
        raise LiversegError(f"{dataset_dir / image_name}: slice {slices[-1]} is listed, the volume has {depth}")
    planes: list[tuple[int | None, np.ndarray, np.ndarray]] = [(None, volume.array, label)]
    if slices:
        planes = [(k, volume.array.take(k, axis), label.take(k, axis)) for k in slices]
    liver = np.concatenate([hu[values == LIVER].astype(np.float32) for _, hu, values in planes])
    common = {"image": image_name, "patient": items[0].patient, "part": part}
    clipped = items[0].clipped_hu
    in_plane_mm = [length for number, length in enumerate(volume.spacing) if number != axis]
    row = {
        **common,
        "volume_slices": depth,
        "annotated_slices": len(slices),
        "labelled": "; ".join(sorted({_format_labelled(item.labelled) for item in items if item.labelled})),
        "pixel_mm": max(in_plane_mm),
        "slice_mm": volume.spacing[axis],
        "clipped_hu": "" if clipped is None else f"{clipped[0]:g} to {clipped[1]:g}",
        "liver_ml": float("nan") if slices else float((label >= LIVER).sum()) * volume.voxel_ml,
        "liver_hu": float(liver.mean()) if liver.size else float("nan"),
        "liver_sd": float(liver.std()) if liver.size else float("nan"),
    }
    labelled = {item.slice: item.labelled for item in items}
    lesions = []
    for k, hu, values in planes:
        value_names = names if labelled.get(k) is None else {**names, LESION: "lesion"}
        for lesion in _measure_lesions(hu, values, volume, value_names):
            lesions.append({**common, "slice": k, **lesion})
    return row, lesions


def _measure_lesions(hu: np.ndarray, values: np.ndarray, volume: Volume, names: dict[int, str]) -> list[dict[str, Any]]:
    """Return type, size and HU of each lesion of a volume or of one slice."""
    lesion = np.where(values >= LESION, values, 0).astype(np.uint8)
    components, count = cc3d.connected_components(lesion, connectivity=FACE_CONNECTIVITY[lesion.ndim], return_N=True)
    if not count:
        return []
    inside = components > 0
    numbers, lesion_hu = components[inside].astype(np.int64), hu[inside].astype(np.float64)
    sizes = np.bincount(numbers, minlength=count + 1)[1:]
    mean = np.bincount(numbers, lesion_hu, count + 1)[1:] / sizes
    mean_square = np.bincount(numbers, lesion_hu**2, count + 1)[1:] / sizes
    value_of = np.zeros(count + 1, np.int64)
    value_of[numbers] = lesion[inside]
    rows = []
    for index in range(count):
        if lesion.ndim == 3:
            volume_ml = float(sizes[index]) * volume.voxel_ml
            size = {"diameter_mm": (6000 * volume_ml / np.pi) ** (1 / 3), "volume_ml": volume_ml}
        else:
            area_mm2 = float(sizes[index]) * volume.voxel_ml * 1000 / volume.spacing[volume.slice_axis]
            size = {"diameter_mm": 2 * (area_mm2 / np.pi) ** 0.5, "area_mm2": area_mm2}
        sd = float(np.sqrt(max(mean_square[index] - mean[index] ** 2, 0)))
        name = names.get(int(value_of[index + 1]), str(value_of[index + 1]))
        rows.append({"lesion_type": name, **size, "mean_hu": float(mean[index]), "sd_hu": sd})
    return rows


def _format_quantiles(values: pd.Series, digits: int) -> str:
    """Format the median with the 5 % and 95 % quantiles."""
    known = values.dropna()
    if known.empty:
        return ""
    low, median, high = (f"{value:.{digits}f}" for value in known.quantile(list(_QUANTILES)))
    return f"{median} ({low} to {high})"


def _write_picture(lesions: pd.DataFrame, images: pd.DataFrame, name: str, noun: str, path: Path) -> None:
    """Plot the tables of a `Description` into a PNG, written atomically.

    Args:
        lesions, images: the tables.
        name: name of the list, for the title.
        noun: name of the rows of `lesions`, in the plural.
        path: the file, in an existing folder.

    Raises:
        OutputError: if it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{name}: {images['patient'].nunique()} patients, {len(lesions)} {noun}")
    axes = figure.subplots(2, 2).ravel()
    _plot_by_type(axes[0], lesions, "diameter_mm", "diameter, mm", noun)
    _plot_by_type(axes[1], lesions, "mean_hu", "mean HU", noun)
    liver = images["liver_hu"].dropna()
    if len(liver):
        axes[1].axvspan(
            *liver.quantile([0.05, 0.95]), color=_COLOURS[JOINT_LABELS[LIVER].name], alpha=0.3, lw=0, zorder=0
        )
        axes[1].set_title("band: the middle nine tenths of the livers", fontsize="medium")
    # patients without outlined lesions are left out: their number of lesions is unknown
    outlined = images.loc[images["labelled"] != LABELLED[0][0], "patient"]
    counts = pd.Series(0, index=outlined.unique())
    counts = counts.add(lesions.groupby("patient").size(), fill_value=0).astype(int)
    axes[2].bar(*np.unique(counts, return_counts=True), color=_GREY)
    axes[2].set(xlabel=f"{noun} a patient", ylabel="patients")
    axes[3].hist(images["slice_mm"], bins=_BINS, color=_GREY)
    axes[3].set(xlabel="slice spacing, mm", ylabel="volumes")
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
    with atomic_write(path, "the picture") as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def _plot_by_type(axes: Axes, lesions: pd.DataFrame, column: str, xlabel: str, noun: str) -> None:
    """Plot a stacked histogram of a column, one colour per lesion type."""
    axes.set(xlabel=xlabel, ylabel=noun)
    types = sorted(lesions["lesion_type"].unique())
    if not types:
        return
    values = [lesions.loc[lesions["lesion_type"] == name, column] for name in types]
    colours = [_COLOURS.get(name, _GREY) for name in types]
    axes.hist(values, bins=_BINS, stacked=True, color=colours, label=types)
    axes.legend(frameon=False)
