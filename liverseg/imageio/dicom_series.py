"""Find DICOM series in a folder, check their slices, and read them as volumes.

DICOM's frame is LPS+ in mm, the affines here are NIfTI's RAS+ in mm. Each slice is placed by its position tag.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from liverseg.errors import GantryTiltError, GeometryError, LiversegError, NotCTError, UnreadableError
from liverseg.imageio.dicom_header import Slice, read_slices
from liverseg.imageio.dicom_pixels import check_rescale, read_plane
from liverseg.imageio.dicom_stacks import (
    TOLERANCE,
    along_normal,
    are_copies,
    describe_left_out,
    divide,
    is_usable,
    normal_of,
)
from liverseg.imageio.limits import MAX_BYTES, MAX_FILES
from liverseg.imageio.slice_shifts import SliceShifts
from liverseg.utils.files import is_dir, visible_files

__all__ = [
    "MAX_BYTES",
    "MAX_FILES",
    "MAX_SIDE",
    "DicomSeries",
    "DicomVolume",
    "describe_copies",
    "find_series",
    "read_planes",
    "read_series",
    "read_series_volume",
]

_MAX_TILT_DEGREES = 0.1
_MAX_SIDEWAYS_PIXELS, _MIN_SIDEWAYS_MM = 0.5, 0.1
"""Distance of slices from the line along their normal that is taken as rounding of tags: half a pixel, our choice. It
is no less than a tenth of a millimetre, to which some tags are rounded."""
_MAX_UNEVENNESS = 0.1
"""Distance of a slice from its place on an even grid, in slice spacings; tags rounded to 0.1 mm pass."""
_MAX_MISSING_SHARE = 0.25
"""Share of gaps that missing slices can explain; with more, the spacing changes within the scan. Our choice."""
MAX_SIDE = 8192
"""Rows and columns of a slice: four times those of the finest scanners, 2048."""
_AIR_HU = -1024
_MAX_UNTILT_DEGREES = 45.0
"""Gantries tilt up to 30 degrees."""


@dataclass(frozen=True)
class DicomSeries:
    """The files of one series in one folder, or one stack of slices of a series.

    Attributes:
        folder: of the files.
        uid: SeriesInstanceUID; empty if an anonymiser removed it.
        description: SeriesDescription, decoded by its character set; empty if there is none.
        modality: CT, MR, SEG and so on.
        files: sorted by position along the slice normal, or by name if a position is missing. An enhanced CT has one
            file for all slices.
        slices: the tags of its slices in the same order; empty to have them read from the files.
        warnings: what was left out, and why this series was chosen, one sentence each.
        other_kinds: images of the series that state to be no slices, if `slices` does not hold them.
    """

    folder: Path
    uid: str
    description: str
    modality: str
    files: tuple[Path, ...]
    slices: tuple[Slice, ...] = field(default=(), repr=False, compare=False)
    warnings: tuple[str, ...] = field(default=(), compare=False)
    other_kinds: tuple[Slice, ...] = field(default=(), repr=False, compare=False)

    @property
    def depth(self) -> int:
        """Number of slices."""
        return len(self.slices) or len(self.files)


@dataclass(frozen=True, eq=False)
class DicomVolume:
    """A series as a volume.

    Attributes:
        array: (column, row, slice), slices in the direction of their normal, int16 if all values are integers that fit,
            else float32.
        affine: 4×4, voxel index to RAS+ mm.
        slices: the slices it was read from, in order.
        shifts: where the slices lie on the volume's grid, if they were sheared; else None.
        tilt_degrees: angle between the normal of the slices and the line on which they lay; 0 if they were not sheared.
        warnings: one sentence each, without text of the headers.
    """

    array: np.ndarray = field(repr=False)
    affine: np.ndarray
    slices: tuple[Slice, ...] = field(repr=False)
    shifts: SliceShifts | None
    tilt_degrees: float
    warnings: tuple[str, ...]


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
    return _group(folder, files, unreadable)


def read_series(
    source: str | os.PathLike | DicomSeries, modality: str | None = "CT", untilt: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Read a series as one volume, rescaled by its tags: to HU for a CT.

    Args:
        source: a series of `find_series`, or a folder with one series of the modality (others are ignored).
        modality: the required modality; None for any, for masks stored as DICOM.
        untilt: as for `read_series_volume`.

    Returns:
        `array` and `affine` of the `DicomVolume`.

    Raises:
        LiversegError: as `read_series_volume`.
    """
    found = read_series_volume(source, modality, untilt)
    return found.array, found.affine


