"""Repaired copies of label maps with a wrong affine, which get their image's; the originals stay unchanged."""

from __future__ import annotations

import gzip
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from liverseg.datalists.checks.findings import Defect
from liverseg.datalists.checks.geometry import FLIPPED, RESET, turned_axes
from liverseg.datalists.checks.reading import ReadFile, read_file
from liverseg.datalists.model import DataItem, read_datalist, write_datalist
from liverseg.errors import LiversegError, OutputError
from liverseg.imageio.nifti import iter_chunks
from liverseg.labels import LIVER
from liverseg.utils.files import atomic_write, write_text

__all__ = ["RECORD", "check_repair_folder", "repair_copies"]

RECORD = "repairs.csv"
"""Table beside the new list: what was done with each label, and the HU on which that was decided."""

_LIVER_HU = (40.0, 200.0)
"""Mean of a liver, from a fatty liver without contrast to the portal venous phase."""
_MAX_SD = 60.0
"""Highest standard deviation in a liver, HU: noise, vessels and lesions stay below; air, bone or fat exceed it."""
_CLEARLY_LESS = 0.8
"""If two alignments look like liver, one is chosen only if its SD is at most this share of the other's."""
_QFORM = ("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
_SFORM = ("sform_code", "srow_x", "srow_y", "srow_z")


@dataclass(frozen=True)
class _Alignment:
    """One way to place a label's voxels on its image.

    Attributes:
        flipped: array axes along which the voxels are flipped.
        mean, sd: mean and standard deviation of the image where the label then is liver, HU.
    """

    flipped: tuple[int, ...]
    mean: float
    sd: float

    @property
    def fits(self) -> bool:
        return _LIVER_HU[0] <= self.mean <= _LIVER_HU[1] and self.sd <= _MAX_SD

    def __str__(self) -> str:
        how = f"turned along {' and '.join(f'axis {axis}' for axis in self.flipped)}" if self.flipped else "as they are"
        return f"{how} {self.mean:.0f} ± {self.sd:.0f} HU"


def check_repair_folder(path: str | os.PathLike, dataset_dir: str | os.PathLike, output_dir: str | os.PathLike) -> None:
    """Refuse a folder for repaired copies that holds originals, or in which an importer would find both.

    Args:
        path: the list.
        dataset_dir: folder its paths are relative to.
        output_dir: the folder for copies. It must not be the folder of the list, and neither be, nor be inside, nor
            contain `dataset_dir`.

    Raises:
        LiversegError: if it is one of these, or exists and is no folder.
    """
    output, data = Path(output_dir).resolve(), Path(dataset_dir).resolve()
    if output in (data, *data.parents, Path(path).parent.resolve()):
        raise LiversegError(f"{output_dir}: it holds originals; choose another folder for repaired copies")
    if data in output.parents:
        found = f"it is inside {dataset_dir}, where an importer would find every repaired label twice"
        raise LiversegError(f"{output_dir}: {found}; choose a folder outside")
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output_dir}: repaired copies cannot be written there, it is no folder; choose another")


def repair_copies(
    path: str | os.PathLike, dataset_dir: str | os.PathLike, output_dir: str | os.PathLike, findings: pd.DataFrame
) -> Path:
    """Write a copy with the image's affine for each label with a flipped or reset affine, and a list with the copies.

    A flipped header does not show whether the voxels are flipped too: some tools flip both. So the HU under the liver
    decide. If they look like liver (mean 40 to 200 HU, standard deviation up to 60) with the voxels as they are, only
    the header is replaced. If they do with the voxels flipped along the axes in which the headers differ, the voxels
    are flipped as well. If neither does, or both do equally well, the label is not repaired and a warning is logged.
    `RECORD`, beside the new list, has what was done and why.

    Args:
        path: the list that was checked.
        dataset_dir: folder its paths are relative to.
        output_dir: folder for the copies, the new list and the record; created if needed. Copies have the relative
            path of the original. See `check_repair_folder`.
        findings: the result of `check_datalist` for that list.

    Returns:
        The path of the new list, which has the file name of the old. Its paths are relative to `dataset_dir`, those of
        copies absolute.

    Raises:
        LiversegError: if the list is not valid, or the folder holds originals or cannot be written.
    """
    path, dataset_dir, output_dir = Path(path), Path(dataset_dir), Path(output_dir)
    datalist = read_datalist(path)
    check_repair_folder(path, dataset_dir, output_dir)
    broken = set(findings.loc[findings["defect"].isin((FLIPPED, RESET)), "file"])
    images: dict[str, str] = {}
    for item in (*datalist.training, *datalist.test):
        if item.label is not None and os.path.normpath(item.label) in broken:
            images.setdefault(os.path.normpath(item.label), item.image)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = list(pool.map(lambda label: _repair(label, images[label], dataset_dir, output_dir), images))
    copies = {str(row["file"]): str(row["copy"]) for row in rows if row["copy"]}

    def use_copies(items: Sequence[DataItem]) -> tuple[DataItem, ...]:
        return tuple(replace(item, label=copies.get(os.path.normpath(item.label or ""), item.label)) for item in items)

    repaired = replace(datalist, training=use_copies(datalist.training), test=use_copies(datalist.test))
    written = write_datalist(output_dir / path.name, repaired)
    table = pd.DataFrame(rows, columns=["file", "copy", "done", "why"])
    write_text(output_dir / RECORD, table.to_csv(index=False, lineterminator="\n"))
    return written


