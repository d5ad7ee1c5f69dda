"""Random access to the slices of a data list's volumes, through a cache of compressed slices.

The first use of a volume, or `liverseg prepare`, writes its slices in axial order into a cache folder. A slab then
needs the decompression of three slices, not of a `.nii.gz` from its start, and memory does not grow with the volumes.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm.contrib.concurrent import thread_map

from liverseg.datalists import DataItem
from liverseg.datasets.slice_readers import NiftiSlices, SliceFile, write_slices
from liverseg.errors import LiversegError, OutputError
from liverseg.imageio.ct_check import check_ct
from liverseg.imageio.grid import affine_distance_mm, axial_orientation, axial_spacing, slice_axis
from liverseg.imageio.nifti import ReusableBuffer, as_integers
from liverseg.imageio.volume import read_grid, read_volume
from liverseg.utils.distributed import available_cpus

__all__ = ["ClippedHU", "SliceCache", "StoredVolume", "VolumeStore", "check_pair", "clipped_ranges"]

_FORMAT = "4"  # part of a cache file's name: increased with every change of the layout or of the checks
_KINDS = ("image", "label")

_Slices = SliceFile | NiftiSlices
_Reader = Callable[[str, str], tuple[_Slices, np.ndarray]]  # kind and name to slices and present labels
_Pair = tuple[str, str]  # image and label in the data list

ClippedHU = dict[str, tuple[float, float]]
"""Range of each image whose HU were clipped, by its path in the data list."""


@dataclass(frozen=True)
class StoredVolume:
    """A labelled volume whose slices are read on demand.

    Attributes:
        image: int16 HU, (slice, row, column) in axial order.
        label: uint8 label map, same shape.
        present: labels in each slice, boolean (slice, label).
        spacing_mm: distance of neighbouring slices, rows and columns in mm.
        flipped: True if the slices of the file are numbered from head to feet.
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
        """Return the index in axial order of slice `slice_number` of the file."""
        return self.depth - 1 - slice_number if self.flipped else slice_number


def check_pair(item: DataItem, dataset_dir: Path) -> np.ndarray:
    """Check by the headers that image and label of an item exist and have the same grid.

    Returns:
        The image's affine, 4×4.

    Raises:
        LiversegError: if a file is missing or the grids differ.
    """
    image, label = dataset_dir / item.image, dataset_dir / str(item.label)
    grid, label_grid = read_grid(image), read_grid(label)
    if grid.shape != label_grid.shape:
        raise LiversegError(
            f"{label}: shape {_format_shape(label_grid.shape)}, but its image {image} has "
            f"{_format_shape(grid.shape)}; both must share one grid"
        )
    distance = affine_distance_mm(grid.affine, label_grid.affine, grid.shape)
    if distance:
        raise LiversegError(
            f"{label}: its affine places voxels up to {distance:.3g} mm from those of its image {image}; "
            "both must share one grid"
        )
    return grid.affine


def _format_shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


class SliceCache:
    """A folder with a `SliceFile` for each image and label, written on first use.

    Args:
        dataset_dir: folder that the names are relative to.
        cache_dir: cache folder, made if missing. A cached file is valid while size and modification time of its source
            are unchanged.
        labels: rows of the label table; the values of a label map may be 0 to labels-1.
        clipped: result of `clipped_ranges` for the items.

    Raises:
        OutputError: if the folder cannot be created.
    """

    def __init__(self, dataset_dir: Path, cache_dir: Path, labels: int, clipped: ClippedHU | None = None) -> None:
        self.dataset_dir, self.cache_dir, self.labels = dataset_dir, cache_dir, labels
        self.clipped = clipped or {}
        self._buffer = ReusableBuffer()
        try:
            cache_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{cache_dir}: the cache folder cannot be created ({error.strerror})") from error

    def path_of(self, kind: str, name: str) -> Path:
        """Return the path of a file's cached slices, which may not exist yet.

        Args:
            kind: "image" or "label".
            name: path of the file relative to `dataset_dir`.
        """
        path = (self.dataset_dir / name).resolve()  # the same for all spellings and working directories
        stat = path.stat()
        # the key has all parameters of the checks, so that a cached file has passed them
        rule = f"{_FORMAT} image" if kind == "image" else f"{_FORMAT} label {self.labels}"
        clipped = self.clipped.get(os.path.normpath(name)) if kind == "image" else None
        if clipped is not None:
            rule += f" clipped {clipped[0]:g} {clipped[1]:g}"
        key = hashlib.sha256(f"{rule} {path} {stat.st_size} {stat.st_mtime_ns}".encode())
        return self.cache_dir / f"{key.hexdigest()[:32]}.{kind}.slices"

    def get(self, kind: str, name: str) -> SliceFile:
        """Return a file's cached slices, written first if necessary; arguments as for `path_of`.

        Raises:
            LiversegError: if the file cannot be read, is no CT or no label map of the table, or its slices cannot be
                written.
        """
        path = self.path_of(kind, name)
        if not path.exists():
            self.write(kind, name)
        return SliceFile(path)

    def write(self, kind: str, name: str) -> None:
        """Write a file's slices into the cache; arguments and errors as for `get`."""
        source = self.dataset_dir / name
        if kind == "image":
            stack, facts = _read_image(source, self.clipped.get(os.path.normpath(name)), self._buffer), {}
        else:
            stack, present = _read_label(source, self.labels, self._buffer)
            facts = {"present": present.astype(int).tolist()}
        write_slices(self.path_of(kind, name), stack, facts)


