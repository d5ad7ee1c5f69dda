"""NIfTI volumes: read, checked, turned to axial order and back, written on the same grid.

Affines are to RAS+ mm; `liverseg.imageio.grid` defines axial order.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import io_orientation, ornt_transform

from liverseg.errors import NotCTError, UnreadableError, one_line
from liverseg.imageio.boxes import Box
from liverseg.imageio.grid import (
    AXIAL,
    Grid,
    InspectedHeader,
    axial_orientation,
    axial_spacing,
    inspect_header,
    with_affine,
)
from liverseg.imageio.nifti import (
    READ_ERRORS,
    ReusableBuffer,
    describe_not_finite,
    label_header,
    read_header,
    read_voxels,
    write_planes,
)
from liverseg.utils.files import backslash_hint, is_file, refuse_special

__all__ = [
    "NIFTI_SUFFIXES",
    "Volume",
    "case_name",
    "is_nifti",
    "read_grid",
    "read_volume",
    "write_box_like",
]

NIFTI_SUFFIXES = (".nii.gz", ".nii")


@dataclass(frozen=True)
class Volume:
    """A 3-D image on its grid.

    Attributes:
        array: voxels in the file's own axis order, shape (I, J, K); HU for a CT, integers for a label map.
        affine: 4×4, voxel index to RAS+ mm.
        header: the NIfTI header, for codes and units when a label map is written on the same grid. `liverseg.predict`
            makes one for a volume without it.
        path: the file or folder it was read from, for messages.
        warnings: of its header, see `InspectedHeader`.
    """

    array: np.ndarray
    affine: np.ndarray
    header: nib.Nifti1Header = None  # type: ignore[assignment]
    path: Path = Path("volume")
    warnings: tuple[str, ...] = ()

    @property
    def grid(self) -> Grid:
        """Shape and affine."""
        return Grid(self.array.shape, self.affine)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel edge lengths in mm along the array's own axes."""
        return self.grid.spacing

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return self.grid.voxel_ml

    @property
    def slice_axis(self) -> int:
        """The array axis closest to feet-head."""
        return self.grid.slice_axis

    @property
    def axial_spacing(self) -> tuple[float, float, float]:
        """(slice, row, column) spacing in mm of `axial`."""
        return axial_spacing(self.affine)

    @property
    def axial(self) -> np.ndarray:
        """The voxels as (slice, row, column), towards head, back and left; a view, neither copied nor resampled."""
        return self.to_axial(self.array)

    def to_axial(self, array: np.ndarray) -> np.ndarray:
        """Return an array of the file's own axis order, shape as `array`, in axial order (a view)."""
        return nib.orientations.apply_orientation(array, self._to_axial)

    def from_axial(self, axial: np.ndarray) -> np.ndarray:
        """Return an array of axial order, shape as `axial`, in the file's own axis order (a view)."""
        return nib.orientations.apply_orientation(axial, self._from_axial)

    def box_from_axial(self, box: Box) -> Box:
        """Return the box of `array` that holds the same voxels as a box of `axial`."""
        own: list[slice] = [slice(0, 0)] * 3
        for side, (axis, direction), length in zip(box, self._from_axial, self._axial_shape, strict=True):
            flipped = slice(length - side.stop, length - side.start)
            own[int(axis)] = side if direction > 0 else flipped
        return own[0], own[1], own[2]

    @property
    def axial_affine(self) -> np.ndarray:
        """4×4 affine from (slice, row, column) indices of `axial` to RAS+ mm."""
        return self.affine @ nib.orientations.inv_ornt_aff(self._to_axial, self.array.shape)

    @property
    def itk_affine(self) -> np.ndarray:
        """4×4 affine from voxel index to RAS+ mm by which ITK, and so 3D Slicer and SimpleITK, place the voxels.

        It is `affine` unless the header has neither qform nor sform. Then nibabel, and this class, take the second axis
        from back to front and put the middle of the volume at 0, while ITK takes it from front to back and puts the
        first voxel at 0 (ITK 5.4, found by trying). Neither is known.
        """
        if self.header is None or int(self.header["qform_code"]) > 0 or int(self.header["sform_code"]) > 0:
            return self.affine
        first, second, third = self.spacing
        return np.diag([-first, -second, third, 1.0])

    @property
    def _axial_shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape[axis] for axis in np.argsort(self._to_axial[:, 0]))

    @property
    def _to_axial(self) -> np.ndarray:
        return axial_orientation(self.affine)

    @property
    def _from_axial(self) -> np.ndarray:
        return ornt_transform(AXIAL, io_orientation(self.affine))


def is_nifti(path: str | os.PathLike) -> bool:
    """Return whether a file name ends in .nii or .nii.gz."""
    return str(path).lower().endswith(NIFTI_SUFFIXES)


def case_name(path: str | os.PathLike) -> str:
    """Return a file's name without its folder and its NIfTI ending."""
    name = Path(path).name
    for suffix in NIFTI_SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def _read_header(path: Path) -> tuple[nib.Nifti1Header, InspectedHeader]:
    if not is_file(path):
        refuse_special(path)
        raise UnreadableError(f"{path}: no such file{backslash_hint(path.name)}")
    if not is_nifti(path):
        raise UnreadableError(f"{path}: not a NIfTI file name; .nii and .nii.gz are read")
    try:
        header, pixdim = read_header(path)
    except READ_ERRORS as error:
        raise UnreadableError(
            f"{path}: cannot be read as NIfTI ({one_line(error)}); copy or export it again"
        ) from error
    return header, inspect_header(header, pixdim)


def read_grid(path: str | os.PathLike) -> Grid:
    """Read a NIfTI volume's grid from its header alone.

    Raises:
        LiversegError: if the file is missing or unreadable, or its header has a defect, see `inspect_header`.
    """
    path = Path(path)
    return _read_header(path)[1].grid(path)


def read_volume(path: str | os.PathLike, memory: ReusableBuffer | None = None) -> Volume:
    """Read a NIfTI volume in its own data type and axis order, with the header's scaling applied.

    Not by ITK: for a truncated file, ITK 5.4 returns zeros in place of the missing part.

    Args:
        path: .nii or .nii.gz.
        memory: buffer to read into, if the volume is not needed after the next one is read; new memory by default.

    Raises:
        LiversegError: if the file is missing, truncated, unreadable or not 3-D, or holds NaN or infinite voxels.
    """
    path = Path(path)
    header, inspected = _read_header(path)
    grid = inspected.grid(path)
    try:
        array = read_voxels(path, memory).scaled().reshape(grid.shape, order="F")
    except READ_ERRORS as error:
        hint = (
            "copy or export it again"
            if isinstance(error, nib.spatialimages.HeaderDataError)
            else "is the file truncated?"
        )
        raise UnreadableError(f"{path}: voxels cannot be read ({one_line(error)}); {hint}") from error
    if message := describe_not_finite(array):
        raise NotCTError(f"{path}: {message}")
    return Volume(array, grid.affine, with_affine(header, grid.affine), path, inspected.warnings)


def write_box_like(path: str | os.PathLike, inside: np.ndarray, box: Box, reference: Volume) -> None:
    """Write a label map that is 0 outside a box, with one plane in memory at a time.

    It has the grid of `reference`: same shape, affine, sform and qform codes and units.

    Args:
        path: target, .nii or .nii.gz; its folder must exist.
        inside: integers in axial order, shape of the box; written in their data type.
        box: their place in `reference.axial`.
        reference: the volume with the grid.
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