def read_series_volume(
    source: str | os.PathLike | DicomSeries, modality: str | None = "CT", untilt: bool = False
) -> DicomVolume:
    """Read the stack of most slices of a series, rescaled by its tags, with warnings about what was left out.

    Args:
        source: a series of `find_series`, or a folder with one series of the modality (others are ignored).
        modality: the required modality; None for any, for masks stored as DICOM.
        untilt: move slices of a tilted gantry within their planes onto a rectangular grid, which is larger than a
            slice. Otherwise they are refused.

    Raises:
        LiversegError: as `find_series`, and if there is no such series or more than one, the gantry was tilted, slices
            are missing, repeated or uneven, a tag of geometry is missing, values are not in HU, or a file holds several
            slices without a position of each.
    """
    if isinstance(source, DicomSeries):
        folder = source.folder
        found = [source] if source.slices else _group(folder, source.files)
    else:
        folder, files = _list_files(source)
        found = _group(folder, files)
    series, warnings = _only_series(folder, found, modality)
    stacks = divide(series.slices)
    if not stacks:
        kinds = sorted({item.kind for item in series.slices})
        raise NotCTError(f"{folder}: only images of other kinds ({', '.join(kinds)}); give the series of axial slices")
    stack = stacks[0]
    slices = stack.slices
    for item in slices:
        _check_slice(item, slices[0])
    if stack.left_out:
        warnings.append(f"left out of the series: {describe_left_out(stack.left_out)}; {len(slices)} slices are read")
    if series.modality == "CT":
        warnings += _rescale_warnings(slices)
    # first, so that a series is refused before its pixels are read
    affine, shifts, tilt = _place(folder, slices, untilt, (*series.other_kinds, *stack.other_kinds))
    columns, rows = slices[0].size if shifts is None else shifts.grid_size
    size = 2 * columns * rows * len(slices)
    if size > MAX_BYTES:
        raise UnreadableError(f"{folder}: {size} bytes of voxels, {MAX_BYTES} are allowed; give a part of the series")
    warnings += _tilt_warnings(slices, tilt)
    array = read_planes(slices, shifts)
    return DicomVolume(array, affine, slices, shifts, tilt, tuple(warnings))


def read_planes(slices: Iterable[Slice], shifts: SliceShifts | None = None) -> np.ndarray:
    """Read slices of one size.

    Args:
        slices: of `read_slices`.
        shifts: where they lie on a grid; None for the slices' own pixels.

    Returns:
        Values in the unit of their tags, shape (column, row, slice), int16 if all are integers that fit, else float32.

    Raises:
        UnreadableError: if pixels cannot be read.
    """
    slices = tuple(slices)
    bounds = np.iinfo(np.int16)
    size = slices[0].size if shifts is None else shifts.grid_size
    volume = np.empty((*size, len(slices)), np.int16, order="F")
    for number, item in enumerate(slices):
        plane = read_plane(item)
        fits = plane.dtype == np.int16 or (
            plane.dtype.kind in "iu" and plane.min() >= bounds.min and plane.max() <= bounds.max
        )
        if volume.dtype == np.int16 and not fits:
            volume = volume.astype(np.float32)
        if shifts is not None:
            plane = shifts.to_grid(plane.astype(np.int32) if plane.dtype.kind == "u" else plane, number, _AIR_HU)
        volume[:, :, number] = plane.T
    return volume


def _list_files(folder: str | os.PathLike) -> tuple[Path, tuple[Path, ...]]:
    folder = Path(folder)
    if not is_dir(folder):
        raise UnreadableError(f"{folder}: no such folder; give the one that holds a series' DICOM files")
    files = visible_files(folder)
    if len(files) > MAX_FILES:
        raise UnreadableError(f"{folder}: {len(files)} files, {MAX_FILES} are allowed; give the folder of one study")
    return folder, files


