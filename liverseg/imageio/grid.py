"""The voxel grid of a volume, and the inspection of the NIfTI header that states it.

Every affine is 4×4, from voxel index to RAS+ in mm. Axial order is DICOM's: `axial[slice, row, column]`, with slices
towards the head, rows towards the back and columns towards the patient's left.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from liverseg.errors import GeometryError, LiversegError, UnreadableError

__all__ = [
    "AXIAL",
    "Grid",
    "HeaderDefect",
    "InspectedHeader",
    "affine_distance_mm",
    "affine_tolerance_mm",
    "axial_orientation",
    "axial_spacing",
    "check_spacing",
    "inspect_header",
    "slice_axis",
    "straightened",
    "with_affine",
]

AXIAL = axcodes2ornt(("S", "P", "L"))
"""Axial order as an orientation of nibabel."""

_MIN_EDGE_MM, _MAX_EDGE_MM = 1e-3, 1e3
"""Our choice: outside the range of any scanner, and so close that computing with them does not overflow."""
_MIN_DETERMINANT = 1e-9
_MAX_POSITION_MM = 1e5
"""Our choice: no scanner is 100 m wide, and single precision rounds such positions to a hundredth of a millimetre."""
_ORTHONORMAL = 5e-5
"""Largest deviation of the axes' products from the identity at which a header is kept as it is. ITK 5.4 refuses NIfTI
files above 1e-4, found by trying."""
_MAX_SHEAR_DEGREES = 0.1
"""Deviation from right angles that rounding by tools explains. Our choice: at most a voxel over a CT of 512 columns.
Gantries are tilted by half degrees and more."""
_DISAGREEMENT_MM = 0.1
"""Distance between a voxel's places by qform and sform above which programs show it elsewhere. Our choice."""
_LENGTH_UNITS = ("mm", "unknown")
_UNIT_BITS = 7
"""NIfTI-1: these bits of xyzt_units state the unit of length, the others that of time."""


