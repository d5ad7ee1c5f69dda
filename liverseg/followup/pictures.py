"""Pictures of lesions at both examinations, side by side: for the page, and the preview of a comparison."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from liverseg.followup.matching import Status
from liverseg.inference.measurements import file_slice_indices
from liverseg.inference.output.preview import NOTICE, WINDOW_HU, draw_outline, font
from liverseg.labels import LESION, LIVER

if TYPE_CHECKING:
    from liverseg.followup.comparison import LesionChange, LiverComparison
    from liverseg.followup.examination import Examination

__all__ = ["describe_change", "draw_comparison", "draw_pair", "type_groups"]

_PANEL = 260
"""Edge of the square around a lesion, pixels."""
_MIN_HALF_MM, _MAX_HALF_MM, _AROUND_MM = 35.0, 90.0, 22.0
"""Half the edge of the square: the lesion and 22 mm around it. Our choice: vessels show that it is the same place."""
_GAP, _MARGIN, _HEAD, _CAPTION, _LINE = 4, 16, 64, 46, 18
_COLUMNS, _ROWS = 3, 2
_WHITE, _GRAY, _BLACK = (255, 255, 255), (150, 158, 168), (0, 0, 0)
_TITLE, _TEXT, _SMALL = 18.5, 14.0, 12.5
_AIR = -1024
_LONGEST_NAME = 40

_ORDER = (Status.NEW, Status.SPLIT, Status.MERGED, Status.GONE, Status.MATCHED)
"""Rows that a preview shows first; those that a scan does not cover come last."""


def type_groups(change: LesionChange) -> list[list[str]]:
    """Return the types of a row's lesions at the baseline and at the follow-up, each once; one list if they agree.

    A split or merged lesion has parts, which may be of several types.
    """
    groups = [list(dict.fromkeys(types)) for types in (change.baseline_types, change.followup_types) if types]
    return groups[:1] if len(groups) == 2 and {*groups[0]} == {*groups[1]} else groups


def describe_change(change: LesionChange) -> str:
    """Describe a row in a few words, such as "metastasis, 12.1 → 17.3 mm, grown"."""
    kind = " → ".join(map(", ".join, type_groups(change)))
    if change.before and change.after and change.longest:
        sizes = f"{change.before.longest_mm:.1f} → {change.after.longest_mm:.1f} mm, {change.longest.trend.value}"
    else:
        size = change.before or change.after
        sizes = f"{size.longest_mm:.1f} mm" if size else ""
    status = change.match.status
    return ", ".join(filter(None, (kind, sizes, "" if status is Status.MATCHED else status.value)))


def draw_pair(comparison: LiverComparison, change: LesionChange) -> bytes:
    """Return the PNG of a row: the same place on axial slices of both CTs, the baseline on the left."""
    return _png(_pair(comparison, change))


def draw_comparison(comparison: LiverComparison, facts: Sequence[str]) -> bytes:
    """Return the PNG with the rows that changed most: new and gone lesions first, then those that grew or shrank.

    Args:
        comparison: of two examinations.
        facts: lines below the pictures.
    """
    pair_width = 2 * _PANEL + _GAP
    width = _COLUMNS * pair_width + (_COLUMNS - 1) * _MARGIN + 2 * _MARGIN
    shown = sorted(comparison.changes, key=_importance)[: _COLUMNS * _ROWS]
    rows = max(1, -(-len(shown) // _COLUMNS))
    height = _HEAD + rows * (_PANEL + _CAPTION) + len(facts) * _LINE + _MARGIN
    picture = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(picture)
    names = [_short(str(examination.record["case"])) for examination in (comparison.baseline, comparison.followup)]
    interval = "" if comparison.days is None else f", {comparison.days} days"
    _write(draw, (_MARGIN, 24), f"{names[0]}  →  {names[1]}{interval}", _TITLE)
    _write(draw, (width - _MARGIN, 22), NOTICE, _TEXT, "rs")
    hint = "left: baseline, right: follow-up; R is the patient's right"
    _write(draw, (_MARGIN, 48), hint, _SMALL, color=_GRAY)
    for place, change in enumerate(shown):
        left = _MARGIN + place % _COLUMNS * (pair_width + _MARGIN)
        top = _HEAD + place // _COLUMNS * (_PANEL + _CAPTION)
        picture.paste(_pair(comparison, change), (left, top))
        _write(draw, (left, top + _PANEL + 18), f"{change.number}  {describe_change(change)}", _TEXT)
    if not shown:
        _write(draw, (_MARGIN, _HEAD + 40), "no lesion at either examination", _TEXT)
    top = _HEAD + rows * (_PANEL + _CAPTION)
    for number, line in enumerate(facts):
        _write(draw, (_MARGIN, top + number * _LINE + 10), line, _SMALL, color=_GRAY)
    return _png(picture)


def _importance(change: LesionChange) -> tuple[int, float, int]:
    status = change.match.status
    order = _ORDER.index(status) if status in _ORDER else len(_ORDER)
    return order, -abs(change.longest.difference) if change.longest else 0.0, change.number


def _pair(comparison: LiverComparison, change: LesionChange) -> Image.Image:
    picture = Image.new("RGB", (2 * _PANEL + _GAP, _PANEL))
    longest = [size.longest_mm for size in (change.before, change.after) if size]
    half = float(np.clip(max(longest) / 2 + _AROUND_MM, _MIN_HALF_MM, _MAX_HALF_MM))
    for place, (examination, ids, point) in enumerate(
        (
            (comparison.baseline, change.match.baseline, change.baseline_mm),
            (comparison.followup, change.match.followup, change.followup_mm),
        )
    ):
        picture.paste(_panel(examination, ids, point, half), (place * (_PANEL + _GAP), 0))
    return picture


def _panel(
    examination: Examination, ids: Sequence[int], point: tuple[float, float, float], half_mm: float
) -> Image.Image:
    """Draw the square around a point on the slice on which the lesion was measured, or the nearest one."""
    volume, lesions = examination.volume, examination.lesions
    inverse = np.linalg.inv(volume.axial_affine)
    middle = inverse[:3, :3] @ np.array(point) + inverse[:3, 3]
    numbers = file_slice_indices(volume)
    if ids:
        measured = examination.table.rows[ids[0] - 1].diameter_slice
        index = int(np.flatnonzero(numbers == measured)[0])
    else:
        index = round(float(middle[0]))
    panel = Image.new("RGB", (_PANEL, _PANEL))
    draw = ImageDraw.Draw(panel)
    if not 0 <= index < lesions.shape[0]:
        _write(draw, (_PANEL // 2, _PANEL // 2), "not covered by this scan", _SMALL, "mm", color=_GRAY)
        return panel
    steps = volume.axial_spacing[1:]
    starts = [round(float(middle[axis] - half_mm / step)) for axis, step in zip((1, 2), steps, strict=True)]
    counts = [max(2, round(2 * half_mm / step)) for step in steps]
    marks, numbered = lesions.on_slice(index)
    planes = [
        _window(plane, starts, counts, fill) for plane, fill in ((volume.axial[index], _AIR), (marks, 0), (numbered, 0))
    ]
    low, high = WINDOW_HU
    gray = np.clip((planes[0].astype(np.float32) - low) * (255 / (high - low)), 0, 255).round().astype(np.uint8)
    panel = Image.fromarray(gray).resize((_PANEL, _PANEL), Image.Resampling.BICUBIC).convert("RGB")
    draw_outline(panel, planes[1] >= LIVER, examination.labels[LIVER].color, 1.2)
    for label in examination.labels[LESION:]:
        others = (planes[1] == label.index) & ~np.isin(planes[2], ids)
        draw_outline(panel, others, label.color, 1.0)
        draw_outline(panel, (planes[1] == label.index) & np.isin(planes[2], ids), label.color, 2.2)
    draw = ImageDraw.Draw(panel)
    if not ids:
        _cross(draw)
    _write(draw, (5, _PANEL // 2), "R", _SMALL, "lm")
    _write(draw, (6, _PANEL - 7), f"slice {numbers[index]}", _SMALL)
    return panel


def _cross(draw: ImageDraw.ImageDraw) -> None:
    """Mark the middle of a panel, where a lesion would be."""
    middle, inner, outer = _PANEL / 2, 9, 18
    for sign in (-1, 1):
        draw.line((middle + sign * inner, middle, middle + sign * outer, middle), _WHITE, 1)
        draw.line((middle, middle + sign * inner, middle, middle + sign * outer), _WHITE, 1)


def _window(plane: np.ndarray, starts: Sequence[int], counts: Sequence[int], fill: int) -> np.ndarray:
    """Return a part of a slice, filled where it reaches beyond the edge."""
    part = np.full(counts, fill, plane.dtype)
    source, target = [], []
    for start, count, length in zip(starts, counts, plane.shape, strict=True):
        low, high = max(0, start), max(0, min(length, start + count), start)
        high = max(low, high)
        source.append(slice(low, high))
        target.append(slice(low - start, high - start))
    if all(side.stop > side.start for side in source):
        part[target[0], target[1]] = plane[source[0], source[1]]
    return part


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."


def _write(
    draw: ImageDraw.ImageDraw,
    position: tuple[float, float],
    text: str,
    size: float,
    anchor: str = "ls",
    color: tuple[int, int, int] = _WHITE,
) -> None:
    draw.text(position, text, color, font("DejaVuSans", size), anchor, stroke_width=1, stroke_fill=_BLACK)


def _png(picture: Image.Image) -> bytes:
    content = io.BytesIO()
    picture.save(content, format="PNG")
    return content.getvalue()