def _repair(label_name: str, image_name: str, dataset_dir: Path, output_dir: Path) -> dict[str, str]:
    """Repair one label; return its row of the record."""
    try:
        label, image = read_file(dataset_dir / label_name), read_file(dataset_dir / image_name)
    except Defect as error:
        return _not_repaired(label_name, f"cannot be read any more: {error}")
    alignments = _possible_alignments(label, image)
    chosen = _choose(alignments)
    why = "the liver covers, with the label's voxels " + ", ".join(map(str, alignments))
    if chosen is None:
        fitting = "both look" if alignments and all(alignment.fits for alignment in alignments) else "none looks"
        return _not_repaired(label_name, f"{why}: {fitting} like liver; compare label and image in a viewer")
    copy = output_dir / _without_parents(label_name)
    with atomic_write(copy, "the repaired copy", make_folder=True) as temporary:
        temporary.write_bytes(_with_grid_of(image, dataset_dir / label_name, label, chosen.flipped))
    done = "affine replaced and voxels turned" if chosen.flipped else "affine replaced"
    return {"file": label_name, "copy": copy.absolute().as_posix(), "done": done, "why": why}


def _not_repaired(label_name: str, why: str) -> dict[str, str]:
    logging.getLogger(__name__).warning("%s: not repaired; %s", label_name, why)
    return {"file": label_name, "copy": "", "done": "not repaired", "why": why}


def _possible_alignments(label: ReadFile, image: ReadFile) -> list[_Alignment]:
    """Return the voxels unchanged, and flipped along the axes in which the headers differ."""
    if label.grid.shape != image.grid.shape or label.grid.affine is None or image.grid.affine is None:
        return []
    liver = label.array == LIVER if (label.array == LIVER).any() else label.array > 0
    flipped = turned_axes(label.grid.affine, image.grid.affine)
    alignments = []
    for axes in [(), flipped] if flipped else [()]:
        hu = image.array[np.flip(liver, axes)]
        if hu.size:
            alignments.append(_Alignment(axes, float(hu.mean(dtype=np.float64)), float(hu.std(dtype=np.float64))))
    return alignments


def _choose(alignments: Sequence[_Alignment]) -> _Alignment | None:
    """Return the alignment that looks like liver; None if none does, or two do about equally well."""
    fitting = sorted((alignment for alignment in alignments if alignment.fits), key=lambda alignment: alignment.sd)
    if len(fitting) == 2 and fitting[0].sd > _CLEARLY_LESS * fitting[1].sd:
        return None
    return fitting[0] if fitting else None


def _with_grid_of(image: ReadFile, path: Path, label: ReadFile, flipped: tuple[int, ...]) -> bytes:
    """Return the label file's bytes with the image's geometry in the header and its voxels flipped along some axes."""
    content = b"".join(iter_chunks(path))
    header = label.header.copy()
    for name in (*_QFORM, *_SFORM, "xyzt_units"):
        header[name] = image.header[name]
    header["pixdim"][:4] = image.header["pixdim"][:4]
    size = type(header).template_dtype.itemsize
    start = int(header.get_data_offset())
    dtype = header.get_data_dtype()
    voxels = np.frombuffer(content, dtype, label.array.size, start).reshape(label.array.shape, order="F")
    end = start + voxels.nbytes
    stored = np.flip(voxels, flipped).tobytes(order="F") if flipped else content[start:end]
    repaired = header.binaryblock[:size] + content[size:start] + stored + content[end:]
    return gzip.compress(repaired, compresslevel=6, mtime=0) if path.name.lower().endswith(".gz") else repaired


def _without_parents(name: str) -> Path:
    """Return a relative path that stays inside any folder it is joined to."""
    return Path(*(part for part in Path(name).parts if part not in ("..", Path(name).anchor)))
