"""Find the CTs to compute: in a folder, a folder tree, a manifest or a data list.

`find_cases` serves `liverseg predict` and the bundles, `find_batch` serves `liverseg batch`. Both walk folders with the
same function, so that a folder of volumes, or of one study's DICOM files, gives the same cases under the same names.
Both say what they pass over: `find_batch` for every file and folder of the tree, `find_cases` for those of the folder.
They differ where a run over a few files and an unattended run over thousands need different things:

- `find_cases` takes the volumes of the folder itself, not of those below it. It keeps their names as they are, since a
  user looks for them, and refuses two files of one name or DICOM files beside volumes, since a user can move them.
- `find_batch` takes the complete tree and divides its DICOM files by study. It makes names safe and distinct instead of
  refusing them, since one odd name must not keep the other cases from being computed.
"""

from __future__ import annotations

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from liverseg.cases.case import BatchCase, name_in_tree, safe_name, with_distinct_names
from liverseg.cases.manifest import read_case_list
from liverseg.errors import LiversegError, UnreadableError, UsageError
from liverseg.imageio.archives import nested_volumes
from liverseg.imageio.formats import describe_unread, is_dicom, is_volume_or_zip, source_name
from liverseg.imageio.limits import MAX_FILES
from liverseg.imageio.volume import is_nifti
from liverseg.results.case_folder import CASE_FILES, OTHER_FILES, RECORD
from liverseg.utils.files import is_dir, is_file, list_folder, refuse_special, visible_files

__all__ = ["Skipped", "cases_of_tree", "check_series", "find_batch", "find_cases", "shard_of"]

_CT_KINDS = ".nii and .nii.gz files, folders of DICOM files and .zip files of such folders are read"
_SOURCE_KINDS = "give a folder, a manifest (.csv, .json), a data list (.json), or one CT (.nii, .nii.gz, .zip)"

_SAMPLED_FILES = 16
"""Number of DICOM files of a folder, spread evenly over their names, whose study is read. If they have one study, it is
taken as that of all: to read every header would take as long as to read the CTs, and `choose_series` refuses a mixture.
"""

Study = tuple[str, str]
"""PatientID and StudyInstanceUID."""

_MAX_SHOWN = 3
_HIDDEN = "hidden: its name begins with a dot"
_EMPTY = "an empty folder"
_LINKED_FOLDER = "a link to a folder, which is not followed; give the folder itself"


@dataclass(frozen=True, order=True)
class Skipped:
    """A file or folder that is no case and belongs to none.

    Attributes:
        path: absolute; for a member of a zip, its path below that of the zip.
        reason: what it is and what to do, without the path.
    """

    path: Path
    reason: str


def find_cases(dataset_dir: str | os.PathLike, log_skipped: bool = True) -> list[dict[str, str]]:
    """Find the CTs of a folder, or one CT, as items of a MONAI data set.

    Args:
        dataset_dir: a folder, in which every .nii, .nii.gz and .zip that is not hidden is a case; a folder with none of
            these but DICOM files in it or below it, which is one case; or one .nii, .nii.gz or .zip.
        log_skipped: log a warning with the other files and folders of a folder of volumes, which are passed over.

    Returns:
        `{"image": path, "case": name}` for each, sorted by name; absolute paths.

    Raises:
        LiversegError: if nothing is there, DICOM files are beside volumes, two files give the same name, or a name is
            not UTF-8.
    """
    root = Path(str(dataset_dir)).absolute()
    if is_file(root):
        if not is_volume_or_zip(root):
            reason = describe_unread(root) or "a single DICOM file; give the folder of its series"
            raise UnreadableError(f"{root}: not the name of a CT ({reason}); {_CT_KINDS}")
        paths: Sequence[Path] = [root]
    elif root.is_dir():
        paths = _volumes_or_study(root, log_skipped)
    else:
        refuse_special(root)
        raise UnreadableError(f"{root}: no such folder or file; {_CT_KINDS}")
    by_name: dict[str, Path] = {}
    for path in paths:
        name = _plain_name(path)
        if name in by_name:
            raise UnreadableError(f"{by_name[name]} and {path.name}: both would be case {name}; rename or move one")
        by_name[name] = path
    return [BatchCase(name, path).to_item() for name, path in by_name.items()]


