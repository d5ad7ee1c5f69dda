"""Importer for sets of slices: a table with one row an image of one slice, PNG, JPEG, DICOM or NIfTI, and its mask.

Slices of a patient whose numbers follow each other become one NIfTI volume, which the rest of the package reads as any
other; of a slice without a neighbour `slab_indices` repeats the slice itself.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from liverseg.datalists.importers.cohort_table import CohortRow, RowErrors, Types, in_threads, read_rows
from liverseg.datalists.importers.conversion import file_states, is_current, write_nifti, write_record
from liverseg.datalists.importers.slice_images import SliceImage, is_jpeg, is_picture, read_slice_image, read_slice_mask
from liverseg.datalists.model import LABELLED, DataItem
from liverseg.errors import LiversegError, UsageError
from liverseg.labels import JOINT_LABELS, LESION, LESION_TYPES, LIVER, PRETRAIN_LABELS

__all__ = ["SLICE_COLUMNS", "SLICE_MM", "check_hu", "describe_assumptions", "slice_items"]

SLICE_COLUMNS = ("patient", "image", "mask", "slice")
"""Columns the table needs: patient, paths of image and mask relative to the table's folder, and the slice's number,
which grows towards the head; neighbours have numbers that follow each other. It may have `lesion_type`."""

SLICE_MM = 5.0
"""Distance of slices in mm where neither files nor user tell it: a usual one of portal venous CT (our choice)."""

_HU_LIMITS = (-1024, 3071)
"""HU that twelve bits can hold, which is what CT scanners store."""
_PIXEL_MM, _MOST_SLICE_MM = (0.1, 10.0), 100.0
"""Pixels from the finest reconstruction's to those of a thumbnail, and slices as far apart as a slab may ask for."""
_UNEVEN = 0.1
"""How much the distances of neighbouring slices may differ, as a share."""


def check_hu(hu: tuple[float, float] | None) -> None:
    """Refuse a range of HU that no CT can have been clipped to.

    Raises:
        UsageError: if the numbers are not finite, not in order or beyond what a CT holds.
    """
    if hu is None:
        return
    try:
        low, high = map(float, hu)
    except (TypeError, ValueError) as error:
        raise UsageError(f"hu {hu!r}; two numbers in HU are needed, the lower first") from error
    if not (math.isfinite(low) and math.isfinite(high) and _HU_LIMITS[0] <= low < high <= _HU_LIMITS[1]):
        raise UsageError(
            f"hu {low:g}:{high:g}; LOW:HIGH is needed, the lower first, within {_HU_LIMITS[0]} to {_HU_LIMITS[1]} HU"
        )


def describe_assumptions(pixel_mm: float | None, slice_mm: float | None) -> str:
    """What of the geometry is not from the files, in words for a data list's source; arguments as of `slice_items`."""
    distance = f"slices {SLICE_MM if slice_mm is None else slice_mm:g} mm apart"
    if pixel_mm is None:
        return f"describe_assumptions: {distance} where files do not tell"
    return f"describe_assumptions: pixels of {pixel_mm:g} mm, {distance}"


@dataclass(frozen=True)
class _Facts:
    """What comparing a slice with others takes.

    Attributes:
        shape: rows and columns.
        affine: 4×4, from (column, row, slice) to RAS+ mm; None for a picture.
        digest: of its size and HU.
        has_liver: whether its mask has any.
    """

    shape: tuple[int, ...]
    affine: np.ndarray | None
    digest: bytes
    has_liver: bool


@dataclass(frozen=True)
class _Run:
    """Slices of one patient that become one volume.

    Attributes:
        rows: the slices, from feet to head.
        affine: 4×4, from (column, row, slice) to RAS+ mm.
    """

    rows: tuple[CohortRow, ...]
    affine: np.ndarray


