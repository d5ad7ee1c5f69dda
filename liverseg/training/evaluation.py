"""Write the results of an evaluation: tables of units and lesions, outlines of annotated slices, and scores."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.utils import CommonKeys

from liverseg.datasets import SlabDataset
from liverseg.evaluation import lesion_scores
from liverseg.training.lesion_rows import LesionRows
from liverseg.training.metrics import SlabScores, as_prediction
from liverseg.utils.files import write_text

__all__ = ["EvaluationWriter"]


class EvaluationWriter:
    """Handler that writes the files of docs/evaluation.md and logs the scores.

    `evaluation.csv` has one row per volume or slice, `lesions.csv` one row per lesion, `predictions.npz` the predicted
    label maps of annotated slices, and `evaluation.json` the scores. `lesions.csv` and `predictions.npz` are not
    written for a network without a map.

    Args:
        output_dir: existing folder.
        dataset: the evaluated slabs.
        scores: the evaluator's metric.
        name: name of the evaluation in the log.
    """

    def __init__(self, output_dir: str | Path, dataset: SlabDataset, scores: SlabScores, name: str) -> None:
        self.output_dir = Path(output_dir)
        self.dataset = dataset
        self.lesions = LesionRows(dataset)
        self.scores = scores
        self.name = name

    def attach(self, engine: Engine) -> None:
        """Collect the lesions of every batch, and write the files when the evaluator has finished."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.update)
        engine.add_event_handler(Events.COMPLETED, self)

    def update(self, engine: Engine) -> None:
        """Collect the lesions of the last evaluated batch."""
        output: Any = engine.state.output
        batch: Any = engine.state.batch
        prediction, labels = as_prediction(output[CommonKeys.PRED]), torch.as_tensor(output[CommonKeys.LABEL])
        boxes = torch.as_tensor(batch["box"]).tolist() if "box" in batch else None
        self.lesions.add(prediction, labels, torch.as_tensor(batch["unit"]).tolist(), boxes)

    def __call__(self, engine: Engine) -> None:
        """Write tables, outlines and scores."""
        items = self.dataset.data
        units = [{"patient": item.patient, "image": item.image, "slice": item.slice} for item in items]
        self.scores.write_table(self.output_dir / "evaluation.csv", units)
        scores = self.scores.counted.scores()
        content: dict[str, Any] = {"units": len(items), "patients": len({item.patient for item in items}), **scores}
        lesions = self.lesions.table()
        self.lesions.write_slices(self.output_dir / "predictions.npz")
        if lesions is not None:
            write_text(self.output_dir / "lesions.csv", lesions.to_csv(index=False, float_format="%.6g"))
            defined = {name: value for name, value in lesion_scores(lesions).items() if math.isfinite(value)}
            content["lesion_level"] = defined
        write_text(self.output_dir / "evaluation.json", json.dumps(content, indent=1) + "\n")
        summary = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
        logging.getLogger(__name__).info("%s, %d patients: %s", self.name, content["patients"], summary)
