"""Batches of damaged and hostile inputs: each must end done and valid, or failed with a category."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import shutil
import stat
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmarks.soak.dicom_faults import DICOM_FAULTS, ZIP_FAULTS
from benchmarks.soak.list_faults import LIST_FAULTS, ODD_NAMES, read_hostile_list
from benchmarks.soak.material import Journal, write_ct, write_ct_series, write_weights
from benchmarks.soak.nifti_faults import NIFTI_FAULTS
from benchmarks.soak.runs import Batch, Fault, complete_cases, events, half_written, settled
from liverseg.inference.failures import FAILURE_CATEGORIES

__all__ = ["ALL_FAULTS", "MAY_END", "hostile_batch", "input_campaign", "run_hostile_batch"]

_GOOD = "good"
_NAMES, _MASKS = "odd name", "liver mask wrong"
ALL_FAULTS = (*NIFTI_FAULTS, *DICOM_FAULTS, *ZIP_FAULTS, _NAMES, _MASKS)
_CATEGORIES = (*FAILURE_CATEGORIES, "timeout")
_REFUSED = {"unreadable", "geometry", "not CT"}
MAY_END = {
    "NIfTI truncated": _REFUSED,
    "NIfTI claims gigabytes": _REFUSED,
    "NIfTI gzip bomb": _REFUSED,
    "NIfTI of another type": _REFUSED,
    "DICOM truncated": _REFUSED,
    "DICOM texts made to harm": {"done"},
    "zip members that lead elsewhere": _REFUSED,
    "zip bombs": _REFUSED,
    _NAMES: {"done"},
    _GOOD: {"done"},
}
"""Allowed outcomes by kind. Kinds that are missing here may be done, if the damage is irrelevant, or refused."""


def hostile_batch(folder: Path, rng: random.Random, kinds: list[str]) -> tuple[Path, dict[str, str]]:
    """Write inputs of these kinds, and their manifest if there are masks among them.

    Returns:
        Source of the batch, and the kind of each input by its path.
    """
    folder.mkdir(parents=True)
    kind_by_path: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    listed = _MASKS in kinds
    for number, kind in enumerate(kinds):
        row: dict[str, Any] = {"case": f"{number:03}"}
        if kind in NIFTI_FAULTS:
            path = folder / f"i{number:03}{rng.choice(['.nii.gz', '.nii'])}"
            NIFTI_FAULTS[kind](rng, path)
        elif kind in DICOM_FAULTS:
            path = folder / f"s{number:03}"
            DICOM_FAULTS[kind](rng, path)
        elif kind in ZIP_FAULTS:
            path = folder / f"z{number:03}.zip"
            ZIP_FAULTS[kind](rng, path)
        elif kind == _NAMES:
            name = rng.choice(ODD_NAMES)
            path = folder / f"n{number:03}" / f"{name}.nii.gz"
            row["case"] = f"{name}{number}" if "\0" not in name else str(number)
            if rng.random() < 0.3:
                path = write_ct_series(folder / f"n{number:03} {name}", number)
            else:
                write_ct(path, number)
        else:
            path = write_ct(folder / f"g{number:03}.nii.gz", number)
            if kind == _MASKS:
                row["liver"] = os.fspath(_mask(rng, folder / "masks" / f"m{number:03}.nii.gz", path))
        kind_by_path[os.fspath(path)] = kind
        rows.append({**row, "image": os.fspath(path)})
    if not listed:
        return folder, kind_by_path
    manifest = folder.with_name(f"{folder.name}.json")
    manifest.write_text(json.dumps(rows), encoding="ascii")
    return manifest, kind_by_path


def _mask(rng: random.Random, path: Path, image: Path) -> Path:
    """Write a mask on another grid, with impossible values or damaged; may also write no file."""
    path.parent.mkdir(exist_ok=True)
    shape, affine = nib.load(image).shape, nib.load(image).affine
    defect = rng.randrange(10)
    values = np.zeros(shape, np.float32)
    values[tuple(length // 2 for length in shape)] = 1
    if defect == 0:
        values = np.zeros([length + 1 for length in shape], np.float32)
    elif defect == 1:
        affine = affine * 1.5
    elif defect == 2:
        values[:] = np.nan
    elif defect == 3:
        values[:] = rng.choice([0.5, -1, 7, 1e30])
    elif defect == 4:
        path.write_text("no mask", encoding="utf-8")
        return path
    elif defect == 5:
        return path  # missing file
    elif defect == 6:
        os.mkfifo(path)
        return path
    elif defect == 7:
        values[:] = 0
    elif defect == 9:
        return path.with_name("m" * 300)  # too long for any file system
    nib.save(nib.Nifti1Image(values, affine), path)
    if defect == 8:
        path.write_bytes(path.read_bytes()[:-20])
    return path


def _wrapper() -> tuple[str, ...]:
    """Return a command that drops root's capability to ignore permissions."""
    if os.geteuid() == 0 and shutil.which("setpriv"):
        return ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")
    return ()


