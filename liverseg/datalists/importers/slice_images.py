"""Images of one slice, PNG, JPEG, DICOM or NIfTI, and their masks: in HU, rows to the back, columns to the left.

PNG and JPEG tell neither HU nor pixel size nor sides. They are taken as radiological display shows a slice: the front
is up, and the patient's right is on the left.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff
from PIL import ExifTags

from liverseg.datalists.importers.cohort_images import Grid, is_dicom
from liverseg.datalists.importers.cohort_masks import is_png, open_image, read_mask, to_grey
from liverseg.errors import LiversegError
from liverseg.imageio.ct_check import check_ct
from liverseg.imageio.dicom_series import DicomSeries, read_series
from liverseg.imageio.nifti import as_integers
from liverseg.imageio.volume import axial_orientation, is_nifti, read_volume
from liverseg.utils.files import is_dir

__all__ = ["SliceImage", "is_jpeg", "is_picture", "read_slice_image", "read_slice_mask"]

_AS_DISPLAYED = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Columns, rows, slice of a picture to RAS+: columns run to the left, rows to the back."""
_HIGHEST = {"L": 255, "LA": 255, "P": 255, "RGB": 255, "RGBA": 255, "I;16": 65535, "I;16B": 65535, "I": 65535}
"""The highest value a pixel can have, by Pillow's modes of PNG and JPEG; a PNG of 16 bits is I or I;16."""


@dataclass(frozen=True)
class SliceImage:
    """One image.

    Attributes:
        hu: int16, (row, column), rows towards the back and columns towards the patient's left.
        axial_affine: 4×4, from (column, row, slice) of it to RAS+ mm; None for a picture, which does not say.
        grid: the voxels in the file's own order; of a picture with pixels of 1 mm.
    """

    hu: np.ndarray
    axial_affine: np.ndarray | None
    grid: Grid


def is_jpeg(name: str) -> bool:
    """True for a file name that ends in .jpg or .jpeg."""
    return name.lower().endswith((".jpg", ".jpeg"))


def is_picture(name: str) -> bool:
    """True for a file name of a PNG or JPEG, which do not tell HU."""
    return is_png(name) or is_jpeg(name)


def read_slice_image(path: Path, hu: tuple[float, float] | None) -> SliceImage:
    """Read one slice in HU.

    Args:
        path: PNG, JPEG, a DICOM file of CT, or a NIfTI file of one slice.
        hu: of a picture the HU of its lowest and of its highest storable value.

    Raises:
        LiversegError: if it cannot be read, is coloured, not axial, has more than one slice or cannot be a CT in HU.
    """
    if is_picture(path.name):
        if hu is None:
            raise LiversegError(f"{path}: a picture without a range of HU")
        pixels, highest = _read_grey(path)
        values = as_integers(hu[0] + pixels.astype(np.float64) * ((hu[1] - hu[0]) / highest), np.int16)
        rows, columns = values.shape
        return SliceImage(values, None, Grid((columns, rows, 1), _AS_DISPLAYED, dicom=False))
    if is_nifti(path):
        volume = read_volume(path)
        array, grid = volume.array, Grid(volume.array.shape, volume.affine, dicom=False)
        check_ct(volume)  # a normalised image is refused; what is only odd, `datalist check` tells
    elif not is_dir(path) and is_dicom(path):
        array, affine = read_series(DicomSeries(path.parent, "", "", "CT", (path,)))
        grid = Grid(array.shape, affine, dicom=True)
        if grid.slice_axis != 2:
            raise LiversegError(f"{path}: its slice is not axial; give axial slices")
    else:
        raise LiversegError(
            f"{path}: neither PNG, JPEG, NIfTI nor a DICOM file; images of one slice are of these kinds"
        )
    if grid.depth != 1:
        raise LiversegError(f"{path}: a volume of {grid.depth} slices; images of one slice are needed here")
    to_own = inv_ornt_aff(axial_orientation(grid.affine), grid.shape)
    return SliceImage(as_integers(_axial(array, grid), np.int16), (grid.affine @ to_own)[:, [2, 1, 0, 3]], grid)


def read_slice_mask(path: Path, image: SliceImage) -> np.ndarray:
    """The mask of an image, whole numbers from 0, shape and order as its `hu`.

    Args:
        path: PNG or NIfTI.
        image: what it is of. A NIfTI mask must lie on the grid of a NIfTI or DICOM image; of a picture it has the size.

    Raises:
        LiversegError: if it is a JPEG, cannot be read, does not lie on the image's grid or holds other numbers.
    """
    if is_jpeg(path.name):
        raise LiversegError(f"{path}: a JPEG changes the values of a mask; save masks as PNG")
    if not is_png(path.name) and not is_nifti(path):
        raise LiversegError(f"{path}: neither PNG nor NIfTI; masks of slices are of these kinds")
    if is_nifti(path) and image.axial_affine is None:
        volume = read_volume(path)
        mask = volume.axial
        own, wanted = ("×".join(map(str, one)) for one in (mask.shape, (1, *image.hu.shape)))
        if own != wanted:
            raise LiversegError(f"{path}: {own} slices, rows and columns; its image has {wanted}")
        mask = mask[0]
    else:
        mask = _axial(read_mask(path, image.grid, None).values, image.grid)
    if (mask < 0).any() or (mask != np.rint(mask)).any():
        shown = ", ".join(f"{value:g}" for value in np.unique(mask)[:5])
        raise LiversegError(f"{path}: mask values {shown}; whole numbers from 0 are needed")
    return mask


def _axial(array: np.ndarray, grid: Grid) -> np.ndarray:
    """The one slice of an array in the file's own order, as (row, column)."""
    slice_: np.ndarray = apply_orientation(array, axial_orientation(grid.affine))[0]
    return slice_


def _read_grey(path: Path) -> tuple[np.ndarray, int]:
    """Grey values of a PNG or JPEG, (row, column), and the highest that its kind can hold.

    Raises:
        LiversegError: if it cannot be read, has real colours or one bit only, or is to be turned before it is shown.
    """
    with open_image(path, "JPEG" if is_jpeg(path.name) else "PNG") as image:
        highest = _HIGHEST.get(image.mode)
        if highest is None:
            raise LiversegError(f"{path}: pixels of mode {image.mode}; grey values of 8 or 16 bits are needed")
        turned = image.getexif().get(ExifTags.Base.Orientation, 1)
        pixels = to_grey(np.asarray(image.convert("RGB") if image.mode == "P" else image))
    if turned != 1:
        raise LiversegError(f"{path}: its EXIF says that it is shown turned ({turned}); save it as it is shown")
    if pixels is None:
        raise LiversegError(f"{path}: a coloured picture; a CT's slice is grey: save it without colours or overlays")
    return pixels, highest
