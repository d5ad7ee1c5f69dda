"""Read a NIfTI file once, from first byte to last, with its header as stored before nibabel corrects it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from isal import igzip_lib

from liverseg.datalists.checks.findings import Defect
from liverseg.errors import LiversegError, one_line
from liverseg.imageio.grid import InspectedHeader, inspect_header
from liverseg.imageio.nifti import READ_ERRORS, ReusableBuffer, describe_not_finite, read_voxels
from liverseg.imageio.volume import is_nifti
from liverseg.utils.files import backslash_hint, is_file

__all__ = ["ReadFile", "read_file"]


@dataclass(frozen=True)
class ReadFile:
    """The content of a file.

    Attributes:
        grid: the grid its header states, with the header's defects.
        array: voxels with the header's scaling applied, shape (I, J, K), native byte order, first axis fastest;
            integers stay integers if the scaling is integral.
        header: as nibabel understands it.
    """

    grid: InspectedHeader
    array: np.ndarray
    header: nib.Nifti1Header


def read_file(path: Path, memory: ReusableBuffer | None = None) -> ReadFile:
    """Read a .nii or .nii.gz to its end.

    Args:
        path: the file.
        memory: buffer to read into, if the file is not needed after the next one is read; new memory by default.

    Raises:
        Defect: "missing", "unreadable", "truncated", "dimensions" or "not finite".
    """
    try:
        if not is_file(path):
            raise Defect("missing", f"no such file; copy it there, or take it off the list{backslash_hint(path)}")
    except LiversegError as error:
        raise Defect("unreadable", str(error).removeprefix(f"{path}: ")) from error
    if not is_nifti(path):
        raise Defect("unreadable", "not a NIfTI file name; .nii and .nii.gz are read")
    try:
        stored = read_voxels(path, memory)
        grid = inspect_header(stored.header, stored.pixdim)
        for defect in grid.defects:
            if defect.kind == "dimensions":  # its voxels have no place; other defects are findings
                raise Defect(defect.kind, defect.message)
        array = stored.scaled().reshape(grid.shape, order="F")
    except LiversegError as error:
        raise Defect("unreadable", str(error).removeprefix(f"{path}: ")) from error
    except EOFError as error:
        raise Defect("truncated", f"{error}; copy or export it again") from error
    except igzip_lib.IsalError as error:  # type: ignore[misc]  # its stub says instance where it is a class
        raise Defect("unreadable", f"its gzip stream is damaged ({error}); copy or export it again") from error
    except READ_ERRORS as error:
        reason = f"cannot be read as NIfTI ({one_line(error)}); copy or export it again"
        raise Defect("unreadable", reason) from error
    if message := describe_not_finite(array):
        raise Defect("not finite", message)
    return ReadFile(grid, array, stored.header)
