"""The lesion table of a case: typed rows that convert themselves to a DataFrame, CSV and JSON.

pandas is imported for a DataFrame alone: it takes longer to import than a small CT's lesions take to measure.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from liverseg.labels import INDETERMINATE, LESION, Label
from liverseg.results.case_folder import write_json

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LesionMeasurements", "MeasuredLesion", "lesion_columns"]

_PROBABILITY = "probability_"


@dataclass(frozen=True)
class MeasuredLesion:
    """A row of the lesion table. A measurement that could not be made is NaN.

    Attributes:
        id: from 1, by decreasing volume.
        type: name of its label.
        probabilities: of each type, by name; none if there is only one type.
        volume_ml: its volume.
        longest_diameter_mm: its longest axial diameter.
        perpendicular_diameter_mm: the longest diameter at a right angle to that, in the same slice.
        diameter_slice: the slice of the diameters.
        centroid_x_mm, centroid_y_mm, centroid_z_mm: mean of its voxels' centres, RAS+.
        first_slice, last_slice: its extent; slices are voxel indices along the file's own slice axis, from 0.
        slices: number of its slices.
        mean_hu, std_hu: over all of its voxels.
        surface_distance_mm: to the liver's surface.
        touches_surface: whether that distance is 0.
        liver_contrast_hu: its mean minus the median of the liver around it.
        lesion_score: 0 to 1.
        indeterminate_because: reason if the type is indeterminate; written with several types only.
    """

    id: int
    type: str
    probabilities: Mapping[str, float]
    volume_ml: float
    longest_diameter_mm: float
    perpendicular_diameter_mm: float
    diameter_slice: int
    centroid_x_mm: float
    centroid_y_mm: float
    centroid_z_mm: float
    first_slice: int
    last_slice: int
    slices: int
    mean_hu: float
    std_hu: float
    surface_distance_mm: float
    touches_surface: bool
    liver_contrast_hu: float
    lesion_score: float
    indeterminate_because: str | None = None

    def value(self, column: str) -> Any:
        """Return the value of a column of `lesion_columns`."""
        if column.startswith(_PROBABILITY):
            return self.probabilities[column.removeprefix(_PROBABILITY)]
        return getattr(self, column)


@dataclass(frozen=True)
class LesionMeasurements:
    """The lesion table.

    Attributes:
        columns: `lesion_columns`.
        rows: one a lesion, in order of id.
    """

    columns: tuple[str, ...]
    rows: tuple[MeasuredLesion, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def records(self) -> list[dict[str, Any]]:
        """Return the values of each row by column."""
        return [{column: row.value(column) for column in self.columns} for row in self.rows]

    def to_frame(self) -> pd.DataFrame:
        """Return the table as a DataFrame."""
        import pandas as pd  # a tenth of a second

        frame = pd.DataFrame(self.records(), columns=list(self.columns))
        if "indeterminate_because" in frame:
            # None stays None where there is no reason: pandas would make it NaN, which is true
            reasons = [row.indeterminate_because for row in self.rows]
            frame["indeterminate_because"] = pd.Series(reasons, dtype=object)
        return frame

    def write_csv(self, path: Path) -> None:
        """Write the table as CSV, with empty cells for what could not be measured; without lesions, only the header."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([_known(value) for value in record.values()] for record in self.records())
        path.write_text(text.getvalue(), encoding="utf-8", newline="")

    def write_json(self, path: Path) -> None:
        """Write the table as a JSON list of objects, with null for what could not be measured, and 0.0 for -0.0."""
        write_json(path, [{name: _unsigned(_known(value)) for name, value in row.items()} for row in self.records()])


def lesion_columns(labels: tuple[Label, ...]) -> tuple[str, ...]:
    """Return the columns of the lesion table; without those of probabilities if there is only one lesion label."""
    types = [f"{_PROBABILITY}{label.name}" for label in labels[LESION:] if label is not INDETERMINATE]
    return (
        "id",
        "type",
        *(types if len(types) > 1 else []),
        "volume_ml",
        "longest_diameter_mm",
        "perpendicular_diameter_mm",
        "diameter_slice",
        "centroid_x_mm",
        "centroid_y_mm",
        "centroid_z_mm",
        "first_slice",
        "last_slice",
        "slices",
        "mean_hu",
        "std_hu",
        "surface_distance_mm",
        "touches_surface",
        "liver_contrast_hu",
        "lesion_score",
        *(["indeterminate_because"] if len(types) > 1 else []),
    )


def _known(value: Any) -> Any:
    """Return None for NaN, which is an empty cell in CSV and null in JSON."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _unsigned(value: Any) -> Any:
    return 0.0 if isinstance(value, float) and value == 0 else value