def _tree(folder: Path) -> list[tuple[str, int, int, int]]:
    """Return path, mode, size and modification time of everything in a folder."""
    found = []
    for name, below, names in os.walk(os.fsencode(folder)):
        for entry in (*below, *names):
            path = os.path.join(name, entry)
            status = os.lstat(path)
            size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
            found.append((repr(path), status.st_mode, size, status.st_mtime_ns))
    return sorted(found)


def run_hostile_batch(
    folder: Path, source: Path, kind_by_path: Mapping[str, str], weights: Path, case_timeout: float = 60
) -> Iterator[tuple[str, str, str, str]]:
    """Run a batch on the inputs of `hostile_batch`; yield kind, input, outcome (done or category) and reason by case.

    Args:
        folder: for `out`, `log`, and folders that must be empty at the end.
        source: source of the batch, from `hostile_batch`.
        kind_by_path: kind of each input by its path, from `hostile_batch`.
        weights: weights of the network.
        case_timeout: seconds.

    Raises:
        Fault: A guarantee was broken.
    """
    output, inputs = folder / "out", source if source.is_dir() else source.with_suffix("")
    for name in ("tmp", "cwd", "home"):
        (folder / name).mkdir()
    before = _tree(inputs)
    batch = Batch(
        folder / "log", source.absolute(), output.absolute(), "--weights", weights.absolute(),
        "--case-timeout", case_timeout, wrapper=_wrapper(), cwd=folder / "cwd",
        TMPDIR=os.fspath((folder / "tmp").absolute()), HOME=os.fspath((folder / "home").absolute()),
    )  # fmt: skip
    code = batch.wait(900)
    if code not in (0, 1, 3) or b"Traceback" in (folder / "log").read_bytes():
        raise Fault(f"exit code {code} or a traceback; see {folder / 'log'}")
    if _tree(inputs) != before:
        raise Fault("the inputs were changed")
    if left := [*(folder / "tmp").iterdir(), *(folder / "cwd").iterdir()]:
        raise Fault(f"written outside the output folder: {left}")
    if left := half_written(output):
        raise Fault(f"unfinished files left: {left[:3]}")
    images = {line["case"]: line["image"] for line in events(output) if "image" in line}
    complete_cases(output)
    settled(output, {*images})
    last = {line["case"]: line for line in events(output) if line["event"] in ("done", "failed")}
    if missing := {*images} - {*last}:
        raise Fault(f"neither done nor failed: {missing}")
    seen = set()
    for case, image in images.items():
        kind = _kind_of(image, kind_by_path)
        seen.add(image)
        line = last[case]
        how, reason = line.get("category", "done"), line.get("reason", "")
        if how == "done":
            _check_done(output / case, Path(image))
        if how not in MAY_END.get(kind, {"done", *_CATEGORIES}):
            raise Fault(f"{case}: {image} ({kind}) ended {how}: {reason}")
        yield kind, image, how, reason
    for image, kind in kind_by_path.items():
        # in a folder, subfolders are searched and hidden files skipped; all other inputs are cases
        skipped = source.is_dir() and (Path(image).is_dir() or Path(image).name.startswith("."))
        if image not in seen and not skipped:
            raise Fault(f"{image} ({kind}): not in the log")


def _kind_of(image: str, kind_by_path: Mapping[str, str]) -> str:
    path = Path(image)
    for parent in (path, *path.parents):
        if os.fspath(parent) in kind_by_path:
            return kind_by_path[os.fspath(parent)]
    below = {kind for name, kind in kind_by_path.items() if path in Path(name).parents}
    return below.pop() if len(below) == 1 else _GOOD if path.name.startswith("target-") else "several"


