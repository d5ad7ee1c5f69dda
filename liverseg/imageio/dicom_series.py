"""Find DICOM series of one file a slice in a folder, check their slices, and read them as volumes.

DICOM's frame is LPS+ in mm, the affines here are NIfTI's RAS+ in mm. Each slice is placed by its position tag.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from liverseg.errors import GeometryError, LiversegError, NotCTError, UnreadableError
from liverseg.imageio.dicom_header import Slice, read_slice, slice_reader
from liverseg.imageio.limits import MAX_BYTES, MAX_FILES
from liverseg.utils.files import is_dir, visible_files

__all__ = ["MAX_BYTES", "MAX_FILES", "MAX_SIDE", "DicomSeries", "find_series", "read_series"]

_MAX_TILT_DEGREES = 0.1
_MAX_SIDEWAYS_MM = 0.1
"""Distance of slices from the line along their normal: below a pixel, above the rounding of tags."""
_MAX_UNEVENNESS = 0.1
"""Distance of a slice from its place on an even grid, in slice spacings; tags rounded to 0.1 mm pass."""
MAX_SIDE = 8192
"""Rows and columns of a slice: four times those of the finest scanners, 2048."""
_TOLERANCE = 1e-3
"""Difference between equal positions and pixel sizes, in mm, and between components of equal unit vectors."""


@dataclass(frozen=True)
class DicomSeries:
    """The files of one series in one folder.

    Attributes:
        folder: of the files.
        uid: SeriesInstanceUID; empty if an anonymiser removed it.
        description: SeriesDescription; empty if there is none.
        modality: CT, MR, SEG and so on.
        files: sorted by position along the slice normal, or by name if a position is missing.
    """

    folder: Path
    uid: str
    description: str
    modality: str
    files: tuple[Path, ...]


def find_series(folder: str | os.PathLike, unreadable: dict[Path, LiversegError] | None = None) -> list[DicomSeries]:
    """Find the DICOM series in a folder, but not below it, sorted by description and UID.

    Names of files do not matter. Files that are not DICOM images (notes, reports, directories) are skipped.

    Args:
        folder: the folder.
        unreadable: receives the files that state to be CT slices and cannot be read, with the reason; if None, the
            first reason is raised.

    Raises:
        LiversegError: if the folder is missing or may not be read, or a file that states to be a CT slice cannot be
            read.
    """
    folder, files = _list_files(folder)
    return [_describe(folder, slices) for slices in _group(files, unreadable)]


def read_series(source: str | os.PathLike | DicomSeries, modality: str | None = "CT") -> tuple[np.ndarray, np.ndarray]:
    """Read a series as one volume, rescaled by its tags: to HU for a CT.

    Args:
        source: a series of `find_series`, or a folder with one series of the modality (others are ignored).
        modality: the required modality; None for any, for masks stored as DICOM.

    Returns:
        Voxels in NIfTI's order (column, row, slice), slices in the direction of their normal, int16 if all values are
        integers that fit, else float32; and the 4×4 affine from voxel index to RAS+ mm.

    Raises:
        LiversegError: as `find_series`, and if there is no such series or more than one, the gantry was tilted, slices
            are missing, repeated, uneven or different, a tag of geometry is missing or a file holds several slices.
    """
    folder, files = (source.folder, source.files) if isinstance(source, DicomSeries) else _list_files(source)
    slices = _only_series(folder, _group(files), modality)
    for item in slices:
        _check_slice(item, slices[0])
    slices = _sort(slices)
    size = 2 * slices[0].size[0] * slices[0].size[1] * len(slices)
    if size > MAX_BYTES:
        raise UnreadableError(f"{folder}: {size} bytes of voxels, {MAX_BYTES} are allowed; give a part of the series")
    affine = _compute_affine(folder, slices)  # first, so that a series is refused before its pixels are read
    return _read_voxels(slices), affine


def _describe(folder: Path, slices: list[Slice]) -> DicomSeries:
    first = slices[0]
    return DicomSeries(folder, first.uid, first.description, first.modality, tuple(item.path for item in slices))


def _list_files(folder: str | os.PathLike) -> tuple[Path, tuple[Path, ...]]:
    folder = Path(folder)
    if not is_dir(folder):
        raise UnreadableError(f"{folder}: no such folder; give the one that holds a series' DICOM files")
    files = visible_files(folder)
    if len(files) > MAX_FILES:
        raise UnreadableError(f"{folder}: {len(files)} files, {MAX_FILES} are allowed; give the folder of one study")
    return folder, files


def _group(files: Iterable[Path], unreadable: dict[Path, LiversegError] | None = None) -> list[list[Slice]]:
    """Return the slices of each series, sorted by position."""
    groups: dict[tuple[str, str], list[Slice]] = {}
    for path in files:
        try:
            item = read_slice(path)
        except LiversegError as error:
            if unreadable is None:
                raise
            unreadable[path] = error
            continue
        if item is not None:
            groups.setdefault((item.uid, item.modality), []).append(item)
    series = sorted(groups.values(), key=lambda slices: (slices[0].description, slices[0].uid, slices[0].modality))
    return [_sort(slices) for slices in series]


def _only_series(folder: Path, found: list[list[Slice]], modality: str | None) -> list[Slice]:
    """Return the one series of a modality; refuse none or several."""
    if not found:
        raise UnreadableError(f"{folder}: no DICOM image in it; give the folder that holds the slices themselves")
    matching = [slices for slices in found if modality in (None, slices[0].modality)]
    if not matching:
        modalities = ", ".join(sorted({slices[0].modality or "not given" for slices in found}))
        raise NotCTError(f"{folder}: modality {modalities}; {modality} is needed")
    if len(matching) > 1:
        # by file, not by description: it is free text that may hold names
        names = ", ".join(f"{slices[0].path.name} and its like ({len(slices)} slices)" for slices in matching)
        raise UnreadableError(
            f"{folder}: {len(matching)} series, {names}; keep the one to be read in a separate folder"
        )
    return matching[0]


def _normal(item: Slice) -> np.ndarray:
    normal = np.cross(item.orientation[:3], item.orientation[3:])
    return normal / max(float(np.linalg.norm(normal)), 1e-9)  # an unusable orientation is refused later


def _sort(slices: list[Slice]) -> list[Slice]:
    along = np.array([item.position for item in slices]) @ _normal(slices[0])
    return slices if np.isnan(along).any() else [slices[number] for number in np.argsort(along, kind="stable")]


def _check_slice(item: Slice, first: Slice) -> None:
    """Refuse a slice with several frames or colours, without a tag of geometry, or unlike the first of its series."""
    if item.channels != 1 or any(length != 1 for length in item.size[2:]):
        raise GeometryError(f"{item.path}: several frames or colours in one file; export it as one grey slice a file")
    if max(item.size[:2]) > MAX_SIDE:
        raise UnreadableError(
            f"{item.path}: {item.size[0]} columns and {item.size[1]} rows, {MAX_SIDE} are allowed; is it a CT slice?"
        )
    axes = item.orientation.reshape(2, 3)
    for usable, name in (
        (not np.isnan(item.position).any(), "image position (0020,0032)"),
        (np.abs(axes @ axes.T - np.eye(2)).max() <= 10 * _TOLERANCE, "image orientation (0020,0037)"),
        (item.pixel_spacing.min() > 0, "pixel spacing (0028,0030)"),
    ):
        if not usable:
            raise GeometryError(f"{item.path}: no usable {name}; export the series again with its geometry")
    for own, expected, tolerance, name in (
        (np.array(item.size[:2]), np.array(first.size[:2]), 0.0, "columns and rows"),
        (item.pixel_spacing, first.pixel_spacing, _TOLERANCE, "pixel size in mm"),
        (item.orientation, first.orientation, _TOLERANCE, "orientation"),
    ):
        if np.abs(own - expected).max() > tolerance:
            raise GeometryError(
                f"{item.path}: {name} {_join(own)}, but {_join(expected)} in {first.path.name}; "
                "a series has the same in all slices: take the others out"
            )


def _compute_affine(folder: Path, slices: list[Slice]) -> np.ndarray:
    """Return the affine, to RAS+ mm, of sorted slices; refuse slices that do not stack evenly along their normal."""
    first = slices[0]
    normal = _normal(first)
    offsets = np.array([item.position for item in slices]) - first.position
    along = offsets @ normal
    sideways = np.linalg.norm(offsets - np.outer(along, normal), axis=1)
    worst = int(np.argmax(sideways))
    tilt = float(np.nanmax(np.abs([0.0, *(item.tilt for item in slices)])))
    if sideways[worst] > _MAX_SIDEWAYS_MM:
        tilt = float(np.degrees(np.arctan2(sideways[worst], along[worst])))
    if sideways[worst] > _MAX_SIDEWAYS_MM or tilt > _MAX_TILT_DEGREES:
        raise GeometryError(
            f"{folder}: gantry tilt of {tilt:.1f} degrees, slices do not stack along their normal; "
            "straighten the series first, or take one without tilt"
        )
    step = _even_step(folder, slices, along) if len(slices) > 1 else first.thickness
    if not step > 0:
        raise GeometryError(f"{first.path}: one slice without a slice thickness (0018,0050); its extent is not known")
    affine = np.eye(4)
    # the first pixel spacing is the distance between rows, which is the step along a column
    affine[:3, 0] = first.orientation[:3] * first.pixel_spacing[1]
    affine[:3, 1] = first.orientation[3:] * first.pixel_spacing[0]
    affine[:3, 2] = normal * step
    affine[:3, 3] = first.position
    affine[:2] *= -1.0  # LPS+ to RAS+
    return affine + 0.0  # turns -0.0 into 0.0


def _even_step(folder: Path, slices: list[Slice], along: np.ndarray) -> float:
    """Return the slice spacing in mm of evenly spaced slices; refuse repeated or uneven ones."""
    gaps = np.diff(along)
    names = [os.path.relpath(item.path, folder) for item in slices]
    smallest = int(np.argmin(gaps))
    if gaps[smallest] < _TOLERANCE:
        copies = slices[smallest].instance and slices[smallest].instance == slices[smallest + 1].instance
        problem = (
            "are one slice twice; take one copy away"
            if copies
            else "are at one position; are two phases in one series? keep one slice a position"
        )
        raise GeometryError(f"{folder}: {names[smallest]} and {names[smallest + 1]} {problem}")
    step = float(along[-1] / len(gaps))
    if np.abs(along - step * np.arange(len(along))).max() <= _MAX_UNEVENNESS * step:
        return step
    usual = float(np.sort(gaps)[(len(gaps) - 1) // 2])
    worst = int(np.argmax(np.abs(gaps - usual)))
    missing = gaps[worst] / usual - 1
    problem = f"{missing:.0f} missing: copy the series again" if missing > 0.9 else "slices must be evenly spaced"
    raise GeometryError(
        f"{folder}: a gap of {gaps[worst]:.4g} mm between {names[worst]} and {names[worst + 1]}, "
        f"{usual:.4g} mm are usual; {problem}"
    )


def _read_voxels(slices: list[Slice]) -> np.ndarray:
    """Return voxels as (column, row, slice)."""
    bounds = np.iinfo(np.int16)
    volume = np.empty((*slices[0].size[:2], len(slices)), np.int16, order="F")
    for number, item in enumerate(slices):
        try:
            plane = sitk.GetArrayFromImage(slice_reader(item.path).Execute()).reshape(item.size[1], item.size[0])
        except RuntimeError as error:
            raise UnreadableError(f"{item.path}: its pixels cannot be read; copy or export it again") from error
        fits = plane.dtype.kind in "iu" and plane.min() >= bounds.min and plane.max() <= bounds.max
        if volume.dtype == np.int16 and not fits:
            volume = volume.astype(np.float32)
        volume[:, :, number] = plane.T
    return volume


def _join(numbers: np.ndarray) -> str:
    return ", ".join(f"{number:.4g}" for number in numbers)