def find_batch(
    source: Path, output: Path, dataset_dir: Path | None = None, skipped: list[Skipped] | None = None
) -> list[BatchCase]:
    """Find the cases of a folder tree, a manifest or a data list, or one CT.

    Args:
        source: path of one of them.
        output: folder of results, which is not searched.
        dataset_dir: folder for the relative paths of a manifest or data list; by default the list's folder.
        skipped: gets what a tree holds besides its cases, as from `cases_of_tree`.

    Raises:
        LiversegError: if there is no case, the source cannot be used, or results would be inside a case's folder.
    """
    source, output = source.absolute(), output.absolute()
    if is_dir(source):
        skipped = [] if skipped is None else skipped
        cases = cases_of_tree(source, [output], skipped)
        if not cases:
            raise LiversegError(f"{source}: no CT in it or below{_describe_skipped(source, skipped)}; {_CT_KINDS}")
    elif not is_file(source):
        refuse_special(source)
        raise LiversegError(f"{source}: no such folder or file; {_SOURCE_KINDS}")
    elif is_volume_or_zip(source):
        cases = [BatchCase(safe_name(source_name(source) or source.name), source)]
    elif source.suffix.lower() in (".csv", ".json"):
        cases = read_case_list(source, dataset_dir)
        if not cases:
            raise LiversegError(f"{source}: no case in it")
    else:
        raise LiversegError(f"{source}: neither a list of CTs nor a CT; {_SOURCE_KINDS}")
    _check_output(cases, source, output)
    return cases


def check_series(series: str | None, images: Iterable[str | os.PathLike]) -> None:
    """Refuse the name of a DICOM series if all CTs are NIfTI files. Beside DICOM, NIfTI files are read without it.

    Args:
        series: name of the series; None passes.
        images: paths of the CTs.

    Raises:
        UsageError: if it applies to none of the CTs.
    """
    paths = list(images)
    if series is not None and paths and all(map(is_nifti, paths)):
        found = f"{paths[0]} is a NIfTI file" if len(paths) == 1 else f"all {len(paths)} CTs are NIfTI files"
        raise UsageError(f"series is {series!r}, but {found}; only DICOM has series, so leave it out")


def shard_of(cases: Sequence[BatchCase], part: int, parts: int) -> list[BatchCase]:
    """Return one part of the cases: every parts-th, so that each part has some of every folder.

    Args:
        cases: all cases.
        part: counted from 1.
        parts: number of parts.
    """
    return list(cases[part - 1 :: parts])


def cases_of_tree(root: Path, excluded: Sequence[Path] = (), skipped: list[Skipped] | None = None) -> list[BatchCase]:
    """Find every CT in a folder and below it, in the order of their paths.

    A NIfTI file or a zip is a case, named by its path. DICOM files are one case for each study. Its image is the folder
    of the files, or a folder above that holds no other study. If several studies are in one folder, each is a case with
    that folder. A study is read with the folders below its own. If it is in folders apart from each other, with other
    studies between them, each is a case, but a folder with copies of another one's files is not. A folder that cannot
    be read is a case too, which will fail. Hidden files and folders, links to folders and files of results are left
    out.

    Args:
        root: the folder.
        excluded: folders that are not searched.
        skipped: gets every file and folder that is no case and belongs to none, but for the excluded folders, in the
            order of their paths. A hidden folder, a link to a folder, a folder of results and a copy of a study are one
            entry each.

    Raises:
        LiversegError: if the root cannot be read.
    """
    list_folder(root)
    volumes: list[Path] = []
    unreadable: list[Path] = []
    passed_over: list[Skipped] = []
    studies: dict[Path, Counter[Study]] = {}
    for folder in _walk(root, excluded, on_unreadable=unreadable.append):
        volumes += folder.volumes
        passed_over += folder.skipped
        slices = []
        for path in folder.others:
            if (reason := describe_unread(path)) is None:
                slices.append(path)
            else:
                passed_over.append(Skipped(path, reason))
        if slices:
            studies[folder.path], without_study = _studies(folder.path, slices)
            passed_over += without_study
    cases = [BatchCase(_tree_name(root, path), path) for path in (*volumes, *unreadable)]
    found, copies = _without_copies(root, _study_folders(root, volumes, studies), studies)
    cases += [BatchCase(_tree_name(root, path), path, study=study) for path, study in found]
    passed_over += copies
    if skipped is not None:
        inner = [
            Skipped(path / member, reason)
            for path in volumes
            if not is_nifti(path)
            for member, reason in nested_volumes(path)
        ]
        skipped += sorted([*passed_over, *inner])
    return with_distinct_names(sorted(cases, key=lambda case: (str(case.image), case.study or "")))


