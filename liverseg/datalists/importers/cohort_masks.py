"""Masks of a cohort, NIfTI, PNG or DICOM SEG, brought onto the grid of their image without resampling."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.orientations import apply_orientation
from PIL import Image, UnidentifiedImageError

from liverseg.datalists.importers.cohort_images import Grid, is_dicom
from liverseg.errors import LiversegError
from liverseg.imageio.volume import affine_distance_mm, affine_tolerance_mm, is_nifti, read_volume
from liverseg.labels import JOINT_LABELS, LIVER

__all__ = [
    "MaskFacts",
    "PlacedMask",
    "is_png",
    "mask_facts",
    "onto_grid",
    "open_image",
    "read_mask",
    "read_mask_image",
    "to_grey",
]


@dataclass(frozen=True)
class MaskFacts:
    """What one mask holds, and where.

    Attributes:
        values: what it holds, 0 always among them; None for a DICOM SEG, whose segments have names.
        grid: its own; None where it is no NIfTI.
        on_slice: of a NIfTI what it holds on each slice asked for, as `values`.
    """

    values: set[int] | None
    grid: Grid | None = None
    on_slice: dict[int, set[int]] = field(default_factory=dict)

    def lies_on(self, image: Grid) -> bool:
        """Whether its voxels are the image's, in the same order."""
        if self.grid is None or self.grid.shape != image.shape:
            return False
        return not affine_distance_mm(image.affine, self.grid.affine, image.shape)


def mask_facts(path: Path, slices: Collection[int] = ()) -> MaskFacts:
    """Read a NIfTI or PNG mask to its end; a DICOM SEG is read later, when something is made of it.

    Args:
        path: the mask.
        slices: those to tell the values of, from 0 along the file's own slice axis; those it lacks are left out.

    Raises:
        LiversegError: if it cannot be read, is of another kind or holds values that are not whole or below 0.
    """
    if is_png(path.name):
        return MaskFacts(_held(path, read_mask_image(path)))
    if not is_nifti(path):
        return MaskFacts(None)
    volume = read_volume(path)
    values = _held(path, volume.array)
    grid = Grid(volume.array.shape, volume.affine, dicom=False)
    there = [number for number in slices if number < grid.depth]
    return MaskFacts(values, grid, {number: _held(path, volume.array[grid.plane(number)]) for number in there})


def _held(path: Path, array: np.ndarray) -> set[int]:
    voxels = array.ravel(order="K")
    # a mask is a few long runs: one voxel of each is sorted instead of all, and threads do not wait for each other
    others = voxels[1:][voxels[1:] != voxels[:-1]]
    found = np.unique(np.append(voxels[:1], others))
    found = found[found != 0]
    if (found < 0).any() or (found != np.round(found)).any():
        shown = ", ".join(f"{value:g}" for value in found[:5])
        raise LiversegError(f"{path}: mask values {shown}; whole numbers from 0 are needed")
    return {0, *(int(value) for value in found)}


