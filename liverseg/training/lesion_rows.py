"""Lesion by lesion in an evaluation: whole volumes and annotated slices put together from their slabs, and compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from liverseg.datasets import SlabDataset
from liverseg.errors import LiversegError
from liverseg.evaluation import BatchPrediction, compare_lesions
from liverseg.labels import JOINT_LABELS, LESION, LIVER_OR_LESION, UNTYPED_LESION
from liverseg.utils.files import atomic_write

__all__ = ["LesionRows"]


class LesionRows:
    """Collects predicted and true label maps unit by unit, and compares their lesions when a unit is whole.

    Slabs come in the data set's order, so no more than one volume is held at a time. Annotated slices are kept, for
    pictures of them. Units whose label map does not tell lesions from liver have no rows.

    Args:
        dataset: the evaluated slabs; all slices of its volumes.
    """

    def __init__(self, dataset: SlabDataset) -> None:
        self.dataset = dataset
        self.slices: dict[str, np.ndarray] = {}
        self._tables: list[pd.DataFrame] = []
        self._unit = -1
        self._planes: list[tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]] = []

    def add(
        self,
        prediction: BatchPrediction,
        labels: torch.Tensor,
        units: Sequence[int],
        boxes: Sequence[Sequence[int]] | None = None,
    ) -> None:
        """Take a batch. A network that outlines nothing has no lesions.

        Args:
            prediction: of the batch.
            labels: true label maps (batch, 1, H, W).
            units: number of the unit each element belongs to.
            boxes: where each element lies in its whole slice, see `LiverCropd`; None for whole slices.
        """
        if prediction.labels is None:
            return
        pred = prediction.labels.to(torch.uint8).cpu().numpy()
        true = labels[:, 0].to(torch.uint8).cpu().numpy()
        for row, unit in enumerate(int(number) for number in units):
            if unit != self._unit:
                self._close()
                self._unit = unit
            whole = self.dataset.store[self.dataset.data[unit]].label.shape[-2:]
            # a batch of slices of several sizes is enlarged to the largest: only the first rows and columns are its own
            top, left, height, width = (0, 0, *whole) if boxes is None else boxes[row]
            planes = np.zeros((2, *whole), np.uint8)
            for plane, seen in zip(planes, (pred[row], true[row]), strict=True):
                plane[top : top + height, left : left + width] = seen[:height, :width]
            weights, scores = None, None
            lesion = torch.from_numpy(pred[row, :height, :width] >= LESION)
            if prediction.type_weights is not None:
                weights = prediction.type_weights[row, :, :height, :width].cpu()[:, lesion].numpy()
            if prediction.lesion_probabilities is not None:
                scores = prediction.lesion_probabilities[row, :height, :width].cpu()[lesion].numpy()
            self._planes.append((planes[0], planes[1], weights, scores))

    def table(self) -> pd.DataFrame | None:
        """All rows so far, each with its `patient`, `image` and `slice` (empty for a volume); None without a map."""
        self._close()
        return pd.concat(self._tables, ignore_index=True) if self._tables else None

    def write_slices(self, path: Path) -> None:
        """Write the predicted label maps of the annotated slices, by the number of their row, if there are any.

        Raises:
            LiversegError: if the file cannot be written.
        """
        if not self.slices:
            return
        try:
            with atomic_write(path) as unfinished, unfinished.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **self.slices)
        except OSError as error:
            raise LiversegError(f"{path}: cannot be written ({error.strerror}); is the disk full?") from error

    def _close(self) -> None:
        if not self._planes:
            return
        item = self.dataset.data[self._unit]
        volume = self.dataset.store[item]
        spacing: Sequence[float] = volume.spacing_mm
        preds, trues, all_weights, all_scores = zip(*self._planes, strict=True)
        pred, true = np.stack(preds), np.stack(trues)
        weights, scores = ([own for own in kept if own is not None] for kept in (all_weights, all_scores))
        together = np.concatenate(weights, axis=1) if weights else None
        of_types = volume.present.shape[1] == len(JOINT_LABELS) and not (true == UNTYPED_LESION).any()
        types = {"typed": together is not None, "true_typed": of_types}
        probabilities = np.concatenate(scores) if scores else None
        if item.slice is not None:
            pred, true, spacing = pred[0], true[0], spacing[1:]
            self.slices[str(self._unit)] = pred
        self._planes = []
        if (true == LIVER_OR_LESION).any():
            return  # nobody knows its lesions
        found = compare_lesions(pred, true, spacing, together, **types, lesion_probabilities=probabilities)
        for column, value in (("slice", item.slice), ("image", item.image), ("patient", item.patient)):
            found.insert(0, column, "" if value is None else value)
        self._tables.append(found)
