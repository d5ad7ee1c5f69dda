"""Random access to the slices of many volumes, each read and checked once.

A `.nii.gz` can only be read from its beginning, so training straight from it would decompress a volume for every slab.
The first use of a volume, or `liverseg prepare` before it, writes its slices in axial order into a cache folder; from
then on a slab costs the decompression of three slices, and memory stays flat however many volumes there are.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from liverseg.datalists import DataItem
from liverseg.datasets.slice_readers import NiftiSlices, SliceFile, write_slices
from liverseg.errors import LiversegError
from liverseg.imageio.ct_check import check_ct
from liverseg.imageio.grid import affine_distance_mm, axial_orientation, axial_spacing, slice_axis
from liverseg.imageio.nifti import ReusableBuffer, as_integers
from liverseg.imageio.volume import read_grid, read_volume
from liverseg.utils.distributed import available_cpus

__all__ = ["ClippedHU", "SliceCache", "StoredVolume", "VolumeStore", "check_pair", "clipped_ranges"]

_FORMAT = "4"  # part of every cache file's name: another layout or another check is another file
_KINDS = ("image", "label")

_Slices = SliceFile | NiftiSlices
_Pair = tuple[str, str]  # image and label, as the data list names them

ClippedHU = dict[str, tuple[float, float]]
"""The range of every image whose HU were clipped, by its name in the data list."""


@dataclass(frozen=True)
class StoredVolume:
    """One labelled volume whose slices are read when they are asked for.

    Attributes:
        image: int16 HU, (slice, row, column) in axial order.
        label: uint8 label map, same shape.
        present: which labels each slice holds, boolean (slice, label).
        spacing_mm: distance of neighbouring slices, rows and columns in mm.
        flipped: True where the file numbers its slices from head to feet.
    """

    image: _Slices
    label: _Slices
    present: np.ndarray
    spacing_mm: tuple[float, float, float]
    flipped: bool

    @property
    def depth(self) -> int:
        """Number of slices."""
        return len(self.present)

    def axial_index(self, slice_number: int) -> int:
        """The slice in axial order that the file itself numbers `slice_number`."""
        return self.depth - 1 - slice_number if self.flipped else slice_number


def check_pair(item: DataItem, dataset_dir: Path) -> np.ndarray:
    """Check from the headers alone that image and label of an item exist and share one grid.

    Returns:
        The image's affine, 4×4.

    Raises:
        LiversegError: naming the file and the difference.
    """
    image, label = dataset_dir / item.image, dataset_dir / str(item.label)
    grid, label_grid = read_grid(image), read_grid(label)
    if grid.shape != label_grid.shape:
        raise LiversegError(
            f"{label}: shape {_times(label_grid.shape)}, but its image {image} has {_times(grid.shape)}; both must "
            "share one grid"
        )
    apart = affine_distance_mm(grid.affine, label_grid.affine, grid.shape)
    if apart:
        raise LiversegError(
            f"{label}: its affine places voxels up to {apart:.3g} mm from those of its image {image}; "
            "both must share one grid"
        )
    return grid.affine


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


class SliceCache:
    """A folder of `SliceFile`s, one for each image and label, made when they are first asked for.

    Args:
        dataset_dir: folder the names are relative to.
        cache_dir: the folder, made if missing. A file in it is used again while its source's size and time are
            unchanged.
        labels: how many rows the label table has; a label map may hold 0 to labels-1.
        clipped: what `clipped_ranges` gives for the items.

    Raises:
        LiversegError: if the folder cannot be made.
    """

    def __init__(self, dataset_dir: Path, cache_dir: Path, labels: int, clipped: ClippedHU | None = None) -> None:
        self.dataset_dir, self.cache_dir, self.labels = dataset_dir, cache_dir, labels
        self.clipped = clipped or {}
        self._memory = ReusableBuffer()
        try:
            cache_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LiversegError(f"{cache_dir}: the cache folder cannot be made ({error.strerror})") from error

    def place(self, kind: str, name: str) -> Path:
        """Where a file's slices are, or will be.

        Args:
            kind: "image" or "label".
            name: the file, relative to `dataset_dir`.
        """
        path = (self.dataset_dir / name).resolve()  # however it is called, from whichever folder
        state = path.stat()
        # whatever a check of the voxels depends on is in the name too, so that a cached file has passed it
        rule = f"{_FORMAT} image" if kind == "image" else f"{_FORMAT} label {self.labels}"
        clipped = self.clipped.get(os.path.normpath(name)) if kind == "image" else None
        if clipped is not None:
            rule += f" clipped {clipped[0]:g} {clipped[1]:g}"
        key = hashlib.sha256(f"{rule} {path} {state.st_size} {state.st_mtime_ns}".encode())
        return self.cache_dir / f"{key.hexdigest()[:32]}.{kind}.slices"

    def slices(self, kind: str, name: str) -> SliceFile:
        """A file's slices, read from it and written first where they are not there yet; arguments as for `place`.

        Raises:
            LiversegError: if the file cannot be read, is no CT or no label map of the table, or its slices cannot be
                written.
        """
        cached = self.place(kind, name)
        if not cached.exists():
            self.make(kind, name)
        return SliceFile(cached)

    def make(self, kind: str, name: str) -> None:
        """Write a file's slices; arguments and errors as for `slices`."""
        cached, path = self.place(kind, name), self.dataset_dir / name
        if kind == "image":
            stack, facts = _read_image(path, self.clipped.get(os.path.normpath(name)), self._memory), {}
        else:
            stack, present = _read_label(path, self.labels, self._memory)
            facts = {"present": present.astype(int).tolist()}
        write_slices(cached, stack, facts)