@dataclass(frozen=True)
class _Folder:
    """The visible files of a folder, results aside, sorted by name.

    Attributes:
        path: of the folder.
        volumes: NIfTI files and zips.
        others: all others, DICOM files among them.
        folders: the folders in it that are searched.
        skipped: what is hidden, a link to a folder, or a result.
    """

    path: Path
    volumes: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def first_dicom(self) -> Path | None:
        """Return the first DICOM file, if there is one."""
        return next((path for path in self.others if is_dicom(path)), None)


def _walk(
    root: Path, excluded: Sequence[Path] = (), on_unreadable: Callable[[Path], None] | None = None
) -> Iterator[_Folder]:
    """Yield a folder and those below it, in the order of their names.

    Hidden files are left out, as "._scan.nii.gz", which holds a file system's notes.

    Args:
        root: the folder.
        excluded: folders that are left out, as hidden ones and links are.
        on_unreadable: called with each folder that cannot be read; by default they are left out.
    """
    waiting = [root]
    while waiting:  # a loop: a tree may be deeper than Python's stack
        path = waiting.pop()
        try:
            with os.scandir(path) as entries:  # states the kind of each entry without another look at the disk
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if on_unreadable is not None:
                on_unreadable(Path(error.filename or path))
            continue
        folder = _sort_entries(path, found, excluded)
        waiting += reversed(folder.folders)
        yield folder


def _sort_entries(path: Path, entries: Sequence[os.DirEntry[str]], excluded: Sequence[Path]) -> _Folder:
    """Return a folder with its entries by kind."""
    folder = _Folder(path)
    names = {entry.name for entry in entries}
    is_case = RECORD in names and len(names.intersection(CASE_FILES)) > 1
    results = {*CASE_FILES, *OTHER_FILES} if is_case else set()
    if results:
        folder.skipped.append(Skipped(path, "results of liverseg"))
    elif not entries:
        folder.skipped.append(Skipped(path, _EMPTY))
    for entry in entries:
        own = path / entry.name
        if own in excluded or entry.name in results:
            continue
        try:
            is_folder = entry.is_dir()
            is_link = is_folder and entry.is_symlink()
        except OSError:  # a loop of links, or a link that leads nowhere
            is_folder = is_link = False
        if entry.name.startswith("."):
            folder.skipped.append(Skipped(own, _HIDDEN))
        elif is_link:
            folder.skipped.append(Skipped(own, _LINKED_FOLDER))
        elif is_folder:
            folder.folders.append(own)
        elif is_volume_or_zip(own):
            folder.volumes.append(own)
        else:
            folder.others.append(own)
    return folder


def _volumes_or_study(root: Path, log_skipped: bool) -> list[Path]:
    """Return a folder's volumes, or the folder itself if there are DICOM files in it or below it instead."""
    list_folder(root)
    folders = _walk(root)
    top = next(folders)
    if not top.volumes:
        if top.first_dicom() or any(folder.first_dicom() for folder in folders):
            return [root]
        below = _describe_skipped(root, _skipped_in(top))
        raise UnreadableError(f"{root}: no CT in this folder{below}; {_CT_KINDS}")
    if dicom := top.first_dicom():
        raise UnreadableError(
            f"{root}: {dicom.name} is DICOM and {top.volumes[0].name} is not; put them into "
            "separate folders, or give the one file"
        )
    skipped = _skipped_in(top)
    if log_skipped and skipped:
        logging.getLogger(__name__).warning("%s%s", root, _describe_skipped(root, skipped))
    return top.volumes


