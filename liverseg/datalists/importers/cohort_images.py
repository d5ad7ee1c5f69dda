"""Images of a cohort: NIfTI as it is, DICOM converted once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.orientations import io_orientation

from liverseg.datalists.importers.conversion import file_states, is_current, write_nifti, write_record
from liverseg.errors import LiversegError
from liverseg.imageio.dicom_series import DicomSeries, read_series
from liverseg.imageio.volume import is_nifti, read_volume_header, slice_axis
from liverseg.utils.files import is_dir, visible_files

__all__ = ["Grid", "convert_image", "is_dicom", "mirrored", "read_grid"]


@dataclass(frozen=True)
class Grid:
    """An image's voxels without their values.

    Attributes:
        shape: (I, J, K) in the file's own axis order; K is 1 for a 2-D image.
        affine: 4×4, voxel index to RAS+ mm.
        dicom: whether the image was DICOM, whose rows and columns a mask of one slice then has.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    dicom: bool

    @property
    def slice_axis(self) -> int:
        """The array axis slices are counted along, the one closest to feet-head."""
        return slice_axis(self.affine)

    @property
    def depth(self) -> int:
        """How many slices there are."""
        return self.shape[self.slice_axis]

    def plane(self, number: int) -> tuple[slice, ...]:
        """Index of slice `number`, kept as an axis of length one."""
        index = [slice(None)] * 3
        index[self.slice_axis] = slice(number, number + 1)
        return tuple(index)

    def from_rows(self, pixels: np.ndarray) -> np.ndarray:
        """A picture, (row, column) as a viewer shows the slice, in the file's own axes with a slice axis of length one.

        For DICOM rows and columns are the file's. For NIfTI rows go from front to back and columns from the patient's
        right to left, as an axial slice is usually shown.
        """
        if self.dicom:
            return pixels.T[:, :, None]
        towards = io_orientation(self.affine)
        across, down = (int(np.argmax(towards[:, 0] == axis)) for axis in (0, 1))
        plane = pixels.T if across < down else pixels
        # RAS+ runs to the patient's right-to-left backwards and to the front: a picture's axes are L and P
        if towards[across, 1] > 0:
            plane = np.flip(plane, 0 if across < down else 1)
        if towards[down, 1] > 0:
            plane = np.flip(plane, 1 if across < down else 0)
        return np.expand_dims(plane, self.slice_axis)

    def picture_shape(self) -> tuple[int, int]:
        """Rows and columns of a slice as a viewer shows it."""
        if self.dicom:
            return self.shape[1], self.shape[0]
        towards = io_orientation(self.affine)[:, 0]
        return self.shape[int(np.argmax(towards == 1))], self.shape[int(np.argmax(towards == 0))]


def mirrored(name: str) -> str:
    """A path relative to the cohort's folder as a path below another folder; `../a`, `__/a` and `/__/a` give one."""
    parts = Path(os.path.normpath(name)).parts
    return "/".join("__" if part == ".." else part for part in parts if part not in ("/", "."))


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do.

    Raises:
        LiversegError: if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError as error:
        raise LiversegError(f"{path}: cannot be read ({error.strerror or error})") from error


def convert_image(root: Path, name: str) -> str:
    """The image as NIfTI, a path relative to `root`: its own, or where a DICOM file or series was converted to.

    Args:
        root: the cohort's folder.
        name: NIfTI file, DICOM file or folder of one DICOM series of CT, relative to it.

    Raises:
        LiversegError: if it is none of them, `read_series` refuses it, its slices are not axial, or the result
            cannot be written.
    """
    source = root / name
    if is_dir(source):
        files = visible_files(source)
    elif is_nifti(name):
        return name
    elif is_dicom(source):
        files = (source,)
    else:
        raise LiversegError(f"{source}: neither NIfTI nor DICOM; .nii, .nii.gz, a DICOM file or folder are read")
    target = f"nifti/images/{mirrored(name)}.nii.gz"
    record = root / f"nifti/images/{mirrored(name)}.json"
    sources = file_states(root, files)
    if not is_current(record, root, sources, [root / target]):
        one_file = DicomSeries(source.parent, "", "", "CT", (source,))
        array, affine = read_series(source if is_dir(source) else one_file)
        if slice_axis(affine) != 2:
            raise LiversegError(f"{source}: its slices are not axial; give the axial series")
        write_nifti(root / target, array, affine)
        write_record(record, root, sources, [root / target])
    return target


def read_grid(path: Path, dicom: bool) -> Grid:
    """The grid of a NIfTI image, 2-D or 3-D; `dicom` tells that it was converted from DICOM.

    Raises:
        LiversegError: if the file is missing, unreadable or has more dimensions.
    """
    shape, affine = read_volume_header(path)
    return Grid(shape, affine, dicom)
