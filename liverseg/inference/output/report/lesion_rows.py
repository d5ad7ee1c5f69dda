"""The lesion table for a reader: friendly heads with units, types in colour and words, probabilities with bars."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from liverseg.labels import LESION, Label

__all__ = ["css_color", "lesion_rows", "swatch"]

_NOTHING = "–"
_PROBABILITY = "probability_"

Row = Mapping[Hashable, Any]
"""A lesion's values by the names of the table's columns."""


@dataclass(frozen=True)
class _Column:
    """A column of the page.

    Attributes:
        head: its name.
        unit: below it, empty where there is none.
        needs: columns of the lesion table it is made of; it is left out where one is missing.
        written: a lesion's cell as HTML.
    """

    head: str
    unit: str
    needs: tuple[str, ...]
    written: Callable[[Row], str]


def lesion_rows(table: pd.DataFrame, labels: Sequence[Label]) -> str:
    """The lesion table as HTML; a sentence where there is no lesion.

    Each row has its lesion's id in `data-lesion`. A script makes rows selectable, so a page without one shows a plain
    table.

    Args:
        table: as `liverseg.inference.measurements.lesion_table` gives it: ml, mm, HU, centroids in RAS+ mm.
        labels: label table with the types' colours.
    """
    if table.empty:
        return '<p class="nothing">No lesion found.</p>'
    columns = _columns(table.columns, labels)
    head = "".join(f'<th scope="col">{_escaped(column.head)}{_small(column.unit)}</th>' for column in columns)
    rows = []
    for row in table.to_dict("records"):
        first, *others = (column.written(row) for column in columns)
        cells = f'<th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in others)
        rows.append(f'<tr data-lesion="{_escaped(str(row["id"]))}">{cells}</tr>')
    return (
        '<table id="lesions" aria-label="Lesions, largest first">\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody>\n</table>"
    )


def css_color(label: Label) -> str:
    """A label's colour as CSS says it."""
    red, green, blue = label.color
    return f"rgb({red} {green} {blue})"


def swatch(label: Label) -> str:
    """A label's colour and name as HTML."""
    return f'<span class="swatch" style="--color: {css_color(label)}"></span>{_escaped(label.name)}'


def _columns(columns: Collection[str], labels: Sequence[Label]) -> list[_Column]:
    """What is shown of a lesion table with these columns."""
    by_name = {label.name: label for label in labels}

    def type_of(row: Row) -> str:
        label = by_name.get(row["type"])
        return swatch(label) if label else _escaped(str(row["type"]))

    probabilities = [
        _Column(label.name.capitalize(), "probability", (_PROBABILITY + label.name,), _bar(label))
        for label in labels[LESION:]
    ]
    every = [
        _Column("Lesion", "", ("id",), lambda row: _escaped(str(row["id"]))),
        _Column("Type", "", ("type",), type_of),
        *probabilities,
        _Column("Volume", "ml", ("volume_ml",), lambda row: _number(row["volume_ml"], 2)),
        _Column(
            "Diameters",
            "mm",
            ("longest_diameter_mm", "perpendicular_diameter_mm"),
            lambda row: f"{_number(row['longest_diameter_mm'])} × {_number(row['perpendicular_diameter_mm'])}",
        ),
        _Column(
            "Slices",
            "extent (measured)",
            ("first_slice", "last_slice", "diameter_slice"),
            lambda row: "{}–{} ({})".format(
                *(_number(row[name], 0) for name in ("first_slice", "last_slice", "diameter_slice"))
            ),
        ),
        _Column(
            "Density",
            "HU, mean ± SD" if "std_hu" in columns else "HU, mean",
            ("mean_hu",),
            lambda row: _number(row["mean_hu"], 0) + (f" ± {_number(row['std_hu'], 0)}" if "std_hu" in row else ""),
        ),
        _Column("To surface", "mm", ("surface_distance_mm",), _to_surface),
        _Column(
            "Centre",
            "RAS+ mm",
            ("centroid_x_mm", "centroid_y_mm", "centroid_z_mm"),
            lambda row: ", ".join(_number(row[f"centroid_{axis}_mm"]) for axis in "xyz"),
        ),
    ]
    return [column for column in every if set(column.needs) <= set(columns)]


def _bar(label: Label) -> Callable[[Row], str]:
    def written(row: Row) -> str:
        share = row[_PROBABILITY + label.name]
        if _missing(share):
            return _NOTHING
        width = 100 * min(1.0, max(0.0, float(share)))
        filled = f'<span style="width: {width:.0f}%; --color: {css_color(label)}"></span>'
        return f'<span class="share">{_number(share, 2)}<span class="bar" aria-hidden="true">{filled}</span></span>'

    return written


def _to_surface(row: Row) -> str:
    return "touches" if bool(row.get("touches_surface")) else _number(row["surface_distance_mm"])


def _missing(value: Any) -> bool:
    return value is None or not math.isfinite(float(value))


def _number(value: Any, digits: int = 1) -> str:
    if _missing(value):
        return _NOTHING
    # a minus sign is as wide as a digit, a hyphen is not; -0.0 is nothing to tell a reader
    text = f"{float(value):.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def _small(unit: str) -> str:
    return f"<small>{_escaped(unit)}</small>" if unit else ""


def _escaped(text: str) -> str:
    return html.escape(text, quote=True)