class VolumeStore:
    """Volumes of a data list, whose slices are read from a cache folder or directly from their files.

    Args:
        items: items to read; every image needs a label, and an image may have several.
        dataset_dir: folder that the items' paths are relative to.
        cache_dir: folder of the `SliceCache`; None reads every slab from its NIfTI file, which needs no space and more
            time.
        labels: rows of the label table; the values of a label map may be 0 to labels-1.
        progress: show a progress bar while volumes are read.

    Raises:
        LiversegError: for the first file that is missing or unreadable, an image and a label with different grids, an
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
        clipped = clipped_ranges(items)
        if cache_dir is None:
            read = _file_reader(folder, labels, clipped)
        else:
            read = _cache_reader(SliceCache(folder, Path(cache_dir), labels, clipped))
        # each file is read once, although an image may have several label maps
        files = list(dict.fromkeys((kind, name) for pair in affines for kind, name in zip(_KINDS, pair, strict=True)))
        # threads, since decompression releases the interpreter lock
        results = thread_map(
            read,
            *zip(*files, strict=True),
            max_workers=available_cpus(),
            total=len(files),
            desc="reading volumes",
            disable=not progress,
            unit="file",
        )
        slices = dict(zip(files, results, strict=True))
        self._volumes = {
            (image, label): StoredVolume(
                image=slices["image", image][0],
                label=slices["label", label][0],
                present=slices["label", label][1],
                spacing_mm=axial_spacing(affine),
                flipped=_is_flipped(affine),
            )
            for (image, label), affine in affines.items()
        }

    def __getitem__(self, item: DataItem) -> StoredVolume:
        """Return the volume of an item: its image with its own label map."""
        return self._volumes[_pair(item)]

    def __len__(self) -> int:
        return len(self._volumes)


def clipped_ranges(items: Iterable[DataItem]) -> ClippedHU:
    """Return the range of each image whose HU were clipped; a data list has the same for all items of an image."""
    return {os.path.normpath(item.image): item.clipped_hu for item in items if item.clipped_hu is not None}


def _pair(item: DataItem) -> _Pair:
    return os.path.normpath(item.image), os.path.normpath(str(item.label))


def _is_flipped(affine: np.ndarray) -> bool:
    return bool(axial_orientation(affine)[slice_axis(affine), 1] < 0)


def _cache_reader(cache: SliceCache) -> _Reader:
    def read(kind: str, name: str) -> tuple[_Slices, np.ndarray]:
        slices = cache.get(kind, name)
        return slices, np.array(slices.facts.get("present", []), bool)

    return read


def _file_reader(folder: Path, labels: int, clipped: ClippedHU) -> _Reader:
    """Return a function that checks the complete file once; its slices are read later, one by one."""

    def read(kind: str, name: str) -> tuple[_Slices, np.ndarray]:
        if kind == "image":
            _read_image(folder / name, clipped.get(name))
            return NiftiSlices(folder / name, np.int16), np.array([])
        return NiftiSlices(folder / name, np.uint8), _read_label(folder / name, labels)[1]

    return read


def _read_image(
    path: Path, clipped_hu: tuple[float, float] | None = None, buffer: ReusableBuffer | None = None
) -> np.ndarray:
    """Return HU as int16 in axial order."""
    volume = read_volume(path, buffer)
    for warning in check_ct(volume, clipped_hu):
        logging.getLogger(__name__).warning("%s: %s", path, warning)
    return as_integers(volume.axial, np.int16)


def _read_label(path: Path, labels: int, buffer: ReusableBuffer | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return a label map as uint8 in axial order, and the labels in each slice, boolean (slice, label)."""
    label_map = read_volume(path, buffer).axial
    lowest, highest = label_map.min(), label_map.max()
    if lowest < 0 or highest >= labels or (label_map.dtype.kind == "f" and (label_map != np.rint(label_map)).any()):
        values = np.unique(label_map)
        invalid = values[(values < 0) | (values >= labels) | (values != np.rint(values))][0]
        raise LiversegError(f"{path}: label value {invalid:g}; this label table allows integers from 0 to {labels - 1}")
    label_map = as_integers(label_map, np.uint8)
    present = np.zeros((len(label_map), labels), bool)
    for label_slice, row in zip(label_map, present, strict=True):
        highest = int(label_slice.max())
        row[: highest + 1] = [bool((label_slice == value).any()) for value in range(highest + 1)]
    return label_map, present
