"""The CTs in a folder tree: NIfTI files, zips, and the studies its DICOM files belong to."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from liverseg.cases.case import BatchCase, name_in_tree, named_apart
from liverseg.imageio.formats import is_dicom, is_volume_or_zip, source_name
from liverseg.results.case_folder import CASE_FILES, OTHER_FILES, RECORD
from liverseg.utils.files import list_folder

__all__ = ["cases_of_tree"]

_LOOKED_AT = 16
"""Of so many DICOM files of a folder, spread evenly over their names, the study is read. If they are of one, all are
taken to be: reading every header would take as long as reading the CTs, and `choose_series` refuses a mixture."""

Study = tuple[str, str]
"""PatientID and StudyInstanceUID."""


def cases_of_tree(root: Path, leave_out: Sequence[Path] = ()) -> list[BatchCase]:
    """Every CT in a folder and below it, in the order of their paths.

    A NIfTI file or a zip is a case; it is named by its path. DICOM files are a case for each study: the folder of its
    files, or the one above them if it holds nothing else, or, where files of several studies lie in one folder, that
    folder as often as there are studies. A folder that may not be looked into is a case too, which will fail. Hidden
    files and folders, links to folders, and folders of results are passed over.

    Args:
        root: the folder.
        leave_out: folders that are not looked into.

    Raises:
        LiversegError: if the root may not be looked into.
    """
    volumes: list[Path] = []
    closed: list[Path] = []
    studies: dict[Path, set[Study]] = {}
    list_folder(root)
    for folder, files in _folders(root, leave_out, closed):
        slices = []
        for file in files:
            if is_volume_or_zip(file):
                volumes.append(file)
            elif is_dicom(file):
                slices.append(file)
        if slices:
            studies[folder] = _studies(folder, slices)
    cases = [BatchCase(_name(root, path), path) for path in (*volumes, *closed)]
    for folder, study in _study_folders(root, volumes, studies):
        name = _name(root, folder)
        cases.append(BatchCase(name, folder) if study is None else BatchCase(name, folder, study=study[1]))
    return named_apart(sorted(cases, key=lambda case: (str(case.image), case.study or "")))


def _folders(root: Path, leave_out: Sequence[Path], closed: list[Path]) -> Iterator[tuple[Path, list[Path]]]:
    """Each folder with its visible files; those that may not be looked into are added to `closed`."""
    for name, below, names in os.walk(root, onerror=lambda error: closed.append(Path(error.filename))):
        folder = Path(name)
        below[:] = sorted(one for one in below if not one.startswith(".") and folder / one not in leave_out)
        ours = {*CASE_FILES, *OTHER_FILES} if RECORD in names and CASE_FILES[0] in names else ()
        yield folder, [folder / one for one in sorted(names) if not one.startswith(".") and one not in ours]


def _name(root: Path, path: Path) -> str:
    """A case's name by its path below the tree's root, less its ending; that of the root for the root itself."""
    if path == root:
        return name_in_tree(Path(root.name or "root"))
    below = path.relative_to(root)
    return name_in_tree(below if path.is_dir() else below.with_name(source_name(below) or below.name))


def _studies(folder: Path, slices: Sequence[Path]) -> set[Study]:
    """The studies that DICOM files of a folder belong to; where they do not tell, the folder counts as one."""
    step = max(1, len(slices) // _LOOKED_AT)
    found = {_study(file) for file in slices[::step]} | {_study(slices[-1])}
    if len(found - {None}) > 1:
        found = {_study(file) for file in slices}
    return {study for study in found if study is not None} or {("", str(folder))}


def _study(file: Path) -> Study | None:
    import pydicom  # here, not above: a tree without DICOM does not need it

    from liverseg.imageio.dicom_header import skip_validation

    tags = ["PatientID", "StudyInstanceUID"]
    with skip_validation():
        try:
            found = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=tags)
            patient, study = (str(found.get(tag) or "") for tag in tags)
        except Exception:  # pydicom raises what it will on damaged files; the case's own reading tells why
            return None
    return (patient, study) if study else None


def _study_folders(
    root: Path, volumes: Sequence[Path], studies: dict[Path, set[Study]]
) -> Iterator[tuple[Path, Study | None]]:
    """Each study's folder; with the study where the folder alone does not say it."""
    mixed = {volume.parent for volume in volumes}
    below: dict[Path, set[Study]] = defaultdict(set)
    for folder, found in studies.items():
        for above in _upwards(folder, root):
            below[above] |= found
    not_alone = {above for folder in mixed for above in _upwards(folder, root)}
    together: dict[Path, list[Path]] = defaultdict(list)
    for folder, found in studies.items():
        if len(found) > 1:
            yield from ((folder, study) for study in sorted(found))
            continue
        alone = folder
        for above in _upwards(folder, root):
            if len(below[above]) == 1 and above not in not_alone:
                alone = above
        together[alone].append(folder)
    for folders in together.values():
        yield Path(os.path.commonpath(folders)), None


def _upwards(folder: Path, root: Path) -> Iterator[Path]:
    """A folder and those above it, up to the root."""
    yield folder
    while folder != root:
        folder = folder.parent
        yield folder
