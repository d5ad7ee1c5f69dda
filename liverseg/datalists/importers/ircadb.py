"""Importer for 3D-IRCADb-01: folders `3Dircadb1.N` of DICOM slices, with one folder of masks per structure.

Each patient is converted to an image and a label NIfTI in `nifti/`, again only if a source has changed.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm.contrib.concurrent import thread_map

from liverseg.datalists.model import DataItem
from liverseg.errors import LiversegError, OutputError
from liverseg.imageio.dicom_series import read_series
from liverseg.imageio.grid import affine_distance_mm
from liverseg.imageio.nifti import write_nifti
from liverseg.labels import LESION, LIVER
from liverseg.utils.files import is_dir, is_file, list_folder, visible_files
from liverseg.utils.fingerprints import file_states, is_current, write_record

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
"""Names of masks that may be lesions, but perhaps not in the liver. A bare `tumor`, as of patient 7, is in the adrenal
gland by some accounts and in the liver by others; `metastasectomie` is the cavity of a resection."""

_WORKERS = 2
"""Patients read at a time: each needs several hundred megabytes."""


@dataclass(frozen=True)
class _Patient:
    """The folders of one patient: the image, and binary masks (0 and 255) of structures.

    `left_out` has masks that may be lesions outside the liver.
    """

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
    """List the patients of a 3D-IRCADb-01 folder in the order of their numbers; convert them to NIfTI if needed.

    Labels are those of the pre-training table: 0 background, 1 liver, 2 lesion. Cysts are lesions, and so are parts of
    lesions outside the liver's mask. A patient without masks of lesions has no lesions.

    Args:
        root: the folder with the folders `3Dircadb1.N`, or with the folder `3Dircadb1` that contains them.
        typed: keep only patients whose lesions are all cysts, and set the type of their items: their label value 2 is
            a cyst in the joint label table as well. The types of tumours are not known.
        progress: show a progress bar on a terminal.

    Returns:
        Labelled volumes, without folds, and an empty tuple, since all patients have labels.

    Raises:
        LiversegError: if there are no such folders, archives are not unpacked, an image, its folder of masks or its
            liver is missing, a series cannot be read as one volume, a mask is on another grid or has other values than
            0 and one more, or `nifti/` cannot be written.
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
        raise OutputError(f"{target}: the folder cannot be created ({error.strerror or error})") from error
    thread_map(
        lambda patient: _convert(patient, target),
        patients,
        max_workers=_WORKERS,
        unit="patient",
        disable=None if progress else True,
    )
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
    """Whether all lesions are known to be cysts; a tumour of the adrenal gland is not in the liver."""
    unclear = [path for path in patient.left_out if not _ADRENAL.match(_structure_name(path))]
    return bool(patient.cysts) and not patient.tumours and not unclear


def _structure_name(path: Path) -> str:
    return re.sub(r"[^a-z0-9]", "", path.name.lower())


def _patients(root: Path) -> list[_Patient]:
    if not is_dir(root):
        raise LiversegError(f"{root}: no such folder; 3D-IRCADb-01 is folders 3Dircadb1.1 to 3Dircadb1.{_PATIENTS}")
    folders: dict[int, Path] = {}
    inner = root / "3Dircadb1"
    for path in list_folder(root) + (list_folder(inner) if is_dir(inner) else []):
        match = _PATIENT.match(path.name)
        if match and path.is_dir():
            number = int(match.group(1))
            if not 1 <= number <= _PATIENTS:
                raise LiversegError(f"{path}: patient {number}; 3D-IRCADb-01 has patients 1 to {_PATIENTS}")
            if number in folders:
                raise LiversegError(f"{root}: patient {number} occurs twice: {folders[number]} and {path}")
            folders[number] = path
    if not folders:
        raise LiversegError(f"{root}: no folder 3Dircadb1.N in it; is this 3D-IRCADb-01, unpacked?")
    return [_patient(number, folders[number]) for number in sorted(folders)]


def _patient(number: int, folder: Path) -> _Patient:
    image, masks = _subfolder(folder, _IMAGES), _subfolder(folder, _MASKS)
    structures = [path for path in list_folder(masks) if path.is_dir() and not path.name.startswith(".")]
    livers = [path for path in structures if _structure_name(path) == "liver"]
    if len(livers) != 1:
        raise LiversegError(f"{masks}: {len(livers)} folders called liver; one is needed")
    tumours = tuple(path for path in structures if _TUMOUR.match(_structure_name(path)))
    cysts = tuple(path for path in structures if _CYST.match(_structure_name(path)))
    others = [path for path in structures if path not in tumours + cysts]
    left_out = tuple(path for path in others if _MAYBE_LESION.search(_structure_name(path)))
    return _Patient(number, image, livers[0], tumours, cysts, left_out)


def _subfolder(folder: Path, name: str) -> Path:
    path = folder / name
    if not is_dir(path):
        if is_file(folder / f"{name}.zip"):
            raise LiversegError(f"{folder / name}.zip: not unpacked yet; unpack it where it is")
        raise LiversegError(f"{folder}: no {name} in it; unpack the patient again")
    # one level deeper if the archive was unpacked into a folder of its name
    return path / name if is_dir(path / name) else path


def _convert(patient: _Patient, target: Path) -> None:
    """Write image and label, and then the record of their sources, unless that record is current."""
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
    """Read a structure as a boolean mask with the shape of its image."""
    mask, mask_affine = read_series(folder, modality=None)
    if mask.shape != shape:
        voxels, image_voxels = ("×".join(map(str, sizes)) for sizes in (mask.shape, shape))
        raise LiversegError(
            f"{folder}: a mask of {voxels} for an image of {image_voxels} voxels; unpack the patient again"
        )
    distance = affine_distance_mm(affine, mask_affine, shape)
    if distance:
        raise LiversegError(f"{folder}: the mask is up to {distance:.3g} mm off its image; they must share one grid")
    low, high = mask.min(), mask.max()
    if np.count_nonzero(mask == low) + np.count_nonzero(mask == high) < mask.size or low > 0:
        values = ", ".join(f"{value:g}" for value in np.unique(mask)[:5])
        raise LiversegError(f"{folder}: mask values {values}; 0 and one more, as 255, are needed")
    # the background is below 0 if a mask has the rescale tags of the CT
    return mask > low
