"""Synthetic lesions in the livers of a data list, written to files: a fixed validation set, or a typed cohort."""

from __future__ import annotations

import csv
import io
import json
import math
import multiprocessing
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from tqdm import tqdm

from liverseg.bundle.validation import check_values
from liverseg.datalists.model import DataItem, DataList, label_table, read_datalist, write_datalist
from liverseg.errors import LiversegError, UsageError
from liverseg.imageio.boxes import bounding_box
from liverseg.imageio.grid import affine_distance_mm, axial_orientation, slice_axis
from liverseg.imageio.nifti import as_integers, write_nifti
from liverseg.imageio.volume import Volume, case_name, read_volume
from liverseg.labels import JOINT_LABELS, LESION, LESION_TYPES, LIVER, PRETRAIN_LABELS
from liverseg.synthesis.appearance import Appearance, Surroundings, draw_appearance, match_contrast, match_viable_tissue
from liverseg.synthesis.distributions import draw_patient, draw_section, draw_types
from liverseg.synthesis.normal_liver import suspicious_liver, widest_unusual_disc_mm
from liverseg.synthesis.painting import Scan, measure_surroundings
from liverseg.synthesis.placement import (
    MAX_MARGIN_MM,
    PaintedObject,
    add_lesions,
    depth_mm,
    is_visible,
    reader_outline,
)
from liverseg.synthesis.shape import draw_shape
from liverseg.utils.files import write_text
from liverseg.utils.fingerprints import file_states, is_current, write_record

__all__ = ["PAINTED", "PaintedLesion", "SynthesisResult", "synthesize_datalist"]

RECIPE: Final = 5
"""Increased whenever the same seed gives other voxels, so that old files are not reused."""

PAINTED: Final = "lesions painted by liverseg"
"""Words in the `source` of every data list of synthetic lesions."""

_MIN_LIVER_ML: Final = 0.5
"""On a single slice of 5 mm, this is 100 mm², too little for a lesion."""
_MIN_VESSEL_CONTRAST_HU: Final = 12.0
_SECTION_MM: Final = 40.0
"""Stacks of slices below this height are sections of a liver and get the lesions that a slice crosses."""
_MAX_UNUSUAL_DISC_MM: Final = 9.0
"""A section with a larger disc that is dark, or brighter than vessels, may show a lesion of the patient and is no part
of a cohort."""
_COHORT_LIVER_HU: Final = (80.0, 140.0)
"""As in `liverseg.inference.plausibility`. A darker section may be filled by a tumour."""
_MIN_COHORT_LIVER_MM2: Final = 2500.0
"""Smaller sections of a liver have hardly room for a lesion away from their edge."""
_MIN_COHORT_DIAMETER_MM: Final = 10.0
"""RECIST 1.1 (Eisenhauer et al. 2009) measures lesions from 10 mm on. Nodules of a smaller hemangioma do not show on a
noisy section."""
_FIRST_METASTASIS_MM: Final = 20.0
"""Diameter of the lesion whose appearance the metastases of a cohort's patient share."""
_SECOND_SHARE: Final = 0.4
"""Share of the second type in the lesions of a cohort's patient with two types, as in `draw_types`."""
_TYPES_SEED: Final = 5
_MANY: Final = 50
"""Number of lesions among which a patient's second type hardly ever lacks."""
_COHORT_COLUMNS: Final = ("patient", "image", "mask", "slice", "lesion_type", "mask_values")


