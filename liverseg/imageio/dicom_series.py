"""DICOM series of one file a slice: found in a folder, checked slice by slice, read as one volume.

DICOM's frame is LPS+ in mm, the affines here are NIfTI's RAS+ in mm. A slice is where its position tag says.
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
from liverseg.utils.files import is_dir, visible_files

__all__ = ["MAX_BYTES", "MAX_FILES", "MAX_SIDE", "DicomSeries", "find_series", "read_series"]

_TILT_DEGREES = 0.1
_SIDEWAYS_MM = 0.1
"""How far slices may lie beside the line along their normal: below a pixel, above the tags' rounding."""
_UNEVEN = 0.1
"""How far a slice may lie from its place on an even grid, in slice spacings; tags rounded to 0.1 mm still pass."""
MAX_FILES = 20_000
"""As many files as a folder, or those below a study's, may hold, as for a zip: each is opened to see what it is."""
MAX_SIDE = 8192
"""Rows and columns of a slice: four times those of the finest scanners, 2048."""
MAX_BYTES = 8 << 30
"""What the voxels of a series may be in 16 bits, as for a NIfTI file."""
_SAME = 1e-3
"""How far positions and pixel sizes, in mm, and the parts of unit vectors may differ and still be the same."""


@dataclass(frozen=True)
class DicomSeries:
    """The files of one series in one folder.

    Attributes:
        folder: where they are.
        uid: SeriesInstanceUID, empty where an anonymiser emptied it.
        description: SeriesDescription, empty where there is none.
        modality: CT, MR, SEG and so on.
        files: sorted by position along the slice normal; by name where a position is missing.
    """

    folder: Path
    uid: str
    description: str
    modality: str
    files: tuple[Path, ...]


def find_series(folder: str | os.PathLike, unreadable: dict[Path, LiversegError] | None = None) -> list[DicomSeries]:
    """The DICOM series in a folder itself, whatever its files are called, sorted by description and UID.

    What is no DICOM image (notes, reports, directories) is passed over.

    Args:
        folder: where to look.
        unreadable: gets the files that call themselves CT slices and cannot be read, with the reason; without it the
            first one is raised.

    Raises:
        LiversegError: if the folder is missing or may not be looked into, or a file that calls itself a CT slice cannot
            be read.
    """
    folder, files = _files(folder)
    return [
        DicomSeries(folder, first.uid, first.description, first.modality, tuple(one.path for one in (first, *others)))
        for first, *others in _grouped(files, unreadable)
    ]


def read_series(source: str | os.PathLike | DicomSeries, modality: str | None = "CT") -> tuple[np.ndarray, np.ndarray]:
    """Read a series as one volume, rescaled to what its tags say: HU for a CT.

    Args:
        source: one of `find_series`, or a folder that holds one series of the modality (others are passed over).
        modality: the modality needed; None takes any, for masks stored as DICOM.

    Returns:
        Voxels in NIfTI's order (column, row, slice), slices in the direction of their normal, int16 where all values
        are whole and fit, else float32; and the 4×4 affine from voxel index to RAS+ mm.

    Raises:
        LiversegError: as `find_series`, and if there is no such series or more than one, the gantry was tilted, slices
            are missing, doubled, uneven or not alike, a tag of geometry is missing or a file is more than one slice.
    """
    folder, files = (source.folder, source.files) if isinstance(source, DicomSeries) else _files(source)
    slices = _only(folder, _grouped(files), modality)
    for one in slices:
        _check_alike(one, slices[0])
    slices = _sorted(slices)
    size = 2 * slices[0].size[0] * slices[0].size[1] * len(slices)
    if size > MAX_BYTES:
        raise UnreadableError(f"{folder}: {size} bytes of voxels, {MAX_BYTES} are allowed; give a part of the series")
    affine = _affine(folder, slices)  # first, so that a series is refused before its pixels are read
    return _voxels(slices), affine


