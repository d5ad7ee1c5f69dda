"""Slabs of stored volumes as a MONAI data set, and the sampler that decides which of them an epoch sees."""

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
    """Every slab the items of a data list hold: each slice of a volume, or the annotated slices of a cohort.

    An element is a dictionary: `image` (slab slices, H, W) int16 HU, `label` (1, H, W) uint8 of the middle slice,
    `unit` a number for the volume or slice the element is scored with, `lesion_type` its index in `LESION_TYPES`
    (-1: not known), `spacing` (3,) float32 mm between slices, rows and columns, `hu_range` (2,) float32, the lowest and
    highest HU that the image can hold: a pixel at a limit may have had any HU beyond it, and an image that was not
    clipped has (-inf, inf); then whatever the transform makes of it. Where an item's label map is partial, `label`
    holds `LIVER_OR_LESION` in place of liver, or `UNTYPED_LESION` in place of lesions.

    A random transform is seeded anew for every element from (seed, epoch, element), so that what a training sees
    depends neither on the number of workers nor on where it was resumed.

    Args:
        data: items; those without a slice stand for all slices of their volume.
        dataset_dir: folder the items' paths are relative to.
        cache_dir: folder of the `VolumeStore`; None reads straight from the NIfTI files.
        labels: rows of the label table.
        slab_spacing_mm: distance of a slab's slices in mm; None takes adjacent ones, see `slab_indices`.
        transform: dictionary transform for each element.
        seed: seed of the transform's randomness.
        every: take only every n-th slice of whole volumes, counted from the middle of the liver, e.g. to validate
            quickly.
        progress: show progress while volumes are read for the first time.

    Raises:
        LiversegError: what `VolumeStore` finds wrong, a slice outside its volume, a typed slice without a pixel of
            its type where the label table has types, or a partial label map with labels that its item does not name.
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
            judged = volume.present if item.slice is None else volume.present[list(slices)]
            _check_partial(item, judged, Path(dataset_dir))
            for index in slices:
                if item.slice is not None and item.lesion_type is not None and labels == len(JOINT_LABELS):
                    _check_type(item, volume.present[index], LESION + type_index, Path(dataset_dir))
                elements.append((unit, index, type_index))
                # a liver whose lesions are not told apart may have some
                first = LESION if item.lesions_are_outlined else LIVER
                lesion.append(bool(volume.present[index, first:].any()))
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
                f"but the volume has {volume.depth} slices"
            )
        return (volume.axial_index(item.slice),)

    def __len__(self) -> int:
        return len(self.elements)

    def __getitem__(self, key: Any) -> dict[str, Any]:
        """The element `key`, an index or (epoch, index) as `SlabSampler` gives."""
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
            # a Mersenne Twister, numpy's own choice here, takes as long to seed as a slab's view to draw
            state = np.random.RandomState(np.random.PCG64(np.random.SeedSequence((self.seed, epoch, index))))
            self.transform.set_random_state(state=state)
        return self.transform(element)

    def _target(self, item: DataItem, label: np.ndarray) -> np.ndarray:
        """A label map as the network is to learn it."""
        if not item.lesions_are_outlined:
            return np.where(label == LIVER, np.uint8(LIVER_OR_LESION), label)
        if item.labelled is not None and self.labels == len(JOINT_LABELS):
            return np.where(label == LESION, np.uint8(UNTYPED_LESION), label)
        return label


def _check_partial(item: DataItem, present: np.ndarray, dataset_dir: Path) -> None:
    """Refuse a partial label map, its labels boolean by slice and label, that tells more apart than its item says."""
    contradiction = contradicts_labelled(item, np.flatnonzero(present.any(axis=0)).tolist())
    if contradiction:
        raise LiversegError(f"{dataset_dir / str(item.label)}: {contradiction}")


def _check_type(item: DataItem, present: np.ndarray, value: int, dataset_dir: Path) -> None:
    """Refuse an annotated slice whose labels, boolean by label, lack the type it is listed with."""
    if not present[value]:
        found = ", ".join(f"{index} {JOINT_LABELS[index].name}" for index in np.flatnonzero(present))
        raise LiversegError(
            f"{dataset_dir / item.image}: slice {item.slice} is listed as {item.lesion_type}, but its label map "
            f"{item.label} has no {value} there, only {found}; correct the type, the slice or the label map"
        )


class SlabSampler(Sampler[tuple[int, int]]):
    """Shuffled slabs of one epoch: all that may have a lesion, and a share of those without, another part every epoch.

    It gives (epoch, index), and the order depends on (seed, epoch) alone; `set_epoch` is called by the trainer.

    Args:
        dataset: what to draw from.
        lesion_free: share of the lesion-free slabs an epoch sees, 0 to 1; the paper keeps a tenth.
        seed: seed of choice and order.
        repeats: how often an epoch goes through the lesion slabs, for small cohorts.

    Raises:
        LiversegError: if nothing would be left to train on.
    """

    def __init__(self, dataset: SlabDataset, lesion_free: float = 0.1, seed: int = 0, repeats: int = 1) -> None:
        self.lesion = np.flatnonzero(dataset.may_have_lesion)
        self.free = np.flatnonzero(~dataset.may_have_lesion)
        self.kept = round(lesion_free * len(self.free))
        self.seed = seed
        self.repeats = repeats
        self.epoch = 1
        if len(self) == 0:
            raise LiversegError(
                f"nothing to train on: {len(self.lesion)} slabs with a lesion, {self.kept} of {len(self.free)} "
                f"without (lesion_free {lesion_free})"
            )

    def set_epoch(self, epoch: int) -> None:
        """The epoch the next iteration is for, counted from 1."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lesion) * self.repeats + self.kept

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng((self.seed, self.epoch))
        free = order.choice(self.free, self.kept, replace=False)
        # a repeated slab is another element of the epoch: its own number seeds its own augmentation
        chosen = np.concatenate([np.repeat(self.lesion, self.repeats), free])
        rounds = np.concatenate([np.tile(np.arange(self.repeats), len(self.lesion)), np.zeros(len(free), dtype=int)])
        for place in order.permutation(len(chosen)):
            yield self.epoch * self.repeats + int(rounds[place]), int(chosen[place])