def _group(
    folder: Path, files: Iterable[Path], unreadable: dict[Path, LiversegError] | None = None
) -> list[DicomSeries]:
    """Return the series of files, their slices sorted by position."""
    groups: dict[tuple[str, str], list[Slice]] = {}
    for path in files:
        try:
            found = read_slices(path)
        except LiversegError as error:
            if unreadable is None:
                raise
            unreadable[path] = error
            continue
        for item in found:
            groups.setdefault((item.uid, item.modality), []).append(item)
    series = []
    for slices in groups.values():
        slices = _sort(slices)
        first = slices[0]
        paths = tuple(dict.fromkeys(item.path for item in slices))
        series.append(DicomSeries(folder, first.uid, first.description, first.modality, paths, tuple(slices)))
    return sorted(series, key=lambda item: (item.description, item.uid, item.modality))


def _only_series(folder: Path, found: list[DicomSeries], modality: str | None) -> tuple[DicomSeries, list[str]]:
    """Return the one series of a modality, with a warning if there are copies of it; refuse none or several."""
    if not found:
        raise UnreadableError(f"{folder}: no DICOM image in it; give the folder that holds the slices themselves")
    matching = [series for series in found if modality in (None, series.modality)]
    if not matching:
        modalities = ", ".join(sorted({series.modality or "not given" for series in found}))
        raise NotCTError(f"{folder}: modality {modalities}; {modality} is needed")
    if len(matching) > 1 and all(are_copies(matching[0].slices, other.slices) for other in matching[1:]):
        return matching[0], [describe_copies(len(matching))]
    if len(matching) > 1:
        # by file, not by description: it is free text that may hold names
        names = ", ".join(f"{series.files[0].name} and its like ({series.depth} slices)" for series in matching)
        raise UnreadableError(
            f"{folder}: {len(matching)} series, {names}; keep the one to be read in a separate folder"
        )
    return matching[0], []


def describe_copies(number: int) -> str:
    """Return the warning about stacks with equal pixels at equal places, of which one is read."""
    return f"{number} stacks have the same pixels at the same positions; one of them is read"


def _sort(slices: list[Slice]) -> list[Slice]:
    along = along_normal(slices)
    return slices if np.isnan(along).any() else [slices[number] for number in np.argsort(along, kind="stable")]


def _check_slice(item: Slice, first: Slice) -> None:
    """Refuse a slice with several frames or colours, without a tag of geometry, or unlike the first of its stack."""
    if item.channels != 1 or (item.frames > 1 and item.frame is None):
        raise GeometryError(f"{item.path}: several frames or colours in one file; export it as one grey slice a file")
    if max(item.size) > MAX_SIDE:
        raise UnreadableError(
            f"{item.path}: {item.size[0]} columns and {item.size[1]} rows, {MAX_SIDE} are allowed; is it a CT slice?"
        )
    axes = item.orientation.reshape(2, 3)
    for usable, name in (
        (not np.isnan(item.position).any(), "image position (0020,0032)"),
        (np.abs(axes @ axes.T - np.eye(2)).max() <= 10 * TOLERANCE, "image orientation (0020,0037)"),
        (item.pixel_spacing.min() > 0, _describe_spacing(item)),
    ):
        if not usable:
            raise GeometryError(f"{item.path}: no usable {name}; export the series again with its geometry")
    for own, expected, tolerance, name in (
        (np.array(item.size), np.array(first.size), 0.0, "columns and rows"),
        (item.pixel_spacing, first.pixel_spacing, TOLERANCE, "pixel size in mm"),
        (item.orientation, first.orientation, TOLERANCE, "orientation"),
    ):
        if np.abs(own - expected).max() > tolerance:
            raise GeometryError(
                f"{item.path}: {name} {_join(own)}, but {_join(expected)} in {first.path.name}; "
                "a series has the same in all slices: take the others out"
            )


def _describe_spacing(item: Slice) -> str:
    name = "pixel spacing (0028,0030)"
    if re.fullmatch(r"[\d.,\\ ]*,[\d.,\\ ]*", item.stated_spacing):
        return f"{name}: {item.stated_spacing} has a decimal comma, and DICOM needs a point"
    return name


