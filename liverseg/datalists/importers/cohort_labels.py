"""Label maps of a cohort: masks without types are converted to joint label maps with the types of their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from liverseg.datalists.importers.cohort_images import ImageGrid, mirrored_path, read_image_grid
from liverseg.datalists.importers.cohort_masks import MaskFacts, PlacedMask, is_png, read_mask
from liverseg.datalists.importers.cohort_table import CohortRow, RowErrors, prefix_row
from liverseg.errors import LiversegError
from liverseg.imageio.nifti import write_nifti
from liverseg.labels import JOINT_LABELS, LESION, LESION_TYPES, LIVER
from liverseg.utils.fingerprints import file_states, is_current, write_record

__all__ = ["check_slice", "check_typed_mask", "has_types", "interpret_mask", "write_label"]

_TYPED = {label.index for label in JOINT_LABELS}
_LITS = {0, LIVER, LESION}
_BINARY = ({0, 1}, {0, 255})


def interpret_mask(rows: Sequence[CohortRow], values: set[int] | None, others_have_types: bool) -> str:
    """Return how to interpret a mask's values.

    They are `typed` (values of the joint label table), `lits` (1 liver, 2 lesion), `lesion` (any value) or `numbered`
    (lesion numbers).

    Args:
        rows: the rows of the mask.
        values: values of the mask, from `read_mask_facts`; None for a DICOM SEG.
        others_have_types: whether a mask of the table certainly has types, with a 3 or 4.

    Raises:
        LiversegError: if the values fit no interpretation, or more than one.
    """
    row = rows[0]
    if len({(row.lesion is None, row.mask_values) for row in rows}) > 1:
        raise LiversegError(
            f"{row.where}: rows of {row.mask} differ in mask_values, or some have a lesion number and others none"
        )
    if row.lesion is not None:
        return "numbered"
    if values is None:
        return "lesion"
    values_text = ", ".join(map(str, sorted(values)[:6]))
    absent = [row for row in rows if row.lesion_type is not None and _type_value(row) not in values]
    if row.mask_values == "typed" or (row.mask_values is None and has_types(values)):
        if not values <= _TYPED:
            raise LiversegError(f"{row.where}: {row.mask} holds {values_text}; a mask with types holds 0 to 4")
        if absent:
            raise LiversegError(
                f"{absent[0].where}: no {_type_value(absent[0])} for a {absent[0].lesion_type} in {row.mask}, which "
                f"holds {values_text}; correct the type or the mask, or say lesion in a column mask_values"
            )
        return "typed"
    if any(values <= allowed for allowed in _BINARY):
        return "lesion"
    if not values <= _LITS:
        raise LiversegError(
            f"{row.where}: {row.mask} holds {values_text}; allowed: 0 and 1 (or 255), 0 to 2 as LiTS, 0 to 4 with "
            "types; where it numbers lesions, give their numbers in a column lesion"
        )
    if row.mask_values == "lesion":
        return "lits"
    if absent and others_have_types:
        raise LiversegError(
            f"{absent[0].where}: {row.mask} holds {values_text} and no {_type_value(absent[0])} for a "
            f"{absent[0].lesion_type}, but other masks of the table hold types; say lesion or typed in a column "
            "mask_values"
        )
    return "lits" if absent else "typed"


def has_types(values: set[int]) -> bool:
    """Whether a mask's values can only be types: 0 to 4, with a 3 or 4."""
    return values <= _TYPED and bool(values - _LITS)


def _type_value(row: CohortRow) -> int:
    """Return the value of a row's type in the joint label table."""
    return LESION + LESION_TYPES.index(str(row.lesion_type))


def check_typed_mask(row: CohortRow, facts: MaskFacts, grid: ImageGrid) -> None:
    """Refuse a row if its image has no such slice, or its typed mask does not have the row's type there.

    Args:
        row: a row whose mask is used without conversion, interpreted as "typed".
        facts: facts of the mask, including the row's slice. The mask is on the image's grid.
        grid: the image's grid.

    Raises:
        LiversegError: if the slice or the type is missing.
    """
    check_slice(row, grid)
    values = facts.values if row.slice is None else facts.on_slice[row.slice]
    if row.lesion_type and _type_value(row) not in (values or ()):
        raise _absent_error(row)