@dataclass(frozen=True)
class PaintedLesion:
    """One painted lesion.

    Attributes:
        image: path of the image in the new list.
        patient: name of the patient.
        lesion_type: type of the lesion.
        slices: number of slices with its label.
        volume_ml: volume of its label.
        mean_hu: mean of the finished image over its label.
        liver_hu, vessel_hu, noise_hu: measurements of the image before painting.
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
    """Result of `synthesize_datalist`.

    Attributes:
        datalist: path of the new list.
        volumes: number of volumes in the list.
        lesions: number of painted lesions.
        failures: one sentence for each volume that failed.
    """

    datalist: Path
    volumes: int
    lesions: int
    failures: tuple[str, ...]


@dataclass(frozen=True)
class _PatientTypes:
    """Lesion types of a cohort's patient, and the seed of what its lesions share."""

    kinds: tuple[str, ...]
    seed: int


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
    cohort: bool = False,
    test_fold: int | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> SynthesisResult:
    """Write copies of a list's volumes with synthetic lesions in their livers, and a data list of the copies.

    The copies keep their patient and fold, so that the lists can be joined. Outlined lesions stay. Lesions without an
    outline are labelled as liver, which the new list states in its source, and nothing is painted where
    `label_normal_liver` suspects one. The same seed gives the same voxels whatever the number of workers. Complete
    copies are not written again.

    With `cohort`, the copies are a typed cohort with the table `slices.csv`, as `liverseg datalist cohort` reads it:
    each copy is a section with one annotated slice, and the lesions of a patient have one type, or in one patient in
    five two, over all its sections. Types are balanced over the patients of each fold. Sections that may show a lesion
    of the patient that nobody outlined, see `widest_unusual_disc_mm`, fail.

    Args:
        path: the list. Lesions are untyped if it has the label table of pre-training and outlined lesions, else typed.
        dataset_dir: folder its paths are relative to.
        output: folder for `images/`, `labels/`, `lesions.csv` and `datalist.json`; created if needed.
        fold: use the items of this fold only; all items by default.
        untyped: write the label table of pre-training, in which every lesion is 2; not allowed for a typed list.
        copies: number of copies of each volume, with different lesions.
        seed: seed of all random numbers.
        outline_margin_mm: distance of outlines from the contour of half contrast, see `reader_outline`.
        min_detectability: lesions of a lower `detectability` are drawn again; 0 paints all.
        cohort: write a typed cohort.
        test_fold: patients of this fold become the test list; none by default.
        workers: number of processes; the number of processors by default.
        progress: show a progress bar on stderr.

    Raises:
        UsageError: if copies, seed, margin, detectability or workers are out of range, `untyped` is given for a
            typed list or a cohort, or no item is in `test_fold`.
        LiversegError: if the list is not valid, none of its items has a liver mask, or all volumes fail.
    """
    for name, value, minimum in (("copies", copies, 1), ("seed", seed, 0)):
        if value < minimum:
            raise UsageError(f"{name} {value}: at least {minimum} is needed")
    check_values(workers=workers)
    if not 0 <= min_detectability < math.inf:
        raise UsageError(f"min detectability {min_detectability:g}: it must be a number, 0 or more")
    if not 0 <= outline_margin_mm <= MAX_MARGIN_MM:
        raise UsageError(f"outline margin {outline_margin_mm:g} mm: 0 to {MAX_MARGIN_MM:g} are allowed")
    source = read_datalist(path)
    items = [item for item in (*source.training, *source.test) if item.label is not None]
    if fold is not None:
        items = [item for item in source.split(fold)[1] if item.label is not None]
    if not items:
        raise LiversegError(f"{path}: no item has a liver mask; lesions can only be painted into livers that are known")
    typed = len(source.labels) == len(JOINT_LABELS)
    if typed and untyped:
        raise UsageError(f"{path}: has typed lesions; leave untyped out")
    if cohort and untyped:
        raise UsageError("a cohort has typed lesions; leave untyped out")
    if test_fold is not None and not any(item.fold == test_fold for item in items):
        raise UsageError(f"{path}: test fold {test_fold} has no item with a liver mask; it has {_fold_names(items)}")
    typed = typed or cohort or not (untyped or any(item.lesions_are_outlined for item in items))
    if cohort and any(item.lesions_are_outlined for item in items):
        raise LiversegError(f"{path}: has outlined lesions; a cohort needs livers whose lesions are not distinguished")
    pairs = {(os.path.normpath(item.image), os.path.normpath(str(item.label))): item for item in items}
    types = _draw_patient_types(tuple(pairs.values()), seed) if cohort else {}
    tasks = [
        _CopyTask(
            dataset_dir=Path(dataset_dir),
            output=Path(output),
            item=item,
            copy=copy,
            seed=seed,
            typed=typed,
            outline_margin_mm=float(outline_margin_mm),
            min_detectability=float(min_detectability),
            types=types.get(item.patient),
        )
        for item in pairs.values()
        for copy in range(copies)
    ]
    names = {task.name for task in tasks}
    if len(names) < len(tasks):
        raise LiversegError(f"{path}: two images of a patient have one file name; rename one of them")
    results = list(
        tqdm(_run(tasks, workers), total=len(tasks), desc="synthesizing", unit="volume", disable=not progress)
    )
    failures = tuple(result for result in results if isinstance(result, str))
    copied = [result for result in results if not isinstance(result, str)]
    if not copied:
        raise LiversegError(f"{path}: no volume could be painted; the first: {failures[0]}")
    rows = [row for _, lesions in copied for row in lesions]
    _write_table(Path(output) / "lesions.csv", [field.name for field in fields(PaintedLesion)], map(asdict, rows))
    copied_items = [item for items_of_copy, _ in copied for item in items_of_copy]
    if cohort:
        _write_table(Path(output) / "slices.csv", _COHORT_COLUMNS, map(_cohort_row, copied_items))
    if test_fold is not None:
        copied_items = [replace(item, fold=None) if item.fold == test_fold else item for item in copied_items]
    training = tuple(item for item in copied_items if item.fold is not None)
    test = tuple(item for item in copied_items if item.fold is None)
    if cohort:
        rest = (
            "real livers with synthetic lesions alone, as sections that may show a lesion of the patient were left out"
        )
    else:
        rest = "other lesions of the patients that nobody outlined are counted as liver"
    datalist = DataList(
        name=f"{source.name} with synthetic lesions",
        version=source.version,
        source=f"{source.source}; {PAINTED} (recipe {RECIPE}, seed {seed}), {rest}",
        licence=source.licence,
        labels=label_table(len(JOINT_LABELS if typed else PRETRAIN_LABELS)),
        training=training,
        test=test,
    )
    written = write_datalist(Path(output) / "datalist.json", datalist)
    return SynthesisResult(written, len(copied), len(rows), failures)


