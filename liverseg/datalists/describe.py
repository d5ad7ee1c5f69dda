"""What a data list holds, as a paper's data section tells it: patients, lesions by type, sizes, spacing, HU."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tqdm import tqdm

from liverseg.datalists.model import LABELLED, DataItem, read_datalist
from liverseg.errors import LiversegError
from liverseg.imageio.volume import Volume, read_volume
from liverseg.labels import JOINT_LABELS, LESION, LIVER, PRETRAIN_LABELS
from liverseg.utils.files import atomic_write, write_text

__all__ = [
    "Description",
    "describe_datalist",
    "write_picture",
]

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
        with atomic_write(path) as unfinished:
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


_QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class Description:
    """A data list in numbers.

    Attributes:
        name: of the list.
        by_slice: whether annotated slices are described, each by itself, instead of whole volumes.
        images: one row an image with its label map: `image`, `patient`, `part` ("training" or "test"), `volume_slices`,
            `annotated_slices`, `labelled` (what a partial label map tells apart, else empty), `pixel_mm` (the larger
            in-plane spacing), `slice_mm`, `clipped_hu` ("0 to 255", else empty), `liver_ml` (NaN by slice), `liver_hu`
            and `liver_sd`: mean and standard deviation where the label is liver, HU; lesions are left out where they
            are outlined.
        lesions: one row a lesion, connected by faces: `image`, `patient`, `part`, `slice` (NaN for volumes),
            `lesion_type`, `diameter_mm` (of the ball, or by slice the disc, of its size), `volume_ml` or `area_mm2`,
            `mean_hu`, `sd_hu`.
    """

    name: str
    by_slice: bool
    images: pd.DataFrame
    lesions: pd.DataFrame

    @property
    def table(self) -> pd.DataFrame:
        """The summary: a row a fact, a column for `training`, `test` and `all`, cells as text."""
        parts = [part for part in ("training", "test") if (self.images["part"] == part).any()]
        columns = {part: self._facts(part) for part in parts} | {"all": self._facts(None)}
        return pd.DataFrame(columns).fillna("")

    def write(self, folder: str | os.PathLike) -> Path:
        """Write `summary.csv`, `images.csv`, `lesions.csv` and `picture.png` into a folder, made if missing.

        Raises:
            LiversegError: if they cannot be written.
        """
        from liverseg.datalists.describe import write_picture  # matplotlib is slow to import

        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LiversegError(f"{folder}: the folder cannot be made ({error.strerror})") from error
        write_text(folder / "summary.csv", self.table.to_csv(index_label="fact", lineterminator="\n"))
        for name, table in (("images", self.images), ("lesions", self.lesions)):
            write_text(folder / f"{name}.csv", table.to_csv(index=False, float_format="%.5g", lineterminator="\n"))
        write_picture(self.lesions, self.images, self.name, self._lesions, folder / "picture.png")
        return folder

    @property
    def _lesions(self) -> str:
        """A lesion on two annotated slices is outlined, and counted, on each."""
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
            self._lesions: str(len(lesions)),
        }
        unknown = images.loc[images["labelled"] == _names_of(LABELLED[0]), "image"].nunique()
        if unknown:
            facts["volumes whose lesions are not outlined"] = str(unknown)
        for clipped, rows in images[images["clipped_hu"] != ""].groupby("clipped_hu"):
            facts[f"volumes clipped to {clipped} HU"] = str(rows["image"].nunique())
        for kind, rows in lesions.groupby("lesion_type"):
            facts[f"... {kind}"] = f"{len(rows)} in {rows['patient'].nunique()} patients"
        facts[f"{self._lesions} a patient"] = _spread(lesions.groupby("patient").size(), 0)
        facts["lesion diameter, mm"] = _spread(lesions["diameter_mm"], 0)
        if self.by_slice:
            facts["lesion area, mm²"] = _spread(lesions["area_mm2"], 0)
        else:
            facts["lesion volume, ml"] = _spread(lesions["volume_ml"], 2)
        for kind, rows in lesions.groupby("lesion_type"):
            facts[f"HU of {kind}"] = _spread(rows["mean_hu"], 0)
        facts["HU of liver"] = _spread(images["liver_hu"], 0)
        facts["HU within a liver, SD"] = _spread(images["liver_sd"], 0)
        if not self.by_slice:
            facts["liver, ml"] = _spread(images["liver_ml"], 0)
        facts["pixel, mm"] = _spread(images["pixel_mm"], 2)
        facts["slice spacing, mm"] = _spread(images["slice_mm"], 1)
        facts["slices a volume"] = _spread(images["volume_slices"], 0)
        return facts


def describe_datalist(
    path: str | os.PathLike, dataset_dir: str | os.PathLike, *, workers: int | None = None, progress: bool = True
) -> Description:
    """Read every labelled image of a list and describe what is in it.

    Args:
        path: the list.
        dataset_dir: folder its paths are relative to.
        workers: images read at a time; all processors by default.
        progress: show a bar on stderr.

    Raises:
        LiversegError: if the list or a file cannot be read, or an image and its label differ in shape;
            `liverseg datalist check` finds all of that at once.
    """
    listed = read_datalist(path)
    groups: dict[tuple[str, str, str], list[DataItem]] = {}
    for part, items in (("training", listed.training), ("test", listed.test)):
        for item in items:
            if item.label is not None:
                groups.setdefault((part, item.image, item.label), []).append(item)
    if not groups:
        raise LiversegError(f"{path}: no item has a label; there is nothing to describe")
    names = {int(index): name for index, name in listed.labels.items()}

    def described(group: tuple[str, str, str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        return _describe(group, groups[group], Path(dataset_dir), names)

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        found = list(
            tqdm(pool.map(described, groups), total=len(groups), desc="reading", unit="image", disable=not progress)
        )
    by_slice = any(item.slice is not None for items in groups.values() for item in items)
    columns = ["image", "patient", "part", "slice", "lesion_type", "diameter_mm", _size(by_slice), "mean_hu", "sd_hu"]
    lesions = pd.DataFrame([row for _, rows in found for row in rows], columns=columns)
    return Description(listed.name, by_slice, pd.DataFrame([row for row, _ in found]), lesions)


def _names_of(labelled: Sequence[str]) -> str:
    return ", ".join(labelled)


def _size(by_slice: bool) -> str:
    return "area_mm2" if by_slice else "volume_ml"


def _describe(
    group: tuple[str, str, str], items: Sequence[DataItem], dataset_dir: Path, names: dict[int, str]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One image: its row, and a row for each of its lesions."""
    part, image_name, label_name = group
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
    liver = np.concatenate([hu[truth == LIVER].astype(np.float32) for _, hu, truth in planes])
    common = {"image": image_name, "patient": items[0].patient, "part": part}
    clipped = items[0].clipped_hu
    spacing = [size for number, size in enumerate(volume.spacing) if number != axis]
    row = {
        **common,
        "volume_slices": depth,
        "annotated_slices": len(slices),
        "labelled": "; ".join(sorted({_names_of(item.labelled) for item in items if item.labelled})),
        "pixel_mm": max(spacing),
        "slice_mm": volume.spacing[axis],
        "clipped_hu": "" if clipped is None else f"{clipped[0]:g} to {clipped[1]:g}",
        "liver_ml": float("nan") if slices else float((label >= LIVER).sum()) * volume.voxel_ml,
        "liver_hu": float(liver.mean()) if liver.size else float("nan"),
        "liver_sd": float(liver.std()) if liver.size else float("nan"),
    }
    labelled = {item.slice: item.labelled for item in items}
    lesions = []
    for k, hu, truth in planes:
        told = names if labelled.get(k) is None else {**names, LESION: "lesion"}
        for lesion in _lesions(hu, truth, volume, told):
            lesions.append({**common, "slice": k, **lesion})
    return row, lesions


