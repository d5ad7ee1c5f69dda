"""Importer for a cohort of typed lesions: a table with one row per annotated slice, volume or lesion."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from liverseg.datalists.importers.cohort_images import ImageGrid, convert_image, mirrored_path, read_image_grid
from liverseg.datalists.importers.cohort_labels import (
    check_slice,
    check_typed_mask,
    has_types,
    interpret_mask,
    write_label,
)
from liverseg.datalists.importers.cohort_masks import MaskFacts, is_png, read_mask_facts
from liverseg.datalists.importers.cohort_table import COLUMNS, CohortRow, RowErrors, Types, map_rows, read_rows
from liverseg.datalists.model import DataItem
from liverseg.errors import LiversegError
from liverseg.imageio.volume import is_nifti, read_volume
from liverseg.labels import LIVER

__all__ = ["COLUMNS", "cohort_items"]

_CONVERTERS = 4
"""DICOM images converted at a time: each needs several hundred megabytes."""


def cohort_items(
    root: str | os.PathLike, table: str | None = None, types: Types | None = None, *, progress: bool = True
) -> tuple[DataItem, ...]:
    """List the items of a cohort in the order of its table, without folds.

    White space around the content of cells is ignored. DICOM images are converted to `nifti/images/` in the folder, and
    masks that are not yet joint label maps on a NIfTI image's grid to `nifti/labels/`, one per image, again only if a
    source has changed. Rows that give the same item give it once.

    A mask with values 0, 1 and 2 may be as in LiTS (2 is a lesion) or typed (2 is a cyst); the column `mask_values`
    decides. Without it, the mask is typed if it has the values of all its rows' types, else as in LiTS. It is refused
    if it lacks such a value while another mask of the table has a 3 or 4.

    Args:
        root: the folder with the table, which paths in the table are relative to.
        table: file name of the table, CSV or .xlsx; None finds `slices.csv` or `slices.xlsx`.
        types: the user's words for types: a mapping to `LESION_TYPES`, or to None to leave rows out, or its JSON or CSV
            file.
        progress: show a progress bar on a terminal while masks are read and DICOM images converted.

    Raises:
        LiversegError: if the table is missing or unreadable or lacks a column, or if a row has a missing or unusable
            file, an unknown type, an invalid slice number, or contradicts another row. The message names the row as
            numbered in a spreadsheet, one line for each of the first 20 bad rows.
    """
    root = Path(root)
    errors = RowErrors()
    rows = read_rows(root, table, types, errors)
    _check_rows(rows, errors)
    images: dict[str, list[CohortRow]] = {}
    for row in rows:
        images.setdefault(os.path.normpath(row.image), []).append(row)
    facts, grids = _read_files(root, rows, errors, progress)
    interpretations = _interpret_masks(rows, facts, errors)
    unconverted = {
        name
        for name, image_rows in images.items()
        if _masks_are_labels(image_rows, interpretations, facts, grids.get(image_rows[0].image), errors)
    }
    errors.raise_if_any()
    converted = _convert(root, images, errors, progress)
    paths: dict[int, tuple[str, str]] = {}  # image and label map by row number
    for name, image in converted.items():
        if name in unconverted:
            paths |= {row.number: (row.image, row.mask) for row in images[name]}
        else:
            label = write_label(root, image, images[name], interpretations, errors)
            paths |= {row.number: (image, label) for row in images[name] if label is not None}
    errors.raise_if_any()
    _warn_without_liver(root, rows, paths, interpretations, facts)
    volume_types: dict[tuple[str, str], set[str | None]] = {}
    for row in rows:
        if row.slice is None:
            volume_types.setdefault(paths[row.number], set()).add(row.lesion_type)
    items = []
    for row in rows:
        image, label = paths[row.number]
        # a volume with lesions of several types has no type
        has_type = row.slice is not None or len(volume_types[image, label]) == 1
        lesion_type = row.lesion_type if has_type else None
        items.append(DataItem(image, label, row.patient, slice=row.slice, lesion_type=lesion_type))
    return tuple(dict.fromkeys(items))


def _warn_without_liver(
    root: Path,
    rows: Sequence[CohortRow],
    paths: Mapping[int, tuple[str, str]],
    interpretations: Mapping[str, str],
    facts: Mapping[str, MaskFacts],
) -> None:
    """Log one warning if label maps have lesions but no liver."""
    rows_of: dict[str, list[CohortRow]] = {}
    for row in rows:
        rows_of.setdefault(paths[row.number][1], []).append(row)
    without = [
        label
        for label, label_rows in rows_of.items()
        if not _has_liver(root, label, label_rows, interpretations, facts)
    ]
    if without:
        logging.getLogger(__name__).warning(
            "%s: %d of %d label maps hold no liver, as %s; a network trained on them learns the liver as background: "
            "add a column liver_mask",
            *(root, len(without), len(rows_of), without[0]),
        )


def _has_liver(
    root: Path,
    label: str,
    rows: Sequence[CohortRow],
    interpretations: Mapping[str, str],
    facts: Mapping[str, MaskFacts],
) -> bool:
    for row in rows:
        values = facts[row.mask].values or ()
        if row.liver_mask or (interpretations[row.mask] in ("lits", "typed") and LIVER in values):
            return True
    # for a SEG, the written label map shows whether it has a liver segment
    has_seg = any(facts[row.mask].values is None for row in rows)
    return has_seg and bool((read_volume(root / label).array == LIVER).any())


def _check_rows(rows: Sequence[CohortRow], errors: RowErrors) -> None:
    """Refuse two types for a slice or a numbered lesion, and images that would be converted to the same file."""
    targets: dict[str, CohortRow] = {}
    slices: dict[tuple, list[CohortRow]] = {}
    lesions: dict[tuple, CohortRow] = {}
    for row in rows:
        with errors.collect(row):
            _check_target(row, targets)
            _check_types(row, slices, lesions)


def _check_target(row: CohortRow, targets: dict[str, CohortRow]) -> None:
    image = os.path.normpath(row.image)
    other = targets.setdefault(mirrored_path(image), row)
    if os.path.normpath(other.image) != image:
        raise LiversegError(
            f"{row.where}: {row.image} and {other.image} in row {other.number} would be one file below nifti/; "
            "move or rename one of them"
        )


def _check_types(row: CohortRow, slices: dict[tuple, list[CohortRow]], lesions: dict[tuple, CohortRow]) -> None:
    image, mask = os.path.normpath(row.image), os.path.normpath(row.mask)
    if row.lesion is not None:
        key = (image, mask, row.lesion, row.slice if is_png(mask) else None)
        first = lesions.setdefault(key, row)
        if first.lesion_type != row.lesion_type:
            raise LiversegError(
                f"{row.where}: lesion {row.lesion} of {row.mask} is {_format_type(row)}, but {_format_type(first)} in "
                f"row {first.number}; one lesion has one type"
            )
    others = slices.setdefault((image, row.slice), [])
    for other in others:
        differ = None not in (row.lesion_type, other.lesion_type) and row.lesion_type != other.lesion_type
        if differ and (None in (row.lesion, other.lesion) or row.lesion == other.lesion):
            what = f"slice {row.slice}" if row.slice is not None else "the volume"
            raise LiversegError(
                f"{row.where}: {what} of {row.image} is {_format_type(row)}, but {_format_type(other)} in row "
                f"{other.number}; keep one, or number the lesions in the mask and give a column lesion"
            )
    others.append(row)


def _format_type(row: CohortRow) -> str:
    return row.lesion_type or "without a type"


def _interpret_masks(rows: Sequence[CohortRow], facts: Mapping[str, MaskFacts], errors: RowErrors) -> dict[str, str]:
    """Return the result of `interpret_mask` for each readable mask."""
    rows_of: dict[str, list[CohortRow]] = {}
    for row in rows:
        rows_of.setdefault(row.mask, []).append(row)
    values_of = {mask: facts[mask].values for mask in rows_of if mask in facts}
    any_types = any(
        has_types(values) for mask, values in values_of.items() if values and rows_of[mask][0].lesion is None
    )
    interpretations = {}
    for mask, values in values_of.items():
        with errors.collect(*rows_of[mask]):
            interpretations[mask] = interpret_mask(rows_of[mask], values, any_types)
    return interpretations


def _masks_are_labels(
    rows: Sequence[CohortRow],
    interpretations: Mapping[str, str],
    facts: Mapping[str, MaskFacts],
    grid: ImageGrid | None,
    errors: RowErrors,
) -> bool:
    """Whether the masks of a NIfTI image can be used as label maps; collect errors of rows that do not fit their mask.

    The grid is None for a DICOM image, whose slices are counted when it is converted.
    """
    if grid is None:
        return False
    for row in rows:
        with errors.collect(row):
            check_slice(row, grid)
    for row in rows:
        if interpretations.get(row.mask) != "typed" or row.liver_mask or not facts[row.mask].is_on(grid):
            return False
    for row in rows:
        with errors.collect(row):
            check_typed_mask(row, facts[row.mask], grid)
    return True


def _read_files(
    root: Path, rows: Sequence[CohortRow], errors: RowErrors, progress: bool
) -> tuple[dict[str, MaskFacts], dict[str, ImageGrid]]:
    """Read the facts of masks and the grids of NIfTI images; collect errors for the first row of an unreadable file.

    DICOM images and segmentations are read later, when they are converted.
    """
    first_row: dict[tuple[str, bool], CohortRow] = {}
    slices: dict[str, set[int]] = {}
    for row in rows:
        if is_nifti(row.image):
            first_row.setdefault((row.image, False), row)
        first_row.setdefault((row.mask, True), row)
        slices.setdefault(row.mask, set()).update(() if row.slice is None else (row.slice,))

    def read(file: tuple[str, bool]) -> MaskFacts | ImageGrid:
        name, is_mask = file
        return read_mask_facts(root / name, slices[name]) if is_mask else read_image_grid(root / name, dicom=False)

    results = map_rows(read, first_row, errors, "reading", "file", os.cpu_count(), progress)
    facts = {name: result for (name, _), result in results.items() if isinstance(result, MaskFacts)}
    grids = {name: result for (name, _), result in results.items() if isinstance(result, ImageGrid)}
    return facts, grids


def _convert(
    root: Path, images: Mapping[str, Sequence[CohortRow]], errors: RowErrors, progress: bool
) -> dict[str, str]:
    """Convert images to NIfTI and return their paths in order; leave out images with errors, which are collected."""
    first_row = {name: rows[0] for name, rows in images.items() if not is_nifti(rows[0].image)}

    def convert(name: str) -> str:
        return convert_image(root, first_row[name].image)

    paths = map_rows(convert, first_row, errors, "converting", "image", _CONVERTERS, progress)
    paths |= {name: rows[0].image for name, rows in images.items() if name not in first_row}
    return {name: paths[name] for name in images if name in paths}