def check_slice(row: CohortRow, grid: ImageGrid) -> None:
    """Refuse a row if its image has no such slice.

    Raises:
        LiversegError: if the slice is out of range.
    """
    if row.slice is not None and row.slice >= grid.depth:
        raise LiversegError(f"{row.where}: slice {row.slice}; the image has slices 0 to {grid.depth - 1}")


def _absent_error(row: CohortRow) -> LiversegError:
    where = f"slice {row.slice} of {row.mask}" if row.slice is not None else row.mask
    return LiversegError(f"{row.where}: no {row.lesion_type} in {where}; correct type, slice or mask")


def write_label(
    root: Path, image: str, rows: Sequence[CohortRow], interpretations: Mapping[str, str], errors: RowErrors
) -> str | None:
    """Write the label map of an image, unless it is current.

    Lesions of the masks get the types of their rows. Masks and liver masks give the liver where there is no lesion.

    Args:
        root: the cohort's folder.
        image: path of the image as NIfTI, relative to `root`.
        rows: all rows of the image.
        interpretations: for each mask, the result of `interpret_mask`.
        errors: collects errors of masks that do not fit their image or row.

    Returns:
        The label map's path relative to `root`, uint8 on the image's grid; None if a row has an error.

    Raises:
        LiversegError: if the label map cannot be written.
    """
    name = mirrored_path(rows[0].image)
    # the ending is appended to the complete name, so that images `p1` and `p1.nii.gz` get different label maps
    target = f"nifti/labels/{name}.nii.gz"
    record = root / f"nifti/labels/{name}.json"
    recipe = [
        [row.mask, row.slice, row.lesion_type, row.liver_mask, row.lesion, interpretations[row.mask]] for row in rows
    ]
    names = {image, *(row.mask for row in rows), *(row.liver_mask for row in rows if row.liver_mask)}
    sources = file_states(root, [root / name for name in sorted(names)])
    if not is_current(record, root, sources, [root / target], recipe):
        grid = read_image_grid(root / image, dicom=image != rows[0].image)
        label = _burned_in(root, grid, rows, interpretations, errors)
        if label is None:
            return None
        write_nifti(root / target, label, grid.affine)
        write_record(record, root, sources, [root / target], recipe)
    return target


def _burned_in(
    root: Path, grid: ImageGrid, rows: Sequence[CohortRow], interpretations: Mapping[str, str], errors: RowErrors
) -> np.ndarray | None:
    """Return the label map with all masks burned in; None if a row has an error."""
    label = np.zeros(grid.shape, np.uint8, order="F")
    masks: dict[tuple[str, int | None], tuple[PlacedMask, list[CohortRow]]] = {}
    read_masks, read_livers = set(), set()
    for row in rows:
        with errors.collect(row), prefix_row(row):
            check_slice(row, grid)
            key = (row.mask, row.slice if is_png(row.mask) else None)
            if key not in read_masks:
                read_masks.add(key)
                masks[key] = read_mask(root / row.mask, grid, row.slice), []
            if key in masks:
                masks[key][1].append(row)
            liver_key = row.liver_mask and (row.liver_mask, row.slice if is_png(row.liver_mask) else None)
            if row.liver_mask and liver_key not in read_livers:
                read_livers.add(liver_key)
                mask = read_mask(root / row.liver_mask, grid, row.slice)
                has_liver_segment = mask.liver is not None and mask.liver.any()
                label[mask.index][mask.liver if has_liver_segment else mask.values > 0] = LIVER
    if errors.any_in(rows):
        return None
    for mask, mask_rows in masks.values():
        if mask.liver is not None:
            label[mask.index][mask.liver] = LIVER
        if interpretations[mask_rows[0].mask] in ("lits", "typed"):
            label[mask.index][mask.values == LIVER] = LIVER
    for mask, mask_rows in masks.values():
        with errors.collect(*mask_rows):
            _burn_in_lesions(label, grid, mask, mask_rows, interpretations[mask_rows[0].mask])
    if errors.any_in(rows):
        return None
    for row in rows:
        annotated = label if row.slice is None else label[grid.plane(row.slice)]
        if row.lesion_type and not (annotated == _type_value(row)).any():
            errors.add(row.number, _absent_error(row))
    return None if errors.any_in(rows) else label