@dataclass(frozen=True, eq=False)
class Grid:
    """The shape of a volume and where its voxels are.

    Attributes:
        shape: (I, J, K) in the file's own axis order; K is 1 for a 2-D image.
        affine: 4×4, voxel index to RAS+ mm.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel edge lengths in mm along the array's own axes."""
        first, second, third = (float(length) for length in np.linalg.norm(self.affine[:3, :3], axis=0))
        return first, second, third

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    @property
    def slice_axis(self) -> int:
        """The array axis closest to feet-head, along which slices are counted."""
        return slice_axis(self.affine)

    @property
    def depth(self) -> int:
        """Number of slices."""
        return self.shape[self.slice_axis]

    def plane(self, number: int) -> tuple[slice, ...]:
        """Return the index of slice `number`, which keeps the slice axis with length one."""
        index = [slice(None)] * 3
        index[self.slice_axis] = slice(number, number + 1)
        return tuple(index)

    def bounds_mm(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the lowest and the highest RAS+ coordinates in mm that its voxels reach."""
        corners = np.array(list(product(*[(-0.5, length - 0.5) for length in self.shape], (1.0,))))
        positions = (corners @ self.affine.T)[:, :3]
        return positions.min(axis=0), positions.max(axis=0)

    def matches(self, other: Grid) -> bool:
        """Return whether the other grid has the same shape and its voxels in the same places, rounding aside."""
        return self.shape == other.shape and not affine_distance_mm(self.affine, other.affine, self.shape)


def axial_orientation(affine: np.ndarray) -> np.ndarray:
    """Return the transform from a file's axis order to axial order, for `nibabel.orientations.apply_orientation`.

    Args:
        affine: 4×4, to RAS+ mm.
    """
    return ornt_transform(io_orientation(affine), AXIAL)


def axial_spacing(affine: np.ndarray) -> tuple[float, float, float]:
    """Return the (slice, row, column) spacing in mm after turning to axial order.

    Args:
        affine: 4×4, to RAS+ mm, of the array before it is turned.
    """
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    slices, rows, columns = (float(lengths[axis]) for axis in np.argsort(axial_orientation(affine)[:, 0]))
    return slices, rows, columns


def slice_axis(affine: np.ndarray) -> int:
    """Return the array axis closest to feet-head.

    Args:
        affine: 4×4, to RAS+ mm.
    """
    return int(np.argmax(io_orientation(affine)[:, 0] == 2))


def affine_distance_mm(affine: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """Return the largest distance in mm between two affines' positions of a voxel; 0 within `affine_tolerance_mm`.

    Args:
        affine: 4×4, to RAS+ mm.
        other: 4×4, of a volume of the same shape.
        shape: (I, J, K).
    """
    distance = float(np.abs((affine - other) * np.array([*shape, 1.0])).max())
    return 0.0 if distance <= affine_tolerance_mm(affine, shape) else distance


def affine_tolerance_mm(affine: np.ndarray, shape: tuple[int, ...]) -> float:
    """Return the distance in mm that rounding may put between voxels of the same grid.

    Files store affines as float32, which rounds positions far from the origin more.

    Args:
        affine: 4×4, to RAS+ mm.
        shape: (I, J, K).
    """
    # a hundredth of a millimetre at the far corner is rounding, more is another grid
    return 0.01 * max(1.0, float(np.abs(affine @ np.array([*shape, 1.0])).max()) / 100)


def check_spacing(path: Path, affine: np.ndarray) -> None:
    """Refuse voxel sizes that no scanner makes.

    Args:
        path: the volume's file or folder, for the message.
        affine: 4×4, to RAS+ mm.

    Raises:
        GeometryError: if an edge is shorter than a thousandth of a millimetre or longer than a metre.
    """
    if message := _spacing_defect(affine):
        raise GeometryError(f"{path}: {message}")


@dataclass(frozen=True)
class HeaderDefect:
    """A reason why `read_volume` refuses a header.

    Attributes:
        kind: "dimensions", "units", "spacing" or "shear".
        message: what was found, what is allowed and what to do, without the file's name.
        error: the exception that `InspectedHeader.grid` raises.
    """

    kind: str
    message: str
    error: type[LiversegError] = GeometryError


@dataclass(frozen=True, eq=False)
class InspectedHeader:
    """The grid a NIfTI header states, with all its defects.

    Attributes:
        shape: (I, J, K); another number of axes, or an axis of length 0, is among the defects.
        affine: 4×4, voxel index to RAS+ mm; None if it cannot place voxels. Axes that deviate from right angles by
            rounding are straightened.
        pixdim: the three voxel lengths in mm as stored in the file; they may be zero, negative or NaN.
        codes: qform and sform code; (0, 0) means that no orientation was set.
        defects: in the order in which a reader raises them.
        warnings: where programs place or scale the voxels differently, one sentence each, for the case's record.
    """

    shape: tuple[int, ...]
    affine: np.ndarray | None
    pixdim: tuple[float, ...]
    codes: tuple[int, int]
    defects: tuple[HeaderDefect, ...]
    warnings: tuple[str, ...] = ()

    @property
    def slice_axis(self) -> int:
        """The array axis closest to feet-head; the last one if there is no affine."""
        return 2 if self.affine is None else slice_axis(self.affine)

    def grid(self, path: Path) -> Grid:
        """Return the grid.

        Args:
            path: the file, for the message.

        Raises:
            LiversegError: for the first defect.
        """
        for defect in self.defects:
            raise defect.error(f"{path}: {defect.message}")
        assert self.affine is not None  # its absence is a defect
        first, second, third = self.shape
        return Grid((first, second, third), self.affine)


def inspect_header(header: nib.Nifti1Header, pixdim: tuple[float, ...] | None = None) -> InspectedHeader:
    """Find every defect of a header that keeps its volume from being read.

    Trailing axes of length one and a missing third axis are accepted.

    Args:
        header: as nibabel reads it.
        pixdim: the voxel lengths as stored, before nibabel corrected them; by default those of the header.
    """
    stated = tuple(int(length) for length in header.get_data_shape())
    shape = stated
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) == 2:
        shape = (*shape, 1)
    stored = tuple(float(length) for length in header["pixdim"][1:4]) if pixdim is None else pixdim
    affine, affine_defect = _inspect_affine(header, shape)
    found = (_shape_defect(stated, shape), _unit_defect(header), _pixdim_defect(header, stored), affine_defect)
    return InspectedHeader(
        shape=shape,
        affine=affine,
        pixdim=stored,
        codes=(int(header["qform_code"]), int(header["sform_code"])),
        defects=tuple(defect for defect in found if defect is not None),
        warnings=tuple(_header_warnings(header, shape, stored)) if len(shape) == 3 else (),
    )


def _header_warnings(header: nib.Nifti1Header, shape: tuple[int, ...], pixdim: tuple[float, ...]) -> list[str]:
    """Return a warning for each property of a header by which programs place or scale its voxels differently.

    Codes of 0 are not among them: check_ct warns of these.
    """
    warnings = []
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if (slope == 0 or not np.isfinite(slope)) and np.isfinite(inter) and inter != 0:
        warnings.append(
            f"scl_slope is {slope:g}, so scl_inter {inter:g} is not added as nibabel does, other programs add it"
        )
    try:
        affine = np.asarray(header.get_best_affine(), np.float64)
    except ValueError:  # a defect
        return warnings
    if _is_default(affine):
        warnings.append("voxels of 1 mm, the first at 0, as if its affine was never set: sizes and sides are a guess")
    if int(header["sform_code"]) <= 0:
        return warnings
    edges = np.linalg.norm(affine[:3, :3], axis=0)[: len(pixdim)]
    if not (np.abs(edges - pixdim) * shape[: len(pixdim)] <= _DISAGREEMENT_MM).all():
        lengths, stated = ("×".join(f"{length:.4g}" for length in values) for values in (edges, pixdim))
        warnings.append(f"voxels of {lengths} mm by its sform, which is used, but {stated} mm by its pixdim, as in ITK")
    elif int(header["qform_code"]) > 0 and (distance := _distance_of_forms(header, affine, shape)) > _DISAGREEMENT_MM:
        warnings.append(
            f"qform and sform place voxels up to {distance:.3g} mm apart: the sform is used, other programs may use "
            "the qform"
        )
    return warnings


def _distance_of_forms(header: nib.Nifti1Header, affine: np.ndarray, shape: tuple[int, ...]) -> float:
    """Return the largest distance in mm between a voxel's places by sform and qform; 0 if the qform is void."""
    try:
        qform = np.asarray(header.get_qform(), np.float64)
    except ValueError:
        return 0.0
    corners = np.array(list(product(*[(0, max(0, length - 1)) for length in shape])), np.float64)
    distance = float(np.abs((affine - qform)[:3, :3] @ corners.T + (affine - qform)[:3, 3:]).max())
    return distance if np.isfinite(distance) else 0.0


def straightened(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the affine with orthogonal axes that is nearest to another one, with its voxel sizes and its centre.

    The directions are the orthogonal factor of the polar decomposition of its unit axes.

    Args:
        affine: 4×4, to RAS+ mm.
        shape: (I, J, K).
    """
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    left, _, right = np.linalg.svd(affine[:3, :3] / edges)
    new = affine.copy()
    new[:3, :3] = left @ right * edges
    centre = (np.array(shape) - 1) / 2
    new[:3, 3] += (affine[:3, :3] - new[:3, :3]) @ centre
    return new


def with_affine(header: nib.Nifti1Header, affine: np.ndarray) -> nib.Nifti1Header:
    """Return the header itself if it has the affine, else a copy with it as sform and, where it has one, as qform.

    Args:
        header: as nibabel reads it.
        affine: 4×4, to RAS+ mm, with orthogonal axes.
    """
    if np.array_equal(header.get_best_affine(), affine):
        return header
    new = header.copy()
    new.set_sform(affine, int(header["sform_code"]))
    new.set_qform(affine, int(header["qform_code"]))
    return new


def _is_default(affine: np.ndarray) -> bool:
    """Return whether an affine is one that tools write without knowing any: 1 mm along the body's axes from 0."""
    return bool(not affine[:3, 3].any() and np.array_equal(np.abs(affine[:3, :3]), np.eye(3)))


def _largest_cosine(affine: np.ndarray) -> float:
    """Return the largest cosine between two of an affine's axes: 0 if they are at right angles."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.abs(np.triu(axes.T @ axes, 1)).max())


def _shape_defect(stated: tuple[int, ...], shape: tuple[int, ...]) -> HeaderDefect | None:
    described = "×".join(map(str, stated))
    if len(shape) != 3:
        message = (
            f"a volume of {len(stated)} dimensions, shape {described}; 3 are needed: split a time series into one "
            "file a phase"
        )
        return HeaderDefect("dimensions", message)
    if min(shape) < 1:
        return HeaderDefect("dimensions", f"an empty volume, shape {described}; export it again", UnreadableError)
    return None


def _unit_defect(header: nib.Nifti1Header) -> HeaderDefect | None:
    code = int(header["xyzt_units"]) & _UNIT_BITS
    unit = nib.nifti1.unit_codes.label.get(code, f"units of code {code}")
    if unit in _LENGTH_UNITS:
        return None
    return HeaderDefect("units", f"its header counts lengths in {unit}; mm are needed: export it again")


def _pixdim_defect(header: nib.Nifti1Header, pixdim: tuple[float, ...]) -> HeaderDefect | None:
    """Return the defect of voxel lengths that are needed and are none: nibabel and ITK take others for them."""
    if int(header["sform_code"]) > 0 or all(np.isfinite(length) and length > 0 for length in pixdim):
        return None
    shown = "×".join(f"{length:g}" for length in pixdim)
    message = f"spacing {shown} mm in its header; lengths above 0 are needed: export it again"
    return HeaderDefect("spacing", message)


def _inspect_affine(header: nib.Nifti1Header, shape: tuple[int, ...]) -> tuple[np.ndarray | None, HeaderDefect | None]:
    """Return the affine, straightened within rounding, or the defect that makes it unusable."""
    try:
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    except ValueError as error:
        return None, HeaderDefect("spacing", f"its quaternion is no rotation ({error}); export it again")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < _MIN_DETERMINANT:
        message = "its affine is singular or not finite; the header must place voxels in mm: export it again"
        return None, HeaderDefect("spacing", message)
    if message := _spacing_defect(affine):
        return None, HeaderDefect("spacing", message)
    if not np.isfinite(io_orientation(affine)).all():
        message = "two axes of its affine are nearly parallel; export it again"
        return None, HeaderDefect("spacing", message)
    farthest = float(np.abs(affine[:3, 3]).max())
    if farthest > _MAX_POSITION_MM:
        message = f"its first voxel is {farthest:.3g} mm from the origin; 100 m are allowed: export it again"
        return None, HeaderDefect("spacing", message)
    cosine = _largest_cosine(affine)
    degrees = float(np.degrees(np.arcsin(min(1.0, cosine))))
    if degrees > _MAX_SHEAR_DEGREES:
        message = (
            f"its axes are {degrees:.3g} degrees from right angles, as of a scan with a tilted gantry; resample it to "
            "straight axes, or give the file that dcm2niix corrects and marks with _Tilt"
        )
        return None, HeaderDefect("shear", message)
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    deviation = float(np.abs(axes @ axes.T - np.eye(3)).max())
    return (affine if deviation <= _ORTHONORMAL or len(shape) != 3 else straightened(affine, shape)), None


def _spacing_defect(affine: np.ndarray) -> str:
    """Describe voxels no scanner makes; empty if there is nothing wrong."""
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    if edges.min() >= _MIN_EDGE_MM and edges.max() <= _MAX_EDGE_MM:
        return ""
    shown = " × ".join(f"{edge:.3g}" for edge in edges)
    return f"voxels of {shown} mm; 0.001 to 1000 mm are allowed: export it with its spacing"
