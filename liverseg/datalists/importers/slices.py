"""Importer for sets of slices: a table with one row per image of one slice (PNG, JPEG, DICOM or NIfTI) and its mask.

Slices of a patient with consecutive numbers become one NIfTI volume. For a slice without a neighbour, `slab_indices`
repeats the slice itself.
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

from liverseg.datalists.importers.cohort_table import CohortRow, RowErrors, Types, map_rows, read_rows
from liverseg.datalists.importers.slice_images import SliceImage, is_jpeg, is_picture, read_slice_image, read_slice_mask
from liverseg.datalists.model import LABELLED, DataItem
from liverseg.errors import LiversegError, OutputError, UsageError
from liverseg.imageio.nifti import write_nifti
from liverseg.labels import JOINT_LABELS, LESION, LESION_TYPES, LIVER, PRETRAIN_LABELS
from liverseg.utils.fingerprints import file_states, is_current, write_record

__all__ = ["SLICE_COLUMNS", "SLICE_MM", "check_hu", "describe_assumptions", "slice_items"]

SLICE_COLUMNS = ("patient", "image", "mask", "slice")
"""Required columns: patient, paths of image and mask relative to the table's folder, and the number of the slice, which
increases towards the head by 1 between neighbours. The column `lesion_type` is optional."""

SLICE_MM = 5.0
"""Slice spacing in mm if neither the files nor the user give it: usual for portal venous CT (our choice)."""

_HU_LIMITS = (-1024, 3071)
"""Range of the 12 bits that CT scanners store."""
_PIXEL_MM, _MAX_SLICE_MM = (0.1, 10.0), 100.0
"""Allowed pixel sizes, from the finest reconstruction to a thumbnail, and the largest spacing of a slab."""
_UNEVEN = 0.1
"""How much the distances of neighbouring slices may differ, as a share."""


def check_hu(hu: tuple[float, float] | None) -> None:
    """Refuse a range of HU that no CT can have been clipped to.

    Raises:
        UsageError: if the numbers are not finite, not in order or outside the range of CT.
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
    """Describe the assumed geometry for a data list's source; arguments as for `slice_items`."""
    distance = f"slices {SLICE_MM if slice_mm is None else slice_mm:g} mm apart"
    if pixel_mm is None:
        return f"assumed: {distance} where files do not state it"
    return f"assumed: pixels of {pixel_mm:g} mm, {distance}"


@dataclass(frozen=True)
class _Facts:
    """Properties of a slice for comparison with others.

    Attributes:
        shape: rows and columns.
        affine: 4×4, from (column, row, slice) to RAS+ mm; None for a picture.
        digest: digest of its shape and HU.
        has_liver: whether its mask has liver.
    """

    shape: tuple[int, ...]
    affine: np.ndarray | None
    digest: bytes
    has_liver: bool


