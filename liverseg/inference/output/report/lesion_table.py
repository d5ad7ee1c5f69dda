"""The lesion table of a report: headings with units, types with their colour, probabilities with bars."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from liverseg.inference.lesion_measurements import LesionMeasurements
from liverseg.labels import LESION, Label

__all__ = ["LesionTable", "TableCell", "lesion_table", "swatch"]

_MISSING = "–"
_PROBABILITY = "probability_"

LesionValues = Mapping[str, Any]
"""A lesion's values by the names of the table's columns."""


@dataclass(frozen=True)
class TableCell:
    """A cell of the table.

    Attributes:
        text: its text.
        color: CSS colour of the swatch before the text or of the bar below it; empty without either.
        percent: filled part of the bar below the text, 0 to 100; None without a bar.
    """

    text: str
    color: str = ""
    percent: int | None = None


@dataclass(frozen=True)
class LesionTable:
    """The table.

    Attributes:
        heads: heading and unit of each column; the unit is empty where there is none.
        rows: id and cells of each lesion, in the order of the lesion table.
    """

    heads: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, tuple[TableCell, ...]], ...]


@dataclass(frozen=True)
class _Column:
    """A column of the table.

    Attributes:
        head: its heading.
        unit: below the heading, empty where there is none.
        needs: columns of the lesion table it is made of. It is left out where one of them is missing.
        cell: makes a lesion's cell.
    """

    head: str
    unit: str
    needs: tuple[str, ...]
    cell: Callable[[LesionValues], TableCell]


def lesion_table(table: LesionMeasurements, labels: Sequence[Label]) -> LesionTable:
    """Format a lesion table for the page.

    Args:
        table: from `liverseg.inference.measurements.lesion_table`: ml, mm, HU, centroids in RAS+ mm.
        labels: label table with the types' colours.
    """
    columns = _columns(table.columns, labels)
    return LesionTable(
        tuple((column.head, column.unit) for column in columns),
        tuple((str(row["id"]), tuple(column.cell(row) for column in columns)) for row in table.records()),
    )


def swatch(label: Label) -> TableCell:
    """Return a label's name with its colour."""
    return TableCell(label.name, _css_color(label))


def _columns(names: Collection[str], labels: Sequence[Label]) -> list[_Column]:
    """Return the columns that can be made of a lesion table with columns of these names."""
    by_name = {label.name: label for label in labels}

    def type_cell(row: LesionValues) -> TableCell:
        label = by_name.get(row["type"])
        return swatch(label) if label else TableCell(str(row["type"]))

    def density_cell(row: LesionValues) -> TableCell:
        spread = f" ± {_number(row['std_hu'], 0)}" if "std_hu" in row else ""
        return TableCell(_number(row["mean_hu"], 0) + spread)

    diameters = ("longest_diameter_mm", "perpendicular_diameter_mm")
    slices = ("first_slice", "last_slice", "diameter_slice")
    centroid = ("centroid_x_mm", "centroid_y_mm", "centroid_z_mm")
    columns = [
        _Column("Lesion", "", ("id",), lambda row: TableCell(str(row["id"]))),
        _Column("Type", "", ("type",), type_cell),
        *(
            _Column(label.name.capitalize(), "probability", (_PROBABILITY + label.name,), _probability(label))
            for label in labels[LESION:]
        ),
        _Column("Volume", "ml", ("volume_ml",), lambda row: TableCell(_number(row["volume_ml"], 2))),
        _Column(
            "Diameters", "mm", diameters, lambda row: TableCell(" × ".join(_number(row[name]) for name in diameters))
        ),
        _Column(
            "Slices",
            "extent (measured)",
            slices,
            lambda row: TableCell("{}–{} ({})".format(*(_number(row[name], 0) for name in slices))),
        ),
        _Column("Density", "HU, mean ± SD" if "std_hu" in names else "HU, mean", ("mean_hu",), density_cell),
        _Column("To surface", "mm", ("surface_distance_mm",), _surface_distance),
        _Column(
            "Centre", "RAS+ mm", centroid, lambda row: TableCell(", ".join(_number(row[name]) for name in centroid))
        ),
    ]
    return [column for column in columns if set(column.needs) <= set(names)]


def _probability(label: Label) -> Callable[[LesionValues], TableCell]:
    def cell(row: LesionValues) -> TableCell:
        probability = row[_PROBABILITY + label.name]
        if _is_missing(probability):
            return TableCell(_MISSING)
        return TableCell(
            _number(probability, 2), _css_color(label), round(100 * min(1.0, max(0.0, float(probability))))
        )

    return cell


def _surface_distance(row: LesionValues) -> TableCell:
    return TableCell("touches" if bool(row.get("touches_surface")) else _number(row["surface_distance_mm"]))


def _is_missing(value: Any) -> bool:
    return value is None or not math.isfinite(float(value))


def _number(value: Any, digits: int = 1) -> str:
    if _is_missing(value):
        return _MISSING
    # a minus sign is as wide as a digit, unlike a hyphen; -0.0 is shown as 0.0
    text = f"{float(value):.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def _css_color(label: Label) -> str:
    red, green, blue = label.color
    return f"rgb({red} {green} {blue})"