def _rescale_warnings(slices: tuple[Slice, ...]) -> list[str]:
    """Refuse values that are not HU, or HU in part of the slices only; warn if no slice states how to compute HU."""
    for item in slices:
        check_rescale(item)
    lacking = [item for item in slices if np.isnan(item.slope) or np.isnan(item.intercept)]
    if not lacking:
        return []
    tags = "RescaleSlope (0028,1053) or RescaleIntercept (0028,1052)"
    if len(lacking) < len(slices):
        raise NotCTError(
            f"{lacking[0].path}: no {tags}, which other slices of the series have; export the series again"
        )
    return [f"no {tags}: values are taken as stored, with slope 1 and intercept 0 for what is missing"]


def _place(
    folder: Path, slices: tuple[Slice, ...], untilt: bool, other_kinds: Sequence[Slice]
) -> tuple[np.ndarray, SliceShifts | None, float]:
    """Return the affine to RAS+ mm of sorted slices, their shifts if they were sheared, and the tilt in degrees.

    Refuses slices that are not evenly spaced, and, without `untilt`, those that do not stack along their normal. If an
    image of another kind would close a gap, the error says so.
    """
    first = slices[0]
    normal = normal_of(first)
    offsets = np.array([item.position for item in slices]) - first.position
    along = offsets @ normal
    axes = _orthonormal(first.orientation)
    pixel = first.pixel_spacing[::-1]  # the first pixel spacing is between rows, which is the step along a column
    sideways = offsets @ axes.T
    allowed = max(_MAX_SIDEWAYS_PIXELS * float(pixel.min()), _MIN_SIDEWAYS_MM)
    tilt, shifts, origin = 0.0, None, first.position
    if np.linalg.norm(sideways, axis=1).max() > allowed:
        slope = (along @ sideways) / max(float(along @ along), 1e-9)
        if np.linalg.norm(sideways - along[:, None] * slope, axis=1).max() > allowed:
            raise GeometryError(
                f"{folder}: slices are displaced within their planes, not along one line; take the series of one volume"
            )
        tilt = float(np.degrees(np.arctan(np.linalg.norm(slope))))
        if tilt > _MAX_UNTILT_DEGREES:
            raise GeometryError(f"{folder}: slices lie at {tilt:.0f} degrees to their normal, which no gantry does")
        if not untilt:
            farthest = float(np.linalg.norm(sideways, axis=1).max())
            raise GantryTiltError(
                f"{folder}: gantry tilt of {tilt:.3g} degrees: slices are displaced within their planes, by "
                f"{farthest:.2g} mm in all, {allowed:.2g} mm are allowed; take a series without tilt, or straighten "
                "the series first"
            )
        shifts, place = SliceShifts.from_offsets(sideways / pixel, first.size)
        origin = first.position + place * pixel @ axes
    step = _even_step(folder, slices, along, other_kinds) if len(slices) > 1 else first.thickness
    if not step > 0:
        raise GeometryError(f"{first.path}: one slice without a slice thickness (0018,0050); its extent is not known")
    affine = np.eye(4)
    affine[:3, 0] = axes[0] * pixel[0]
    affine[:3, 1] = axes[1] * pixel[1]
    affine[:3, 2] = normal * step
    affine[:3, 3] = origin
    affine[:2] *= -1.0  # LPS+ to RAS+
    return affine + 0.0, shifts, tilt  # + 0.0 turns -0.0 into 0.0


def _orthonormal(orientation: np.ndarray) -> np.ndarray:
    """Return the directions along a row and along a column as unit vectors at right angles, which rounded tags are not.

    The error is shared by both directions, so that neither end of the image moves more.
    """
    axes = orientation.reshape(2, 3)
    if np.abs(axes @ axes.T - np.eye(2)).max() < 1e-9:
        return axes
    left, _, right = np.linalg.svd(axes, full_matrices=False)
    return np.asarray(left @ right)


def _tilt_warnings(slices: tuple[Slice, ...], tilt: float) -> list[str]:
    if tilt:
        return [
            f"gantry tilt of {tilt:.3g} degrees: slices were moved within their planes onto an upright grid, which "
            "NIfTI results have; DICOM results are on the slices of the series"
        ]
    stated = float(np.nanmax(np.abs([0.0, *(item.tilt for item in slices)])))
    if stated > _MAX_TILT_DEGREES and len(slices) > 1:
        return [
            f"GantryDetectorTilt (0018,1120) is {stated:g} degrees, but the slices stack along their normal: the tag "
            "is not used"
        ]
    return []