@dataclass(frozen=True)
class _Stack:
    """Neighbouring slices of one patient, which become one volume.

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
    """List the items of a set of slices in the order of patients and slices, without folds.

    Slices are converted to volumes of int16 HU with label maps in `nifti/`, again only if a source or an option has
    changed. Each volume is an item without a slice number. If the table has lesion types, each slice is an item.

    Args:
        root: the folder with the table, which paths in the table are relative to. Nothing is written into it unless
            `folder` is the same.
        folder: folder that volumes are written to and that paths of the items are relative to; `root` by default.
        table: file name of the table, CSV or .xlsx; None finds `slices.csv` or `slices.xlsx`.
        types: the user's words for types, as for `cohort_items`.
        hu: HU of the lowest and the highest possible pixel value of PNG and JPEG. It becomes `clipped_hu` of the items.
            DICOM and NIfTI have HU themselves.
        pixel_mm: edge of a pixel of PNG and JPEG in mm.
        slice_mm: distance of neighbouring slices in mm if the files do not have it; `SLICE_MM` by default.
        labelled: "liver" for masks that outline the liver including its lesions, with values 0, and 1 or 255. Other
            masks have values of the label table: 0 to 4 if the table has lesion types, else 0 to 2.
        progress: show a progress bar on a terminal.

    Raises:
        UsageError: if hu or a length is out of range, missing for pictures, or given for files that have it.
        LiversegError: if the table or a file is missing or unusable, an image or a patient's slice number occurs twice,
            a mask does not fit its image or has other values, neighbours differ in shape or geometry, or no mask has
            liver. The message names the row as numbered in a spreadsheet, one line for each of the first 20 bad rows.
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
    errors.raise_if_any()
    if any(is_jpeg(row.image) for row in rows):
        logging.getLogger(__name__).warning("%s: JPEG changes HU; take the originals where there are any", root)

    def read(row: CohortRow) -> tuple[SliceImage, np.ndarray]:
        return _read(root, row, hu, labelled, typed)

    def read_facts(row: CohortRow) -> _Facts:
        image, label = read(row)
        digest = hashlib.sha256(repr(image.hu.shape).encode() + image.hu.tobytes()).digest()
        return _Facts(image.hu.shape, image.axial_affine, digest, bool((label >= LIVER).any()))

    facts = map_rows(read_facts, {row: row for row in rows}, errors, "reading", "slice", os.cpu_count(), progress)
    errors.raise_if_any()
    _check_duplicates(facts, errors)
    if not any(slice_facts.has_liver for slice_facts in facts.values()):
        raise LiversegError(f"{root}: no mask holds a liver; outline it in the masks")
    stacks = _stacks(facts, pixel_mm, SLICE_MM if slice_mm is None else slice_mm, errors)
    errors.raise_if_any()

    def convert(name: str) -> None:
        _convert(root, folder, name, stacks[name], read, {"hu": hu and [*_whole_as_int(hu)], "labelled": labelled})

    try:
        (folder / "nifti").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder / 'nifti'}: the folder cannot be created ({error.strerror or error})") from error
    first_rows = {name: stack.rows[0] for name, stack in stacks.items()}
    map_rows(convert, first_rows, errors, "converting", "volume", os.cpu_count(), progress)
    errors.raise_if_any()
    return tuple(item for name, stack in stacks.items() for item in _items(name, stack, typed, hu, labelled))


def _check_lengths(pixel_mm: float | None, slice_mm: float | None) -> None:
    lowest, highest = _PIXEL_MM
    if pixel_mm is not None and not lowest <= pixel_mm <= highest:
        raise UsageError(f"pixel_mm {pixel_mm:g}; {lowest:g} to {highest:g} mm are allowed")
    if slice_mm is not None and not lowest <= slice_mm <= _MAX_SLICE_MM:
        raise UsageError(f"slice_mm {slice_mm:g}; {lowest:g} to {_MAX_SLICE_MM:g} mm are allowed")


def _check_options(rows: Sequence[CohortRow], hu: tuple[float, float] | None, pixel_mm: float | None) -> None:
    """Refuse pictures without the options for HU and pixel size, and other files with these options."""
    for row in rows:
        if is_picture(row.image):
            if hu is None:
                raise UsageError(
                    f"{row.where}: {row.image} has no HU; give --hu LOW:HIGH, the HU of its lowest and of its "
                    "highest value, as 0:255"
                )
            if pixel_mm is None:
                raise UsageError(
                    f"{row.where}: {row.image} has no pixel size; give --pixel-mm, the edge of a pixel in mm"
                )
        else:
            for option, value in (("--hu", hu), ("--pixel-mm", pixel_mm)):
                if value is not None:
                    raise UsageError(
                        f"{row.where}: {row.image} is no PNG or JPEG and has it in its header; leave {option} out, and "
                        "import pictures as a separate list"
                    )


