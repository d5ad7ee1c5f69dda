"""Random access to the slices of many volumes: each is read and checked once, then mapped from disk.

A `.nii.gz` can only be read from its beginning, so training straight from it would decompress a volume for every slab.
The first use of a volume writes its voxels, in axial order, to two plain array files in a cache folder; from then on a
slab is a few pages mapped from disk, and memory stays flat however many volumes there are.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from liverseg.ct_check import check_ct
from liverseg.datalists import DataItem
from liverseg.errors import LiversegError
from liverseg.volumes import read_volume, read_volume_header

__all__ = ["StoredVolume", "VolumeStore", "check_pair"]

_FORMAT = "2"  # part of every cache file's name: another layout or another check is another file
_READERS = 4  # gzip decompression leaves the interpreter lock, so a few threads keep the cores busy


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


def check_pair(item: DataItem, dataset_dir: Path) -> None:
    """Check from the headers alone that image and label of an item exist and share one grid.

    Raises:
        LiversegError: naming the file and the difference.
    """
    image, label = dataset_dir / item.image, dataset_dir / str(item.label)
    (shape, affine), (label_shape, label_affine) = read_volume_header(image), read_volume_header(label)
    if shape != label_shape:
        raise LiversegError(
            f"{label}: shape {_times(label_shape)}, but its image {image} has {_times(shape)}; both must share one grid"
        )
    # a hundredth of a millimetre at the far corner is rounding, more is another grid
    far = np.array([*shape, 1.0])
    apart = float(np.abs((affine - label_affine) * far).max())
    if apart > 0.01 * max(1.0, float(np.abs(affine @ far).max()) / 100):
        raise LiversegError(
            f"{label}: its affine places voxels up to {apart:.3g} mm from those of its image {image}; "
            "both must share one grid"
        )


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


class VolumeStore:
    """The volumes of a data list, read once and mapped from a cache folder afterwards.

    Args:
        items: what will be asked for; every image needs a label.
        dataset_dir: folder the items' paths are relative to.
        cache_dir: folder for the array files, made if missing. A cached volume is used again while its files' sizes and
            times are unchanged.
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
        pairs = {item.image: item for item in items}
        for item in pairs.values():
            check_pair(item, self.dataset_dir)
        try:
            self.cache_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LiversegError(f"{self.cache_dir}: the cache folder cannot be made ({error.strerror})") from error
        with ThreadPoolExecutor(_READERS) as pool:
            bar = tqdm(
                pool.map(self._stored, pairs.values()),
                total=len(pairs),
                desc="reading volumes",
                disable=not progress,
                unit="volume",
            )
            self._volumes = dict(zip(pairs, bar, strict=True))

    def __getitem__(self, image: str) -> StoredVolume:
        return self._volumes[image]

    def __len__(self) -> int:
        return len(self._volumes)

    def _stored(self, item: DataItem) -> StoredVolume:
        image, label = self.dataset_dir / item.image, self.dataset_dir / str(item.label)
        key = hashlib.sha256()
        for path in (image, label):
            state = path.stat()
            key.update(f"{_FORMAT} {path.absolute()} {state.st_size} {state.st_mtime_ns}".encode())
        stem = key.hexdigest()[:32]
        targets = {kind: self.cache_dir / f"{stem}.{kind}.npy" for kind in ("image", "label", "flipped")}
        if not all(path.exists() for path in targets.values()):
            self._fill(image, label, targets)
        return StoredVolume(
            image=np.load(targets["image"], mmap_mode="r"),
            label=np.load(targets["label"], mmap_mode="r"),
            flipped=bool(np.load(targets["flipped"])),
        )

    def _fill(self, image: Path, label: Path, targets: dict[str, Path]) -> None:
        volume, truth = read_volume(image), read_volume(label)
        values = np.unique(truth.array)
        bad = values[(values < 0) | (values >= self.labels) | (values != np.round(values))]
        if bad.size:
            raise LiversegError(
                f"{label}: label value {bad[0]:g}; this label table allows 0 to {self.labels - 1} in whole numbers"
            )
        check_ct(volume)
        hu = np.clip(np.rint(volume.axial), -32768, 32767).astype(np.int16)
        flipped = np.dot(volume.affine[:3, volume.slice_axis], volume.axial_affine[:3, 0]) < 0
        arrays = {"image": hu, "label": truth.axial.astype(np.uint8), "flipped": np.array(flipped)}
        try:
            for kind, path in targets.items():
                unfinished = path.with_name(f".{path.name}.{os.getpid()}")
                with unfinished.open("wb") as file:
                    np.save(file, np.ascontiguousarray(arrays[kind]))
                unfinished.replace(path)
        except OSError as error:
            raise LiversegError(
                f"{self.cache_dir}: the cache cannot be written ({error.strerror}); choose another cache_dir"
            ) from error
