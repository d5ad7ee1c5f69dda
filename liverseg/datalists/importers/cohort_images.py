"""Images of a cohort: NIfTI is used as it is, DICOM is converted once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.orientations import io_orientation

from liverseg.errors import LiversegError
from liverseg.imageio.dicom_series import DicomSeries, read_series
from liverseg.imageio.formats import is_dicom
from liverseg.imageio.grid import Grid, slice_axis
from liverseg.imageio.nifti import write_nifti
from liverseg.imageio.volume import is_nifti, read_grid
from liverseg.utils.files import is_dir, is_file, visible_files
from liverseg.utils.fingerprints import file_states, is_current, write_record

__all__ = ["ImageGrid", "convert_image", "mirrored_path", "read_image_grid"]


@dataclass(frozen=True, eq=False)
class ImageGrid(Grid):
    """The grid of an image, and how a mask that is stored as a picture of one slice is placed on it.

    Attributes:
        dicom: whether the image was DICOM, in which case the picture has its rows and columns.
    """

    dicom: bool = False

    def from_rows(self, pixels: np.ndarray) -> np.ndarray:
        """Turn a picture of a slice to the image's own axis order, with a slice axis of length one.

        In a picture of a NIfTI image, rows run from front to back and columns from the patient's right to left, as
        axial slices are usually shown.

        Args:
            pixels: (row, column), shape `picture_shape`.
        """
        if self.dicom:
            return pixels.T[:, :, None]
        towards = io_orientation(self.affine)
        across, down = (int(np.argmax(towards[:, 0] == axis)) for axis in (0, 1))
        plane = pixels.T if across < down else pixels
        # RAS+ runs to the right and to the front, the picture's axes to the left and to the back
        if towards[across, 1] > 0:
            plane = np.flip(plane, 0 if across < down else 1)
        if towards[down, 1] > 0:
            plane = np.flip(plane, 1 if across < down else 0)
        return np.expand_dims(plane, self.slice_axis)

    def picture_shape(self) -> tuple[int, int]:
        """Return the rows and columns of a picture of one slice."""
        if self.dicom:
            return self.shape[1], self.shape[0]
        towards = io_orientation(self.affine)[:, 0]
        return self.shape[int(np.argmax(towards == 1))], self.shape[int(np.argmax(towards == 0))]


def mirrored_path(name: str) -> str:
    """Return a path relative to the cohort's folder as a path below another folder.

    `../a`, `__/a` and `/__/a` give the same path.
    """
    parts = Path(os.path.normpath(name)).parts
    return "/".join("__" if part == ".." else part for part in parts if part not in ("/", "."))


def convert_image(root: Path, name: str) -> str:
    """Convert a DICOM file or series to NIfTI, unless that was done before; leave a NIfTI file as it is.

    Args:
        root: the cohort's folder.
        name: NIfTI file, DICOM file or folder of one DICOM series of CT, relative to it.

    Returns:
        Path of the NIfTI file, relative to `root`.

    Raises:
        LiversegError: if it is of another kind, `read_series` refuses it, its slices are not axial, or the result
            cannot be written.
    """
    source = root / name
    if is_dir(source):
        files = visible_files(source)
    elif is_nifti(name):
        return name
    elif is_dicom(source):
        files = (source,)
    elif not is_file(source):
        raise LiversegError(f"{source}: no such file")
    else:
        raise LiversegError(f"{source}: neither NIfTI nor DICOM; .nii, .nii.gz, a DICOM file or folder are read")
    target = f"nifti/images/{mirrored_path(name)}.nii.gz"
    record = root / f"nifti/images/{mirrored_path(name)}.json"
    sources = file_states(root, files)
    if not is_current(record, root, sources, [root / target]):
        single_file = DicomSeries(source.parent, "", "", "CT", (source,))
        array, affine = read_series(source if is_dir(source) else single_file)
        if slice_axis(affine) != 2:
            raise LiversegError(f"{source}: its slices are not axial; give the axial series")
        write_nifti(root / target, array, affine)
        write_record(record, root, sources, [root / target])
    return target


def read_image_grid(path: Path, dicom: bool) -> ImageGrid:
    """Read the grid of a NIfTI image, 2-D or 3-D.

    Args:
        path: the file.
        dicom: whether it was converted from DICOM.

    Raises:
        LiversegError: if the file is missing, unreadable or has more dimensions.
    """
    grid = read_grid(path)
    return ImageGrid(grid.shape, grid.affine, dicom)