def _check_rows(rows: Sequence[CohortRow], labelled: str | None, errors: RowErrors) -> None:
    """Refuse rows without a slice number, with columns of a cohort, or that contradict each other."""
    numbers: dict[tuple[str, int], CohortRow] = {}
    images: dict[str, CohortRow] = {}
    for row in rows:
        with errors.collect(row):
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
    """Read a row's image and its label map, uint8 (row, column) with values of the label table."""
    image = read_slice_image(root / row.image, hu)
    mask = read_slice_mask(root / row.mask, image)
    values = {int(value) for value in np.unique(mask)}
    values_text = ", ".join(map(str, sorted(values)[:6]))
    if labelled:
        if not (values <= {0, LIVER} or values <= {0, 255}):
            raise LiversegError(
                f"{row.where}: {row.mask} holds {values_text}; labelled {labelled} allows 0, and 1 or 255 for liver"
            )
        return image, (mask > 0).astype(np.uint8) * np.uint8(LIVER)
    labels = JOINT_LABELS if typed else PRETRAIN_LABELS
    if not values <= {label.index for label in labels}:
        allowed = ", ".join(f"{label.index} {label.name}" for label in labels)
        advice = "" if typed else "; for masks of the liver alone give --labelled liver, for types a column lesion_type"
        raise LiversegError(f"{row.where}: {row.mask} holds {values_text}; allowed: {allowed}{advice}")
    if row.lesion_type is not None and LESION + LESION_TYPES.index(row.lesion_type) not in values:
        raise LiversegError(f"{row.where}: no {row.lesion_type} in {row.mask}, which holds {values_text}")
    return image, mask.astype(np.uint8)


def _check_duplicates(facts: Mapping[CohortRow, _Facts], errors: RowErrors) -> None:
    first_with: dict[bytes, CohortRow] = {}
    for row, slice_facts in facts.items():
        other = first_with.setdefault(slice_facts.digest, row)
        if other is not row:
            errors.add(
                row.number,
                LiversegError(
                    f"{row.where}: {row.image} of patient {row.patient} has the pixels of {other.image} of patient "
                    f"{other.patient} in row {other.number}; take one out"
                ),
            )


def _stacks(
    facts: Mapping[CohortRow, _Facts], pixel_mm: float | None, slice_mm: float, errors: RowErrors
) -> dict[str, _Stack]:
    """Group slices of a patient with consecutive numbers, by the name of their volume."""
    groups: list[list[CohortRow]] = []
    for row in sorted(facts, key=lambda row: (row.patient, _number(row))):
        last = groups[-1][-1] if groups else None
        if last is not None and (last.patient, _number(last) + 1) == (row.patient, row.slice):
            groups[-1].append(row)
        else:
            groups.append([row])
    stacks: dict[str, _Stack] = {}
    first_with_name: dict[str, CohortRow] = {}
    for rows in groups:
        with errors.collect(*rows):
            name = f"{re.sub(r'[^0-9A-Za-z._-]', '_', rows[0].patient)}-{_number(rows[0]):04d}"
            other = first_with_name.setdefault(name.casefold(), rows[0])
            if other is not rows[0]:
                raise LiversegError(
                    f"{rows[0].where}: patients {other.patient} and {rows[0].patient} would have one file; rename one"
                )
            stacks[name] = _stack(rows, facts, pixel_mm, slice_mm)
    return stacks


def _number(row: CohortRow) -> int:
    assert row.slice is not None  # _check_rows
    return row.slice