def _fold_names(items: Sequence[DataItem]) -> str:
    return ", ".join(str(fold) for fold in sorted({item.fold for item in items if item.fold is not None})) or "no folds"


def _draw_patient_types(items: Sequence[DataItem], seed: int) -> dict[str, _PatientTypes]:
    """Draw the lesion types of each patient, main types as equally often in each fold as possible."""
    folds: dict[int, set[str]] = {}
    for item in items:
        folds.setdefault(-1 if item.fold is None else item.fold, set()).add(item.patient)
    types = {}
    start = 0
    for fold in sorted(folds):
        rng = np.random.default_rng([seed, _TYPES_SEED, fold + 1])
        for number, index in enumerate(rng.permutation(len(folds[fold]))):
            patient = sorted(folds[fold])[index]
            main = LESION_TYPES[(start + number) % len(LESION_TYPES)]
            kinds = tuple(dict.fromkeys(draw_types(rng, _MANY, main)))
            types[patient] = _PatientTypes(kinds, int(rng.integers(2**32)))
        start += len(folds[fold])
    return types


@dataclass(frozen=True)
class _CopyTask:
    """One copy of one volume."""

    dataset_dir: Path
    output: Path
    item: DataItem
    copy: int
    seed: int
    typed: bool
    outline_margin_mm: float
    min_detectability: float
    types: _PatientTypes | None = None

    @property
    def name(self) -> str:
        """File name without the ending."""
        patient = "".join(c if c.isalnum() or c in "-_." else "_" for c in self.item.patient)
        return f"{patient}_{case_name(self.item.image)}_{self.copy}"


_CopyResult = tuple[tuple[DataItem, ...], tuple[PaintedLesion, ...]] | str
"""Items and lesions of a copy, or the message of its error."""


def _run(tasks: Sequence[_CopyTask], workers: int | None) -> Iterator[_CopyResult]:
    count = min(workers or os.cpu_count() or 1, len(tasks))
    if count == 1:
        yield from map(_try_write_copy, tasks)
        return
    # spawned, not forked: the caller may have threads
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_try_write_copy, tasks)


def _try_write_copy(task: _CopyTask) -> _CopyResult:
    try:
        return _write_copy(task)
    except LiversegError as error:
        return str(error)


def _write_copy(task: _CopyTask) -> _CopyResult:
    """Write one copy unless it is current, and return its items and lesions."""
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
    if task.types is not None:  # left out otherwise: copies from before there were cohorts stay current
        recipe["types"] = [*task.types.kinds, task.types.seed]
    states = file_states(task.output, sources)
    outputs = [image_path, label_path, rows_path]
    if not is_current(record, task.output, states, outputs, recipe):
        hu, label, affine, rows = _paint(task, read_volume(sources[0]), read_volume(sources[1]))
        write_nifti(image_path, hu, affine)
        write_nifti(label_path, label, affine)
        rows_path.parent.mkdir(exist_ok=True)
        write_text(rows_path, json.dumps([asdict(row) for row in rows], indent=1) + "\n")
        write_record(record, task.output, states, outputs, recipe)
    rows = [PaintedLesion(**row) for row in json.loads(rows_path.read_text(encoding="utf-8"))]
    return _items(task, label_path), tuple(rows)