def _even_step(folder: Path, slices: tuple[Slice, ...], along: np.ndarray, other_kinds: Sequence[Slice]) -> float:
    """Return the slice spacing in mm of evenly spaced slices; refuse repeated or uneven ones."""
    gaps = np.diff(along)
    names = [os.path.relpath(item.path, folder) for item in slices]
    repeated = np.flatnonzero(gaps < TOLERANCE)
    if len(repeated):
        smallest = int(repeated[0])  # `divide` has compared the pixels up to here
        same = slices[smallest].instance and slices[smallest].instance == slices[smallest + 1].instance
        problem = (
            "have one SOPInstanceUID and different pixels; keep the right one"
            if same and slices[smallest].path != slices[smallest + 1].path
            else "are at one position, and no tag states which acquisition they belong to; their pixels differ: are "
            "two phases in one series? keep one slice a position"
        )
        raise GeometryError(f"{folder}: {names[smallest]} and {names[smallest + 1]} {problem}")
    step = float(along[-1] / len(gaps))
    if np.abs(along - step * np.arange(len(along))).max() <= _MAX_UNEVENNESS * step:
        return step
    usual = float(np.sort(gaps)[(len(gaps) - 1) // 2])
    worst = int(np.argmax(np.abs(gaps - usual)))
    between = f"between {names[worst]} and {names[worst + 1]}"
    unusual = np.abs(gaps - usual) > _MAX_UNEVENNESS * usual
    if (found := _find_in_gap(slices, along, other_kinds)) is not None:
        item, gap, step = found
        raise GeometryError(
            f"{folder}: a gap of {gaps[gap]:.4g} mm between {names[gap]} and {names[gap + 1]}, {step:.4g} mm are "
            f"usual; {os.path.relpath(item.path, folder)} lies in it, but ImageType (0008,0008) states that it is a "
            f"{item.kind}, so it is left out: if it is a slice of the series, correct the tag, else copy the missing "
            "slice again"
        )
    if np.count_nonzero(unusual) > max(1.0, _MAX_MISSING_SHARE * len(gaps)):
        raise GeometryError(
            f"{folder}: slice spacing changes within the series, from {gaps.min():.4g} to {gaps.max():.4g} mm "
            f"({gaps[worst]:.4g} mm {between}); slices must be evenly spaced: give a reconstruction of one spacing"
        )
    missing = gaps[worst] / usual - 1
    problem = f"{missing:.0f} missing: copy the series again" if missing > 0.9 else "slices must be evenly spaced"
    raise GeometryError(f"{folder}: a gap of {gaps[worst]:.4g} mm {between}, {usual:.4g} mm are usual; {problem}")


def _find_in_gap(
    slices: tuple[Slice, ...], along: np.ndarray, others: Sequence[Slice]
) -> tuple[Slice, int, float] | None:
    """Return the first other image that lies on the slices' grid in a gap, with the gap's number and the grid's step.

    Args:
        slices: of a stack, sorted.
        along: their distances from the first along the normal, in mm.
        others: images that are not among them.
    """
    first = slices[0]
    places = {
        place: item
        for item in others
        if is_usable(item)
        and item.size == first.size
        and np.abs(item.pixel_spacing - first.pixel_spacing).max() <= TOLERANCE
        and np.abs(item.orientation - first.orientation).max() <= TOLERANCE
        and along[0] < (place := float((item.position - first.position) @ normal_of(first))) < along[-1]
    }
    steps = np.diff(np.sort([*along, *places]))
    step = float(np.sort(steps)[(len(steps) - 1) // 2])
    for place, item in sorted(places.items(), key=lambda found: found[0]):
        gap = int(np.searchsorted(along, place)) - 1
        number = (place - along[gap]) / step
        on_grid = round(number) >= 1 and abs(number - round(number)) <= _MAX_UNEVENNESS
        if on_grid and along[gap + 1] - along[gap] > (1 + _MAX_UNEVENNESS) * step:
            return item, gap, step
    return None


def _join(numbers: np.ndarray) -> str:
    return ", ".join(f"{number:.4g}" for number in numbers)