def slice_items(
    root: str | os.PathLike,
    folder: str | os.PathLike | None = None,
    *,
    table: str | None = None,
    types: Types | None = None,
    hu: tuple[float, float] | None = None,
    pixel_mm: float | None = None,
    slice_mm: float | None = None,
    labelled: str | None = None,
    progress: bool = True,
) -> tuple[DataItem, ...]:
    """Items of a set of slices in the order of its patients and slices, folds not yet assigned.

    Slices are written to `nifti/` in a folder as int16 HU with their label maps, again only when a source or an option
    has changed. They are volumes without a slice number; where the table has lesion types each slice is an item.

    Args:
        root: the folder that holds the table and that its paths are relative to; nothing is written into it
            unless it is the other folder too.
        folder: where volumes are written, and what the items' paths are relative to; `root` when not given.
        table: the table's file name, CSV or .xlsx; None takes the one of `slices.csv` and `slices.xlsx` that is there.
        types: the user's words for types, as of `cohort_items`.
        hu: of PNG and JPEG the HU of the lowest and of the highest value a pixel can have; HU beyond are taken to be
            clipped, and the items say so. DICOM and NIfTI tell HU themselves.
        pixel_mm: edge of a pixel of PNG and JPEG in mm.
        slice_mm: distance of neighbouring slices in mm where the files do not tell it; `SLICE_MM` when not given.
        labelled: "liver" for masks that outline the whole liver and tell no lesions apart; they hold 0, and 1 or 255.
            Other masks hold values of the label table: 0 to 4 where the table has lesion types, else 0 to 2.
        progress: show a bar on a terminal.

    Raises:
        UsageError: if hu or a length is impossible, missing for pictures or given for files that tell it.
        LiversegError: if table or a file is missing or unusable, an image comes twice, a slice number comes twice for a
            patient, a mask does not fit its image or holds other values, neighbours are not alike, or no mask has a
            liver; the message names the row as a spreadsheet counts it, and has one line for each of the first 20 bad
            rows.
    """
    root = Path(root)
    folder = root if folder is None else Path(folder)
    check_hu(hu)
    _check_lengths(pixel_mm, slice_mm)
    errors = RowErrors()
    rows = read_rows(root, table, types, errors, SLICE_COLUMNS, "a set of slices")
    _check_options(rows, hu, pixel_mm)
    typed = any(row.lesion_type for row in rows)
    _check_rows(rows, labelled, errors)
    errors.tell()
    if any(is_jpeg(row.image) for row in rows):
        logging.getLogger(__name__).warning("%s: JPEG changes HU; take the originals where there are any", root)

    def read(row: CohortRow) -> tuple[SliceImage, np.ndarray]:
        return _read(root, row, hu, labelled, typed)

    def facts_of(row: CohortRow) -> _Facts:
        image, label = read(row)
        digest = hashlib.sha256(repr(image.hu.shape).encode() + image.hu.tobytes()).digest()
        return _Facts(image.hu.shape, image.axial_affine, digest, bool((label >= LIVER).any()))

    facts = in_threads(facts_of, {row: row for row in rows}, errors, "reading", "slice", os.cpu_count(), progress)
    errors.tell()
    _check_duplicates(facts, errors)
    if not any(one.has_liver for one in facts.values()):
        raise LiversegError(f"{root}: no mask holds a liver; outline it in the masks")
    runs = _runs(facts, pixel_mm, SLICE_MM if slice_mm is None else slice_mm, errors)
    errors.tell()

    def convert(name: str) -> None:
        _convert(root, folder, name, runs[name], read, {"hu": hu and [*_plain(hu)], "labelled": labelled})

    try:
        (folder / "nifti").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LiversegError(f"{folder / 'nifti'}: the folder cannot be made ({error.strerror or error})") from error
    first = {name: run.rows[0] for name, run in runs.items()}
    in_threads(convert, first, errors, "converting", "volume", os.cpu_count(), progress)
    errors.tell()
    return tuple(item for name, run in runs.items() for item in _items(name, run, typed, hu, labelled))


def _check_lengths(pixel_mm: float | None, slice_mm: float | None) -> None:
    lowest, highest = _PIXEL_MM
    if pixel_mm is not None and not lowest <= pixel_mm <= highest:
        raise UsageError(f"pixel_mm {pixel_mm:g}; {lowest:g} to {highest:g} mm are allowed")
    if slice_mm is not None and not lowest <= slice_mm <= _MOST_SLICE_MM:
        raise UsageError(f"slice_mm {slice_mm:g}; {lowest:g} to {_MOST_SLICE_MM:g} mm are allowed")


def _check_options(rows: Sequence[CohortRow], hu: tuple[float, float] | None, pixel_mm: float | None) -> None:
    """Refuse pictures without HU or pixel size, and files that tell them together with an option that does."""
    for row in rows:
        if is_picture(row.image):
            if hu is None:
                raise UsageError(
                    f"{row.where}: {row.image} tells no HU; give --hu LOW:HIGH, the HU of its lowest and of its "
                    "highest value, as 0:255"
                )
            if pixel_mm is None:
                raise UsageError(f"{row.where}: {row.image} tells no size; give --pixel-mm, the edge of a pixel in mm")
        else:
            for option, value in (("--hu", hu), ("--pixel-mm", pixel_mm)):
                if value is not None:
                    raise UsageError(
                        f"{row.where}: {row.image} is no PNG or JPEG and tells it itself; leave {option} out, and "
                        "import pictures as a list of their own"
                    )


