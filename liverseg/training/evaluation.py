"""What an evaluation leaves on disk: one table of units, one file of scores."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from ignite.engine import Engine, Events

from liverseg.datalists import DataItem
from liverseg.files import write_text
from liverseg.training.metrics import SlabScores

__all__ = ["EvaluationWriter"]


class EvaluationWriter:
    """Writes `evaluation.csv` (a row a volume or slice) and `evaluation.json` (the scores), and logs the scores.

    Args:
        output_dir: existing folder.
        items: the evaluated items in the data set's order.
        scores: the metric that counted them.
        name: what was evaluated, for the log.
    """

    def __init__(self, output_dir: str | Path, items: Sequence[DataItem], scores: SlabScores, name: str) -> None:
        self.output_dir = Path(output_dir)
        self.items = items
        self.scores = scores
        self.name = name

    def attach(self, engine: Engine) -> None:
        """Write when the evaluator has finished."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write table and scores."""
        units = [{"patient": item.patient, "image": item.image, "slice": item.slice} for item in self.items]
        self.scores.write_table(self.output_dir / "evaluation.csv", units)
        scores = self.scores.counted.scores()
        content = {"units": len(self.items), "patients": len({item.patient for item in self.items}), **scores}
        write_text(self.output_dir / "evaluation.json", json.dumps(content, indent=1) + "\n")
        told = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
        logging.getLogger(__name__).info("%s, %d patients: %s", self.name, content["patients"], told)
