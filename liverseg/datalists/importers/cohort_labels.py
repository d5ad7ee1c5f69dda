"""Label maps of a cohort: masks whose values are no types become joint label maps with the types of their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from liverseg.datalists.importers.cohort_images import Grid, mirrored, read_grid
from liverseg.datalists.importers.cohort_masks import MaskFacts, PlacedMask, is_png, read_mask
from liverseg.datalists.importers.cohort_table import CohortRow, RowErrors, named
from liverseg.datalists.importers.conversion import file_states, is_current, write_nifti, write_record
from liverseg.errors import LiversegError
from liverseg.labels import JOINT_LABELS, LESION, LESION_TYPES, LIVER

__all__ = ["check_as_it_is", "check_slice", "has_types", "reading", "untyped", "write_label"]

_TYPED = {label.index for label in JOINT_LABELS}
_LITS = {0, LIVER, LESION}
_BINARY = ({0, 1}, {0, 255})


def reading(rows: Sequence[CohortRow], values: set[int] | None, mixed: bool) -> str:
    """How a mask's values are to be read: `typed`, `lits`, `lesion` or `numbered`.

    Args:
        rows: the rows of the mask.
        values: what it holds, `mask_facts`; None for a DICOM SEG.
        mixed: whether any mask of the table holds types for certain, 3 or 4.

    Raises:
        LiversegError: if they cannot be read so, or in two ways.
    """
    row = rows[0]
    if len({(one.lesion is None, one.mask_values) for one in rows}) > 1:
        raise LiversegError(
            f"{row.where}: rows of {row.mask} differ in mask_values, or some have a lesion number and others none"
        )
    if row.lesion is not None:
        return "numbered"
    if values is None:
        return "lesion"
    shown = ", ".join(map(str, sorted(values)[:6]))
    absent = [one for one in rows if one.lesion_type is not None and _value(one) not in values]
    if row.mask_values == "typed" or (row.mask_values is None and has_types(values)):
        if not values <= _TYPED:
            raise LiversegError(f"{row.where}: {row.mask} holds {shown}; a mask with types holds 0 to 4")
        if absent:
            raise LiversegError(
                f"{absent[0].where}: no {_value(absent[0])} for a {absent[0].lesion_type} in {row.mask}, which holds "
                f"{shown}; correct the type or the mask, or say lesion in a column mask_values"
            )
        return "typed"
    if any(values <= allowed for allowed in _BINARY):
        return "lesion"
    if not values <= _LITS:
        raise LiversegError(
            f"{row.where}: {row.mask} holds {shown}; allowed: 0 and 1 (or 255), 0 to 2 as LiTS, 0 to 4 with types; "
            "where it numbers lesions, give their numbers in a column lesion"
        )
    if row.mask_values == "lesion":
        return "lits"
    if absent and mixed:
        raise LiversegError(
            f"{absent[0].where}: {row.mask} holds {shown} and no {_value(absent[0])} for a {absent[0].lesion_type}, "
            "but other masks of the table hold types; say lesion or typed in a column mask_values"
        )
    return "lits" if absent else "typed"


def has_types(values: set[int]) -> bool:
    """Whether a mask's values can only be those of types: 0 to 4, with 3 or 4 among them."""
    return values <= _TYPED and bool(values - _LITS)


def _value(row: CohortRow) -> int:
    """The joint table's value of a row's type."""
    return LESION + LESION_TYPES.index(str(row.lesion_type))


def check_as_it_is(row: CohortRow, facts: MaskFacts, grid: Grid) -> None:
    """Refuse a row whose slice its typed mask lacks, or lacks its type in.

    Args:
        row: a row whose mask is used as it is, `reading` "typed".
        facts: the mask's, with the row's slice; it lies on the image's grid.
        grid: the image's.

    Raises:
        LiversegError: as told.
    """
    check_slice(row, grid)
    held = facts.values if row.slice is None else facts.on_slice[row.slice]
    if row.lesion_type and _value(row) not in (held or ()):
        raise _absent(row)