def _stack(
    rows: Sequence[CohortRow], facts: Mapping[CohortRow, _Facts], pixel_mm: float | None, slice_mm: float
) -> _Stack:
    """Place neighbouring slices, given in the order of their numbers, on one grid, from feet to head."""
    first = facts[rows[0]]
    for row in rows[1:]:
        if facts[row].shape != first.shape:
            shape, first_shape = ("×".join(map(str, sizes)) for sizes in (facts[row].shape, first.shape))
            raise LiversegError(
                f"{row.where}: {row.image} has {shape} rows and columns, "
                f"its neighbour in row {rows[0].number} {first_shape}"
            )
    affines = [affine for row in rows if (affine := facts[row].affine) is not None]
    if not affines:
        affine = np.diag([-(pixel_mm or 1.0), -(pixel_mm or 1.0), slice_mm, 1.0])
        affine[2, 3] = slice_mm * _number(rows[0])
        return _Stack(tuple(rows), affine)
    for row, affine in zip(rows, affines, strict=True):
        if not np.allclose(affine[:3, :2], affines[0][:3, :2], atol=1e-3):
            raise LiversegError(
                f"{row.where}: pixels of {row.image} have another size or direction than those of its neighbour in row "
                f"{rows[0].number}"
            )
    up = affines[0][:3, 2] / np.linalg.norm(affines[0][:3, 2])
    steps = np.diff([float(affine[:3, 3] @ up) for affine in affines])
    if np.abs(steps).max(initial=0) < 1e-3:  # the files have no positions
        steps = np.full(len(steps), slice_mm)
    step = float(np.median(steps)) if len(steps) else slice_mm
    uneven = np.flatnonzero(np.abs(steps - step) > _UNEVEN * abs(step))
    if uneven.size or step == 0:
        row = rows[int(uneven[0]) + 1 if uneven.size else 1]
        distances = ", ".join(f"{distance:g}" for distance in np.round(steps[:6], 3))
        raise LiversegError(
            f"{row.where}: slices {_number(rows[0])} to {_number(rows[-1])} of patient {row.patient} are not evenly "
            f"spaced, {distances} mm apart; number neighbours only in sequence"
        )
    order = -1 if step < 0 else 1  # -1 if numbers increase towards the feet
    affine = affines[::order][0].copy()
    affine[:3, 2] = up * abs(step)
    return _Stack(tuple(rows[::order]), affine)


def _convert(
    root: Path,
    folder: Path,
    name: str,
    stack: _Stack,
    read: Callable[[CohortRow], tuple[SliceImage, np.ndarray]],
    options: Mapping[str, Any],
) -> None:
    """Write image and label map of a stack, and then the record of their sources, unless that record is current."""
    record = folder / f"nifti/{name}.json"
    outputs = [folder / path for path in _paths(name)]
    sources = file_states(folder, [root / path for row in stack.rows for path in (row.image, row.mask)])
    recipe = {**options, "affine": stack.affine.tolist(), "slices": [[row.image, row.mask] for row in stack.rows]}
    if is_current(record, folder, sources, outputs, recipe):
        return
    pairs = [read(row) for row in stack.rows]
    # (row, column) of each slice to (column, row, slice)
    write_nifti(outputs[0], np.stack([image.hu.T for image, _ in pairs], axis=-1), stack.affine)
    write_nifti(outputs[1], np.stack([label.T for _, label in pairs], axis=-1), stack.affine)
    write_record(record, folder, sources, outputs, recipe)


def _paths(name: str) -> tuple[str, str]:
    """Return the paths of a stack's image and label map, relative to the list's folder."""
    return f"nifti/images/{name}.nii.gz", f"nifti/labels/{name}.nii.gz"


def _items(
    name: str, stack: _Stack, typed: bool, hu: tuple[float, float] | None, labelled: str | None
) -> tuple[DataItem, ...]:
    """Return one item for a stack, or one per slice if there are lesion types."""
    image, label = _paths(name)
    item = DataItem(
        image,
        label,
        stack.rows[0].patient,
        labelled=LABELLED[0] if labelled else None,
        clipped_hu=hu and _whole_as_int(hu),
    )
    if not typed:
        return (item,)
    return tuple(replace(item, slice=k, lesion_type=row.lesion_type) for k, row in enumerate(stack.rows))


def _whole_as_int(hu: tuple[float, float]) -> tuple[float, float]:
    """Convert whole numbers to int, so that JSON has 0 and 255, not 0.0 and 255.0."""
    low, high = (int(value) if float(value).is_integer() else float(value) for value in hu)
    return low, high
