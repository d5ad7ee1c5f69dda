"""Compare lesions in an evaluation: label maps of volumes and annotated slices assembled from their slabs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from liverseg.datasets import SlabDataset
from liverseg.evaluation import BatchPrediction, compare_lesions
from liverseg.labels import JOINT_LABELS, LESION, LIVER_OR_LESION, UNTYPED_LESION
from liverseg.utils.files import atomic_write

__all__ = ["LesionRows"]


class LesionRows:
    """Collect predicted and true label maps by unit, and compare their lesions when a unit is complete.

    Slabs come in the data set's order, so only one volume is in memory at a time. Annotated slices are kept for
    pictures. Units whose label map does not distinguish lesions from liver have no rows.

    Args:
        dataset: the evaluated slabs, with all slices of its volumes.
    """

    def __init__(self, dataset: SlabDataset) -> None:
        self.dataset = dataset
        self.slices: dict[str, np.ndarray] = {}
        self._tables: list[pd.DataFrame] = []
        self._unit = -1
        self._slices: list[tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]] = []

    def add(
        self,
        prediction: BatchPrediction,
        labels: torch.Tensor,
        units: Sequence[int],
        boxes: Sequence[Sequence[int]] | None = None,
    ) -> None:
        """Add a batch. Predictions without a map are ignored.

        Args:
            prediction: prediction of the batch.
            labels: true label maps (batch, 1, H, W).
            units: number of each element's unit.
            boxes: box of each element in its full slice, see `LiverCropd`; None for full slices.
        """
        if prediction.labels is None:
            return
        pred = prediction.labels.to(torch.uint8).cpu().numpy()
        true = labels[:, 0].to(torch.uint8).cpu().numpy()
        for row, unit in enumerate(int(number) for number in units):
            if unit != self._unit:
                self._finish_unit()
                self._unit = unit
            shape = self.dataset.store[self.dataset.data[unit]].label.shape[-2:]
            # slices of several sizes are padded to the largest: only the first rows and columns belong to this slice
            top, left, height, width = (0, 0, *shape) if boxes is None else boxes[row]
            label_maps = np.zeros((2, *shape), np.uint8)
            for label_map, crop in zip(label_maps, (pred[row], true[row]), strict=True):
                label_map[top : top + height, left : left + width] = crop[:height, :width]
            weights, scores = None, None
            lesion = torch.from_numpy(pred[row, :height, :width] >= LESION)
            if prediction.type_weights is not None:
                weights = prediction.type_weights[row, :, :height, :width].cpu()[:, lesion].numpy()
            if prediction.lesion_probabilities is not None:
                scores = prediction.lesion_probabilities[row, :height, :width].cpu()[lesion].numpy()
            self._slices.append((label_maps[0], label_maps[1], weights, scores))

    def table(self) -> pd.DataFrame | None:
        """Return all rows, each with `patient`, `image` and `slice` (empty for a volume); None if there is no map."""
        self._finish_unit()
        return pd.concat(self._tables, ignore_index=True) if self._tables else None

    def write_slices(self, path: Path) -> None:
        """Write the predicted label maps of annotated slices, named by their unit's number, if there are any.

        Raises:
            OutputError: if the file cannot be written.
        """
        if not self.slices:
            return
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **self.slices)

    def _finish_unit(self) -> None:
        if not self._slices:
            return
        item = self.dataset.data[self._unit]
        volume = self.dataset.store[item]
        spacing: Sequence[float] = volume.spacing_mm
        preds, trues, all_weights, all_scores = zip(*self._slices, strict=True)
        self._slices = []
        pred, true = np.stack(preds), np.stack(trues)
        weights, scores = ([part for part in parts if part is not None] for parts in (all_weights, all_scores))
        if item.slice is not None:
            pred, true, spacing = pred[0], true[0], spacing[1:]
            self.slices[str(self._unit)] = pred
        if (true == LIVER_OR_LESION).any():
            return  # the lesions are unknown
        rows = compare_lesions(
            pred,
            true,
            spacing,
            np.concatenate(weights, axis=1) if weights else None,
            typed=bool(weights),
            true_typed=volume.present.shape[1] == len(JOINT_LABELS) and not (true == UNTYPED_LESION).any(),
            lesion_probabilities=np.concatenate(scores) if scores else None,
        )
        for column, value in (("slice", item.slice), ("image", item.image), ("patient", item.patient)):
            rows.insert(0, column, "" if value is None else value)
        self._tables.append(rows)