class VolumeStore:
    """The volumes of a data list, their slices read from a cache folder, or straight from their files.

    Args:
        items: what will be asked for; every image needs a label, and one image may come with several.
        dataset_dir: folder the items' paths are relative to.
        cache_dir: folder of the `SliceCache`; None reads every slab straight from its NIfTI file, which takes no space
            and more time.
        labels: how many rows the label table has; a label map may hold 0 to labels-1.
        progress: show a progress bar while volumes are read.

    Raises:
        LiversegError: for the first file that is missing or unreadable, an image and a label of different grids, an
            image that `check_ct` refuses, a label value outside the table, or a cache folder that cannot be written.
    """

    def __init__(
        self,
        items: Sequence[DataItem],
        dataset_dir: str | os.PathLike,
        cache_dir: str | os.PathLike | None,
        labels: int,
        progress: bool = True,
    ) -> None:
        folder = Path(dataset_dir)
        affines: dict[_Pair, np.ndarray] = {}
        for item in items:
            if _pair(item) not in affines:
                affines[_pair(item)] = check_pair(item, folder)
        opened: Callable[[str, str], tuple[_Slices, np.ndarray]]
        clipped = clipped_ranges(items)
        if cache_dir is None:
            opened = _straight(folder, labels, clipped)
        else:
            opened = _cached(SliceCache(folder, Path(cache_dir), labels, clipped))
        # an image may have several label maps, so each file is read by itself
        files = list(dict.fromkeys((kind, name) for pair in affines for kind, name in zip(_KINDS, pair, strict=True)))
        # gzip decompression leaves the interpreter lock, so threads keep the cores busy
        with ThreadPoolExecutor(available_cpus()) as pool:
            bar = tqdm(
                pool.map(opened, *zip(*files, strict=True)),
                total=len(files),
                desc="reading volumes",
                disable=not progress,
                unit="file",
            )
            slices = dict(zip(files, bar, strict=True))
        self._volumes = {
            (image, label): StoredVolume(
                image=slices["image", image][0],
                label=slices["label", label][0],
                present=slices["label", label][1],
                spacing_mm=axial_spacing(affine),
                flipped=_runs_to_the_feet(affine),
            )
            for (image, label), affine in affines.items()
        }

    def __getitem__(self, item: DataItem) -> StoredVolume:
        """The volume of an item: its image together with its own label map."""
        return self._volumes[_pair(item)]

    def __len__(self) -> int:
        return len(self._volumes)


def clipped_ranges(items: Iterable[DataItem]) -> ClippedHU:
    """The range of every image whose HU were clipped; a data list gives all items of an image the same."""
    return {os.path.normpath(item.image): item.clipped_hu for item in items if item.clipped_hu is not None}


def _pair(item: DataItem) -> _Pair:
    return os.path.normpath(item.image), os.path.normpath(str(item.label))


def _runs_to_the_feet(affine: np.ndarray) -> bool:
    return bool(axial_orientation(affine)[slice_axis(affine), 1] < 0)


def _cached(cache: SliceCache) -> Callable[[str, str], tuple[_Slices, np.ndarray]]:
    def opened(kind: str, name: str) -> tuple[_Slices, np.ndarray]:
        slices = cache.slices(kind, name)
        return slices, np.array(slices.facts.get("present", []), bool)

    return opened


def _straight(folder: Path, labels: int, clipped: ClippedHU) -> Callable[[str, str], tuple[_Slices, np.ndarray]]:
    """Files are read once for their checks, and slice by slice later."""

    def opened(kind: str, name: str) -> tuple[_Slices, np.ndarray]:
        if kind == "image":
            _read_image(folder / name, clipped.get(name))
            return NiftiSlices(folder / name, np.int16), np.array([])
        return NiftiSlices(folder / name, np.uint8), _read_label(folder / name, labels)[1]

    return opened


def _read_image(
    path: Path, clipped_hu: tuple[float, float] | None = None, memory: ReusableBuffer | None = None
) -> np.ndarray:
    """HU as int16 in axial order."""
    volume = read_volume(path, memory)
    for warning in check_ct(volume, clipped_hu):
        logging.getLogger(__name__).warning("%s: %s", path, warning)
    return as_integers(volume.axial, np.int16)


def _read_label(path: Path, labels: int, memory: ReusableBuffer | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A label map as uint8 in axial order, and which labels each slice holds, boolean (slice, label)."""
    truth = read_volume(path, memory).axial
    lowest, highest = truth.min(), truth.max()
    if lowest < 0 or highest >= labels or (truth.dtype.kind == "f" and (truth != np.rint(truth)).any()):
        values = np.unique(truth)
        bad = values[(values < 0) | (values >= labels) | (values != np.rint(values))][0]
        raise LiversegError(f"{path}: label value {bad:g}; this label table allows 0 to {labels - 1} in whole numbers")
    truth = as_integers(truth, np.uint8)
    present = np.zeros((len(truth), labels), bool)
    for slice_, held in zip(truth, present, strict=True):
        held[: int(slice_.max()) + 1] = [bool((slice_ == value).any()) for value in range(int(slice_.max()) + 1)]
    return truth, present