def check_slice(row: CohortRow, grid: Grid) -> None:
    """Refuse a row whose slice its image lacks.

    Raises:
        LiversegError: as told.
    """
    if row.slice is not None and row.slice >= grid.depth:
        raise LiversegError(f"{row.where}: slice {row.slice}; the image has slices 0 to {grid.depth - 1}")


def _absent(row: CohortRow) -> LiversegError:
    where = f"slice {row.slice} of {row.mask}" if row.slice is not None else row.mask
    return LiversegError(f"{row.where}: no {row.lesion_type} in {where}; correct type, slice or mask")


def write_label(
    root: Path, image: str, rows: Sequence[CohortRow], how: Mapping[str, str], errors: RowErrors
) -> str | None:
    """Write the one label map of an image, unless it is there and nothing has changed.

    Lesion pixels are those of the masks, each with the type of its row; liver pixels those of masks and liver masks
    where no lesion is.

    Args:
        root: the cohort's folder.
        image: the image as NIfTI, relative to it.
        rows: all of one image.
        how: how each mask's values are read, by `reading`.
        errors: where it is kept that a mask does not fit its image or its row.

    Returns:
        The label map's path relative to `root`, uint8 on the image's grid; None where a row is bad.

    Raises:
        LiversegError: if the label map cannot be written.
    """
    name = mirrored(rows[0].image)
    # the ending comes after the whole name: images `p1` and `p1.nii.gz` are two
    target = f"nifti/labels/{name}.nii.gz"
    record = root / f"nifti/labels/{name}.json"
    recipe = [[row.mask, row.slice, row.lesion_type, row.liver_mask, row.lesion, how[row.mask]] for row in rows]
    names = {image, *(row.mask for row in rows), *(row.liver_mask for row in rows if row.liver_mask)}
    sources = file_states(root, [root / name for name in sorted(names)])
    if not is_current(record, root, sources, [root / target], recipe):
        grid = read_grid(root / image, dicom=image != rows[0].image)
        painted = _painted(root, grid, rows, how, errors)
        if painted is None:
            return None
        write_nifti(root / target, painted, grid.affine)
        write_record(record, root, sources, [root / target], recipe)
    return target


def _painted(
    root: Path, grid: Grid, rows: Sequence[CohortRow], how: Mapping[str, str], errors: RowErrors
) -> np.ndarray | None:
    label = np.zeros(grid.shape, np.uint8, order="F")
    pieces: dict[tuple[str, int | None], tuple[PlacedMask, list[CohortRow]]] = {}
    lesions, livers = set(), set()
    for row in rows:
        with errors.of(row), named(row):
            check_slice(row, grid)
            key = (row.mask, row.slice if is_png(row.mask) else None)
            if key not in lesions:
                lesions.add(key)
                pieces[key] = read_mask(root / row.mask, grid, row.slice), []
            if key in pieces:
                pieces[key][1].append(row)
            liver = row.liver_mask and (row.liver_mask, row.slice if is_png(row.liver_mask) else None)
            if row.liver_mask and liver not in livers:
                livers.add(liver)
                piece = read_mask(root / row.liver_mask, grid, row.slice)
                named_liver = piece.liver is not None and piece.liver.any()
                label[piece.index][piece.liver if named_liver else piece.values > 0] = LIVER
    if errors.among(rows):
        return None
    for piece, own in pieces.values():
        if piece.liver is not None:
            label[piece.index][piece.liver] = LIVER
        if how[own[0].mask] in ("lits", "typed"):
            label[piece.index][piece.values == LIVER] = LIVER
    for piece, own in pieces.values():
        with errors.of(*own):
            _paint_lesions(label, grid, piece, own, how[own[0].mask])
    if errors.among(rows):
        return None
    for row in rows:
        shown = label if row.slice is None else label[grid.plane(row.slice)]
        if row.lesion_type and not (shown == _value(row)).any():
            errors.add(row.number, _absent(row))
    return None if errors.among(rows) else label


