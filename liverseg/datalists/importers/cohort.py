"""Importer for a cohort of typed lesions: a table with one row an annotated slice, volume or lesion."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from liverseg.datalists.importers.cohort_images import Grid, convert_image, mirrored, read_grid
from liverseg.datalists.importers.cohort_labels import check_as_it_is, check_slice, has_types, reading, write_label
from liverseg.datalists.importers.cohort_masks import MaskFacts, is_png, mask_facts
from liverseg.datalists.importers.cohort_table import COLUMNS, CohortRow, RowErrors, Types, in_threads, read_rows
from liverseg.datalists.model import DataItem
from liverseg.errors import LiversegError
from liverseg.imageio.volume import is_nifti, read_volume
from liverseg.labels import LIVER

__all__ = ["COLUMNS", "cohort_items"]

_CONVERTERS = 4
"""DICOM images converted at a time: each takes several hundred megabytes."""


def cohort_items(
    root: str | os.PathLike, table: str | None = None, types: Types | None = None, *, progress: bool = True
) -> tuple[DataItem, ...]:
    """Items of a cohort in the order of its table, folds not yet assigned.

    White space around a cell's content does not count: `p1 ` and `p1` are one patient. DICOM images are converted to
    `nifti/images/` in the folder, and masks that are not yet label maps of the joint table on a NIfTI image's grid to
    `nifti/labels/`, one for an image; both only when a source has changed. Rows that come to the same item give one.

    A mask of 0, 1 and 2 may be LiTS's (2 is a lesion) or typed (2 is a cyst); the column `mask_values` decides. Without
    it the mask is typed where it holds the values of all its rows' types, else LiTS's, and refused where it lacks one
    while another mask of the table holds 3 or 4.

    Args:
        root: the folder that holds the table and that its paths are relative to.
        table: the table's file name, CSV or .xlsx; None takes the one of `slices.csv` and `slices.xlsx` that is there.
        types: the user's words for types, a mapping to ours or its JSON or CSV file; None there leaves the row out.
        progress: show a bar on a terminal while masks are read and DICOM images converted.

    Raises:
        LiversegError: if the table is missing or unreadable, lacks a column, or a row names a missing or unusable file,
            an unknown type, a slice that is no number or not there, or contradicts another; the message names the row
            as a spreadsheet counts it, and has one line for each of the first 20 bad rows.
    """
    root = Path(root)
    errors = RowErrors()
    rows = read_rows(root, table, types, errors)
    _check_rows(rows, errors)
    images: dict[str, list[CohortRow]] = {}
    for row in rows:
        images.setdefault(os.path.normpath(row.image), []).append(row)
    facts, grids = _read_files(root, rows, errors, progress)
    how = _readings(rows, facts, errors)
    stay = {name for name, own in images.items() if _stay(own, how, facts, grids.get(own[0].image), errors)}
    errors.tell()
    converted = _convert(root, images, errors, progress)
    labels: dict[int, tuple[str, str]] = {}
    for name, image in converted.items():
        own = images[name]
        if name in stay:
            labels |= {row.number: (row.image, row.mask) for row in own}
        else:
            label = write_label(root, image, own, how, errors)
            labels |= {row.number: (image, label) for row in own if label is not None}
    errors.tell()
    _warn_without_liver(root, rows, labels, how, facts)
    kinds: dict[tuple[str, str], set[str | None]] = {}
    for row in rows:
        if row.slice is None:
            kinds.setdefault(labels[row.number], set()).add(row.lesion_type)
    items = (
        DataItem(
            image=labels[row.number][0],
            label=labels[row.number][1],
            patient=row.patient,
            slice=row.slice,
            # a whole volume with lesions of several types has no one type
            lesion_type=row.lesion_type if row.slice is not None or len(kinds[labels[row.number]]) == 1 else None,
        )
        for row in rows
    )
    return tuple(dict.fromkeys(items))


def _warn_without_liver(
    root: Path,
    rows: Sequence[CohortRow],
    labels: Mapping[int, tuple[str, str]],
    how: Mapping[str, str],
    facts: Mapping[str, MaskFacts],
) -> None:
    """Warn once where label maps hold lesions but no liver."""
    of_label: dict[str, list[CohortRow]] = {}
    for row in rows:
        of_label.setdefault(labels[row.number][1], []).append(row)
    without = [label for label, own in of_label.items() if not _has_liver(root, label, own, how, facts)]
    if without:
        logging.getLogger(__name__).warning(
            "%s: %d of %d label maps hold no liver, as %s; a network trained on them learns the liver as background: "
            "add a column liver_mask",
            *(root, len(without), len(of_label), without[0]),
        )


def _has_liver(
    root: Path, label: str, rows: Sequence[CohortRow], how: Mapping[str, str], facts: Mapping[str, MaskFacts]
) -> bool:
    for row in rows:
        if row.liver_mask or (how[row.mask] in ("lits", "typed") and LIVER in (facts[row.mask].values or ())):
            return True
    # what a SEG's segments are is told by what was made of them
    seg = any(facts[row.mask].values is None for row in rows)
    return seg and bool((read_volume(root / label).array == LIVER).any())


def _check_rows(rows: Sequence[CohortRow], errors: RowErrors) -> None:
    """Refuse rows that give one slice, or one numbered lesion, two types, and images whose files would be one."""
    targets: dict[str, CohortRow] = {}
    slices: dict[tuple, list[CohortRow]] = {}
    lesions: dict[tuple, CohortRow] = {}
    for row in rows:
        with errors.of(row):
            _check_target(row, targets)
            _check_types(row, slices, lesions)


def _check_target(row: CohortRow, targets: dict[str, CohortRow]) -> None:
    image = os.path.normpath(row.image)
    same = targets.setdefault(mirrored(image), row)
    if os.path.normpath(same.image) != image:
        raise LiversegError(
            f"{row.where}: {row.image} and {same.image} in row {same.number} would be one file below nifti/; "
            "move or rename one of them"
        )


def _check_types(row: CohortRow, slices: dict[tuple, list[CohortRow]], lesions: dict[tuple, CohortRow]) -> None:
    image, mask = os.path.normpath(row.image), os.path.normpath(row.mask)
    if row.lesion is not None:
        key = (image, mask, row.lesion, row.slice if is_png(mask) else None)
        first = lesions.setdefault(key, row)
        if first.lesion_type != row.lesion_type:
            raise LiversegError(
                f"{row.where}: lesion {row.lesion} of {row.mask} is {_kind(row)}, but {_kind(first)} in row "
                f"{first.number}; one lesion has one type"
            )
    others = slices.setdefault((image, row.slice), [])
    for other in others:
        differ = None not in (row.lesion_type, other.lesion_type) and row.lesion_type != other.lesion_type
        if differ and (None in (row.lesion, other.lesion) or row.lesion == other.lesion):
            what = f"slice {row.slice}" if row.slice is not None else "the whole volume"
            raise LiversegError(
                f"{row.where}: {what} of {row.image} is {_kind(row)}, but {_kind(other)} in row {other.number}; "
                "keep one, or number the lesions in the mask and give a column lesion"
            )
    others.append(row)


def _kind(row: CohortRow) -> str:
    return row.lesion_type or "without a type"


def _readings(rows: Sequence[CohortRow], facts: Mapping[str, MaskFacts], errors: RowErrors) -> dict[str, str]:
    """How the values of each mask that could be read are to be read; see `reading`."""
    masks: dict[str, list[CohortRow]] = {}
    for row in rows:
        masks.setdefault(row.mask, []).append(row)
    values = {mask: facts[mask].values for mask in masks if mask in facts}
    mixed = any(has_types(held) for mask, held in values.items() if held and masks[mask][0].lesion is None)
    how = {}
    for mask, held in values.items():
        with errors.of(*masks[mask]):
            how[mask] = reading(masks[mask], held, mixed)
    return how


def _stay(
    rows: Sequence[CohortRow],
    how: Mapping[str, str],
    facts: Mapping[str, MaskFacts],
    grid: Grid | None,
    errors: RowErrors,
) -> bool:
    """Whether the masks of a NIfTI image are used as they are; of a row that does not fit its mask an error is kept.

    The grid is None for a DICOM image, whose slices are counted when it is converted.
    """
    if grid is None:
        return False
    for row in rows:
        with errors.of(row):
            check_slice(row, grid)
    for row in rows:
        if how.get(row.mask) != "typed" or row.liver_mask or not facts[row.mask].lies_on(grid):
            return False
    for row in rows:
        with errors.of(row):
            check_as_it_is(row, facts[row.mask], grid)
    return True


def _read_files(
    root: Path, rows: Sequence[CohortRow], errors: RowErrors, progress: bool
) -> tuple[dict[str, MaskFacts], dict[str, Grid]]:
    """Each mask's facts and each NIfTI image's grid; of a file that cannot be read an error of its first row is kept.

    DICOM images and segmentations are read later, when something is made of them.
    """
    first: dict[tuple[str, bool], CohortRow] = {}
    slices: dict[str, set[int]] = {}
    for row in rows:
        if is_nifti(row.image):
            first.setdefault((row.image, False), row)
        first.setdefault((row.mask, True), row)
        slices.setdefault(row.mask, set()).update(() if row.slice is None else (row.slice,))

    def read(file: tuple[str, bool]) -> MaskFacts | Grid:
        name, is_mask = file
        return mask_facts(root / name, slices[name]) if is_mask else read_grid(root / name, dicom=False)

    found = in_threads(read, first, errors, "reading", "file", os.cpu_count(), progress)
    facts = {name: one for (name, _), one in found.items() if isinstance(one, MaskFacts)}
    grids = {name: one for (name, _), one in found.items() if isinstance(one, Grid)}
    return facts, grids


def _convert(
    root: Path, images: Mapping[str, Sequence[CohortRow]], errors: RowErrors, progress: bool
) -> dict[str, str]:
    """Each image as NIfTI, in the order given; one that cannot be converted is left out and its error kept."""
    first = {name: own[0] for name, own in images.items() if not is_nifti(own[0].image)}

    def convert(name: str) -> str:
        return convert_image(root, first[name].image)

    made = in_threads(convert, first, errors, "converting", "image", _CONVERTERS, progress)
    made |= {name: own[0].image for name, own in images.items() if name not in first}
    return {name: made[name] for name in images if name in made}
