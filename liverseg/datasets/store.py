"""Random access to the slices of many volumes: each is read and checked once, then mapped from disk.

A `.nii.gz` can only be read from its beginning, so training straight from it would decompress a volume for every slab.
The first use of a volume writes its voxels, in axial order, to plain array files in a cache folder; from then on a
slab is a few pages mapped from disk, and memory stays flat however many volumes there are.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.orientations import io_orientation
from tqdm import tqdm

from liverseg.ct_check import check_ct
from liverseg.datalists import DataItem
from liverseg.errors import LiversegError
from liverseg.files import whole_file
from liverseg.volumes import grids_apart, read_volume, read_volume_header

__all__ = ["StoredVolume", "VolumeStore", "check_pair"]

_FORMAT = "3"  # part of every cache file's name: another layout or another check is another file
_KINDS = ("image", "label")
_READERS = 4  # gzip decompression leaves the interpreter lock, so a few threads keep the cores busy

_Pair = tuple[str, str]  # image and label, as the data list names them


@dataclass(frozen=True)
class StoredVolume:
    """One labelled volume, mapped from disk.

    Attributes:
        image: int16 HU, (slice, row, column) in axial order.
        label: uint8 label map, same shape.
        flipped: True where the file numbers its slices from head to feet.
    """

    image: np.ndarray
    label: np.ndarray
    flipped: bool

    def axial_index(self, slice_number: int) -> int:
        """The slice in axial order that the file itself numbers `slice_number`."""
        return self.image.shape[0] - 1 - slice_number if self.flipped else slice_number


def check_pair(item: DataItem, dataset_dir: Path) -> np.ndarray:
    """Check from the headers alone that image and label of an item exist and share one grid.

    Returns:
        The image's affine, 4×4.

    Raises:
        LiversegError: naming the file and the difference.
    """
    image, label = dataset_dir / item.image, dataset_dir / str(item.label)
    (shape, affine), (label_shape, label_affine) = read_volume_header(image), read_volume_header(label)
    if shape != label_shape:
        raise LiversegError(
            f"{label}: shape {_times(label_shape)}, but its image {image} has {_times(shape)}; both must share one grid"
        )
    apart = grids_apart(affine, label_affine, shape)
    if apart:
        raise LiversegError(
            f"{label}: its affine places voxels up to {apart:.3g} mm from those of its image {image}; "
            "both must share one grid"
        )
    return affine


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


class VolumeStore:
    """The volumes of a data list, read once and mapped from a cache folder afterwards.

    Args:
        items: what will be asked for; every image needs a label, and one image may come with several.
        dataset_dir: folder the items' paths are relative to.
        cache_dir: folder for the array files, made if missing. A cached file is used again while its source's size and
            time are unchanged.
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
        cache_dir: str | os.PathLike,
        labels: int,
        progress: bool = True,
    ) -> None:
        self.dataset_dir = Path(dataset_dir)
        self.cache_dir = Path(cache_dir)
        self.labels = labels
        affines: dict[_Pair, np.ndarray] = {}
        for item in items:
            if _pair(item) not in affines:
                affines[_pair(item)] = check_pair(item, self.dataset_dir)
        try:
            self.cache_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LiversegError(f"{self.cache_dir}: the cache folder cannot be made ({error.strerror})") from error
        # an image may have several label maps, so each file is read by itself
        files = list(dict.fromkeys((kind, name) for pair in affines for kind, name in zip(_KINDS, pair, strict=True)))
        with ThreadPoolExecutor(_READERS) as pool:
            bar = tqdm(
                pool.map(self._mapped, *zip(*files, strict=True)),
                total=len(files),
                desc="reading volumes",
                disable=not progress,
                unit="file",
            )
            arrays = dict(zip(files, bar, strict=True))
        self._volumes = {
            (image, label): StoredVolume(arrays["image", image], arrays["label", label], _runs_to_the_feet(affine))
            for (image, label), affine in affines.items()
        }

    def __getitem__(self, item: DataItem) -> StoredVolume:
        """The volume of an item: its image together with its own label map."""
        return self._volumes[_pair(item)]

    def __len__(self) -> int:
        return len(self._volumes)

    def _mapped(self, kind: str, name: str) -> np.ndarray:
        path = self.dataset_dir / name
        state = path.stat()
        # whatever a check of the voxels depends on is in the name too, so that a cached file has passed it
        rule = f"{_FORMAT} image" if kind == "image" else f"{_FORMAT} label {self.labels}"
        key = hashlib.sha256(f"{rule} {path.absolute()} {state.st_size} {state.st_mtime_ns}".encode())
        cached = self.cache_dir / f"{key.hexdigest()[:32]}.{kind}.npy"
        if not cached.exists():
            array = _read_image(path) if kind == "image" else _read_label(path, self.labels)
            try:
                with whole_file(cached) as unfinished, unfinished.open("wb") as file:
                    np.save(file, np.ascontiguousarray(array))
            except OSError as error:
                raise LiversegError(
                    f"{self.cache_dir}: the cache cannot be written ({error.strerror}); choose another cache_dir"
                ) from error
        return np.load(cached, mmap_mode="r")


def _pair(item: DataItem) -> _Pair:
    return item.image, str(item.label)


def _runs_to_the_feet(affine: np.ndarray) -> bool:
    axes = io_orientation(affine)
    return bool(axes[axes[:, 0] == 2, 1] < 0)


def _read_image(path: Path) -> np.ndarray:
    volume = read_volume(path)
    for warning in check_ct(volume):
        logging.getLogger(__name__).warning("%s: %s", path, warning)
    return np.clip(np.rint(volume.axial), -32768, 32767).astype(np.int16)


def _read_label(path: Path, labels: int) -> np.ndarray:
    truth = read_volume(path)
    values = np.unique(truth.array)
    bad = values[(values < 0) | (values >= labels) | (values != np.round(values))]
    if bad.size:
        raise LiversegError(
            f"{path}: label value {bad[0]:g}; this label table allows 0 to {labels - 1} in whole numbers"
        )
    return truth.axial.astype(np.uint8)