def _files(folder: str | os.PathLike) -> tuple[Path, tuple[Path, ...]]:
    folder = Path(folder)
    if not is_dir(folder):
        raise UnreadableError(f"{folder}: no such folder; give the one that holds a series' DICOM files")
    files = visible_files(folder)
    if len(files) > MAX_FILES:
        raise UnreadableError(f"{folder}: {len(files)} files, {MAX_FILES} are allowed; give the folder of one study")
    return folder, files


def _grouped(files: Iterable[Path], unreadable: dict[Path, LiversegError] | None = None) -> list[list[Slice]]:
    """Slices series by series, each sorted by position."""
    groups: dict[tuple[str, str], list[Slice]] = {}
    for path in files:
        try:
            one = read_slice(path)
        except LiversegError as error:
            if unreadable is None:
                raise
            unreadable[path] = error
            continue
        if one is not None:
            groups.setdefault((one.uid, one.modality), []).append(one)
    series = sorted(groups.values(), key=lambda slices: (slices[0].description, slices[0].uid, slices[0].modality))
    return [_sorted(slices) for slices in series]


def _only(folder: Path, found: list[list[Slice]], modality: str | None) -> list[Slice]:
    if not found:
        raise UnreadableError(f"{folder}: no DICOM image in it; give the folder that holds the slices themselves")
    fitting = [slices for slices in found if modality in (None, slices[0].modality)]
    if not fitting:
        modalities = ", ".join(sorted({slices[0].modality or "not given" for slices in found}))
        raise NotCTError(f"{folder}: modality {modalities}; {modality} is needed")
    if len(fitting) > 1:
        # by file, not by description, which is free text: names may stand in it
        names = ", ".join(f"{slices[0].path.name} and its like ({len(slices)} slices)" for slices in fitting)
        raise UnreadableError(
            f"{folder}: {len(fitting)} series, {names}; keep the one to be read in a folder of its own"
        )
    return fitting[0]


def _normal(one: Slice) -> np.ndarray:
    normal = np.cross(one.orientation[:3], one.orientation[3:])
    return normal / max(float(np.linalg.norm(normal)), 1e-9)  # an unusable orientation is refused later


def _sorted(slices: list[Slice]) -> list[Slice]:
    along = np.array([one.position for one in slices]) @ _normal(slices[0])
    return slices if np.isnan(along).any() else [slices[number] for number in np.argsort(along, kind="stable")]


def _check_alike(one: Slice, first: Slice) -> None:
    """Refuse a slice that is no single grey slice, lacks a tag of geometry, or differs from the series' first."""
    if one.channels != 1 or any(length != 1 for length in one.size[2:]):
        raise GeometryError(f"{one.path}: several frames or colours in one file; export it as one grey slice a file")
    if max(one.size[:2]) > MAX_SIDE:
        raise UnreadableError(
            f"{one.path}: {one.size[0]} columns and {one.size[1]} rows, {MAX_SIDE} are allowed; is it a CT slice?"
        )
    axes = one.orientation.reshape(2, 3)
    for usable, name in (
        (not np.isnan(one.position).any(), "image position (0020,0032)"),
        (np.abs(axes @ axes.T - np.eye(2)).max() <= 10 * _SAME, "image orientation (0020,0037)"),
        (one.pixel_spacing.min() > 0, "pixel spacing (0028,0030)"),
    ):
        if not usable:
            raise GeometryError(f"{one.path}: no usable {name}; export the series again with its geometry")
    for own, others, most, name in (
        (np.array(one.size[:2]), np.array(first.size[:2]), 0.0, "columns and rows"),
        (one.pixel_spacing, first.pixel_spacing, _SAME, "pixel size in mm"),
        (one.orientation, first.orientation, _SAME, "orientation"),
    ):
        if np.abs(own - others).max() > most:
            raise GeometryError(
                f"{one.path}: {name} {_listed(own)}, but {_listed(others)} in {first.path.name}; "
                "a series has the same in all slices: take the others out"
            )


