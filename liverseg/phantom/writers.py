"""Writers of two trees of phantoms: LiTS-like volumes, and a cohort of typed, annotated slices.

Each case has its own seed, so its bytes do not depend on the number of workers or the order. Files are written
atomically; a case's record is written last and marks the case as complete.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

import nibabel as nib
import numpy as np
from isal import igzip
from tqdm import tqdm

from liverseg.bundle.validation import check_values
from liverseg.errors import LiversegError, OutputError, UsageError
from liverseg.labels import LESION
from liverseg.phantom import difficulty as d
from liverseg.phantom.cases import Case, cohort_cases, lits_cases
from liverseg.phantom.patient import Phantom, make_phantom
from liverseg.phantom.tables import write_cohort_tables
from liverseg.utils.files import atomic_write

__all__ = ["SETTINGS", "check_cohort_arguments", "check_lits_arguments", "write_cohort", "write_lits_tree"]

SETTINGS = "phantom.json"
"""File in a tree's root with its settings; a tree is only continued with the same settings, `slices` excepted."""
_SLICES = "slices"
"""Setting with a cohort's number of annotated slices. Volumes do not depend on it, and earlier versions did not record
it."""

_MIN_MATRIX = 64


def write_lits_tree(
    root: str | os.PathLike,
    *,
    volumes: int,
    matrix: int = 512,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Write `volume-N.nii.gz` (int16 HU) and `segmentation-N.nii.gz` (uint8: 0 background, 1 liver, 2 lesion).

    Volumes reach from the lung base to the lower kidneys. Existing files are kept.

    Args:
        root: folder, created if needed; it must be empty or have a tree of the same settings.
        volumes: number of volumes, numbered from 0.
        matrix: in-plane pixels along one edge, at least 64.
        seed: seed of all random numbers.
        workers: number of processes; the number of processors by default.
        progress: show a progress bar on stderr.

    Returns:
        The folder.

    Raises:
        UsageError: if an argument is out of range.
        LiversegError: if the folder is not writable or has other files.
    """
    check_lits_arguments(volumes, matrix, seed, workers)
    folder = _open_tree(Path(root), {"kind": "lits", "volumes": volumes, "matrix": matrix, "seed": seed})
    _write_cases(folder, lits_cases(volumes, matrix, seed), workers, progress)
    return folder


def write_cohort(
    root: str | os.PathLike,
    *,
    patients: int = 140,
    slices: int = 332,
    matrix: int = 512,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Write a typed cohort: `images/`, `labels/` (uint8, the joint label table), `slices.csv` and `lesions.csv`.

    Volumes cover the liver with 1 to 2 cm of margin, and labels are the complete 3-D ground truth. `slices.csv` lists
    the annotated slices: `slices` rows, at least one per patient, most of them near the largest section of a lesion.

    Args:
        root: folder, created if needed; it must be empty or have a cohort of the same settings.
        patients: number of patients.
        slices: number of annotated slices of all patients together.
        matrix: in-plane pixels along one edge, at least 64.
        seed: seed of all random numbers.
        workers: number of processes; the number of processors by default.
        progress: show a progress bar on stderr.

    Returns:
        The folder.

    Raises:
        UsageError: if an argument is out of range.
        LiversegError: if fewer than `slices` slices show a lesion, or the folder is not writable or has other files.
    """
    check_cohort_arguments(patients, slices, matrix, seed, workers)
    settings: dict[str, int | str] = {"kind": "cohort", "patients": patients, "matrix": matrix, "seed": seed}
    folder = _open_tree(Path(root), settings)
    cases = cohort_cases(patients, matrix, seed)
    _write_cases(folder, cases, workers, progress)
    # written every time: this is quick, and another number of slices needs no new volumes
    write_cohort_tables(folder, cases, slices, seed)
    _write_settings(folder, {**settings, _SLICES: slices})  # after the tables, so that it is the number in them
    return folder


def check_lits_arguments(volumes: int, matrix: int, seed: int, workers: int | None) -> None:
    """Raise a `UsageError` if an argument of `write_lits_tree` is out of range."""
    _check(volumes=volumes, matrix=matrix, seed=seed, workers=workers)


def check_cohort_arguments(patients: int, slices: int, matrix: int, seed: int, workers: int | None) -> None:
    """Raise a `UsageError` if an argument of `write_cohort` is out of range."""
    _check(patients=patients, slices=slices, matrix=matrix, seed=seed, workers=workers)
    if slices < patients:
        raise UsageError(f"slices {slices}: fewer than the {patients} patients; each needs at least one")


def _check(*, matrix: int, seed: int, workers: int | None, **counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise UsageError(f"{name} {count}: at least 1 is needed")
    if not _MIN_MATRIX <= matrix <= 1024:
        raise UsageError(f"matrix {matrix}: from {_MIN_MATRIX} to 1024 pixels are allowed")
    if seed < 0:
        raise UsageError(f"seed {seed}: a whole number from 0 is needed")
    check_values(workers=workers)


def _open_tree(root: Path, settings: dict[str, int | str]) -> Path:
    """Create the folder, or check that its content was made with the same settings."""
    path = root / SETTINGS
    requested = {**settings, "recipe": d.RECIPE}
    if path.is_file():
        try:
            earlier = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise LiversegError(f"{path}: not readable ({error}); delete the folder or choose another") from error
        earlier = earlier if isinstance(earlier, dict) else {}
        for key in {**requested, **earlier}:
            if key != _SLICES and earlier.get(key) != requested.get(key):
                raise LiversegError(
                    f"{root}: holds phantoms made with {key} {earlier.get(key)}, now {key} {requested.get(key)} is "
                    "requested; choose another folder or delete this one"
                )
        return root
    try:
        root.mkdir(parents=True, exist_ok=True)
        if any(root.iterdir()):
            raise LiversegError(
                f"{root}: not empty and no {SETTINGS} in it; choose another folder, nothing was written"
            )
        _write_settings(root, settings)
    except OSError as error:
        raise OutputError(f"{root}: phantoms cannot be written there ({error.strerror})") from error
    return root


def _write_settings(root: Path, settings: dict[str, int | str]) -> None:
    _write(root / SETTINGS, (json.dumps({**settings, "recipe": d.RECIPE}, indent=1) + "\n").encode())


def _write_cases(root: Path, cases: Sequence[Case], workers: int | None, progress: bool) -> None:
    """Write the cases that are missing."""
    missing = [case for case in cases if not case.is_complete(root)]
    count = min(workers or os.cpu_count() or 1, len(missing))
    bar = tqdm(
        total=len(cases),
        initial=len(cases) - len(missing),
        desc=f"phantoms {root.name}",
        unit="case",
        disable=not progress,
    )
    try:
        with bar:
            if count <= 1:
                for case in missing:
                    write_case(root, case)
                    bar.update()
            else:
                # spawned, not forked: the caller may have threads
                context = multiprocessing.get_context("spawn")
                with ProcessPoolExecutor(count, mp_context=context) as pool:
                    futures = [pool.submit(write_case, root, case) for case in missing]
                    try:
                        for future in as_completed(futures):
                            future.result()
                            bar.update()
                    except BaseException:
                        pool.shutdown(wait=False, cancel_futures=True)
                        raise
    except OSError as error:
        raise OutputError(f"{root}: phantoms cannot be written there ({error.strerror or error})") from error


def write_case(root: Path, case: Case) -> None:
    """Make one case and write image, label and record, each atomically."""
    seed = np.random.SeedSequence(case.seed)
    phantom = make_phantom(
        seed, matrix=case.matrix, coverage=case.coverage, main_type=case.main_type, annotated=case.typed
    )
    label = phantom.label if case.typed else np.minimum(phantom.label, np.uint8(LESION))
    for path in (case.image, case.label, case.record):
        (root / path).parent.mkdir(exist_ok=True)
    _write(root / case.image, _nifti(phantom.image, phantom.affine))
    _write(root / case.label, _nifti(label, phantom.affine))
    _write(root / case.record, _record(case, phantom))


def _nifti(array: np.ndarray, affine: np.ndarray) -> bytes:
    """Encode a .nii.gz with sform and qform in scanner coordinates and mm; equal voxels give equal bytes."""
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    # noise hardly compresses further at higher levels; mtime 0 keeps the time out of the gzip header
    return igzip.compress(image.to_bytes(), compresslevel=2, mtime=0)


def _record(case: Case, phantom: Phantom) -> bytes:
    shape = [int(n) for n in phantom.image.shape]
    record = {
        "patient": case.name,
        "shape": shape,
        "facts": phantom.facts,
        "lesions": [asdict(row) for row in phantom.lesions],
    }
    return (json.dumps(record, indent=1) + "\n").encode()


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path, "phantoms") as temporary:
        temporary.write_bytes(content)