_UNEVEN = 0.1
"""How far a SEG's frame may lie beside its slice, in voxels: as uneven as slices of a series may be."""
_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""SOP classes of a segmentation, BINARY or FRACTIONAL, and of a LABELMAP segmentation."""
_LIVER_CODES = {("SCT", str(JOINT_LABELS[LIVER].snomed_code)), ("SRT", "T-62000")}
_NOT_LIVER = re.compile(r"lesion|tumou?r|cyst|metast", re.IGNORECASE)
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class PlacedMask:
    """A mask on its image's grid, or on one slice of it.

    Attributes:
        index: where it lies in the image's array.
        values: what it holds, in the image's own axis order; of a SEG the numbers of its lesion segments.
        liver: True where a SEG's segments of the liver are; None for other masks.
        beneath: pixels of a SEG's segments where `values` holds another that lies there too, by number, shape (n, 3).
    """

    index: tuple[slice, ...]
    values: np.ndarray
    liver: np.ndarray | None = None
    beneath: Mapping[int, np.ndarray] = field(default_factory=dict)

    @property
    def numbers(self) -> list[int]:
        """The numbers above 0 it holds, sorted."""
        return sorted({*map(int, np.unique(self.values[self.values > 0])), *self.beneath})

    def lesion(self, number: int) -> np.ndarray:
        """True where a numbered lesion is, shape as `values`; lesions of a SEG may overlap."""
        inside = self.values == number
        if number in self.beneath:
            inside[tuple(self.beneath[number].T)] = True
        return inside


def is_png(name: str) -> bool:
    """True for a file name that ends in .png."""
    return name.lower().endswith(".png")


def read_mask(path: Path, grid: Grid, number: int | None) -> PlacedMask:
    """A mask on the grid of its image.

    Args:
        path: NIfTI, PNG of one slice or DICOM SEG.
        grid: the image's.
        number: the slice a PNG belongs to; None where the image has one only.

    Raises:
        LiversegError: if it cannot be read or does not lie on the grid, or a PNG's slice is not given.
    """
    everywhere = (slice(None),) * 3
    if is_png(path.name):
        if number is None and grid.depth > 1:
            raise LiversegError(f"{path}: a PNG is one slice of {grid.depth}; its row needs the slice's number")
        pixels = read_mask_image(path)
        if pixels.shape != grid.picture_shape():
            own, wanted = ("×".join(map(str, one)) for one in (pixels.shape, grid.picture_shape()))
            raise LiversegError(f"{path}: {own} rows and columns; the image's slice has {wanted}")
        return PlacedMask(grid.plane(number or 0), grid.from_rows(pixels))
    if is_nifti(path):
        volume = read_volume(path)
        _, values = onto_grid(path, volume.array, volume.affine, grid)
        if values.shape != grid.shape:
            own, wanted = ("×".join(map(str, one)) for one in (values.shape, grid.shape))
            raise LiversegError(f"{path}: the mask does not lie on its image's grid: {own} voxels for {wanted}")
        return PlacedMask(everywhere, values)
    if not is_dicom(path):
        raise LiversegError(f"{path}: neither NIfTI, PNG nor DICOM; masks of these three kinds are read")
    return _segments(path, grid)


def read_mask_image(path: Path) -> np.ndarray:
    """A grey or palette PNG's values as (row, column), palette numbers as they are.

    Raises:
        LiversegError: if it cannot be read or is coloured.
    """
    with open_image(path, "PNG") as image:
        pixels = to_grey(np.asarray(image))
    if pixels is None:
        raise LiversegError(f"{path}: a coloured PNG; save the mask as grey values")
    return pixels.astype(np.uint8) if pixels.dtype == bool else pixels


@contextmanager
def open_image(path: Path, kind: str) -> Iterator[Image.Image]:
    """A picture, open while the block runs.

    Args:
        path: the file.
        kind: the one format it may have, as Pillow names it, whatever its ending says.

    Raises:
        LiversegError: if it cannot be opened, or its pixels cannot be read in the block.
    """
    try:
        with Image.open(path, formats=(kind,)) as image:  # others by that name may run programs: Ghostscript for one
            yield image
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise LiversegError(f"{path}: cannot be read as {kind} ({reason}); save it again") from error


def to_grey(pixels: np.ndarray) -> np.ndarray | None:
    """Grey values (row, column) of pixels with or without colours and opacity; None where there are real colours."""
    if pixels.ndim == 2:
        return pixels
    grey = pixels[..., : 3 if pixels.shape[2] > 2 else 1]
    return None if (grey != grey[..., :1]).any() else grey[..., 0]


def onto_grid(
    path: Path, array: np.ndarray, affine: np.ndarray, grid: Grid, slack: float | None = None
) -> tuple[tuple[slice, ...], np.ndarray]:
    """A mask in its image's axis order, by swapped and flipped axes and a shift of whole voxels.

    Args:
        path: the mask's, for messages.
        array: its voxels; an axis of length one has no step of its own.
        affine: 4×4, to RAS+ mm.
        grid: the image's.
        slack: how far its voxels may lie beside the image's, in mm; None for rounding alone, `affine_tolerance_mm`.

    Returns:
        Where it lies in the image's array, and the voxels there.

    Raises:
        LiversegError: if its voxels are not the image's, or it reaches out of the image.
    """
    beside = f"{path}: the mask does not lie on its image's grid"
    to_image = np.linalg.inv(grid.affine) @ affine
    steps = to_image[:3, :3].copy()
    turn = np.zeros((3, 3))
    for axis in np.argsort(np.array(array.shape) == 1, kind="stable"):  # those with a step of their own first
        free = np.where(np.abs(turn).sum(axis=1) == 0, np.abs(steps[:, axis]), -1.0)
        towards = int(np.argmax(free))
        turn[towards, axis] = -1.0 if steps[towards, axis] < 0 else 1.0
    start = np.round(to_image[:3, 3])
    corners = np.array(np.meshgrid(*([0, length - 1] for length in array.shape))).reshape(3, -1)
    own = steps @ corners + to_image[:3, 3:]
    apart = grid.affine[:3, :3] @ (own - (turn @ corners + start[:, None]))
    worst = float(np.linalg.norm(apart, axis=0).max())
    if worst > (affine_tolerance_mm(grid.affine, grid.shape) if slack is None else slack):
        raise LiversegError(f"{beside}, up to {worst:.3g} mm beside it; export it again for this image")
    orientation = [[int(np.argmax(np.abs(turn[:, axis]))), int(turn[:, axis].sum())] for axis in range(3)]
    turned = apply_orientation(array, np.array(orientation))
    # the first voxel after the flips
    low = np.round((turn @ corners + start[:, None]).min(axis=1)).astype(int)
    high = low + turned.shape
    if (low < 0).any() or (high > grid.shape).any():
        own_shape, wanted = ("×".join(map(str, one)) for one in (turned.shape, grid.shape))
        raise LiversegError(f"{beside}: its {own_shape} voxels reach out of the image's {wanted}")
    return tuple(slice(int(first), int(last)) for first, last in zip(low, high, strict=True)), turned


def _segments(path: Path, grid: Grid) -> PlacedMask:
    """A SEG's lesion segments and its liver.

    Each frame is put where its own position says: many a SEG leaves empty slices out, or has a wrong slice spacing.
    """
    # imported here: highdicom is slow to import, and few cohorts need it
    import highdicom
    import pydicom

    try:
        if pydicom.dcmread(path, stop_before_pixels=True).get("SOPClassUID") not in _SEGMENTATIONS:
            raise LiversegError(f"{path}: DICOM, but no segmentation (SEG); masks are NIfTI, PNG or DICOM SEG")
        seg = highdicom.seg.segread(path)
        # of a label map without a padding value 0 may be described, as background
        livers = {number: _is_liver(seg.get_segment_description(number)) for number in seg.segment_numbers if number}
        frames = [*zip(*_frames(path, seg), strict=True)]
    except LiversegError:
        raise
    except Exception as error:  # highdicom raises what its parts raise, of many kinds
        raise LiversegError(f"{path}: cannot be read as DICOM SEG ({' '.join(str(error).split())})") from error
    values, liver = np.zeros(grid.shape, np.uint16, order="F"), np.zeros(grid.shape, bool, order="F")
    beneath: dict[int, list[np.ndarray]] = defaultdict(list)
    slack = _UNEVEN * float(np.linalg.norm(grid.affine[:3, :3], axis=0).min())
    for frame, affine in frames:
        if not frame.any():
            continue
        index, numbers = onto_grid(path, frame[:, :, None], affine, grid, slack)
        for number in np.unique(numbers[numbers > 0]):
            if int(number) not in livers:
                described = ", ".join(map(str, livers)) or "none"
                raise LiversegError(
                    f"{path}: pixels of segment {number}, but segments described are {described}; export it again"
                )
            here = numbers == number
            if livers[int(number)]:
                liver[index][here] = True
                continue
            for other in {*map(int, np.unique(values[index][here]))} - {0, int(number)}:
                shared = here & (values[index] == other)
                beneath[other].append(np.argwhere(shared) + [side.start for side in index])
            values[index][here] = number
    kinds = ", ".join(f"{number} is {'liver' if is_liver else 'lesion'}" for number, is_liver in livers.items())
    logging.getLogger(__name__).info("%s: segment %s", path, kinds)
    everywhere = (slice(None),) * 3
    return PlacedMask(everywhere, values, liver, {number: np.concatenate(places) for number, places in beneath.items()})


def _is_liver(segment: Any) -> bool:
    code = segment.segmented_property_type
    named = (code.scheme_designator, code.value) in _LIVER_CODES or "liver" in segment.segment_label.lower()
    return named and not _NOT_LIVER.search(segment.segment_label)


def _frames(path: Path, seg: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Of each frame the segment numbers as (column, row), and its affine to RAS+ mm, with a slice axis of 1 mm.

    0 is no segment. Of fractions, probabilities or shares of a pixel, more than a half is inside.
    """
    arrays, affines = [], []
    shared = seg.SharedFunctionalGroupsSequence[0]
    pixels = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    for plane, own in zip(pixels, seg.PerFrameFunctionalGroupsSequence, strict=True):

        def told(sequence: str, own: Any = own) -> Any:
            return (own if sequence in own else shared)[sequence][0]

        if seg.SegmentationType == "LABELMAP":
            background = seg.get("PixelPaddingValue", 0)
            if background != 0 and not plane.all():
                raise LiversegError(f"{path}: a segment of number 0; number them from 1, and the background 0")
            numbers = np.where(plane == background, 0, plane)
        else:
            inside = plane > (seg.MaximumFractionalValue / 2 if seg.SegmentationType == "FRACTIONAL" else 0)
            numbers = inside * np.uint16(told("SegmentIdentificationSequence").ReferencedSegmentNumber)
        axes = np.array(told("PlaneOrientationSequence").ImageOrientationPatient, float).reshape(2, 3)
        spacing = told("PixelMeasuresSequence").PixelSpacing
        affine = np.eye(4)
        affine[:3, 0], affine[:3, 1] = axes[0] * spacing[1], axes[1] * spacing[0]
        affine[:3, 2] = np.cross(*axes)
        affine[:3, 3] = told("PlanePositionSequence").ImagePositionPatient
        arrays.append(numbers.T)
        affines.append(_LPS_TO_RAS @ affine)
    return arrays, affines
