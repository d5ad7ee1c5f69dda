"""preview.png: three key slices of a case with its outlines and largest lesions, for looking through many cases.

Drawn with Pillow: matplotlib takes longer to import than the picture to draw.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import cc3d
import numpy as np
from contourpy import LineType, contour_generator
from PIL import Image, ImageDraw, ImageFont

from liverseg.imageio.volume import Volume
from liverseg.inference.lesion_measurements import LesionMeasurements
from liverseg.inference.lesions import LesionMap, liver_volume_ml
from liverseg.inference.measurements import file_slice_indices
from liverseg.labels import LESION, LIVER, Label

__all__ = ["NOTICE", "WINDOW_HU", "draw_outline", "draw_preview", "font", "key_slices"]

WINDOW_HU = (-160.0, 240.0)
"""The usual abdominal window: level 40, width 400."""
_SLICES = 3
_LISTED_LESIONS = 6
_LONGEST_NAME = 64
"""Characters of a case's name in the title, so that it does not reach the notice."""
NOTICE = "Research only, not a medical device"

# lengths in pixels
_PANEL = 448
_GAP, _MARGIN = 8, 14
_WIDTH = _SLICES * _PANEL + (_SLICES - 1) * _GAP + 2 * _MARGIN
_HEAD, _FOOT = 66, 138
_LINE, _LEGEND_LINE = 17, 21
_SWATCH = 30
_LIVER_OUTLINE, _LESION_OUTLINE = 1.4, 2.0
_TITLE, _NOTICE, _TEXT, _MONOSPACE, _NUMBER = 18.5, 15.5, 14.0, 13.0, 12.5
"""Font sizes."""
_OVERSAMPLING = 4
"""Outlines are drawn so many times larger and then reduced, because Pillow's lines have hard edges."""
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


