"""Which volumes a run is about, and the names their results go under."""

from __future__ import annotations

import os
from pathlib import Path

from liverseg.errors import LiversegError
from liverseg.files import is_file, list_folder
from liverseg.volumes import NIFTI_SUFFIXES, case_name, is_nifti

__all__ = ["find_cases"]


def find_cases(dataset_dir: str | os.PathLike) -> list[dict[str, str]]:
    """The NIfTI volumes of a folder, or one file, as the items of a MONAI data set.

    Args:
        dataset_dir: a folder, every .nii and .nii.gz directly in it is a case (hidden files are not); or such a file.

    Returns:
        `{"image": path, "case": name}` for each, sorted by name; absolute paths.

    Raises:
        LiversegError: if there is nothing there, or two files would be the same case.
    """
    root = Path(str(dataset_dir)).absolute()
    if is_file(root):
        if not is_nifti(root):
            raise LiversegError(f"{root}: not a NIfTI file name; .nii and .nii.gz are read")
        paths = [root]
    elif root.is_dir():
        # "._scan.nii.gz" and the like are a file system's notes, not volumes
        paths = [path for path in list_folder(root) if is_nifti(path) and not path.name.startswith(".")]
        if not paths:
            raise LiversegError(f"dataset_dir {root}: no {' or '.join(NIFTI_SUFFIXES)} file in this folder")
    else:
        raise LiversegError(f"dataset_dir {root}: no such folder or file; give a folder of .nii or .nii.gz files")
    by_case: dict[str, Path] = {}
    for path in paths:
        case = case_name(path)
        if case in ("", ".", ".."):
            raise LiversegError(f"{path}: its name leaves none for the case; rename the file")
        if case in by_case:
            raise LiversegError(f"{by_case[case]} and {path.name}: both would be case {case}; rename or move one")
        by_case[case] = path
    return [{"image": str(path), "case": case} for case, path in by_case.items()]
