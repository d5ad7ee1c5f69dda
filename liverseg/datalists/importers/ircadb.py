"""Importer for 3D-IRCADb-01: folders `3Dircadb1.N` of DICOM slices, with one folder of masks a structure.

Every patient becomes an image and a label NIfTI below `nifti/`, written once and again only when a source changes.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from liverseg.datalists.importers.conversion import file_states, is_current, write_nifti, write_record
from liverseg.datalists.model import DataItem
from liverseg.errors import LiversegError
from liverseg.imageio.dicom_series import read_series
from liverseg.imageio.volume import affine_distance_mm
from liverseg.labels import LESION, LIVER
from liverseg.utils.files import is_dir, is_file, list_folder, visible_files

__all__ = ["LICENCE", "SOURCE", "ircadb_items"]

SOURCE = (
    "3D-IRCADb-01: Soler et al., 3D image reconstruction for comparison of algorithm database, IRCAD Strasbourg 2010"
)
LICENCE = "CC BY-NC-ND 4.0 (3D-IRCADb)"

_PATIENT = re.compile(r"3Dircadb1\.(\d+)$", re.IGNORECASE)
_PATIENTS = 20
_IMAGES, _MASKS = "PATIENT_DICOM", "MASKS_DICOM"

_TUMOUR = re.compile(r"livertumou?rs?\d*$")
_CYST = re.compile(r"liver(cyst|kyst|kyste)s?\d*$")
_ADRENAL = re.compile(r"(left|right)?(surre|surrenal|adrenal)tumou?rs?\d*$")
_MAYBE_LESION = re.compile(r"tumou?r|[ck]yst|metasta|lesion|nodul|hyperplas")
"""Names of masks that may be of a lesion, but not surely of one in the liver. A bare `tumor`, as patient 7 has, is the
adrenal gland's by some accounts and the liver's by others; `metastasectomie` is what a resection left behind."""

_WORKERS = 2
"""Patients read at a time: each takes several hundred megabytes."""


@dataclass(frozen=True)
class _Patient:
    """One patient's folders, all but `image` of 0/255 masks; `left_out` is what may be lesions elsewhere."""

    number: int
    image: Path
    liver: Path
    tumours: tuple[Path, ...]
    cysts: tuple[Path, ...]
    left_out: tuple[Path, ...]

    @property
    def name(self) -> str:
        return f"ircadb-{self.number:02d}"

    @property
    def lesions(self) -> tuple[Path, ...]:
        return self.tumours + self.cysts


def ircadb_items(
    root: str | os.PathLike, *, typed: bool = False, progress: bool = True
) -> tuple[tuple[DataItem, ...], tuple[DataItem, ...]]:
    """Items of a 3D-IRCADb-01 folder in the order of their numbers, written as NIfTI where they are not yet.

    Labels are those of the pre-training table: 0 background, 1 liver, 2 lesion, cysts among them, also where a lesion
    reaches out of the liver's mask. A patient without a mask of a lesion has none.

    Args:
        root: the folder with the folders `3Dircadb1.N`, or with the `3Dircadb1` they are in.
        typed: keep only patients whose every lesion is a cyst. Their 2 is the joint table's cyst as well, and their
            items say so; of a tumour the type is not known.
        progress: show a bar on a terminal.

    Returns:
        Labelled volumes, folds not yet assigned, and an empty tuple: every patient has labels.

    Raises:
        LiversegError: if there are no such folders, archives are not unpacked, an image, its folder of masks or its
            liver is missing, a series cannot be read as one volume, a mask lies on another grid or has other values
            than 0 and one more, or `nifti/` cannot be written.
    """
    root = Path(root)
    log = logging.getLogger(__name__)
    patients = _patients(root)
    for patient in patients:
        if patient.left_out:
            names = ", ".join(path.name for path in patient.left_out)
            log.warning("%s: left out, not known to be lesions of the liver: %s", patient.name, names)
    if typed:
        unknown = [patient.name for patient in patients if not _only_cysts(patient)]
        patients = [patient for patient in patients if _only_cysts(patient)]
        if unknown:
            log.warning("left out, without a cyst or with lesions of unknown type: %s", ", ".join(unknown))
    target = root / "nifti"
    try:
        target.mkdir(exist_ok=True)
    except OSError as error:
        raise LiversegError(f"{target}: the folder cannot be made ({error.strerror or error})") from error
    with (
        ThreadPoolExecutor(_WORKERS) as pool,
        tqdm(total=len(patients), unit="patient", file=sys.stderr, disable=None if progress else True) as bar,
    ):
        for _ in pool.map(lambda patient: _convert(patient, target), patients):
            bar.update()
    items = (
        DataItem(
            image=f"nifti/{patient.name}.nii.gz",
            label=f"nifti/{patient.name}-label.nii.gz",
            patient=patient.name,
            lesion_type="cyst" if typed else None,
        )
        for patient in patients
    )
    return tuple(items), ()