def key_slices(lesions: LesionMap, slices: int = _SLICES) -> list[int]:
    """Choose axial slices to show: the widest ones of the largest lesions, then those of the liver, then the middle.

    Returns:
        Up to `slices` different axial slice numbers, the most important first; fewer if the volume has fewer.
    """
    depth, first = lesions.shape[0], lesions.box[0].start
    area = np.zeros(depth, int)
    area[lesions.box[0]] = [np.count_nonzero(plane) for plane in lesions.inside >= LIVER]
    # one slice per lesion; neighbours of a chosen slice would show nothing new
    near = max(1, depth // 40)
    chosen: list[int] = []
    boxes = cc3d.statistics(lesions.ids_inside)["bounding_boxes"] if len(lesions.voxels) else [()]
    for lesion, box in enumerate(boxes[1 : 4 * slices + 1], start=1):
        areas = np.count_nonzero(lesions.ids_inside[box] == lesion, axis=(1, 2))
        best = first + box[0].start + int(np.argmax(areas))
        if all(abs(best - other) > near for other in chosen):
            chosen.append(best)
    found = np.flatnonzero(area) if area.any() else np.arange(depth)
    widest = int(np.argmax(area)) if area.any() else depth // 2
    spread = [int(found[int(share * (len(found) - 1))]) for share in (0.5, 0.25, 0.75, 0.0, 1.0)]
    for candidate in (widest, *spread, *range(depth)):
        if candidate not in chosen:
            chosen.append(candidate)
    return chosen[: min(slices, depth)]


def draw_preview(
    case: str, volume: Volume, lesions: LesionMap, table: LesionMeasurements, labels: Sequence[Label]
) -> bytes:
    """Draw the key slices in radiological convention: seen from the feet, with the patient's left on the right.

    Args:
        case: name of the case, for the title.
        volume: the CT.
        lesions: of the volume, in axial order.
        table: lesion table.
        labels: label table with the colours.

    Returns:
        The content of a PNG file.
    """
    hu, numbers = volume.axial, file_slice_indices(volume)
    _, row_mm, column_mm = volume.axial_spacing
    tall, wide = hu.shape[1] * row_mm, hu.shape[2] * column_mm
    height = round(_PANEL * float(np.clip(tall / wide, 0.4, 2.0)))
    scale = min(_PANEL / wide, height / tall)
    size = max(1, round(wide * scale)), max(1, round(tall * scale))
    picture = Image.new("RGB", (_WIDTH, _HEAD + height + _FOOT))
    draw = ImageDraw.Draw(picture)
    for place, index in enumerate(key_slices(lesions)):
        middle = _MARGIN + place * (_PANEL + _GAP) + _PANEL // 2
        left, top = middle - size[0] // 2, _HEAD + (height - size[1]) // 2
        picture.paste(_panel(hu[index], lesions, index, labels, size), (left, top))
        _write(draw, (middle, top - 6), f"slice {numbers[index]}", _TEXT, "ms")
        _write(draw, (left + 5, top + size[1] // 2), "R", _TEXT, "lm")
        _write(draw, (left + size[0] - 5, top + size[1] // 2), "L", _TEXT, "rm")
    counted = f"{len(table)} lesion{'' if len(table) == 1 else 's'}"
    name = case if len(case) <= _LONGEST_NAME else f"{case[:_LONGEST_NAME]}..."
    title = f"{name}   liver {liver_volume_ml(lesions, volume.voxel_ml):.0f} ml, {counted}"
    _write(draw, (_MARGIN, 24), title, _TITLE, "ls")
    _write(draw, (_WIDTH - _MARGIN, 22), NOTICE, _NOTICE, "rs")
    for number, line in enumerate(_lesion_lines(table)):
        _write(draw, (_MARGIN, _HEAD + height + 24 + number * _LINE), line, _MONOSPACE, "ls", "DejaVuSansMono")
    _draw_legend(draw, labels[LIVER:], picture.height)
    content = io.BytesIO()
    picture.save(content, format="PNG")
    return content.getvalue()


def _panel(
    hu: np.ndarray, lesions: LesionMap, index: int, labels: Sequence[Label], size: tuple[int, int]
) -> Image.Image:
    """Draw an axial slice with its outlines in a given size (width, height)."""
    low, high = WINDOW_HU
    gray = np.clip((hu.astype(np.float32) - low) * (255 / (high - low)), 0, 255).round().astype(np.uint8)
    panel = Image.fromarray(gray).resize(size, Image.Resampling.BICUBIC).convert("RGB")
    labelled, ids = lesions.on_slice(index)
    draw_outline(panel, labelled >= LIVER, labels[LIVER].color, _LIVER_OUTLINE)
    for label in labels[LESION:]:
        draw_outline(panel, labelled == label.index, label.color, _LESION_OUTLINE)
    draw = ImageDraw.Draw(panel)
    rows, columns = hu.shape
    for lesion in np.unique(ids[ids > 0])[:_LISTED_LESIONS]:
        found = np.argwhere(ids == lesion)
        right, top = (found[:, 1].max() + 0.5) * size[0] / columns, (found[:, 0].min() + 0.5) * size[1] / rows
        color = labels[int(lesions.types[lesion - 1])].color
        # the black rim keeps the number legible on bright organs
        draw.text(
            (right + 5, top - 5), str(lesion), color, font("DejaVuSans-Bold", _NUMBER), "ls", stroke_width=1,
            stroke_fill=_BLACK,
        )  # fmt: skip
    return panel


def draw_outline(panel: Image.Image, mask: np.ndarray, color: tuple[int, int, int], width: float) -> None:
    """Draw the outline of a mask (row, column) over its slice. An empty mask draws nothing."""
    if not mask.any():
        return
    # padded, so that outlines are closed at the slice's edge and a slice of one row can be drawn
    generator = contour_generator(z=np.pad(mask, 1).astype(np.float32), name="serial", line_type=LineType.Separate)
    rows, columns = mask.shape
    # from the padded mask's indices to pixels of the panel, where a voxel's centre is half a voxel from its corner
    scale = np.array([panel.width / columns, panel.height / rows])
    lines = [(np.asarray(line) - 0.5) * scale for line in generator.lines(0.5)]
    corners = np.concatenate(lines)
    first = np.maximum(np.floor(corners.min(axis=0) - width), 0).astype(int)
    last = np.minimum(np.ceil(corners.max(axis=0) + width), panel.size).astype(int)
    drawn = Image.new("L", tuple((last - first) * _OVERSAMPLING))
    draw = ImageDraw.Draw(drawn)
    for line in lines:
        points = ((line - first) * _OVERSAMPLING).ravel().tolist()
        draw.line(points, 255, round(width * _OVERSAMPLING), joint="curve")
    panel.paste(color, (*first.tolist(), *last.tolist()), drawn.reduce(_OVERSAMPLING))


def _lesion_lines(table: LesionMeasurements) -> list[str]:
    """Describe the largest lesions, a line each, and count the rest."""
    lines = []
    for row in table.rows[:_LISTED_LESIONS]:
        probabilities = ", ".join(f"{name} {share:.2f}" for name, share in row.probabilities.items())
        size = f"{row.longest_diameter_mm:.0f} × {row.perpendicular_diameter_mm:.0f} mm"
        line = f"{row.id:>3}  {row.type:<13} {size:>12} {row.volume_ml:>8.1f} ml {row.mean_hu:>6.0f} HU"
        lines.append(f"{line}  {probabilities}")
    if len(table) > _LISTED_LESIONS:
        lines.append(f"     and {len(table) - _LISTED_LESIONS} smaller")
    return lines or ["no lesion found"]


def _draw_legend(draw: ImageDraw.ImageDraw, labels: Sequence[Label], height: int) -> None:
    """List the labels with their colours at the lower right of a picture of that height."""
    text_left = _WIDTH - _MARGIN - max(round(font("DejaVuSans", _TEXT).getlength(label.name)) for label in labels)
    for number, label in enumerate(reversed(labels)):
        middle = height - 18 - number * _LEGEND_LINE
        draw.line((text_left - 10 - _SWATCH, middle, text_left - 10, middle), label.color, 3)
        _write(draw, (text_left, middle), label.name, _TEXT, "lm")


def _write(
    draw: ImageDraw.ImageDraw,
    position: tuple[float, float],
    text: str,
    size: float,
    anchor: str,
    name: str = "DejaVuSans",
) -> None:
    draw.text(position, text, _WHITE, font(name, size), anchor)


@cache
def font(name: str, size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return one of the fonts that come with matplotlib, whose folder is found without an import; else Pillow's own."""
    found = find_spec("matplotlib")
    folder = Path() if found is None or found.origin is None else Path(found.origin).parent
    path = folder / "mpl-data" / "fonts" / "ttf" / f"{name}.ttf"
    if not path.is_file():  # some distributions keep the fonts elsewhere
        return ImageFont.load_default(size)
    # without libraqm, which is not everywhere
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)
