"""Write the labelled volumes of a data list into the slice cache before training."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm.contrib.concurrent import thread_map

from liverseg.bundle.validation import check_values
from liverseg.datalists import DataItem, read_datalist
from liverseg.datasets.slice_readers import SliceFile
from liverseg.datasets.store import SliceCache, check_pair, clipped_ranges
from liverseg.errors import LiversegError
from liverseg.utils.files import size_or_zero

__all__ = ["Prepared", "prepare_datalist"]

_File = tuple[str, str]  # kind and name


@dataclass(frozen=True)
class Prepared:
    """Result of `prepare_datalist`.

    Attributes:
        written: number of new files.
        verified: number of existing files, of which every slice was read.
        voxel_bytes: size of all their voxels, int16 and uint8.
        cache_bytes: size of all their files.
        others: number of other slice files in the folder, of other lists or of volumes that have changed.
        failures: one sentence with the reason for each image or label that could not be written.
    """

    written: int
    verified: int
    voxel_bytes: int
    cache_bytes: int
    others: int
    failures: tuple[str, ...]

    def describe(self) -> str:
        """Return the numbers in one line."""
        share = f", {self.cache_bytes / self.voxel_bytes:.0%} of its voxels" if self.voxel_bytes else ""
        others = f"; {self.others} other files do not belong to this list" if self.others else ""
        return (
            f"{self.written} files written, {self.verified} existing files verified, "
            f"{self.cache_bytes / 1e9:.2f} GB{share}{others}"
        )


def prepare_datalist(
    path: str | os.PathLike,
    dataset_dir: str | os.PathLike,
    cache_dir: str | os.PathLike,
    *,
    workers: int | None = None,
    progress: bool = True,
) -> Prepared:
    """Write the slices of a list's labelled volumes into a cache folder; existing files are verified instead.

    Files are written atomically, so an interrupted call can be repeated. A bad file does not stop the others.

    Args:
        path: data list; its label table determines the allowed values of label maps.
        dataset_dir: folder that its paths are relative to.
        cache_dir: cache folder, the bundles' `cache_dir`; made if missing.
        workers: number of files read in parallel; all processors by default.
        progress: show a bar on stderr.

    Raises:
        UsageError: if workers is below 1.
        LiversegError: if the list is invalid or has no labelled item, or the folder cannot be made.
    """
    check_values(workers=workers)
    datalist = read_datalist(path)
    items = [item for item in (*datalist.training, *datalist.test) if item.label is not None]
    if not items:
        raise LiversegError(f"{path}: no item has a label; there is nothing to train on")
    folder = Path(dataset_dir)
    cache = SliceCache(folder, Path(cache_dir), max(map(int, datalist.labels), default=0) + 1, clipped_ranges(items))
    files, failures = _list_files(items, folder)
    results = thread_map(
        partial(_prepare_file, cache),
        files,
        max_workers=workers or os.cpu_count(),
        desc="preparing",
        unit="file",
        disable=not progress,
    )
    counts = {"written": 0, "verified": 0}
    voxel_bytes = cache_bytes = 0
    for result in results:
        if isinstance(result, str):
            failures.append(result)
            continue
        status, uncompressed, compressed = result
        counts[status] += 1
        voxel_bytes += uncompressed
        cache_bytes += compressed
    others = sum(1 for _ in cache.cache_dir.glob("*.slices")) - sum(counts.values())
    return Prepared(**counts, voxel_bytes=voxel_bytes, cache_bytes=cache_bytes, others=others, failures=tuple(failures))


def _list_files(items: list[DataItem], folder: Path) -> tuple[list[_File], list[str]]:
    """Return the files of matching pairs, the largest first, and an error for each other pair."""
    files: dict[_File, None] = {}
    failures: list[str] = []
    pairs = {(os.path.normpath(item.image), os.path.normpath(str(item.label))): item for item in items}
    for (image, label), item in pairs.items():
        try:
            check_pair(item, folder)
        except LiversegError as error:
            failures.append(str(error))
        else:
            files |= {("image", image): None, ("label", label): None}
    # largest first, so that no processor waits for a large file at the end
    return sorted(files, key=lambda file: size_or_zero(folder / file[1]), reverse=True), failures


def _prepare_file(cache: SliceCache, file: _File) -> tuple[str, int, int] | str:
    """Return "written" or "verified" with the bytes of voxels and of the slice file, or an error message."""
    try:
        path = cache.path_of(*file)
        status = "verified" if _is_valid(path) else "written"
        if status == "written":
            cache.write(*file)
        return status, SliceFile(path).nbytes, path.stat().st_size
    except LiversegError as error:
        return str(error)
    except OSError as error:  # the source file was removed in the meantime
        return f"{cache.dataset_dir / file[1]}: cannot be read ({error.strerror})"


def _is_valid(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        SliceFile(path).verify()
    except LiversegError:
        return False
    return True