def _skipped_in(folder: _Folder) -> list[Skipped]:
    """Return what `find_cases` passes over in a folder of volumes."""
    others = [Skipped(path, describe_unread(path) or "a DICOM file beside volumes") for path in folder.others]
    inner = [Skipped(path, "a folder beside volumes; give it itself, or run a batch") for path in folder.folders]
    if not folder.volumes:
        inner = [Skipped(path, "a folder, whose volumes a batch finds") for path in folder.folders]
    return sorted([*folder.skipped, *others, *inner])


def _describe_skipped(root: Path, skipped: Sequence[Skipped]) -> str:
    """Describe what is passed over in a folder, to follow its path in a message; empty if nothing is."""
    skipped = [entry for entry in skipped if (entry.path, entry.reason) != (root, _EMPTY)]
    if not skipped:
        return ""
    shown = [f"{_shown_below(root, entry.path)} ({entry.reason})" for entry in skipped[:_MAX_SHOWN]]
    more = f" and {len(skipped) - _MAX_SHOWN} more" if len(skipped) > _MAX_SHOWN else ""
    return f": {len(skipped)} skipped, {', '.join(shown)}{more}"


def _shown_below(root: Path, path: Path) -> str:
    below = path.relative_to(root).as_posix()
    return (root.name if below == "." else below).encode("utf-8", "backslashreplace").decode()


def _plain_name(path: Path) -> str:
    """Return a case's name: that of its file without the ending.

    Raises:
        UnreadableError: if it is not UTF-8 or cannot be a folder's name.
    """
    name = source_name(path)
    shown = path.name.encode("utf-8", "backslashreplace").decode()
    if shown != path.name:
        raise UnreadableError(f"{path.parent}: {shown}: a name that is not UTF-8; rename it")
    if name in ("", ".", ".."):
        raise UnreadableError(f"{path}: its name leaves none for the case; rename it")
    return name


def _tree_name(root: Path, path: Path) -> str:
    """Return a case's name for its path below the root, without its ending; for the root itself, the root's name."""
    if path == root:
        return name_in_tree(Path(root.name or "root"))
    below = path.relative_to(root)
    return name_in_tree(below if path.is_dir() else below.with_name(source_name(below) or below.name))


def _check_output(cases: Sequence[BatchCase], source: Path, output: Path) -> None:
    """Refuse an output folder with inputs where results would be: a run deletes unfinished results there."""
    if output == source:
        raise LiversegError(f"{output}: is the source itself; choose another output folder")
    inputs = {above for case in cases for above in (case.image, *case.image.parents)}
    for case in cases:
        if case.image in (output, *output.parents):
            raise LiversegError(f"{output}: is within {case.image}, which is a case; choose another output folder")
        if output / case.name in inputs:
            raise LiversegError(f"{output / case.name}: holds input; choose another output folder")


