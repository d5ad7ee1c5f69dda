"""One-off: every labelled volume of a data list into a cache that trainings read slabs from."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from liverseg.datalists import DataItem, read_datalist
from liverseg.datasets.slice_readers import SliceFile
from liverseg.datasets.store import SliceCache, check_pair, clipped_ranges
from liverseg.errors import LiversegError, UsageError
from liverseg.utils.files import size_or_zero

__all__ = ["Prepared", "prepare_datalist"]

_File = tuple[str, str]  # kind and name


@dataclass(frozen=True)
class Prepared:
    """What is in a cache after `prepare_datalist`.

    Attributes:
        written: files made.
        verified: files that were there already, every slice of them read.
        voxel_bytes: of all their voxels, int16 and uint8.
        cache_bytes: of all their files.
        others: further files of slices in the folder, of another list or of volumes that have changed.
        failures: one sentence for each image or label that is not in the cache, and why.
    """

    written: int
    verified: int
    voxel_bytes: int
    cache_bytes: int
    others: int
    failures: tuple[str, ...]

    def describe(self) -> str:
        """One line for a person."""
        share = f", {self.cache_bytes / self.voxel_bytes:.0%} of its voxels" if self.voxel_bytes else ""
        others = f"; {self.others} others there are not of this list" if self.others else ""
        return (
            f"{self.written} files written, {self.verified} were there and are sound, "
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
    """Write the slices of a list's labelled volumes into a cache folder; what is there already is verified instead.

    Whatever interrupts it, the next call goes on: files are whole or not there. One bad file does not stop the others.

    Args:
        path: the list; its label table says which values a label map may hold.
        dataset_dir: folder its paths are relative to.
        cache_dir: the folder, the bundles' `cache_dir`; made if missing.
        workers: files read at a time; all processors by default.
        progress: show a bar on stderr.

    Raises:
        UsageError: if workers is below 1.
        LiversegError: if the list is not sound or has no labelled item, or the folder cannot be made.
    """
    if workers is not None and workers < 1:
        raise UsageError(f"workers {workers}: at least 1 is needed")
    listed = read_datalist(path)
    items = [item for item in (*listed.training, *listed.test) if item.label is not None]
    if not items:
        raise LiversegError(f"{path}: no item has a label; there is nothing to train on")
    folder = Path(dataset_dir)
    cache = SliceCache(folder, Path(cache_dir), max(map(int, listed.labels), default=0) + 1, clipped_ranges(items))
    files, failures = _files(items, folder)
    counts = {"written": 0, "verified": 0}
    voxel_bytes = cache_bytes = 0
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        done = pool.map(_prepared(cache), files)
        for result in tqdm(done, total=len(files), desc="preparing", unit="file", disable=not progress):
            if isinstance(result, str):
                failures.append(result)
                continue
            how, voxels, stored = result
            counts[how] += 1
            voxel_bytes += voxels
            cache_bytes += stored
    others = sum(1 for _ in cache.cache_dir.glob("*.slices")) - sum(counts.values())
    return Prepared(**counts, voxel_bytes=voxel_bytes, cache_bytes=cache_bytes, others=others, failures=tuple(failures))


def _files(items: list[DataItem], folder: Path) -> tuple[list[_File], list[str]]:
    """Files of the pairs that fit together, the largest first, and why the others do not."""
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
    # so that no processor waits for the last one
    return sorted(files, key=lambda file: size_or_zero(folder / file[1]), reverse=True), failures


def _prepared(cache: SliceCache) -> Callable[[_File], tuple[str, int, int] | str]:
    """What is done with a file: "written" or "verified" with bytes of its voxels and of its slices, or what failed."""

    def prepare(file: _File) -> tuple[str, int, int] | str:
        try:
            cached = cache.place(*file)
            how = "verified" if _is_sound(cached) else "written"
            if how == "written":
                cache.make(*file)
            slices = SliceFile(cached)
            return how, slices.nbytes, cached.stat().st_size
        except LiversegError as error:
            return str(error)
        except OSError as error:  # the source vanished in the meantime
            return f"{cache.dataset_dir / file[1]}: cannot be read ({error.strerror})"

    return prepare


def _is_sound(cached: Path) -> bool:
    if not cached.exists():
        return False
    try:
        SliceFile(cached).verify()
    except LiversegError:
        return False
    return True
