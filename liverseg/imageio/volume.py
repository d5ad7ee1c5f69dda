"""NIfTI volumes: read, checked, turned to axial slices and back, written on the same grid.

The frame of every affine here is NIfTI's RAS+ in mm. Axial order is DICOM's: `axial[slice, row, column]` with slices
running towards the head, rows towards the back and columns towards the patient's left, which is what a reader sees.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from liverseg.errors import GeometryError, NotCTError, UnreadableError, one_line
from liverseg.imageio.boxes import Box
from liverseg.imageio.nifti import READ_ERRORS, ReusableBuffer, label_header, read_header, read_voxels, write_planes
from liverseg.utils.files import is_file

__all__ = [
    "NIFTI_SUFFIXES",
    "Volume",
    "affine_distance_mm",
    "affine_tolerance_mm",
    "axial_orientation",
    "axial_spacing",
    "case_name",
    "check_spacing",
    "is_nifti",
    "read_volume",
    "read_volume_header",
    "slice_axis",
    "write_box_like",
    "write_like",
]

_SHORTEST_MM, _LONGEST_MM = 1e-3, 1e3
"""Our choice: far beyond every scanner, and near enough to each other that what is computed from them are numbers."""


def check_spacing(path: Path, affine: np.ndarray) -> None:
    """Refuse voxels no scanner makes.

    Args:
        path: where they came from.
        affine: 4×4, to RAS+ mm.

    Raises:
        GeometryError: if an edge is shorter than a thousandth of a millimetre or longer than a metre.
    """
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    if not (edges.min() >= _SHORTEST_MM and edges.max() <= _LONGEST_MM):
        told = " × ".join(f"{edge:.3g}" for edge in edges)
        raise GeometryError(f"{path}: voxels of {told} mm; 0.001 to 1000 mm are allowed: export it with its spacing")


NIFTI_SUFFIXES = (".nii.gz", ".nii")
_LENGTHS = ("mm", "unknown")

_AXIAL = axcodes2ornt(("S", "P", "L"))


@dataclass(frozen=True)
class Volume:
    """A 3-D image on its own grid.

    Attributes:
        array: voxels in the file's own axis order, shape (I, J, K); HU for a CT, whole numbers for a label map.
        affine: 4×4, voxel index to RAS+ mm.
        header: the NIfTI header, for codes and units when something is written on the same grid.
        path: where it came from, for messages.
    """

    array: np.ndarray
    affine: np.ndarray
    header: nib.Nifti1Header
    path: Path

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel edge lengths in mm along the array's own axes."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return (float(lengths[0]), float(lengths[1]), float(lengths[2]))

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    @property
    def slice_axis(self) -> int:
        """The array axis that runs closest to feet-head, found from the affine."""
        return slice_axis(self.affine)

    @property
    def axial_spacing(self) -> tuple[float, float, float]:
        """(slice, row, column) spacing in mm of `axial`."""
        return axial_spacing(self.affine)

    @property
    def axial(self) -> np.ndarray:
        """The voxels as (slice, row, column), towards head, back and left: a view, nothing is copied or resampled."""
        return nib.orientations.apply_orientation(self.array, self._to_axial)

    def from_axial(self, axial: np.ndarray) -> np.ndarray:
        """An array in axial order, shape as `axial`, back in the file's own axis order (a view)."""
        back = ornt_transform(_AXIAL, io_orientation(self.affine))
        return nib.orientations.apply_orientation(axial, back)

    def box_from_axial(self, box: Box) -> Box:
        """A box of `axial` as the box of `array` that holds the same voxels."""
        own: list[slice] = [slice(0, 0)] * 3
        back = ornt_transform(_AXIAL, io_orientation(self.affine))
        for side, (axis, direction), length in zip(box, back, self._axial_shape, strict=True):
            flipped = slice(length - side.stop, length - side.start)
            own[int(axis)] = side if direction > 0 else flipped
        return own[0], own[1], own[2]

    @property
    def axial_affine(self) -> np.ndarray:
        """4×4 affine from (slice, row, column) indices of `axial` to RAS+ mm."""
        to_own = nib.orientations.inv_ornt_aff(self._to_axial, self.array.shape)
        return self.affine @ to_own

    @property
    def _axial_shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape[axis] for axis in np.argsort(self._to_axial[:, 0]))

    @property
    def _to_axial(self) -> np.ndarray:
        return axial_orientation(self.affine)


def axial_orientation(affine: np.ndarray) -> np.ndarray:
    """What turns a file's array to axial order, as `nibabel.orientations.apply_orientation` takes it.

    Args:
        affine: 4×4, to RAS+ mm.
    """
    return ornt_transform(io_orientation(affine), _AXIAL)