def _only_cysts(patient: _Patient) -> bool:
    """Whether all lesions are known, and are cysts; a tumour of the adrenal gland is none of the liver's."""
    doubtful = [path for path in patient.left_out if not _ADRENAL.match(_plain(path))]
    return bool(patient.cysts) and not patient.tumours and not doubtful


def _plain(path: Path) -> str:
    return re.sub(r"[^a-z0-9]", "", path.name.lower())


def _patients(root: Path) -> list[_Patient]:
    if not is_dir(root):
        raise LiversegError(f"{root}: no such folder; 3D-IRCADb-01 is folders 3Dircadb1.1 to 3Dircadb1.{_PATIENTS}")
    found: dict[int, Path] = {}
    inner = root / "3Dircadb1"
    for path in list_folder(root) + (list_folder(inner) if is_dir(inner) else []):
        match = _PATIENT.match(path.name)
        if match and path.is_dir():
            number = int(match.group(1))
            if not 1 <= number <= _PATIENTS:
                raise LiversegError(f"{path}: patient {number}; 3D-IRCADb-01 has patients 1 to {_PATIENTS}")
            if number in found:
                raise LiversegError(f"{root}: patient {number} is there twice: {found[number]} and {path}")
            found[number] = path
    if not found:
        raise LiversegError(f"{root}: no folder 3Dircadb1.N in it; is this 3D-IRCADb-01, unpacked?")
    return [_patient(number, found[number]) for number in sorted(found)]


def _patient(number: int, folder: Path) -> _Patient:
    image, masks = _unpacked(folder, _IMAGES), _unpacked(folder, _MASKS)
    structures = [path for path in list_folder(masks) if path.is_dir() and not path.name.startswith(".")]
    livers = [path for path in structures if _plain(path) == "liver"]
    if len(livers) != 1:
        raise LiversegError(f"{masks}: {len(livers)} folders called liver; one is needed")
    tumours = tuple(path for path in structures if _TUMOUR.match(_plain(path)))
    cysts = tuple(path for path in structures if _CYST.match(_plain(path)))
    others = tuple(path for path in structures if path not in tumours + cysts and _MAYBE_LESION.search(_plain(path)))
    return _Patient(number, image, livers[0], tumours, cysts, others)


def _unpacked(folder: Path, name: str) -> Path:
    path = folder / name
    if not is_dir(path):
        if is_file(folder / f"{name}.zip"):
            raise LiversegError(f"{folder / name}.zip: still packed; unpack it where it is")
        raise LiversegError(f"{folder}: no {name} in it; unpack the patient again")
    # unpacked into a folder of the archive's name, it lies one deeper
    return path / name if is_dir(path / name) else path


def _convert(patient: _Patient, target: Path) -> None:
    """Write image and label, and last the record of what they were made from, unless that record still holds."""
    image_path, label_path = target / f"{patient.name}.nii.gz", target / f"{patient.name}-label.nii.gz"
    record_path = target / f"{patient.name}.json"
    sources = file_states(
        target.parent,
        [file for folder in (patient.image, patient.liver, *patient.lesions) for file in visible_files(folder)],
    )
    if is_current(record_path, target.parent, sources, (image_path, label_path)):
        return
    array, affine = read_series(patient.image)
    label = np.zeros(array.shape, np.uint8, order="F")
    label[_mask(patient.liver, array.shape, affine)] = LIVER
    if not label.any():
        raise LiversegError(f"{patient.liver}: the liver's mask is empty; unpack the patient again")
    for folder in patient.lesions:
        label[_mask(folder, array.shape, affine)] = LESION
    write_nifti(image_path, array, affine)
    write_nifti(label_path, label, affine)
    write_record(record_path, target.parent, sources, (image_path, label_path))


def _mask(folder: Path, shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """True where a structure is, shape as its image."""
    mask, own_affine = read_series(folder, modality=None)
    if mask.shape != shape:
        own, wanted = ("×".join(map(str, one)) for one in (mask.shape, shape))
        raise LiversegError(f"{folder}: a mask of {own} for an image of {wanted} voxels; unpack the patient again")
    apart = affine_distance_mm(affine, own_affine, shape)
    if apart:
        raise LiversegError(f"{folder}: the mask lies up to {apart:.3g} mm beside its image; their grids must be one")
    low, high = mask.min(), mask.max()
    if np.count_nonzero(mask == low) + np.count_nonzero(mask == high) < mask.size or low > 0:
        values = ", ".join(f"{value:g}" for value in np.unique(mask)[:5])
        raise LiversegError(f"{folder}: mask values {values}; 0 and one more, as 255, are needed")
    # where a CT's rescale tags were left on a mask, its background is below 0
    return mask > low