def _lesions(hu: np.ndarray, truth: np.ndarray, volume: Volume, names: dict[int, str]) -> list[dict[str, Any]]:
    """Lesions of a volume or of one slice: type, size, HU."""
    inside = np.where(truth >= LESION, truth, 0).astype(np.uint8)
    # neighbours that share a face make one lesion: in 3-D the LiTS rule
    parts, count = cc3d.connected_components(inside, connectivity=4 if inside.ndim == 2 else 6, return_N=True)
    if not count:
        return []
    where = parts > 0
    number, values = parts[where].astype(np.int64), hu[where].astype(np.float64)
    sizes = np.bincount(number, minlength=count + 1)[1:]
    mean = np.bincount(number, values, count + 1)[1:] / sizes
    square = np.bincount(number, values**2, count + 1)[1:] / sizes
    kind = np.zeros(count + 1, np.int64)
    kind[number] = inside[where]
    rows = []
    for index in range(count):
        if inside.ndim == 3:
            millilitres = float(sizes[index]) * volume.voxel_ml
            size = {"diameter_mm": (6000 * millilitres / np.pi) ** (1 / 3), "volume_ml": millilitres}
        else:
            area = float(sizes[index]) * volume.voxel_ml * 1000 / volume.spacing[volume.slice_axis]
            size = {"diameter_mm": 2 * (area / np.pi) ** 0.5, "area_mm2": area}
        deviation = float(np.sqrt(max(square[index] - mean[index] ** 2, 0)))
        name = names.get(int(kind[index + 1]), str(kind[index + 1]))
        rows.append({"lesion_type": name, **size, "mean_hu": float(mean[index]), "sd_hu": deviation})
    return rows


def _spread(values: pd.Series, digits: int) -> str:
    """Median with the 5 % and 95 % quantile."""
    known = values.dropna()
    if known.empty:
        return ""
    low, middle, high = (f"{value:.{digits}f}" for value in known.quantile(list(_QUANTILES)))
    return f"{middle} ({low} to {high})"
