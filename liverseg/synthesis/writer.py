"""Synthetic lesions in the livers of a data list, written once: to look at, and to validate on what never changes."""

from __future__ import annotations

import csv
import io
import json
import math
import multiprocessing
import os
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Final

import numpy as np
from tqdm import tqdm

from liverseg.datalists.importers.conversion import file_states, is_current, write_nifti, write_record
from liverseg.datalists.model import DataItem, DataList, label_table, read_datalist, write_datalist
from liverseg.errors import LiversegError, UsageError
from liverseg.imageio.boxes import bounding_box
from liverseg.imageio.grid import affine_distance_mm, axial_orientation, slice_axis
from liverseg.imageio.nifti import as_integers
from liverseg.imageio.volume import Volume, case_name, read_volume
from liverseg.labels import JOINT_LABELS, LESION, LESION_TYPES, LIVER, LIVER_OR_LESION, PRETRAIN_LABELS
from liverseg.synthesis.appearance import Surroundings
from liverseg.synthesis.distributions import draw_patient, draw_section, draw_types
from liverseg.synthesis.normal_liver import label_normal_liver
from liverseg.synthesis.painting import Scan, measure_surroundings
from liverseg.synthesis.placement import MOST_MARGIN_MM, add_lesions, depth_mm, outlined
from liverseg.utils.files import write_text

__all__ = ["LesionRow", "SynthesisResult", "synthesize_datalist"]

RECIPE: Final = 5
"""Raised whenever the same seed gives other voxels, so that old files are never taken for new."""

_LEAST_LIVER_ML: Final = 0.5
"""Of a single slice of 5 mm: 100 mm² have no room for a lesion."""
_LEAST_VESSEL_CONTRAST_HU: Final = 12.0
_SECTION_MM: Final = 40.0
"""Stacks of slices that are lower than this are sections of a liver: each gets the lesions that a slice meets."""


@dataclass(frozen=True)
class LesionRow:
    """One lesion that was painted.

    Attributes:
        image: path in the new list.
        patient: whose liver it was painted into.
        lesion_type: its type.
        slices: how many show it.
        volume_ml: of its label.
        mean_hu: of the finished image over its label.
        liver_hu, vessel_hu, noise_hu: what the image showed before.
    """

    image: str
    patient: str
    lesion_type: str
    slices: int
    volume_ml: float
    mean_hu: float
    liver_hu: float
    vessel_hu: float
    noise_hu: float


@dataclass(frozen=True)
class SynthesisResult:
    """What `synthesize_datalist` wrote.

    Attributes:
        datalist: the new list.
        volumes: in it.
        lesions: painted.
        failures: one sentence for each volume that is not in it.
    """

    datalist: Path
    volumes: int
    lesions: int
    failures: tuple[str, ...]