def _paint(
    task: _CopyTask, image: Volume, label: Volume
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[PaintedLesion]]:
    """Return HU (int16) and labels (uint8) in the image's axis order, its affine, and the painted lesions."""
    distance_mm = affine_distance_mm(image.affine, label.affine, image.array.shape)
    if image.array.shape != label.array.shape or distance_mm:
        raise LiversegError(f"{label.path}: not on the grid of its image {image.path}")
    spacing = image.axial_spacing
    values = np.ascontiguousarray(label.axial).astype(np.uint8)
    box = bounding_box(values)
    liver_ml = float(np.count_nonzero(values)) * image.voxel_ml
    if box is None or liver_ml < _MIN_LIVER_ML:
        raise LiversegError(f"{label.path}: {liver_ml:.2f} ml of liver; at least {_MIN_LIVER_ML} ml are needed")
    hu = np.array(image.axial, dtype=np.float32)
    box_hu, box_values = hu[box], values[box]
    around = measure_surroundings(box_hu, box_values == LIVER)
    if around is None:
        raise LiversegError(f"{label.path}: its liver is nowhere wide enough to measure its parenchyma")
    if around.measured_contrast_hu < _MIN_VESSEL_CONTRAST_HU:
        raise LiversegError(
            f"{image.path}: vessels are {around.measured_contrast_hu:.0f} HU brighter than the liver; at least "
            f"{_MIN_VESSEL_CONTRAST_HU:.0f} HU, as in the portal venous phase, are needed"
        )
    height_mm = len(box_hu) * spacing[0]
    if task.types is not None:
        if height_mm >= _SECTION_MM:
            raise LiversegError(f"{image.path}: {height_mm:.0f} mm; a cohort takes sections below {_SECTION_MM:.0f} mm")
        liver_mm2 = np.count_nonzero(box_values == LIVER, axis=(1, 2)).min() * spacing[1] * spacing[2]
        if liver_mm2 < _MIN_COHORT_LIVER_MM2:
            raise LiversegError(
                f"{label.path}: a section with {liver_mm2 / 100:.0f} cm² of liver; a cohort needs "
                f"{_MIN_COHORT_LIVER_MM2 / 100:.0f} cm²"
            )
        if not _COHORT_LIVER_HU[0] <= around.liver_hu <= _COHORT_LIVER_HU[1]:
            low, high = _COHORT_LIVER_HU
            raise LiversegError(
                f"{image.path}: a liver of {around.liver_hu:.0f} HU; a cohort takes {low:.0f} to {high:.0f} HU"
            )
        livers = zip(box_hu, box_values == LIVER, strict=True)
        disc_mm = max(
            widest_unusual_disc_mm(plane, liver, around.liver_hu, around.noise_hu, spacing[1:])
            for plane, liver in livers
        )
        if disc_mm > _MAX_UNUSUAL_DISC_MM + 1e-3:
            raise LiversegError(
                f"{image.path}: may show a lesion that nobody outlined, an unusual spot of {disc_mm:.0f} mm"
            )
    # each copy has its own seed, which does not depend on other items of the list
    rng = np.random.default_rng([task.seed, task.copy, zlib.crc32(task.name.encode())])
    positions_mm = np.arange(len(box_hu)) * spacing[0]
    scan = Scan(box_hu, box_values >= LIVER, positions_mm, min(spacing[0], 5.0), spacing[1:], around)
    section = int(rng.integers(len(box_hu))) if height_mm < _SECTION_MM else None
    diameters = draw_patient(rng) if section is None else draw_section(rng)
    depth = depth_mm(scan.liver, spacing) if section is None else depth_mm(scan.liver[section], spacing[1:])
    first, match = None, match_contrast
    if task.types is None:
        kinds = draw_types(rng, len(diameters)) if diameters else []
    else:
        diameters = [max(diameter, _MIN_COHORT_DIAMETER_MM) for diameter in diameters]
        main, *others = task.types.kinds
        kinds = [others[0] if others and rng.uniform() < _SECOND_SHARE else main for _ in diameters]
        first, match = _first_metastasis(task.types.seed, around), match_viable_tissue
    rows = []
    occupied = box_values >= LESION
    if not task.item.lesions_are_outlined:
        occupied |= suspicious_liver(box_hu, box_values == LIVER, around, spacing[1:])
    original_hu = box_hu.copy()
    painted = add_lesions(rng, scan, kinds, diameters, depth, occupied, section, task.min_detectability, first, match)
    if task.types is not None:
        painted = _keep_visible(painted, original_hu, scan)
    for lesion in painted:
        value = LESION + LESION_TYPES.index(lesion.kind) if task.typed else LESION
        lesion_box, inside = reader_outline(lesion, box_values.shape, spacing[1:], task.outline_margin_mm)
        filled = inside & (box_values[lesion_box] == LIVER)
        box_values[lesion_box][filled] = value
        if filled.any():
            rows.append(
                PaintedLesion(
                    image=f"images/{task.name}.nii.gz",
                    patient=task.item.patient,
                    lesion_type=lesion.kind,
                    slices=int(filled.any(axis=(1, 2)).sum()),
                    volume_ml=round(float(filled.sum()) * image.voxel_ml, 4),
                    mean_hu=round(float(box_hu[lesion_box][filled].mean()), 1),
                    liver_hu=round(around.liver_hu, 1),
                    vessel_hu=round(around.vessel_hu, 1),
                    noise_hu=round(around.noise_hu, 1),
                )
            )
    if task.item.clipped_hu is not None:
        np.clip(hu, *task.item.clipped_hu, out=hu)
    return image.from_axial(as_integers(hu, np.int16)), image.from_axial(values), image.affine, rows