def _affine(folder: Path, slices: list[Slice]) -> np.ndarray:
    """The affine, to RAS+ mm, of sorted slices that stack evenly along their normal; others are refused."""
    first = slices[0]
    normal = _normal(first)
    offsets = np.array([one.position for one in slices]) - first.position
    along = offsets @ normal
    sideways = np.linalg.norm(offsets - np.outer(along, normal), axis=1)
    worst = int(np.argmax(sideways))
    tilt = float(np.nanmax(np.abs([0.0, *(one.tilt for one in slices)])))
    if sideways[worst] > _SIDEWAYS_MM:
        tilt = float(np.degrees(np.arctan2(sideways[worst], along[worst])))
    if sideways[worst] > _SIDEWAYS_MM or tilt > _TILT_DEGREES:
        raise GeometryError(
            f"{folder}: gantry tilt of {tilt:.1f} degrees, slices do not stack along their normal; "
            "straighten the series first, or take one without tilt"
        )
    step = _even_step(folder, slices, along) if len(slices) > 1 else first.thickness
    if not step > 0:
        raise GeometryError(f"{first.path}: one slice without a slice thickness (0018,0050); its extent is not known")
    affine = np.eye(4)
    # the pixel spacing tag begins with the distance between rows, which is the step along a column
    affine[:3, 0] = first.orientation[:3] * first.pixel_spacing[1]
    affine[:3, 1] = first.orientation[3:] * first.pixel_spacing[0]
    affine[:3, 2] = normal * step
    affine[:3, 3] = first.position
    affine[:2] *= -1.0  # LPS+ to RAS+
    return affine + 0.0  # no negative zeros


def _even_step(folder: Path, slices: list[Slice], along: np.ndarray) -> float:
    """Slice spacing in mm of positions that lie on an even grid."""
    gaps = np.diff(along)
    names = [os.path.relpath(one.path, folder) for one in slices]
    doubled = int(np.argmin(gaps))
    if gaps[doubled] < _SAME:
        twice = slices[doubled].instance and slices[doubled].instance == slices[doubled + 1].instance
        told = (
            "are one slice twice; take one copy away"
            if twice
            else ("are at one position; are two phases in one series? keep one slice a position")
        )
        raise GeometryError(f"{folder}: {names[doubled]} and {names[doubled + 1]} {told}")
    step = float(along[-1] / len(gaps))
    if np.abs(along - step * np.arange(len(along))).max() <= _UNEVEN * step:
        return step
    usual = float(np.sort(gaps)[(len(gaps) - 1) // 2])
    worst = int(np.argmax(np.abs(gaps - usual)))
    missing = gaps[worst] / usual - 1
    told = f"{missing:.0f} missing: copy the series again" if missing > 0.9 else "slices must be evenly spaced"
    raise GeometryError(
        f"{folder}: a gap of {gaps[worst]:.4g} mm between {names[worst]} and {names[worst + 1]}, "
        f"{usual:.4g} mm are usual; {told}"
    )


def _voxels(slices: list[Slice]) -> np.ndarray:
    """Voxels as (column, row, slice)."""
    bounds = np.iinfo(np.int16)
    volume = np.empty((*slices[0].size[:2], len(slices)), np.int16, order="F")
    for number, one in enumerate(slices):
        try:
            plane = sitk.GetArrayFromImage(slice_reader(one.path).Execute()).reshape(one.size[1], one.size[0])
        except RuntimeError as error:
            raise UnreadableError(f"{one.path}: its pixels cannot be read; copy or export it again") from error
        fits = plane.dtype.kind in "iu" and plane.min() >= bounds.min and plane.max() <= bounds.max
        if volume.dtype == np.int16 and not fits:
            volume = volume.astype(np.float32)
        volume[:, :, number] = plane.T
    return volume


def _listed(numbers: np.ndarray) -> str:
    return ", ".join(f"{number:.4g}" for number in numbers)