def _burn_in_lesions(
    label: np.ndarray, grid: ImageGrid, mask: PlacedMask, rows: Sequence[CohortRow], interpretation: str
) -> None:
    """Burn in the lesions of one mask with the types of its rows."""
    first = rows[0]
    target = label[mask.index]
    if interpretation == "numbered":
        _burn_in_numbered(target, grid, mask, rows)
        return
    if interpretation == "typed":
        for value in sorted(_TYPED - {0, LIVER}):
            _burn_in(target, mask.values == value, value, first)
        return
    lesion = mask.values > (LIVER if interpretation == "lits" else 0)
    for row in rows:
        if row.lesion_type is None and lesion.any():
            raise _untyped_error(row)
    types = {_type_value(row) for row in rows if row.lesion_type}
    if len(types) == 1:
        _burn_in(target, lesion, types.pop(), first)
    elif types:
        _burn_in_slices(target, grid, lesion, rows)


def _burn_in_slices(target: np.ndarray, grid: ImageGrid, lesion: np.ndarray, rows: Sequence[CohortRow]) -> None:
    """Burn in the lesions of each slice with the type of its row, for a mask whose rows have several types."""
    remaining = lesion.copy()
    for row in rows:
        if row.slice is None:
            other = next(other for other in rows if other.lesion_type != row.lesion_type)
            raise LiversegError(
                f"{row.where}: {row.lesion_type} for all of {row.mask}, but row {other.number} says "
                f"{other.lesion_type}; give every row a slice, or number the lesions and give a column lesion"
            )
        on_slice = np.zeros_like(lesion)
        on_slice[grid.plane(row.slice)] = lesion[grid.plane(row.slice)]
        _burn_in(target, on_slice, _type_value(row), row)
        remaining &= ~on_slice
    if remaining.any():
        in_plane = tuple(axis for axis in range(3) if axis != grid.slice_axis)
        raise LiversegError(
            f"{rows[0].where}: {rows[0].mask} has lesions in slice {np.argmax(remaining.any(axis=in_plane))}, and its "
            "rows name several types, but none for it; add a row for it, or number the lesions and give a column lesion"
        )


def _burn_in_numbered(target: np.ndarray, grid: ImageGrid, mask: PlacedMask, rows: Sequence[CohortRow]) -> None:
    """Burn in each numbered lesion with the type of its row; refuse a lesion without a row."""
    numbers = mask.numbers
    for row in rows:
        if row.lesion_type is None:
            raise _untyped_error(row)
        if row.lesion not in numbers:
            numbers_text = ", ".join(map(str, numbers[:10])) or "none"
            raise LiversegError(f"{row.where}: no lesion {row.lesion} in {row.mask}; it has {numbers_text}")
        lesion = mask.lesion(row.lesion)
        if row.slice is not None and lesion.shape == grid.shape and not lesion[grid.plane(row.slice)].any():
            raise LiversegError(f"{row.where}: lesion {row.lesion} is not in slice {row.slice} of {row.mask}")
        _burn_in(target, lesion, _type_value(row), row)
    without_row = sorted({*numbers} - {row.lesion for row in rows})
    if without_row:
        raise LiversegError(
            f"{rows[0].where}: {rows[0].mask} has lesion {without_row[0]}, which no row types; "
            "add a row with its number and type, or take it out of the mask"
        )


def _burn_in(target: np.ndarray, lesion: np.ndarray, value: int, row: CohortRow) -> None:
    """Set a lesion's voxels to a value; refuse voxels of two types."""
    present = target[lesion]
    conflicting = present[(present >= LESION) & (present != value)]
    if conflicting.size:
        names = JOINT_LABELS[int(conflicting[0])].name, JOINT_LABELS[value].name
        raise LiversegError(
            f"{row.where}: {row.mask} has pixels of a {names[0]} and of a {names[1]}; correct the masks"
        )
    target[lesion] = value


def _untyped_error(row: CohortRow) -> LiversegError:
    """Return the error for a row without a type whose mask has no types either."""
    allowed = ", ".join(LESION_TYPES)
    return LiversegError(f"{row.where}: lesion type ''; allowed: {allowed}; {row.mask} has no types either")