def _keep_visible(painted: Sequence[PaintedObject], original_hu: np.ndarray, scan: Scan) -> list[PaintedObject]:
    """Take lesions that a reader would not see out of the scan again, and return the others."""
    kept = []
    change = scan.hu - original_hu
    for lesion in painted:
        if is_visible(lesion, change, scan):
            kept.append(lesion)
        else:
            scan.hu[lesion.box][lesion.share > 0] = original_hu[lesion.box][lesion.share > 0]
    return kept


def _first_metastasis(seed: int, around: Surroundings) -> Appearance:
    """Draw the appearance that the metastases of a patient resemble, the same in each of its sections."""
    rng = np.random.default_rng(seed)
    return draw_appearance(rng, "metastasis", draw_shape(rng, _FIRST_METASTASIS_MM), around)


def _items(task: _CopyTask, label_path: Path) -> tuple[DataItem, ...]:
    """Return one item per slice, with lesion types, for a typed copy of a section, else one item for the volume."""
    copy = replace(
        task.item,
        image=f"images/{task.name}.nii.gz",
        label=f"labels/{task.name}.nii.gz",
        labelled=None,
        slice=None,
        lesion_type=None,
    )
    label = read_volume(label_path)
    axial = label.axial
    if task.types is not None:
        pixels = (axial >= LESION).sum(axis=(1, 2))
        shown = axial[int(np.argmax(pixels))]
        if not pixels.any():
            return ()
        most = int(np.argmax(np.bincount(shown[shown >= LESION] - LESION)))
        return (replace(copy, slice=_file_slice(label, int(np.argmax(pixels))), lesion_type=LESION_TYPES[most]),)
    if not task.typed or len(axial) * label.axial_spacing[0] >= _SECTION_MM:
        return (copy,)
    items = []
    for number, plane in enumerate(axial):
        lesion_values = [int(value) for value in np.unique(plane) if value >= LESION]
        lesion_type = LESION_TYPES[lesion_values[0] - LESION] if len(lesion_values) == 1 else None
        items.append(replace(copy, slice=_file_slice(label, number), lesion_type=lesion_type))
    return tuple(items)


def _file_slice(volume: Volume, number: int) -> int:
    """Return the number of an axial slice along the file's own slice axis."""
    flipped = axial_orientation(volume.affine)[slice_axis(volume.affine), 1] < 0
    return len(volume.axial) - 1 - number if flipped else number


def _cohort_row(item: DataItem) -> dict[str, Any]:
    return {
        "patient": item.patient,
        "image": item.image,
        "mask": item.label,
        "slice": item.slice,
        "lesion_type": item.lesion_type,
        "mask_values": "typed",
    }


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
