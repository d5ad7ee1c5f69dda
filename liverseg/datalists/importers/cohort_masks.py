"""Masks of a cohort (NIfTI, PNG or DICOM SEG) on the grid of their image, without resampling."""

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

from liverseg.datalists.importers.cohort_images import ImageGrid
from liverseg.errors import LiversegError, one_line
from liverseg.imageio.formats import is_dicom
from liverseg.imageio.grid import Grid, affine_tolerance_mm
from liverseg.imageio.volume import is_nifti, read_volume
from liverseg.labels import JOINT_LABELS, LIVER

__all__ = [
    "MaskFacts",
    "PlacedMask",
    "is_png",
    "onto_grid",
    "open_image",
    "read_mask",
    "read_mask_facts",
    "read_mask_image",
    "to_grey",
]

_MAX_OFFSET = 0.1
"""How far a SEG's frame may be from its slice, in voxels: as much as slices of a series may be unevenly spaced."""
_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""SOP classes of a segmentation, BINARY or FRACTIONAL, and of a LABELMAP segmentation."""
_LIVER_CODES = {("SCT", str(JOINT_LABELS[LIVER].snomed_code)), ("SRT", "T-62000")}
_NOT_LIVER = re.compile(r"lesion|tumou?r|cyst|metast", re.IGNORECASE)
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class MaskFacts:
    """Values and grid of a mask.

    Attributes:
        values: values that occur, always including 0; None for a DICOM SEG, whose segments have names.
        grid: the mask's grid; None if it is no NIfTI.
        on_slice: for a NIfTI, values that occur on each requested slice, always including 0.
    """

    values: set[int] | None
    grid: Grid | None = None
    on_slice: dict[int, set[int]] = field(default_factory=dict)

    def is_on(self, image: Grid) -> bool:
        """Whether the mask has the image's grid, with the same axis order."""
        return self.grid is not None and image.matches(self.grid)


def read_mask_facts(path: Path, slices: Collection[int] = ()) -> MaskFacts:
    """Read values and grid of a NIfTI or PNG mask; a DICOM SEG is read later, when it is converted.

    Args:
        path: the mask.
        slices: slices to report values of, from 0 along the file's slice axis; slices out of range are left out.

    Raises:
        LiversegError: if it cannot be read, is of another kind, or has values that are negative or no integers.
    """
    if is_png(path.name):
        return MaskFacts(_unique_values(path, read_mask_image(path)))
    if not is_nifti(path):
        return MaskFacts(None)
    volume = read_volume(path)
    values, grid = _unique_values(path, volume.array), volume.grid
    existing = [number for number in slices if number < grid.depth]
    on_slice = {number: _unique_values(path, volume.array[grid.plane(number)]) for number in existing}
    return MaskFacts(values, grid, on_slice)


def _unique_values(path: Path, array: np.ndarray) -> set[int]:
    voxels = array.ravel(order="K")
    # a mask is a few long runs: sorting one voxel per run is faster, and threads do not wait for each other
    run_starts = voxels[1:][voxels[1:] != voxels[:-1]]
    values = np.unique(np.append(voxels[:1], run_starts))
    values = values[values != 0]
    if (values < 0).any() or (values != np.round(values)).any():
        values_text = ", ".join(f"{value:g}" for value in values[:5])
        raise LiversegError(f"{path}: mask values {values_text}; whole numbers from 0 are needed")
    return {0, *(int(value) for value in values)}


@dataclass(frozen=True)
class PlacedMask:
    """A mask on its image's grid, or on a part of it such as one slice.

    Attributes:
        index: index of the mask's box in the image's array.
        values: values in the box, in the image's axis order; for a SEG, numbers of its lesion segments.
        liver: for a SEG, True in segments of the liver; None for other masks.
        overlaps: for a SEG, by segment number, indices in `values` of pixels that have another segment's number there,
            shape (n, 3).
    """

    index: tuple[slice, ...]
    values: np.ndarray
    liver: np.ndarray | None = None
    overlaps: Mapping[int, np.ndarray] = field(default_factory=dict)

    @property
    def numbers(self) -> list[int]:
        """Numbers above 0 that occur, sorted."""
        return sorted({*map(int, np.unique(self.values[self.values > 0])), *self.overlaps})

    def lesion(self, number: int) -> np.ndarray:
        """Return the mask of a numbered lesion, shape as `values`; lesions of a SEG may overlap."""
        inside = self.values == number
        if number in self.overlaps:
            inside[tuple(self.overlaps[number].T)] = True
        return inside


def is_png(name: str) -> bool:
    """Whether a file name ends in .png."""
    return name.lower().endswith(".png")