def _check_rows(rows: Sequence[CohortRow], labelled: str | None, errors: RowErrors) -> None:
    """Refuse rows without a number, with a cohort's columns, or that contradict each other."""
    numbers: dict[tuple[str, int], CohortRow] = {}
    images: dict[str, CohortRow] = {}
    for row in rows:
        with errors.of(row):
            if row.slice is None:
                raise LiversegError(f"{row.where}: no slice number; neighbours are found by it")
            for column in ("liver_mask", "lesion", "mask_values"):
                if getattr(row, column) is not None:
                    raise LiversegError(
                        f"{row.where}: a column {column}, which a set of slices does not have; empty it, or "
                        "import with liverseg datalist cohort"
                    )
            if labelled and row.lesion_type:
                raise LiversegError(
                    f"{row.where}: lesion_type {row.lesion_type}, and masks labelled {labelled}; give one of the two"
                )
            other = numbers.setdefault((row.patient, row.slice), row)
            if other is not row:
                raise LiversegError(
                    f"{row.where}: slice {row.slice} of patient {row.patient} is in row {other.number} already; "
                    "each number is one slice"
                )
            other = images.setdefault(os.path.normpath(row.image), row)
            if other is not row:
                raise LiversegError(f"{row.where}: {row.image} is in row {other.number} already; take one out")


def _read(
    root: Path, row: CohortRow, hu: tuple[float, float] | None, labelled: str | None, typed: bool
) -> tuple[SliceImage, np.ndarray]:
    """A row's image and its label map, uint8 (row, column) in the values of the label table."""
    image = read_slice_image(root / row.image, hu)
    mask = read_slice_mask(root / row.mask, image)
    held = {int(value) for value in np.unique(mask)}
    if labelled:
        if not (held <= {0, LIVER} or held <= {0, 255}):
            raise LiversegError(
                f"{row.where}: {row.mask} holds {_listed(held)}; labelled {labelled} allows 0, and 1 or 255 for liver"
            )
        return image, (mask > 0).astype(np.uint8) * np.uint8(LIVER)
    labels = JOINT_LABELS if typed else PRETRAIN_LABELS
    if not held <= {label.index for label in labels}:
        names = ", ".join(f"{label.index} {label.name}" for label in labels)
        more = "" if typed else "; for masks of the liver alone give --labelled liver, for types a column lesion_type"
        raise LiversegError(f"{row.where}: {row.mask} holds {_listed(held)}; allowed: {names}{more}")
    if row.lesion_type is not None and LESION + LESION_TYPES.index(row.lesion_type) not in held:
        raise LiversegError(f"{row.where}: no {row.lesion_type} in {row.mask}, which holds {_listed(held)}")
    return image, mask.astype(np.uint8)


def _listed(values: set[int]) -> str:
    return ", ".join(map(str, sorted(values)[:6]))


def _check_duplicates(facts: Mapping[CohortRow, _Facts], errors: RowErrors) -> None:
    seen: dict[bytes, CohortRow] = {}
    for row, one in facts.items():
        other = seen.setdefault(one.digest, row)
        if other is not row:
            errors.add(
                row.number,
                LiversegError(
                    f"{row.where}: {row.image} of patient {row.patient} has the pixels of {other.image} of patient "
                    f"{other.patient} in row {other.number}; take one out"
                ),
            )


def _runs(
    facts: Mapping[CohortRow, _Facts], pixel_mm: float | None, slice_mm: float, errors: RowErrors
) -> dict[str, _Run]:
    """Slices of a patient whose numbers follow each other, by the name of their volume."""
    together: list[list[CohortRow]] = []
    for row in sorted(facts, key=lambda one: (one.patient, _number(one))):
        last = together[-1][-1] if together else None
        if last is not None and (last.patient, _number(last) + 1) == (row.patient, row.slice):
            together[-1].append(row)
        else:
            together.append([row])
    runs: dict[str, _Run] = {}
    taken: dict[str, CohortRow] = {}
    for rows in together:
        with errors.of(*rows):
            name = f"{re.sub(r'[^0-9A-Za-z._-]', '_', rows[0].patient)}-{_number(rows[0]):04d}"
            other = taken.setdefault(name.casefold(), rows[0])
            if other is not rows[0]:
                raise LiversegError(
                    f"{rows[0].where}: patients {other.patient} and {rows[0].patient} would have one file; rename one"
                )
            runs[name] = _run(rows, facts, pixel_mm, slice_mm)
    return runs