def synthesize_datalist(
    path: str | os.PathLike,
    dataset_dir: str | os.PathLike,
    output: str | os.PathLike,
    *,
    fold: int | None = None,
    untyped: bool = False,
    copies: int = 1,
    seed: int = 0,
    outline_margin_mm: float = 0.0,
    min_detectability: float = 0.0,
    workers: int | None = None,
    progress: bool = True,
) -> SynthesisResult:
    """Write copies of a list's volumes with synthetic lesions in their livers, and a data list of them.

    The copies keep their patient and fold, so that one list may be joined with the other. Lesions that were outlined
    stay; those that nobody outlined are counted as liver, which the new list says in its source, and nothing is painted
    where `label_normal_liver` suspects one. The same seed gives
    the same voxels whatever the number of workers, and what is complete is not written again.

    Args:
        path: the list. In one with the label table of pre-training whose lesions are outlined, lesions are untyped;
            all others get typed ones.
        dataset_dir: folder its paths are relative to.
        output: folder for `images/`, `labels/`, `lesions.csv` and `datalist.json`; made if missing.
        fold: the fold to take; all items of the list if it is not given.
        untyped: write the label table of pre-training, in which every lesion is 2, for any list but a typed one.
        copies: copies of each volume, each with other lesions.
        seed: of everything random.
        outline_margin_mm: how far outside the contour of half contrast lesions are outlined, see `outlined`.
        min_detectability: lesions that would be seen less well are drawn again, see `detectability`; 0 paints all.
        workers: processes; one a processor if not given.
        progress: show a bar on stderr.

    Raises:
        UsageError: if copies, seed, margin, detectability or workers are out of range, or lesions of a typed list are
            to be untyped.
        LiversegError: if the list is not sound, none of its items has a liver mask, or none could be painted.
    """
    for name, value, least in (("copies", copies, 1), ("seed", seed, 0), ("workers", workers, 1)):
        if value is not None and value < least:
            raise UsageError(f"{name} {value}: at least {least} is needed")
    if not 0 <= min_detectability < math.inf:
        raise UsageError(f"min detectability {min_detectability:g}: it must be a number, 0 or more")
    if not 0 <= outline_margin_mm <= MOST_MARGIN_MM:
        raise UsageError(f"outline margin {outline_margin_mm:g} mm: 0 to {MOST_MARGIN_MM:g} are allowed")
    listed = read_datalist(path)
    items = [item for item in (*listed.training, *listed.test) if item.label is not None]
    if fold is not None:
        items = [item for item in listed.split(fold)[1] if item.label is not None]
    if not items:
        raise LiversegError(f"{path}: no item has a liver mask; lesions can only be painted into livers that are known")
    typed = len(listed.labels) == len(JOINT_LABELS)
    if typed and untyped:
        raise UsageError(f"{path}: has typed lesions; leave untyped out")
    typed = typed or not (untyped or any(item.lesions_are_outlined for item in items))
    pairs = {(os.path.normpath(item.image), os.path.normpath(str(item.label))): item for item in items}
    tasks = [
        _Task(
            Path(dataset_dir), Path(output), item, copy, seed, typed, float(outline_margin_mm), float(min_detectability)
        )
        for item in pairs.values()
        for copy in range(copies)
    ]
    names = {task.name for task in tasks}
    if len(names) < len(tasks):
        raise LiversegError(f"{path}: two images of a patient have one file name; rename one of them")
    outcomes = list(
        tqdm(_run(tasks, workers), total=len(tasks), desc="synthesizing", unit="volume", disable=not progress)
    )
    failures = tuple(outcome for outcome in outcomes if isinstance(outcome, str))
    done = [outcome for outcome in outcomes if not isinstance(outcome, str)]
    if not done:
        raise LiversegError(f"{path}: no volume could be painted; the first: {failures[0]}")
    rows = [row for _, lesions in done for row in lesions]
    _write_rows(Path(output) / "lesions.csv", rows)
    training = tuple(item for new, _ in done for item in new if item.fold is not None)
    test = tuple(item for new, _ in done for item in new if item.fold is None)
    datalist = DataList(
        name=f"{listed.name} with synthetic lesions",
        version=listed.version,
        source=f"{listed.source}; lesions painted by liverseg (recipe {RECIPE}, seed {seed}), other lesions of the "
        "patients that nobody outlined are counted as liver",
        licence=listed.licence,
        labels=label_table(len(JOINT_LABELS if typed else PRETRAIN_LABELS)),
        training=training,
        test=test,
    )
    written = write_datalist(Path(output) / "datalist.json", datalist)
    return SynthesisResult(written, len(done), len(rows), failures)


@dataclass(frozen=True)
class _Task:
    """One copy of one volume."""

    dataset_dir: Path
    output: Path
    item: DataItem
    copy: int
    seed: int
    typed: bool
    outline_margin_mm: float
    min_detectability: float

    @property
    def name(self) -> str:
        """File name without its ending."""
        patient = "".join(c if c.isalnum() or c in "-_." else "_" for c in self.item.patient)
        return f"{patient}_{case_name(self.item.image)}_{self.copy}"


_Outcome = tuple[tuple[DataItem, ...], tuple[LesionRow, ...]] | str


def _run(tasks: Sequence[_Task], workers: int | None) -> Iterator[_Outcome]:
    count = min(workers or os.cpu_count() or 1, len(tasks))
    if count == 1:
        yield from map(_synthesize, tasks)
        return
    # spawned, not forked: a caller may have threads
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_synthesize, tasks)


def _synthesize(task: _Task) -> _Outcome:
    """Write one copy; its items and lesions, or why there is none."""
    try:
        return _written(task)
    except LiversegError as error:
        return str(error)


def _written(task: _Task) -> _Outcome:
    item = task.item
    sources = [task.dataset_dir / item.image, task.dataset_dir / str(item.label)]
    image_path, label_path = (task.output / kind / f"{task.name}.nii.gz" for kind in ("images", "labels"))
    rows_path, record = (task.output / "records" / f"{task.name}{end}.json" for end in (".lesions", ""))
    recipe = {
        "recipe": RECIPE,
        "seed": task.seed,
        "copy": task.copy,
        "typed": task.typed,
        "outline_margin_mm": task.outline_margin_mm,
        "min_detectability": task.min_detectability,
        "patient": item.patient,
    }
    state = file_states(task.output, sources)
    made = [image_path, label_path, rows_path]
    if not is_current(record, task.output, state, made, recipe):
        hu, label, affine, rows = _painted(task, read_volume(sources[0]), read_volume(sources[1]))
        write_nifti(image_path, hu, affine)
        write_nifti(label_path, label, affine)
        rows_path.parent.mkdir(exist_ok=True)
        write_text(rows_path, json.dumps([asdict(row) for row in rows], indent=1) + "\n")
        write_record(record, task.output, state, made, recipe)
    rows = [LesionRow(**row) for row in json.loads(rows_path.read_text(encoding="utf-8"))]
    return _items(task, label_path), tuple(rows)