def axial_spacing(affine: np.ndarray) -> tuple[float, float, float]:
    """(slice, row, column) spacing in mm of an array turned to axial order, by its own 4×4 affine to RAS+ mm."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    slices, rows, columns = (float(lengths[axis]) for axis in np.argsort(axial_orientation(affine)[:, 0]))
    return slices, rows, columns


def slice_axis(affine: np.ndarray) -> int:
    """The array axis that runs closest to feet-head, by a 4×4 affine to RAS+ mm."""
    return int(np.argmax(io_orientation(affine)[:, 0] == 2))


def affine_distance_mm(affine: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """Largest distance in mm between the places two affines give a voxel; 0 within `affine_tolerance_mm`.

    Args:
        affine: 4×4, to RAS+ mm.
        other: 4×4, of a volume of the same shape.
        shape: (I, J, K).
    """
    apart = float(np.abs((affine - other) * np.array([*shape, 1.0])).max())
    return 0.0 if apart <= affine_tolerance_mm(affine, shape) else apart


def affine_tolerance_mm(affine: np.ndarray, shape: tuple[int, ...]) -> float:
    """How far, in mm, voxels of one grid may lie apart: affines are kept as float32, which rounds far ones more.

    Args:
        affine: 4×4, to RAS+ mm.
        shape: (I, J, K).
    """
    # a hundredth of a millimetre at the far corner is rounding, more is another grid
    return 0.01 * max(1.0, float(np.abs(affine @ np.array([*shape, 1.0])).max()) / 100)


def is_nifti(path: str | os.PathLike) -> bool:
    """True for a file name that ends in .nii or .nii.gz."""
    return str(path).lower().endswith(NIFTI_SUFFIXES)


def case_name(path: str | os.PathLike) -> str:
    """A file's name without folder and NIfTI ending."""
    name = Path(path).name
    for suffix in NIFTI_SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def _header_of(path: Path) -> nib.Nifti1Header:
    if not is_file(path):
        raise UnreadableError(f"{path}: no such file")
    if not is_nifti(path):
        raise UnreadableError(f"{path}: not a NIfTI file name; .nii and .nii.gz are read")
    try:
        return read_header(path)
    except READ_ERRORS as error:
        raise UnreadableError(
            f"{path}: cannot be read as NIfTI ({one_line(error)}); copy or export it again"
        ) from error


def _checked_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Three dimensions, where trailing ones of length one and a missing third are forgiven."""
    full = tuple(shape)
    while len(full) > 3 and full[-1] == 1:
        full = full[:-1]
    if len(full) == 2:
        full = (*full, 1)
    if len(full) != 3:
        raise GeometryError(
            f"{path}: a volume of {len(shape)} dimensions, shape {'×'.join(map(str, shape))}; "
            "3 are needed: split a time series into one file a phase"
        )
    if min(full) < 1:
        raise UnreadableError(f"{path}: an empty volume, shape {'×'.join(map(str, shape))}")
    return full


def _checked_affine(path: Path, header: nib.Nifti1Header) -> np.ndarray:
    code = int(header["xyzt_units"]) & 7  # NIfTI-1: these bits are of lengths, the others of time
    length = nib.nifti1.unit_codes.label.get(code, f"units of code {code}")
    if length not in _LENGTHS:
        raise GeometryError(f"{path}: its header counts lengths in {length}; mm are needed: export it again")
    try:
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    except ValueError as error:
        raise GeometryError(f"{path}: its quaternion is no rotation ({error}); export it again") from error
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise GeometryError(f"{path}: its affine is singular or not finite; the header must place voxels in mm")
    check_spacing(path, affine)
    return affine


def read_volume_header(path: str | os.PathLike) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape and affine (RAS+ mm) of a NIfTI volume, without reading its voxels.

    Raises:
        LiversegError: if the file is missing, unreadable or not 3-D.
    """
    header = _header_of(Path(path))
    return _checked_shape(Path(path), header.get_data_shape()), _checked_affine(Path(path), header)


def read_volume(path: str | os.PathLike, memory: ReusableBuffer | None = None) -> Volume:
    """Read a NIfTI volume in its own data type and axis order, with the header's scaling applied.

    Not by ITK: of a truncated file ITK 5.4 returns zeros for the missing part.

    Args:
        path: .nii or .nii.gz.
        memory: to read into, if the volume is needed no longer than until the next is read; new memory by default.

    Raises:
        LiversegError: if the file is missing, truncated, unreadable or not 3-D, or holds NaN or infinite voxels.
    """
    path = Path(path)
    header = _header_of(path)
    shape = _checked_shape(path, header.get_data_shape())
    affine = _checked_affine(path, header)
    try:
        array = read_voxels(path, memory).scaled().reshape(shape, order="F")
    except READ_ERRORS as error:
        raise UnreadableError(f"{path}: voxels cannot be read ({one_line(error)}); is the file truncated?") from error
    if array.dtype.kind == "f":
        bad = array.size - int(np.count_nonzero(np.isfinite(array)))
        if bad:
            raise NotCTError(f"{path}: {bad} voxels are NaN or infinite; replace them before going on")
    return Volume(array=array, affine=affine, header=header, path=path)


def write_like(path: str | os.PathLike, array: np.ndarray, reference: Volume) -> None:
    """Write a label map on the grid of `reference`: same shape, affine, sform/qform codes and units.

    Args:
        path: target, .nii or .nii.gz; its folder must exist.
        array: whole numbers in the reference's own axis order, shape (I, J, K); written in its own data type.
        reference: the volume whose grid it lies on.

    Raises:
        ValueError: if the shapes differ.
    """
    if array.shape != reference.array.shape:
        raise ValueError(f"label map of shape {array.shape} for a volume of shape {reference.array.shape}")
    write_planes(
        Path(path), label_header(reference.header, array.dtype), (array[:, :, k] for k in range(array.shape[2]))
    )


def write_box_like(path: str | os.PathLike, inside: np.ndarray, box: Box, reference: Volume) -> None:
    """Write a label map that is 0 outside a box on the grid of `reference`, plane by plane, never whole in memory.

    Args:
        path: target, as for `write_like`.
        inside: whole numbers in axial order, shape of the box; written in its own data type.
        box: where they lie in `reference.axial`.
        reference: the volume whose grid it lies on.
    """
    own, (first, second, third) = reference.from_axial(inside), reference.box_from_axial(box)
    rows, columns, depth = reference.array.shape

    def planes() -> Iterator[np.ndarray]:
        for k in range(depth):
            plane = np.zeros((rows, columns), inside.dtype, order="F")
            if third.start <= k < third.stop:
                plane[first, second] = own[:, :, k - third.start]
            yield plane

    write_planes(Path(path), label_header(reference.header, inside.dtype), planes())
