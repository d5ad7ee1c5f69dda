"""A NIfTI file read once, from its first byte to its last, with what its header says before anybody mends it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from isal import igzip_lib
from nibabel.orientations import io_orientation

from liverseg.datalists.checks.findings import Defect
from liverseg.errors import LiversegError
from liverseg.imageio.nifti import READ_ERRORS, ReusableBuffer, read_voxels
from liverseg.imageio.volume import is_nifti, slice_axis
from liverseg.utils.files import is_file

__all__ = ["Grid", "ReadFile", "read_whole"]


@dataclass(frozen=True)
class Grid:
    """Where a file's header puts its voxels.

    Attributes:
        shape: (I, J, K).
        affine: 4×4, voxel index to RAS+ mm; None if it is singular or not finite.
        spacing: the three pixdim in mm as they stand in the file, be they zero, negative or NaN.
        codes: qform and sform code; (0, 0) says that nobody set an orientation.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray | None
    spacing: tuple[float, ...]
    codes: tuple[int, int]

    @property
    def slice_axis(self) -> int:
        """The array axis that runs closest to feet-head; the last where the affine does not tell."""
        return 2 if self.affine is None else slice_axis(self.affine)


@dataclass(frozen=True)
class ReadFile:
    """One file's content.

    Attributes:
        grid: from its header.
        array: voxels with the header's scaling applied, shape (I, J, K), native byte order, first axis fastest; whole
            numbers stay integers where the scaling is whole.
        header: as nibabel understands it.
    """

    grid: Grid
    array: np.ndarray
    header: nib.Nifti1Header


def read_whole(path: Path, memory: ReusableBuffer | None = None) -> ReadFile:
    """Read a .nii or .nii.gz to its end.

    Args:
        path: the file.
        memory: to read into, if the file is needed no longer than until the next is read; new memory by default.

    Raises:
        Defect: "missing", "unreadable", "truncated", "dimensions" or "not finite".
    """
    try:
        if not is_file(path):
            raise Defect("missing", "no such file; copy it there, or take it off the list")
    except LiversegError as error:
        raise Defect("unreadable", str(error).removeprefix(f"{path}: ")) from error
    if not is_nifti(path):
        raise Defect("unreadable", "not a NIfTI file name; .nii and .nii.gz are read")
    try:
        stored = read_voxels(path, memory)
        grid = _grid(stored.header, stored.pixdim)
        array = stored.scaled().reshape(grid.shape, order="F")
    except LiversegError as error:
        raise Defect("unreadable", str(error).removeprefix(f"{path}: ")) from error
    except EOFError as error:
        raise Defect("truncated", f"{error}; copy or export it again") from error
    except igzip_lib.IsalError as error:  # type: ignore[misc]  # its stub says instance where it is a class
        raise Defect("unreadable", f"its gzip stream is damaged ({error}); copy or export it again") from error
    except READ_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise Defect("unreadable", f"cannot be read as NIfTI ({reason}); copy or export it again") from error
    if array.dtype.kind == "f":
        bad = array.size - int(np.count_nonzero(np.isfinite(array)))
        if bad:
            raise Defect("not finite", f"{bad} voxels are NaN or infinite; replace them, air is -1024")
    return ReadFile(grid, array, stored.header)


def _grid(header: nib.Nifti1Header, spacing: tuple[float, ...]) -> Grid:
    shape = header.get_data_shape()
    full = tuple(int(n) for n in shape)
    while len(full) > 3 and full[-1] == 1:
        full = full[:-1]
    if len(full) == 2:
        full = (*full, 1)
    shown = "×".join(map(str, shape))
    if len(full) != 3:
        raise Defect("dimensions", f"{len(shape)} dimensions, shape {shown}; 3 are needed: one file a phase")
    if min(full) < 1:
        raise Defect("dimensions", f"an empty volume, shape {shown}; export it again")
    affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    sound = np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) >= 1e-9
    sound = sound and np.isfinite(io_orientation(affine)).all()  # an axis next to no length has no direction
    return Grid(full, affine if sound else None, spacing, (int(header["qform_code"]), int(header["sform_code"])))
