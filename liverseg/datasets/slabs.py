"""Slabs of stored volumes as a MONAI data set, and a sampler of the slabs of an epoch.

Random numbers depend only on the run's seed, the epoch and the slab, not on workers, processes or resuming. At an
epoch's start `liverseg.training.EpochSeed` passes its number to `SlabSampler`, which draws the order from (seed, epoch)
and yields (epoch, index). `SlabDataset` gets this key and seeds its transform's RandomState from (seed, epoch, index).
`EpochSeed` also seeds torch's generator, from which the training device draws the noise.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import Dataset
from monai.transforms import Randomizable
from torch.utils.data import Sampler

from liverseg.datalists import DataItem, contradicts_labelled
from liverseg.datasets.store import StoredVolume, VolumeStore
from liverseg.errors import LiversegError
from liverseg.labels import JOINT_LABELS, LESION, LESION_TYPES, LIVER, LIVER_OR_LESION, UNTYPED_LESION
from liverseg.transforms import slab_indices

__all__ = ["SlabDataset", "SlabSampler"]


class SlabDataset(Dataset):
    """All slabs of a data list's items: each slice of a volume, or the annotated slices of a cohort.

    An element is a dictionary with `image` (slab slices, H, W) int16 HU, `label` (1, H, W) uint8 of the middle slice,
    `unit`, the number of the volume or slice for scoring, `lesion_type`, the index in `LESION_TYPES` (-1 for unknown),
    `spacing` (3,) float32 mm between slices, rows and columns, and `hu_range` (2,) float32, the limits to which the
    image's HU were clipped, (-inf, inf) for none; then the transform is applied. With a partial label map, `label` has
    `LIVER_OR_LESION` in place of liver, or `UNTYPED_LESION` in place of lesions.

    A random transform is seeded for every element, see the module's docstring.

    Args:
        data: items; an item without a slice has all slices of its volume.
        dataset_dir: folder that the items' paths are relative to.
        cache_dir: folder of the `SliceCache`; None to read the NIfTI files directly.
        labels: rows of the label table.
        slab_spacing_mm: distance of a slab's slices in mm; None for adjacent slices, see `slab_indices`.
        transform: dictionary transform of each element.
        seed: seed of a random transform.
        every: take only every n-th slice of volumes, counted from the middle of the liver, for example to validate
            quickly.
        progress: show a progress bar while volumes are read.

    Raises:
        LiversegError: as `VolumeStore`; for a slice outside its volume, for a typed slice without a pixel of its type
            if the label table has types, and for a partial label map with labels that its item does not name.
    """

    def __init__(
        self,
        data: Sequence[DataItem],
        dataset_dir: str | os.PathLike,
        cache_dir: str | os.PathLike | None,
        labels: int,
        slab_spacing_mm: float | None = None,
        transform: Callable | None = None,
        seed: int = 0,
        every: int = 1,
        progress: bool = True,
    ) -> None:
        super().__init__(data=list(data), transform=transform)
        self.seed = seed
        self.slab_spacing_mm = slab_spacing_mm
        self.store = VolumeStore(data, dataset_dir, cache_dir, labels, progress)
        self.labels = labels
        elements: list[tuple[int, int, int]] = []
        lesion: list[bool] = []
        for unit, item in enumerate(data):
            volume = self.store[item]
            type_index = -1 if item.lesion_type is None else LESION_TYPES.index(item.lesion_type)
            slices = self._slices(item, volume, every, Path(dataset_dir))
            present = volume.present if item.slice is None else volume.present[list(slices)]
            _check_partial(item, present, Path(dataset_dir))
            for index in slices:
                if item.slice is not None and item.lesion_type is not None and labels == len(JOINT_LABELS):
                    _check_type(item, volume.present[index], LESION + type_index, Path(dataset_dir))
                elements.append((unit, index, type_index))
                # a liver whose lesions are not outlined may have some
                lowest = LESION if item.lesions_are_outlined else LIVER
                lesion.append(bool(volume.present[index, lowest:].any()))
        self.elements = elements
        self.may_have_lesion = np.array(lesion, dtype=bool)

    @staticmethod
    def _slices(item: DataItem, volume: StoredVolume, every: int, dataset_dir: Path) -> Sequence[int]:
        if item.slice is None:
            liver = np.flatnonzero(volume.present[:, LIVER:].any(axis=1))
            middle = int(liver[len(liver) // 2]) if liver.size else volume.depth // 2
            return range(middle % every, volume.depth, every)
        if item.slice >= volume.depth:
            raise LiversegError(
                f"{dataset_dir / item.image}: slice {item.slice} is in the data list, "
                f"but the volume has {volume.depth} slices; correct the data list"
            )
        return (volume.axial_index(item.slice),)

    def __len__(self) -> int:
        return len(self.elements)

    def __getitem__(self, key: Any) -> dict[str, Any]:
        """Return the element with a key of `SlabSampler`, (epoch, index), or with an index, which is of epoch 0."""
        epoch, index = key if isinstance(key, tuple) else (0, int(key))
        unit, middle, type_index = self.elements[index]
        volume = self.store[self.data[unit]]
        numbers = slab_indices(
            middle, volume.depth, slice_mm=volume.spacing_mm[0], slab_spacing_mm=self.slab_spacing_mm
        )
        element = {
            "image": torch.from_numpy(volume.image.read(numbers)),
            "label": torch.from_numpy(self._target(self.data[unit], volume.label.read([middle]))),
            "unit": unit,
            "lesion_type": type_index,
            "spacing": torch.tensor(volume.spacing_mm, dtype=torch.float32),
            "hu_range": torch.tensor(self.data[unit].clipped_hu or (-math.inf, math.inf), dtype=torch.float32),
        }
        if self.transform is None:
            return element
        if isinstance(self.transform, Randomizable):
            # PCG64, because seeding RandomState's default, a Mersenne Twister, takes as long as drawing a slab's view
            state = np.random.RandomState(np.random.PCG64(np.random.SeedSequence((self.seed, epoch, index))))
            self.transform.set_random_state(state=state)
        return self.transform(element)

    def _target(self, item: DataItem, label: np.ndarray) -> np.ndarray:
        """Return the training target of a label map."""
        if not item.lesions_are_outlined:
            return np.where(label == LIVER, np.uint8(LIVER_OR_LESION), label)
        if item.labelled is not None and self.labels == len(JOINT_LABELS):
            return np.where(label == LESION, np.uint8(UNTYPED_LESION), label)
        return label


def _check_partial(item: DataItem, present: np.ndarray, dataset_dir: Path) -> None:
    """Refuse a partial label map, given as booleans (slice, label), with labels that its item does not name."""
    contradiction = contradicts_labelled(item, np.flatnonzero(present.any(axis=0)).tolist())
    if contradiction:
        raise LiversegError(f"{dataset_dir / str(item.label)}: {contradiction}")


def _check_type(item: DataItem, present: np.ndarray, value: int, dataset_dir: Path) -> None:
    """Refuse an annotated slice whose label map, given as booleans by label, lacks its type."""
    if not present[value]:
        labels = ", ".join(f"{index} {JOINT_LABELS[index].name}" for index in np.flatnonzero(present))
        raise LiversegError(
            f"{dataset_dir / item.image}: slice {item.slice} is listed as {item.lesion_type}, but its label map "
            f"{item.label} has no {value} there, only {labels}; correct the type, the slice or the label map"
        )


class SlabSampler(Sampler[tuple[int, int]]):
    """Shuffled slabs of an epoch: all that may have a lesion, and a share of the others that changes every epoch.

    Yields (epoch, index). The order depends only on (seed, epoch); the trainer calls `set_epoch`.

    Args:
        dataset: data set to draw from.
        lesion_free: share of the lesion-free slabs in an epoch, 0 to 1; a tenth in the paper.
        seed: seed of choice and order.
        repeats: number of times an epoch has the slabs with lesions, for small cohorts.

    Raises:
        LiversegError: if there is nothing to train on.
    """

    def __init__(self, dataset: SlabDataset, lesion_free: float = 0.1, seed: int = 0, repeats: int = 1) -> None:
        self.lesion = np.flatnonzero(dataset.may_have_lesion)
        self.lesion_free = np.flatnonzero(~dataset.may_have_lesion)
        self.lesion_free_count = round(lesion_free * len(self.lesion_free))
        self.seed = seed
        self.repeats = repeats
        self.epoch = 1
        if len(self) == 0:
            raise LiversegError(
                f"nothing to train on: {len(self.lesion)} slabs with a lesion, {self.lesion_free_count} of "
                f"{len(self.lesion_free)} without (lesion_free {lesion_free})"
            )

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration, counted from 1."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lesion) * self.repeats + self.lesion_free_count

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        lesion_free = rng.choice(self.lesion_free, self.lesion_free_count, replace=False)
        indices = np.concatenate([np.repeat(self.lesion, self.repeats), lesion_free])
        # repetitions have different epoch numbers in their keys, so that their augmentation differs
        repetitions = np.concatenate(
            [np.tile(np.arange(self.repeats), len(self.lesion)), np.zeros(len(lesion_free), dtype=int)]
        )
        for position in rng.permutation(len(indices)):
            yield self.epoch * self.repeats + int(repetitions[position]), int(indices[position])
