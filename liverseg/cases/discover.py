"""Which CTs a run is about, and the names their results go under."""

from __future__ import annotations

import os
from pathlib import Path

from liverseg.errors import UnreadableError
from liverseg.imageio.formats import is_dicom, is_volume_or_zip, source_name
from liverseg.utils.files import is_file, list_folder, visible_files

__all__ = ["find_cases"]

_KINDS = ".nii and .nii.gz files, folders of DICOM files and .zip files of such folders are read"


def find_cases(dataset_dir: str | os.PathLike) -> list[dict[str, str]]:
    """The CTs of a folder, or one CT, as the items of a MONAI data set.

    Args:
        dataset_dir: a folder, every .nii, .nii.gz and .zip directly in it is a case (hidden files are not); a folder
            with none of these is one case, a study in DICOM files in it or below it; or one such file.

    Returns:
        `{"image": path, "case": name}` for each, sorted by name; absolute paths.

    Raises:
        LiversegError: if there is nothing there, DICOM files lie beside others, two files would be the same case, or a
            name is not UTF-8.
    """
    root = Path(str(dataset_dir)).absolute()
    if is_file(root):
        if not is_volume_or_zip(root):
            raise UnreadableError(f"{root}: not the name of a CT; {_KINDS}")
        paths = [root]
    elif root.is_dir():
        # "._scan.nii.gz" and the like are a file system's notes, not volumes
        paths = [path for path in list_folder(root) if is_volume_or_zip(path) and not path.name.startswith(".")]
        if not paths and not _holds_dicom(root):
            raise UnreadableError(f"dataset_dir {root}: no CT in this folder; {_KINDS}")
        if paths and (slices := next((one for one in visible_files(root) if one not in paths and is_dicom(one)), None)):
            raise UnreadableError(
                f"dataset_dir {root}: {slices.name} is DICOM and {paths[0].name} is not; put them into folders of "
                "their own, or give the one file"
            )
        paths = paths or [root]
    else:
        raise UnreadableError(f"dataset_dir {root}: no such folder or file; {_KINDS}")
    by_case: dict[str, Path] = {}
    for path in paths:
        case = source_name(path)
        shown = path.name.encode("utf-8", "backslashreplace").decode()
        if shown != path.name:
            raise UnreadableError(f"{path.parent}: {shown}: a name that is not UTF-8; rename it")
        if case in ("", ".", ".."):
            raise UnreadableError(f"{path}: its name leaves none for the case; rename it")
        if case in by_case:
            raise UnreadableError(f"{by_case[case]} and {path.name}: both would be case {case}; rename or move one")
        by_case[case] = path
    return [{"image": str(path), "case": case} for case, path in by_case.items()]


def _holds_dicom(root: Path) -> bool:
    """Whether a folder or one below it has a file that calls itself DICOM; the first one found ends the search."""
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if not name.startswith(".")]
        if any(is_dicom(Path(folder, name)) for name in names if not name.startswith(".")):
            return True
    return False