def read_mask(path: Path, grid: ImageGrid, number: int | None) -> PlacedMask:
    """Read a mask and place it on the grid of its image.

    Args:
        path: NIfTI, PNG of one slice or DICOM SEG.
        grid: the image's grid.
        number: number of a PNG's slice; None if the image has only one.

    Raises:
        LiversegError: if it cannot be read or is not on the grid, or the slice number of a PNG is missing.
    """
    everywhere = (slice(None),) * 3
    if is_png(path.name):
        if number is None and grid.depth > 1:
            raise LiversegError(f"{path}: a PNG is one slice of {grid.depth}; its row needs the slice's number")
        pixels = read_mask_image(path)
        if pixels.shape != grid.picture_shape():
            shape, image_shape = ("×".join(map(str, sizes)) for sizes in (pixels.shape, grid.picture_shape()))
            raise LiversegError(f"{path}: {shape} rows and columns; the image's slice has {image_shape}")
        return PlacedMask(grid.plane(number or 0), grid.from_rows(pixels))
    if is_nifti(path):
        volume = read_volume(path)
        _, values = onto_grid(path, volume.array, volume.affine, grid)
        if values.shape != grid.shape:
            shape, image_shape = ("×".join(map(str, sizes)) for sizes in (values.shape, grid.shape))
            raise LiversegError(f"{path}: the mask is not on its image's grid: {shape} voxels for {image_shape}")
        return PlacedMask(everywhere, values)
    if not is_dicom(path):
        raise LiversegError(f"{path}: neither NIfTI, PNG nor DICOM; masks of these three kinds are read")
    return _read_seg(path, grid)


