"""Copies of labels whose header places them wrongly, with their image's affine; the originals are left alone."""

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
from liverseg.datalists.checks.reading import ReadFile, read_whole
from liverseg.datalists.model import DataItem, read_datalist, write_datalist
from liverseg.errors import LiversegError
from liverseg.imageio.nifti import iter_chunks
from liverseg.labels import LIVER
from liverseg.utils.files import atomic_write, write_text

__all__ = ["RECORD", "check_repair_folder", "repair_copies"]

RECORD = "repairs.csv"
"""Table beside the new list: what was done with each label, and the HU that decided it."""

_LIVER_HU = (40.0, 200.0)
"""Mean of a liver, from a fatty one without contrast to the portal phase."""
_MOST_SPREAD = 60.0
"""HU, standard deviation within a liver: noise, vessels and lesions stay below; air, bone or fat in it do not."""
_CLEARLY_LESS = 0.8
"""Of two ways that both look like liver, one is right only if its spread is at most this share of the other's."""
_QFORM = ("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
_SFORM = ("sform_code", "srow_x", "srow_y", "srow_z")


@dataclass(frozen=True)
class _Way:
    """One way to lay a label's voxels on its image: along which axes they are turned, and the HU they then cover."""

    turned: tuple[int, ...]
    mean: float
    spread: float

    @property
    def fits(self) -> bool:
        return _LIVER_HU[0] <= self.mean <= _LIVER_HU[1] and self.spread <= _MOST_SPREAD

    def __str__(self) -> str:
        how = f"turned along {' and '.join(f'axis {axis}' for axis in self.turned)}" if self.turned else "as they are"
        return f"{how} {self.mean:.0f} ± {self.spread:.0f} HU"


def check_repair_folder(path: str | os.PathLike, dataset_dir: str | os.PathLike, output_dir: str | os.PathLike) -> None:
    """Refuse a folder for repaired copies that holds originals, or where an importer would find a copy beside them.

    Args:
        path: the list.
        dataset_dir: folder its paths are relative to.
        output_dir: the folder for copies: not the list's, not `dataset_dir`, not inside it and not around it.

    Raises:
        LiversegError: if it is one of these, or is no folder.
    """
    output, data = Path(output_dir).resolve(), Path(dataset_dir).resolve()
    if output in (data, *data.parents, Path(path).parent.resolve()):
        raise LiversegError(f"{output_dir}: it holds originals; choose another folder for repaired copies")
    if data in output.parents:
        found = f"it is inside {dataset_dir}, where an importer would find every repaired label twice"
        raise LiversegError(f"{output_dir}: {found}; choose a folder outside")
    if output.exists() and not output.is_dir():
        raise LiversegError(f"{output_dir}: repaired copies cannot be written there, it is no folder; choose another")


def repair_copies(
    path: str | os.PathLike, dataset_dir: str | os.PathLike, output_dir: str | os.PathLike, findings: pd.DataFrame
) -> Path:
    """Write a copy with the image's affine for each label with a flipped or reset one, and a list that names it.

    A header that was flipped says nothing about its voxels: some tools flip both. So the HU under the liver decide. If
    they look like liver (mean 40 to 200 HU, standard deviation up to 60) with the voxels as they are, only the header
    is replaced; if they do with the voxels turned along the axes in which the headers differ, the voxels are turned as
    well. If neither does, or both do equally well, the label is left as it is, with a warning in the log. What was done
    and why is in `RECORD`, beside the new list.

    Args:
        path: the list that was checked.
        dataset_dir: folder its paths are relative to.
        output_dir: folder for the copies, each where the list has the original, the new list and the record; made if
            missing. See `check_repair_folder`.
        findings: what `check_datalist` found for that list.

    Returns:
        The new list, of the same name; its paths are relative to `dataset_dir`, those of copies absolute.

    Raises:
        LiversegError: if the list is not sound, the folder is one that holds originals, or it cannot be written.
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

    def pointed(items: Sequence[DataItem]) -> tuple[DataItem, ...]:
        return tuple(replace(item, label=copies.get(os.path.normpath(item.label or ""), item.label)) for item in items)

    new = replace(datalist, training=pointed(datalist.training), test=pointed(datalist.test))
    written = write_datalist(output_dir / path.name, new)
    table = pd.DataFrame(rows, columns=["file", "copy", "done", "why"])
    write_text(output_dir / RECORD, table.to_csv(index=False, lineterminator="\n"))
    return written


def _repair(label_name: str, image_name: str, dataset_dir: Path, output_dir: Path) -> dict[str, str]:
    """Repair one label; a row of the record."""
    try:
        label, image = read_whole(dataset_dir / label_name), read_whole(dataset_dir / image_name)
    except Defect as error:
        return _left(label_name, f"cannot be read any more: {error}")
    ways = _ways(label, image)
    chosen = _chosen(ways)
    why = "the liver covers, with the label's voxels " + ", ".join(map(str, ways))
    if chosen is None:
        fitting = "both look" if ways and all(way.fits for way in ways) else "none looks"
        return _left(label_name, f"{why}: {fitting} like liver; compare label and image in a viewer")
    copy = output_dir / _inside(label_name)
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        content = _with_grid(dataset_dir / label_name, label, image, chosen.turned)
        with atomic_write(copy) as unfinished:
            unfinished.write_bytes(content)
    except OSError as error:
        raise LiversegError(f"{copy}: the repaired copy cannot be written ({error.strerror})") from error
    done = "affine replaced and voxels turned" if chosen.turned else "affine replaced"
    return {"file": label_name, "copy": copy.absolute().as_posix(), "done": done, "why": why}


def _left(label_name: str, why: str) -> dict[str, str]:
    logging.getLogger(__name__).warning("%s: not repaired; %s", label_name, why)
    return {"file": label_name, "copy": "", "done": "not repaired", "why": why}


def _ways(label: ReadFile, image: ReadFile) -> list[_Way]:
    """The voxels as they are, and turned along the axes in which the headers differ."""
    if label.grid.shape != image.grid.shape or label.grid.affine is None or image.grid.affine is None:
        return []
    liver = label.array == LIVER if (label.array == LIVER).any() else label.array > 0
    turned = turned_axes(label.grid.affine, image.grid.affine)
    ways = []
    for axes in [(), turned] if turned else [()]:
        covered = image.array[np.flip(liver, axes)]
        if covered.size:
            ways.append(_Way(axes, float(covered.mean(dtype=np.float64)), float(covered.std(dtype=np.float64))))
    return ways


def _chosen(ways: Sequence[_Way]) -> _Way | None:
    fitting = sorted((way for way in ways if way.fits), key=lambda way: way.spread)
    if len(fitting) == 2 and fitting[0].spread > _CLEARLY_LESS * fitting[1].spread:
        return None
    return fitting[0] if fitting else None


def _with_grid(path: Path, label: ReadFile, image: ReadFile, turned: tuple[int, ...]) -> bytes:
    """The file's own bytes with the image's place in its header; voxels as they are stored, turned if asked for."""
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
    stored = np.flip(voxels, turned).tobytes(order="F") if turned else content[start:end]
    mended = header.binaryblock[:size] + content[size:start] + stored + content[end:]
    return gzip.compress(mended, compresslevel=6, mtime=0) if path.name.lower().endswith(".gz") else mended


def _inside(name: str) -> Path:
    """A relative path that cannot lead out of the folder it is put into."""
    return Path(*(part for part in Path(name).parts if part not in ("..", Path(name).anchor)))