def _paint_lesions(label: np.ndarray, grid: Grid, piece: PlacedMask, rows: Sequence[CohortRow], how: str) -> None:
    """Give the lesions of one mask the types of its rows."""
    first = rows[0]
    target = label[piece.index]
    if how == "numbered":
        _paint_numbered(target, grid, piece, rows)
        return
    if how == "typed":
        for value in sorted(_TYPED - {0, LIVER}):
            _put(target, piece.values == value, value, first)
        return
    lesion = piece.values > (LIVER if how == "lits" else 0)
    for row in rows:
        if row.lesion_type is None and lesion.any():
            raise untyped(row)
    types = {_value(row) for row in rows if row.lesion_type}
    if len(types) == 1:
        _put(target, lesion, types.pop(), first)
    elif types:
        _paint_slices(target, grid, lesion, rows)


def _paint_slices(target: np.ndarray, grid: Grid, lesion: np.ndarray, rows: Sequence[CohortRow]) -> None:
    """Give the lesions of each slice the type of its row, where the rows of one mask name several types."""
    left = lesion.copy()
    for row in rows:
        if row.slice is None:
            other = next(one for one in rows if one.lesion_type != row.lesion_type)
            raise LiversegError(
                f"{row.where}: {row.lesion_type} for the whole of {row.mask}, but row {other.number} says "
                f"{other.lesion_type}; give every row a slice, or number the lesions and give a column lesion"
            )
        here = np.zeros_like(lesion)
        here[grid.plane(row.slice)] = lesion[grid.plane(row.slice)]
        _put(target, here, _value(row), row)
        left &= ~here
    if left.any():
        others = tuple(axis for axis in range(3) if axis != grid.slice_axis)
        raise LiversegError(
            f"{rows[0].where}: {rows[0].mask} has lesions in slice {np.argmax(left.any(axis=others))}, and its rows "
            "name several types, but none for it; add a row for it, or number the lesions and give a column lesion"
        )


def _paint_numbered(target: np.ndarray, grid: Grid, piece: PlacedMask, rows: Sequence[CohortRow]) -> None:
    """Give each numbered lesion the type of its row; a lesion without a row is refused."""
    numbers = piece.numbers
    for row in rows:
        if row.lesion_type is None:
            raise untyped(row)
        if row.lesion not in numbers:
            found = ", ".join(map(str, numbers[:10])) or "none"
            raise LiversegError(f"{row.where}: no lesion {row.lesion} in {row.mask}; it has {found}")
        here = piece.lesion(row.lesion)
        if row.slice is not None and here.shape == grid.shape and not here[grid.plane(row.slice)].any():
            raise LiversegError(f"{row.where}: lesion {row.lesion} is not in slice {row.slice} of {row.mask}")
        _put(target, here, _value(row), row)
    left = sorted({*numbers} - {row.lesion for row in rows})
    if left:
        raise LiversegError(
            f"{rows[0].where}: {rows[0].mask} has lesion {left[0]}, which no row types; "
            "add a row with its number and type, or take it out of the mask"
        )


def _put(target: np.ndarray, where: np.ndarray, value: int, row: CohortRow) -> None:
    """Write a lesion's value; a pixel of two types is refused."""
    there = target[where]
    other = there[(there >= LESION) & (there != value)]
    if other.size:
        names = JOINT_LABELS[int(other[0])].name, JOINT_LABELS[value].name
        raise LiversegError(f"{row.where}: {row.mask} has pixels of a {names[0]} and of a {names[1]}; mend the masks")
    target[where] = value


def untyped(row: CohortRow) -> LiversegError:
    """The error of a row without a type whose mask does not tell the types either."""
    allowed = ", ".join(LESION_TYPES)
    return LiversegError(f"{row.where}: lesion type ''; allowed: {allowed}; {row.mask} does not tell it either")
