"""Images of one slice (PNG, JPEG, DICOM, NIfTI) and their masks, in HU, with rows to the back and columns to the left.

PNG and JPEG have neither HU nor pixel size nor orientation. They are taken to be in radiological orientation: the front
is up, and the patient's right is on the left.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff
from PIL import ExifTags

from liverseg.datalists.importers.cohort_images import ImageGrid
from liverseg.datalists.importers.cohort_masks import is_png, open_image, read_mask, to_grey
from liverseg.errors import LiversegError
from liverseg.imageio.ct_check import check_ct
from liverseg.imageio.dicom_series import DicomSeries, read_series
from liverseg.imageio.formats import is_dicom
from liverseg.imageio.grid import axial_orientation
from liverseg.imageio.nifti import as_integers
from liverseg.imageio.volume import is_nifti, read_volume
from liverseg.utils.files import is_dir

__all__ = ["SliceImage", "is_jpeg", "is_picture", "read_slice_image", "read_slice_mask"]

_RADIOLOGICAL_AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From (column, row, slice) of a picture to RAS+: columns run to the left, rows to the back."""
_MAX_VALUE = {"L": 255, "LA": 255, "P": 255, "RGB": 255, "RGBA": 255, "I;16": 65535, "I;16B": 65535, "I": 65535}
"""The highest possible pixel value by Pillow's mode of a PNG or JPEG; a 16-bit PNG is I or I;16."""


@dataclass(frozen=True)
class SliceImage:
    """An image of one slice.

    Attributes:
        hu: int16, (row, column), rows towards the back and columns towards the patient's left.
        axial_affine: 4×4, from (column, row, slice) of `hu` to RAS+ mm; None for a picture, which has no geometry.
        grid: the grid in the file's axis order; for a picture, with pixels of 1 mm.
    """

    hu: np.ndarray
    axial_affine: np.ndarray | None
    grid: ImageGrid


def is_jpeg(name: str) -> bool:
    """Whether a file name ends in .jpg or .jpeg."""
    return name.lower().endswith((".jpg", ".jpeg"))


def is_picture(name: str) -> bool:
    """Whether a file name is that of a PNG or JPEG, which do not store HU."""
    return is_png(name) or is_jpeg(name)


def read_slice_image(path: Path, hu: tuple[float, float] | None) -> SliceImage:
    """Read one slice in HU.

    Args:
        path: PNG, JPEG, a DICOM file of CT, or a NIfTI file of one slice.
        hu: for a picture, the HU of its lowest and highest possible pixel value.

    Raises:
        LiversegError: if it cannot be read, is coloured, not axial, has more than one slice or cannot be a CT in HU.
    """
    if is_picture(path.name):
        if hu is None:
            raise LiversegError(f"{path}: a picture without a range of HU")
        pixels, highest = _read_grey(path)
        values = as_integers(hu[0] + pixels.astype(np.float64) * ((hu[1] - hu[0]) / highest), np.int16)
        rows, columns = values.shape
        return SliceImage(values, None, ImageGrid((columns, rows, 1), _RADIOLOGICAL_AFFINE))
    if is_nifti(path):
        volume = read_volume(path)
        array, grid = volume.array, ImageGrid(volume.array.shape, volume.affine)
        check_ct(volume)  # refuses a normalised image; `liverseg datalist check` repeats its warnings
    elif not is_dir(path) and is_dicom(path):
        array, affine = read_series(DicomSeries(path.parent, "", "", "CT", (path,)))
        grid = ImageGrid(array.shape, affine, dicom=True)
        if grid.slice_axis != 2:
            raise LiversegError(f"{path}: its slice is not axial; give axial slices")
    else:
        raise LiversegError(
            f"{path}: neither PNG, JPEG, NIfTI nor a DICOM file; images of one slice are of these kinds"
        )
    if grid.depth != 1:
        raise LiversegError(f"{path}: a volume of {grid.depth} slices; images of one slice are needed here")
    axial_to_file = inv_ornt_aff(axial_orientation(grid.affine), grid.shape)
    axial_affine = (grid.affine @ axial_to_file)[:, [2, 1, 0, 3]]
    return SliceImage(as_integers(_axial(array, grid), np.int16), axial_affine, grid)


def read_slice_mask(path: Path, image: SliceImage) -> np.ndarray:
    """Read the mask of an image: integers from 0, in shape and order of the image's `hu`.

    Args:
        path: PNG or NIfTI.
        image: the image. A NIfTI mask must be on the grid of a NIfTI or DICOM image, and have the size of a picture.

    Raises:
        LiversegError: if it is a JPEG, cannot be read, is not on the image's grid or has other values.
    """
    if is_jpeg(path.name):
        raise LiversegError(f"{path}: a JPEG changes the values of a mask; save masks as PNG")
    if not is_png(path.name) and not is_nifti(path):
        raise LiversegError(f"{path}: neither PNG nor NIfTI; masks of slices are of these kinds")
    if is_nifti(path) and image.axial_affine is None:
        volume = read_volume(path)
        mask = volume.axial
        shape, image_shape = ("×".join(map(str, sizes)) for sizes in (mask.shape, (1, *image.hu.shape)))
        if shape != image_shape:
            raise LiversegError(f"{path}: {shape} slices, rows and columns; its image has {image_shape}")
        mask = mask[0]
    else:
        mask = _axial(read_mask(path, image.grid, None).values, image.grid)
    if (mask < 0).any() or (mask != np.rint(mask)).any():
        values = ", ".join(f"{value:g}" for value in np.unique(mask)[:5])
        raise LiversegError(f"{path}: mask values {values}; whole numbers from 0 are needed")
    return mask


def _axial(array: np.ndarray, grid: ImageGrid) -> np.ndarray:
    """Turn a one-slice array in the file's axis order to (row, column)."""
    axial: np.ndarray = apply_orientation(array, axial_orientation(grid.affine))
    return axial[0]


def _read_grey(path: Path) -> tuple[np.ndarray, int]:
    """Read grey values of a PNG or JPEG, (row, column), and the highest value that its mode allows.

    Raises:
        LiversegError: if it cannot be read, has colours or only one bit, or its EXIF orientation is not the normal one.
    """
    with open_image(path, "JPEG" if is_jpeg(path.name) else "PNG") as image:
        highest = _MAX_VALUE.get(image.mode)
        if highest is None:
            raise LiversegError(f"{path}: pixels of mode {image.mode}; grey values of 8 or 16 bits are needed")
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        pixels = to_grey(np.asarray(image.convert("RGB") if image.mode == "P" else image))
    if orientation != 1:
        raise LiversegError(f"{path}: its EXIF says that it is shown turned ({orientation}); save it as it is shown")
    if pixels is None:
        raise LiversegError(f"{path}: a coloured picture; a CT's slice is grey: save it without colours or overlays")
    return pixels, highest
