"""Validation scores of a study's trainings against the epoch, from the TensorBoard events in the cells' folders."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from monai.bundle import ConfigParser
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from liverseg.bundle.paths import find_bundle
from liverseg.study.config import Row, StudyConfig
from liverseg.study.results import RowResults, StudyResults

__all__ = ["DRAWN", "RISE", "CellCurves", "RowProgress", "StudyCurves", "read_curves", "row_progress"]

DRAWN = {"val_lesion_dice": "lesion Dice", "val_type_accuracy": "type accuracy"}
"""Scores that are drawn, with their titles."""
_KEY_SCORE = "val_score"
"""Name in the events of the score by which `BestWeights` chooses the best epoch, whichever score the strategy uses."""
RISE = 0.01
"""Rise of the mean validation score in the last quarter of the epochs from which on the report names a row.

Our choice: the report and the papers print scores with two decimals, so a smaller rise hardly changes them."""

CellCurves = Mapping[str, Sequence[tuple[int, float]]]
"""Score to (epoch, value) of a cell, in order of the epochs; empty without events."""
StudyCurves = Mapping[str, Sequence[CellCurves]]
"""Row's name to the curves of its complete cells."""


@dataclass(frozen=True)
class RowProgress:
    """How the validation scores of a row's trainings rose: means over the trainings.

    A training counts if its events have the score in the first half of its epochs. Its last validated epoch is its end.
    Scores are those of the epochs themselves. The best until then would rise by chance, the more the fewer patients
    validate.

    Attributes:
        row: row of the study.
        key_score: name of the score by which the best epoch is chosen.
        trainings: number of trainings that count; without any, the means are NaN.
        half: mean over trainings of the last score up to half of the epochs.
        three_quarters: likewise, up to three quarters.
        end: likewise, of all epochs.
        standard_error: of the rise in the last quarter, over trainings; NaN with fewer than two.
    """

    row: RowResults
    key_score: str
    trainings: int
    half: float
    three_quarters: float
    end: float
    standard_error: float

    @property
    def rise(self) -> float:
        """Rise of the mean in the last quarter of the epochs."""
        return self.end - self.three_quarters

    @property
    def still_rises(self) -> bool:
        """Whether the rise, with three decimals as it is printed, is `RISE` or more."""
        return round(self.rise, 3) >= RISE


def read_curves(results: StudyResults) -> StudyCurves:
    """Read the validation scores of all complete cells."""
    return {row.name: [_read_events(cell.folder / "tensorboard") for cell in row.complete] for row in results.rows}


def row_progress(results: StudyResults, curves: StudyCurves) -> list[RowProgress]:
    """Return how the validation scores rose, for each row with results. Peers are trained outside the study."""
    return [
        _progress(row, _key_score(results.study, row.row), curves[row.name])
        for row in results.with_results
        if not row.row.peer
    ]


def _progress(row: RowResults, key_score: str, curves: Sequence[CellCurves]) -> RowProgress:
    trainings = [scores for curve in curves if (scores := _scores_until(curve.get(_KEY_SCORE, ())))]
    half, three_quarters, end = map(statistics.fmean, zip(*(trainings or [(math.nan,) * 3]), strict=True))
    rises = [scores[2] - scores[1] for scores in trainings]
    standard_error = statistics.stdev(rises) / math.sqrt(len(rises)) if len(rises) > 1 else math.nan
    return RowProgress(row, key_score, len(trainings), half, three_quarters, end, standard_error)


def _scores_until(curve: Sequence[tuple[int, float]]) -> tuple[float, ...] | None:
    """Return the last scores up to a half, three quarters and the end; None without any in the first half."""
    known = [(epoch, value) for epoch, value in curve if not math.isnan(value)]
    last = curve[-1][0] if curve else 0
    if not known or known[0][0] > last / 2:
        return None
    return tuple([value for epoch, value in known if epoch <= share * last][-1] for share in (0.5, 0.75, 1))


def _key_score(study: StudyConfig, row: Row) -> str:
    """Return the name of the score by which a row's trainings choose the best epoch, from overrides and configs."""
    folder = find_bundle(study.bundle) / "configs"
    configs = ConfigParser.load_config_files([folder / f"{name}.yaml" for name in study.configs_of(row)])
    return str(study.overrides_of(row).get("key_score", configs.get("key_score")))


def _read_events(folder: Path) -> CellCurves:
    if not folder.is_dir():
        return {}
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    names = [name for name in (_KEY_SCORE, *DRAWN) if name in events.Tags()["scalars"]]
    # an interrupted training writes an epoch twice; it resumed with the later value
    by_epoch = {name: {event.step: event.value for event in events.Scalars(name)} for name in names}
    return {name: sorted(found.items()) for name, found in by_epoch.items()}