def _studies(folder: Path, slices: Sequence[Path]) -> tuple[Counter[Study], list[Skipped]]:
    """Return the number of DICOM files of each study in a folder, and files that belong to none of several.

    If none states its study, the folder counts as one.
    """
    step = max(1, len(slices) // _SAMPLED_FILES)
    found = {_read_study(file) for file in slices[::step]} | {_read_study(slices[-1])}
    if len(found - {None}) > 1:
        by_file = {file: _read_study(file) for file in slices}
        reason = "DICOM without a StudyInstanceUID, in a folder of several studies; put it into a folder of its own"
        return Counter(study for study in by_file.values() if study is not None), [
            Skipped(file, reason) for file, study in by_file.items() if study is None
        ]
    known = next((study for study in found if study is not None), _unnamed(folder))
    return Counter({known: len(slices)}), []


def _unnamed(folder: Path) -> Study:
    """Return what stands for the study of a folder whose files state none."""
    return "", str(folder)


def _read_study(file: Path) -> Study | None:
    patient, study = _read_texts(file, ("PatientID", "StudyInstanceUID"))
    return (patient, study) if study else None


def _read_texts(file: Path, keywords: Sequence[str]) -> list[str]:
    """Return the values of a file's tags; empty texts for those that it lacks, and for a damaged file."""
    # imported here: a tree without DICOM does not need SimpleITK and pydicom
    from liverseg.imageio.dicom_header import read_tags, skip_validation

    with skip_validation():
        try:
            tags = read_tags(file, keywords)
            return [str(tags.get(keyword) or "") for keyword in keywords]
        except Exception:  # pydicom raises many kinds for damaged files; reading the case reports the reason
            return [""] * len(keywords)


def _study_folders(
    root: Path, volumes: Sequence[Path], studies: Mapping[Path, Counter[Study]]
) -> dict[tuple[Path, Study], list[Path]]:
    """Return the folders with files of each study, by the folder from which the study is read.

    Folders of a study are joined up to the highest one that holds no other study. Volumes above them keep a study
    without a PatientID apart: some anonymisers give the studies of all patients one UID. A folder below one from which
    the same study is read belongs to it, whatever else is between them.
    """
    below = _studies_below(root, studies)
    with_volumes = {above for folder in {volume.parent for volume in volumes} for above in _upwards(folder, root)}
    together: dict[tuple[Path, Study], list[Path]] = defaultdict(list)
    for folder, found in studies.items():
        for study in found:
            highest = folder
            for above in _upwards(folder, root):
                if below[above] == {study} and (study[0] or above not in with_volumes):
                    highest = above
            together[highest, study].append(folder)
    joined: dict[tuple[Path, Study], list[Path]] = defaultdict(list)
    for (_, study), folders in together.items():
        joined[Path(os.path.commonpath(folders)), study] += folders
    read: dict[tuple[Path, Study], list[Path]] = defaultdict(list)
    for (path, study), folders in joined.items():
        highest = [above for above in _upwards(path, root) if (above, study) in joined][-1]
        read[highest, study] += folders
    return read


def _studies_below(root: Path, studies: Mapping[Path, Iterable[Study]]) -> dict[Path, set[Study]]:
    """Return the studies in each folder and below it."""
    below: dict[Path, set[Study]] = defaultdict(set)
    for folder, found in studies.items():
        for above in _upwards(folder, root):
            below[above].update(found)
    return below


def _without_copies(
    root: Path, folders: Mapping[tuple[Path, Study], Sequence[Path]], studies: Mapping[Path, Counter[Study]]
) -> tuple[list[tuple[Path, str | None]], list[Skipped]]:
    """Return the folder of each study with the UID by which it is chosen there, and folders with copies of a study.

    The UID is None if the folder and those below hold nothing else, or if the study has none. Files are copies if all
    their SOPInstanceUIDs are in another folder too. Only headers of a study in several folders are read for this.
    """
    below = _studies_below(root, studies)
    places: dict[Study, list[tuple[int, Path]]] = defaultdict(list)
    for (path, study), inner in folders.items():
        places[study].append((-sum(studies[folder][study] for folder in inner), path))
    found: dict[tuple[Path, str | None], None] = {}
    copies = []
    for study, listed in places.items():
        # more files are no copies of a study, but many studies to which an anonymiser gave one UID
        compared = len(listed) > 1 and -sum(count for count, _ in listed) <= MAX_FILES
        kept: dict[Path, set[str]] = {}
        for count, path in sorted(listed):  # those with most files first
            instances = _instances(folders[path, study], study) if compared else set()
            other = next((other for other, known in kept.items() if instances and instances <= known), None)
            if other is not None and len(instances) == -count:
                reason = f"study {study[1]} in it is a copy of that in {_shown_below(root, other)}, file by file"
                copies.append(Skipped(path, f"{reason}; a study is computed once"))
                continue
            kept[path] = instances
            alone = len(below[path]) == 1 or study == _unnamed(path)
            found[path, None if alone else study[1]] = None
    return list(found), copies


def _instances(folders: Iterable[Path], study: Study) -> set[str]:
    """Return the SOPInstanceUIDs of a study's files in folders."""
    keywords = ("PatientID", "StudyInstanceUID", "SOPInstanceUID")
    files = [path for folder in folders for path in visible_files(folder) if is_dicom(path)]
    texts = [_read_texts(path, keywords) for path in files]
    return {instance for *own, instance in texts if tuple(own) == study and instance}


def _upwards(folder: Path, root: Path) -> Iterator[Path]:
    """Yield a folder and those above it, up to the root."""
    yield folder
    while folder != root:
        folder = folder.parent
        yield folder