def _check_done(folder: Path, image: Path) -> None:
    """Check that the labels are a complete map on the input's grid."""
    labels = nib.load(folder / "labels.nii.gz")
    values = np.asarray(labels.dataobj)
    if not set(np.unique(values).tolist()) <= {*range(8)}:
        raise Fault(f"{folder.name}: labels of {np.unique(values)[:10]}")
    if image.name.lower().endswith((".nii", ".nii.gz")):
        try:
            shape, affine = _grid(image)
        except Exception as error:  # of any type; nibabel reads fewer files than we do, or we read too many
            raise Fault(f"{folder.name}: done, though nibabel cannot read {image} ({error})") from error
        if _volume_shape(values.shape) != _volume_shape(shape) or not np.allclose(labels.affine, affine):
            raise Fault(f"{folder.name}: labels of {values.shape}, {labels.affine}, not {shape}, {affine}")
    for name in ("segmentation.dcm", "measurements.dcm"):
        if (folder / name).exists():
            import pydicom

            pydicom.dcmread(folder / name)


def _grid(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Return shape and affine from nibabel; read with zlib, since indexed_gzip crashes on names that are not UTF-8."""
    with (gzip.open if path.name.lower().endswith(".gz") else open)(path, "rb") as file:
        start = file.read(540)
    kind = nib.Nifti1Header if nib.Nifti1Header.may_contain_header(start) else nib.Nifti2Header
    header = kind.from_fileobj(io.BytesIO(start))
    return header.get_data_shape(), header.get_best_affine()


def _volume_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape as of a volume: a slice has depth one, trailing dimensions of one are removed."""
    shape = (*shape, 1)[: max(3, len(shape))]
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def input_campaign(folder: Path, seed: int, inputs: int, minutes: float, batch_size: int = 100) -> int:
    """Run batches up to a number of inputs, including those of earlier runs, or up to a time limit.

    The inputs of every third batch are listed in a manifest, with masks. The other batches search a folder.

    Returns:
        Number of broken guarantees.
    """
    journal, weights = Journal(folder), write_weights(folder / "weights.safetensors")
    deadline, faults = time.monotonic() + 60 * minutes, 0
    while time.monotonic() < deadline and sum(1 for _ in journal.lines("input")) < inputs:
        number = sum(1 for _ in journal.lines("inputs"))
        rng, here = random.Random(f"{seed}-{number}"), folder / "inputs"
        _remove(here)
        without_masks = [kind for kind in ALL_FAULTS if kind != _MASKS]
        pool = without_masks if number % 3 else [*ALL_FAULTS, _MASKS, _MASKS]
        kinds = [pool[n % len(pool)] for n in range(batch_size - 4)] + [_GOOD] * 4
        rng.shuffle(kinds)
        start, fault, ended = time.monotonic(), "", Counter()
        try:
            source, kind_by_path = hostile_batch(here / "in", rng, kinds)
            for kind, image, how, reason in run_hostile_batch(here, source, kind_by_path, weights):
                ended[how] += 1
                if kind not in (_GOOD, "several"):
                    journal.add("input", what=kind, how=how, reason=reason, image=Path(image).name, batch=number)
        except Fault as error:
            fault, faults = str(error), faults + 1
            shutil.move(os.fspath(here), os.fspath(folder / f"fault-inputs-{number}-{int(time.time())}"))
        faults += _lists(folder / "lists", journal, rng)
        journal.add("inputs", number=number, seconds=round(time.monotonic() - start, 1), fault=fault, ended=dict(ended))
        print(f"batch {number}: {dict(ended)}, {time.monotonic() - start:.0f} s, {fault or 'no fault'}", flush=True)
    return faults


def _lists(folder: Path, journal: Journal, rng: random.Random, each: int = 6) -> int:
    """Read manifests of every kind and return the number of wrong outcomes."""
    folder.mkdir(exist_ok=True)
    wrong = 0
    for kind in LIST_FAULTS:
        for _ in range(each):
            how = read_hostile_list(folder, kind, rng)
            wrong += how not in ("cases", "refused")
            journal.add("list", what=kind, how=how if how in ("cases", "refused") else "wrong", reason=how)
    return wrong


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(os.fsencode(folder))