def read_mask_image(path: Path) -> np.ndarray:
    """Read the values of a grey or palette PNG as (row, column), palette indices unchanged.

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
    """Open a picture while the block runs.

    Args:
        path: the file.
        kind: the only allowed format, as Pillow names it, whatever the file's ending.

    Raises:
        LiversegError: if it cannot be opened, or its pixels cannot be read in the block.
    """
    try:
        # restricted to one format, because Pillow runs programs such as Ghostscript for others
        with Image.open(path, formats=(kind,)) as image:
            yield image
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise LiversegError(f"{path}: cannot be read as {kind} ({one_line(error)}); save it again") from error


def to_grey(pixels: np.ndarray) -> np.ndarray | None:
    """Convert pixels of any mode to grey values (row, column), without opacity; None if there are colours."""
    if pixels.ndim == 2:
        return pixels
    grey = pixels[..., : 3 if pixels.shape[2] > 2 else 1]
    return None if (grey != grey[..., :1]).any() else grey[..., 0]


def onto_grid(
    path: Path, array: np.ndarray, affine: np.ndarray, grid: ImageGrid, tolerance_mm: float | None = None
) -> tuple[tuple[slice, ...], np.ndarray]:
    """Reorient a mask to its image's axis order by permuting and flipping axes, and find its integer offset in voxels.

    Args:
        path: path of the mask, for messages.
        array: voxels of the mask, 3-D; axes may have length one.
        affine: 4×4, voxel index to RAS+ mm.
        grid: the image's grid.
        tolerance_mm: how far voxels of the mask may be from the image's, in mm; None allows rounding errors only, as
            by `affine_tolerance_mm`.

    Returns:
        The index of the mask's box in the image's array, and the voxels in the box.

    Raises:
        LiversegError: if its voxels are not the image's, or some are outside the image.
    """
    problem = f"{path}: the mask is not on its image's grid"
    to_image = np.linalg.inv(grid.affine) @ affine
    steps = to_image[:3, :3].copy()
    rotation = np.zeros((3, 3))
    for axis in np.argsort(np.array(array.shape) == 1, kind="stable"):  # axes of length one last: any direction fits
        free = np.where(np.abs(rotation).sum(axis=1) == 0, np.abs(steps[:, axis]), -1.0)
        image_axis = int(np.argmax(free))
        rotation[image_axis, axis] = -1.0 if steps[image_axis, axis] < 0 else 1.0
    start = np.round(to_image[:3, 3])
    corners = np.array(np.meshgrid(*([0, length - 1] for length in array.shape))).reshape(3, -1)
    corners_in_image = steps @ corners + to_image[:3, 3:]
    nearest_voxels = rotation @ corners + start[:, None]
    distances = np.linalg.norm(grid.affine[:3, :3] @ (corners_in_image - nearest_voxels), axis=0)
    farthest = float(distances.max())
    if farthest > (affine_tolerance_mm(grid.affine, grid.shape) if tolerance_mm is None else tolerance_mm):
        raise LiversegError(f"{problem}, up to {farthest:.3g} mm off; export it again for this image")
    orientation = [[int(np.argmax(np.abs(rotation[:, axis]))), int(rotation[:, axis].sum())] for axis in range(3)]
    reoriented = apply_orientation(array, np.array(orientation))
    low = np.round(nearest_voxels.min(axis=1)).astype(int)  # the first voxel after the flips
    high = low + reoriented.shape
    if (low < 0).any() or (high > grid.shape).any():
        shape, image_shape = ("×".join(map(str, sizes)) for sizes in (reoriented.shape, grid.shape))
        raise LiversegError(f"{problem}: its {shape} voxels reach beyond the image's {image_shape}")
    return tuple(slice(int(first), int(last)) for first, last in zip(low, high, strict=True)), reoriented


def _read_seg(path: Path, grid: ImageGrid) -> PlacedMask:
    """Read lesion and liver segments of a DICOM SEG.

    Each frame is placed by its own position, because many SEG files leave out empty slices or have a wrong slice
    spacing.
    """
    # imported here: highdicom is slow to import, and few cohorts need it
    import highdicom
    import pydicom

    try:
        if pydicom.dcmread(path, stop_before_pixels=True).get("SOPClassUID") not in _SEGMENTATIONS:
            raise LiversegError(f"{path}: DICOM, but no segmentation (SEG); masks are NIfTI, PNG or DICOM SEG")
        seg = highdicom.seg.segread(path)
        # a label map without a padding value may describe segment 0, the background
        is_liver = {number: _is_liver(seg.get_segment_description(number)) for number in seg.segment_numbers if number}
        frames = _read_frames(path, seg)
    except LiversegError:
        raise
    except Exception as error:  # highdicom lets exceptions of many kinds through
        raise LiversegError(f"{path}: cannot be read as DICOM SEG ({one_line(error)})") from error
    values, liver = np.zeros(grid.shape, np.uint16, order="F"), np.zeros(grid.shape, bool, order="F")
    overlaps: dict[int, list[np.ndarray]] = defaultdict(list)
    tolerance_mm = _MAX_OFFSET * float(np.linalg.norm(grid.affine[:3, :3], axis=0).min())
    for frame, affine in frames:
        if not frame.any():
            continue
        index, numbers = onto_grid(path, frame[:, :, None], affine, grid, tolerance_mm)
        for number in np.unique(numbers[numbers > 0]):
            if int(number) not in is_liver:
                described = ", ".join(map(str, is_liver)) or "none"
                raise LiversegError(
                    f"{path}: pixels of segment {number}, but segments described are {described}; export it again"
                )
            segment = numbers == number
            if is_liver[int(number)]:
                liver[index][segment] = True
                continue
            for other in {*map(int, np.unique(values[index][segment]))} - {0, int(number)}:
                shared = segment & (values[index] == other)
                overlaps[other].append(np.argwhere(shared) + [side.start for side in index])
            values[index][segment] = number
    kinds = ", ".join(f"{number} is {'liver' if is_liver[number] else 'lesion'}" for number in is_liver)
    logging.getLogger(__name__).info("%s: segment %s", path, kinds)
    everywhere = (slice(None),) * 3
    pixels = {number: np.concatenate(indices) for number, indices in overlaps.items()}
    return PlacedMask(everywhere, values, liver, pixels)


def _is_liver(segment: Any) -> bool:
    code = segment.segmented_property_type
    says_liver = (code.scheme_designator, code.value) in _LIVER_CODES or "liver" in segment.segment_label.lower()
    return says_liver and not _NOT_LIVER.search(segment.segment_label)


def _read_frames(path: Path, seg: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return each frame's segment numbers (column, row), 0 for none, and its affine to RAS+ mm.

    The slice axis of the affines has 1 mm. Pixels of a fractional SEG are inside above half of its maximum.
    """
    frames = []
    shared = seg.SharedFunctionalGroupsSequence[0]
    pixels = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    for plane, per_frame in zip(pixels, seg.PerFrameFunctionalGroupsSequence, strict=True):

        def functional_group(sequence: str, per_frame: Any = per_frame) -> Any:
            return (per_frame if sequence in per_frame else shared)[sequence][0]

        if seg.SegmentationType == "LABELMAP":
            background = seg.get("PixelPaddingValue", 0)
            if background != 0 and not plane.all():
                raise LiversegError(f"{path}: a segment of number 0; number them from 1, and the background 0")
            numbers = np.where(plane == background, 0, plane)
        else:
            inside = plane > (seg.MaximumFractionalValue / 2 if seg.SegmentationType == "FRACTIONAL" else 0)
            numbers = inside * np.uint16(functional_group("SegmentIdentificationSequence").ReferencedSegmentNumber)
        axes = np.array(functional_group("PlaneOrientationSequence").ImageOrientationPatient, float).reshape(2, 3)
        spacing = functional_group("PixelMeasuresSequence").PixelSpacing
        affine = np.eye(4)
        affine[:3, 0], affine[:3, 1] = axes[0] * spacing[1], axes[1] * spacing[0]
        affine[:3, 2] = np.cross(*axes)
        affine[:3, 3] = functional_group("PlanePositionSequence").ImagePositionPatient
        frames.append((numbers.T, _LPS_TO_RAS @ affine))
    return frames