def _number(row: CohortRow) -> int:
    assert row.slice is not None  # _check_rows
    return row.slice


def _run(rows: Sequence[CohortRow], facts: Mapping[CohortRow, _Facts], pixel_mm: float | None, slice_mm: float) -> _Run:
    """Neighbouring slices, in the order of their numbers, from feet to head on one grid."""
    first = facts[rows[0]]
    for row in rows[1:]:
        if facts[row].shape != first.shape:
            own, wanted = ("×".join(map(str, shape)) for shape in (facts[row].shape, first.shape))
            raise LiversegError(
                f"{row.where}: {row.image} has {own} rows and columns, its neighbour in row {rows[0].number} {wanted}"
            )
    affines = [affine for row in rows if (affine := facts[row].affine) is not None]
    if not affines:
        affine = np.diag([-(pixel_mm or 1.0), -(pixel_mm or 1.0), slice_mm, 1.0])
        affine[2, 3] = slice_mm * _number(rows[0])
        return _Run(tuple(rows), affine)
    for row, affine in zip(rows, affines, strict=True):
        if not np.allclose(affine[:3, :2], affines[0][:3, :2], atol=1e-3):
            raise LiversegError(
                f"{row.where}: pixels of {row.image} have another size or direction than those of its neighbour in row "
                f"{rows[0].number}"
            )
    up = affines[0][:3, 2] / np.linalg.norm(affines[0][:3, 2])
    steps = np.diff([float(affine[:3, 3] @ up) for affine in affines])
    if np.abs(steps).max(initial=0) < 1e-3:  # nobody told where they lie
        steps = np.full(len(steps), slice_mm)
    step = float(np.median(steps)) if len(steps) else slice_mm
    uneven = np.flatnonzero(np.abs(steps - step) > _UNEVEN * abs(step))
    if uneven.size or step == 0:
        row = rows[int(uneven[0]) + 1 if uneven.size else 1]
        distances = ", ".join(f"{one:g}" for one in np.round(steps[:6], 3))
        raise LiversegError(
            f"{row.where}: slices {_number(rows[0])} to {_number(rows[-1])} of patient {row.patient} lie unevenly, "
            f"{distances} mm apart; number neighbours only in sequence"
        )
    turn = -1 if step < 0 else 1  # numbers that grow towards the feet
    affine = affines[::turn][0].copy()
    affine[:3, 2] = up * abs(step)
    return _Run(tuple(rows[::turn]), affine)


def _convert(
    root: Path,
    folder: Path,
    name: str,
    run: _Run,
    read: Callable[[CohortRow], tuple[SliceImage, np.ndarray]],
    options: Mapping[str, Any],
) -> None:
    """Write image and label map of a run, and last the record of what they were made from, unless it still holds."""
    record = folder / f"nifti/{name}.json"
    made = [folder / part for part in _files(name)]
    sources = file_states(folder, [root / file for row in run.rows for file in (row.image, row.mask)])
    recipe = {**options, "affine": run.affine.tolist(), "slices": [[row.image, row.mask] for row in run.rows]}
    if is_current(record, folder, sources, made, recipe):
        return
    pairs = [read(row) for row in run.rows]
    # (row, column) of each slice to (column, row, slice)
    write_nifti(made[0], np.stack([image.hu.T for image, _ in pairs], axis=-1), run.affine)
    write_nifti(made[1], np.stack([label.T for _, label in pairs], axis=-1), run.affine)
    write_record(record, folder, sources, made, recipe)


def _files(name: str) -> tuple[str, str]:
    """Image and label map of a run, relative to the list's folder."""
    return f"nifti/images/{name}.nii.gz", f"nifti/labels/{name}.nii.gz"


def _items(
    name: str, run: _Run, typed: bool, hu: tuple[float, float] | None, labelled: str | None
) -> tuple[DataItem, ...]:
    """A run as one item, or where there are types one a slice."""
    image, label = _files(name)
    whole = DataItem(
        image, label, run.rows[0].patient, labelled=LABELLED[0] if labelled else None, clipped_hu=hu and _plain(hu)
    )
    if not typed:
        return (whole,)
    return tuple(replace(whole, slice=k, lesion_type=row.lesion_type) for k, row in enumerate(run.rows))


def _plain(hu: tuple[float, float]) -> tuple[float, float]:
    """Whole numbers as such: 0 and 255, not 0.0 and 255.0."""
    low, high = (int(one) if float(one).is_integer() else float(one) for one in hu)
    return low, high