def _painted(task: _Task, image: Volume, label: Volume) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[LesionRow]]:
    """HU (int16) and labels (uint8) in the image's own axis order, its affine, and the lesions."""
    apart = affine_distance_mm(image.affine, label.affine, image.array.shape)
    if image.array.shape != label.array.shape or apart:
        raise LiversegError(f"{label.path}: not on the grid of its image {image.path}")
    spacing = image.axial_spacing
    truth = np.ascontiguousarray(label.axial).astype(np.uint8)
    box = bounding_box(truth)
    millilitres = float(np.count_nonzero(truth)) * image.voxel_ml
    if box is None or millilitres < _LEAST_LIVER_ML:
        raise LiversegError(f"{label.path}: {millilitres:.2f} ml of liver; at least {_LEAST_LIVER_ML} ml are needed")
    hu = np.array(image.axial, dtype=np.float32)
    cut, own = hu[box], truth[box]
    around = measure_surroundings(cut, own == LIVER)
    if around is None:
        raise LiversegError(f"{label.path}: its liver is nowhere wide enough to measure its parenchyma")
    if around.measured_contrast_hu < _LEAST_VESSEL_CONTRAST_HU:
        raise LiversegError(
            f"{image.path}: vessels are {around.measured_contrast_hu:.0f} HU brighter than the liver; at least "
            f"{_LEAST_VESSEL_CONTRAST_HU:.0f} HU, as in the portal venous phase, are needed"
        )
    # every copy of every volume by a seed of its own, the same whatever else is in the list
    rng = np.random.default_rng([task.seed, task.copy, zlib.crc32(task.name.encode())])
    scan = Scan(cut, own >= LIVER, np.arange(len(cut)) * spacing[0], min(spacing[0], 5.0), spacing[1:], around)
    section = int(rng.integers(len(cut))) if len(cut) * spacing[0] < _SECTION_MM else None
    diameters = draw_patient(rng) if section is None else draw_section(rng)
    depth = depth_mm(scan.liver, spacing) if section is None else depth_mm(scan.liver[section], spacing[1:])
    kinds = draw_types(rng, len(diameters)) if diameters else []
    rows = []
    taken = own >= LESION
    if not task.item.lesions_are_outlined:
        taken |= _suspicious(cut, own, around, spacing[1:])
    for placed in add_lesions(rng, scan, kinds, diameters, depth, taken, section, task.min_detectability):
        value = LESION + LESION_TYPES.index(placed.kind) if task.typed else LESION
        where, inside = outlined(placed, own.shape, spacing[1:], task.outline_margin_mm)
        filled = inside & (own[where] == LIVER)
        own[where][filled] = value
        if filled.any():
            rows.append(
                LesionRow(
                    image=f"images/{task.name}.nii.gz",
                    patient=task.item.patient,
                    lesion_type=placed.kind,
                    slices=int(filled.any(axis=(1, 2)).sum()),
                    volume_ml=round(float(filled.sum()) * image.voxel_ml, 4),
                    mean_hu=round(float(cut[where][filled].mean()), 1),
                    liver_hu=round(around.liver_hu, 1),
                    vessel_hu=round(around.vessel_hu, 1),
                    noise_hu=round(around.noise_hu, 1),
                )
            )
    if task.item.clipped_hu is not None:
        np.clip(hu, *task.item.clipped_hu, out=hu)
    return image.from_axial(as_integers(hu, np.int16)), image.from_axial(truth), image.affine, rows


def _suspicious(hu: np.ndarray, label: np.ndarray, around: Surroundings, pixel_mm: tuple[float, float]) -> np.ndarray:
    """What in a liver may be a lesion that nobody outlined; one painted over it would be half of another."""
    unknown = np.where(label == LIVER, np.uint8(LIVER_OR_LESION), label)
    slices = [label_normal_liver(hu[z], unknown[z], around.liver_hu, around.noise_hu, pixel_mm) for z in range(len(hu))]
    return np.stack(slices) == LIVER_OR_LESION


def _items(task: _Task, label_path: Path) -> tuple[DataItem, ...]:
    """Items of a copy: its slices, with their types, if the list has slices of it or it is a section, or the volume."""
    new = replace(
        task.item,
        image=f"images/{task.name}.nii.gz",
        label=f"labels/{task.name}.nii.gz",
        labelled=None,
        slice=None,
        lesion_type=None,
    )
    label = read_volume(label_path)
    axial = label.axial
    if not task.typed or len(axial) * label.axial_spacing[0] >= _SECTION_MM:
        return (new,)
    flipped = axial_orientation(label.affine)[slice_axis(label.affine), 1] < 0
    items = []
    for number, plane in enumerate(axial):
        found = [int(value) for value in np.unique(plane) if value >= LESION]
        kind = LESION_TYPES[found[0] - LESION] if len(found) == 1 else None
        items.append(replace(new, slice=len(axial) - 1 - number if flipped else number, lesion_type=kind))
    return tuple(items)


def _write_rows(path: Path, rows: Sequence[LesionRow]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [field.name for field in fields(LesionRow)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    write_text(path, text.getvalue())
