"""Rendering of a scene: layers, tubes and lesions on thin slices, averaged over the slice thickness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from liverseg.imageio.boxes import Box
from liverseg.phantom.acquisition import Scanner, blur_in_plane
from liverseg.phantom.capsules import CapsuleVoxels, capsule_voxels
from liverseg.phantom.fields import Field, interpolate, spline_weights
from liverseg.phantom.scene import Layer, Scene, Tubes
from liverseg.synthesis import Lesion

__all__ = ["Rendering", "render"]

_THIN_MM = 1.3
"""Largest thickness in mm of the thin slices that are averaged to one slice."""

_CHUNK, _PART = 1_048_576, 131_072
"""Voxels of the chunk on which all layers are painted, and of the part of it on which a layer is painted at a time, few
enough for the processor's cache."""

_SMALL = 1_000_000
"""A shape with at most this number of voxels is interpolated to all thin slices at once."""

_MARGIN_MM = 8.0
"""Shapes are painted up to this distance from their surface, which is more than the largest offset and half edge."""

_ROUNDING_MM = 0.01
"""Much more than the rounding errors of distances."""


@dataclass(frozen=True)
class Rendering:
    """A scan without noise and its ground truth, (z, y, x).

    Attributes:
        hu: float32.
        liver: True where at least half of the voxel is liver, including lesions.
        lesions: uint8, number of the lesion that fills at least half of the voxel, from 1; 0 elsewhere.
        organs: uint8, index into `names` of the organ painted last in the middle of the slice; None unless requested.
        names: names of organs.
    """

    hu: np.ndarray
    liver: np.ndarray
    lesions: np.ndarray
    organs: np.ndarray | None
    names: tuple[str, ...]


def render(
    scene: Scene, lesions: list[Lesion], texture: Field, background: np.ndarray, scanner: Scanner, organs: bool = False
) -> Rendering:
    """Render a scene with the scanner's resolution, without noise.

    Args:
        scene: the scene; its `liver` starts with the liver's layer.
        lesions: lesions to paint into the liver.
        texture: unit-variance field for the texture of tissues.
        background: HU of the empty scanner, (y, x).
        scanner: grid and point spread.
        organs: also return an organ map.
    """
    n, m = scanner.slices, scanner.matrix
    inner = scanner.inner_slices(_THIN_MM)
    thin = (np.arange(inner) - (inner - 1) / 2) * (scanner.thickness / inner)
    hu = np.empty((n, m, m), dtype=np.float32)
    liver = np.zeros((n, m, m), dtype=bool)
    lesion_map = np.zeros((n, m, m), dtype=np.uint8)
    organ_map = np.zeros((n, m, m), dtype=np.uint8) if organs else None
    painter = _Painter(scene, lesions, scanner, (scanner.z[:, None] + thin).ravel(), texture, background, organs)
    step = max(_CHUNK // (inner * m * m), 1)
    for start in range(0, n, step):
        chunk = slice(start, min(start + step, n))
        painter.start_chunk(slice(chunk.start * inner, chunk.stop * inner))
        for item in scene.under:
            painter.paint(item)
        for number, item in enumerate(scene.liver):
            painter.paint(item, is_liver=number == 0)
        painter.paint_lesions()
        for item in scene.over:
            painter.paint(item, over_liver=True)
        hu[chunk] = blur_in_plane(_mean_over_thickness(painter.hu, inner), scanner)
        painter.label_liver(liver[chunk], inner)
        painter.label_lesions(lesion_map[chunk], inner)
        if organ_map is not None:
            organ_map[chunk] = painter.organs[inner // 2 :: inner]
    lesion_map[~liver] = 0
    return Rendering(hu, liver, lesion_map, organ_map, tuple(painter.names))


def _mean_over_thickness(values: np.ndarray, inner: int) -> np.ndarray:
    """Return the mean over the thin slices of each slice."""
    return values if inner == 1 else values.reshape(len(values) // inner, inner, *values.shape[1:]).mean(axis=1)


_NOWHERE: Box = (slice(0, 0), slice(0, 0), slice(0, 0))


@dataclass(frozen=True)
class _Planes:
    """A shape interpolated to pixels in-plane; along z it has the planes of the lattice.

    Attributes:
        values: signed distance, (plane, y, x), mm.
        on_thin: signed distance on the thin slices, (thin slice, y, x), mm; None for a large shape.
        corner: row and column of the first pixel.
        thin: thin slices with the shape.
        neighbours: four planes for each of these thin slices.
        weights: their weights.
        low, high: first row with the shape and the one after the last, on each of these thin slices; then columns.
    """

    values: np.ndarray
    on_thin: np.ndarray | None
    corner: tuple[int, int]
    thin: slice
    neighbours: list[list[int]]
    weights: np.ndarray
    low: list[list[int]]
    high: list[list[int]]


class _Painter:
    """Paints onto a stack of thin slices, the chunk, and keeps the shares of liver and lesions.

    Args:
        scene: all items to paint.
        lesions: lesions to paint into the liver.
        scanner: grid of the scan.
        z: positions of all thin slices, mm.
        texture: unit-variance field for the texture of tissues.
        background: HU of the empty scanner, (y, x).
        organs: also paint an organ map.
    """

    def __init__(
        self,
        scene: Scene,
        lesions: list[Lesion],
        scanner: Scanner,
        z: np.ndarray,
        texture: Field,
        background: np.ndarray,
        organs: bool,
    ) -> None:
        self.x, self.y, self.pixel = scanner.x, scanner.y, scanner.pixel
        self.names: list[str] = ["air"]
        self._all_z, self._background, self._with_organs = z, background, organs
        self._reach: dict[int, float] = {}
        for item in (*scene.under, *scene.liver, *scene.over):
            if isinstance(item, Layer):
                reach = item.offset + max(self.pixel, item.blur) / 2 + _ROUNDING_MM
                self._reach[id(item.shape)] = max(self._reach.get(id(item.shape), -np.inf), reach)
        self._planes: dict[int, _Planes | None] = {}
        self._lesion_boxes = [(lesion, self._lesion_box(lesion)) for lesion in lesions]
        self._voxels: dict[int, CapsuleVoxels] = {}
        rows = Field(texture.resample(self.y, 1), (texture.start[0], 0, texture.start[2]), texture.lattice)
        self._texture = Field(rows.resample(self.x, 2), texture.start, texture.lattice)

    def start_chunk(self, thin: slice) -> None:
        """Start a chunk of the given thin slices from the empty scanner."""
        self._thin, self.z = thin, self._all_z[thin]
        shape = (len(self.z), *self._background.shape)
        self.hu = np.empty(shape, dtype=np.float32)
        self.hu[:] = self._background
        self.texture = self._texture.resample(self.z, 0)
        self.liver = np.zeros(shape, dtype=np.float32)
        self.organs = np.zeros(shape if self._with_organs else 0, dtype=np.uint8)
        self._cover = np.zeros(shape, dtype=np.float32)
        self._liver_box = _NOWHERE
        self._last: tuple[int, dict[int, np.ndarray]] = (0, {})
        self._lesions: list[tuple[int, slice, slice, np.ndarray]] = []

    def paint(self, item: Layer | Tubes, is_liver: bool = False, over_liver: bool = False) -> None:
        """Paint an item.

        Args:
            item: the item.
            is_liver: the item is the liver, whose share is kept.
            over_liver: subtract the item from the shares of liver and lesions.
        """
        if isinstance(item, Layer):
            self._paint_layer(item, is_liver, over_liver)
        else:
            self._paint_tubes(item, over_liver)

    def _paint_layer(self, layer: Layer, is_liver: bool, over_liver: bool) -> None:
        planes = self._on_pixels(layer.shape)
        box = None if planes is None else self._box(planes)
        if planes is None or box is None:
            return
        if is_liver:
            self._liver_box = box
        zs, ys, xs = box
        step = max(_PART // ((ys.stop - ys.start) * (xs.stop - xs.start)), 1)
        for start in range(zs.start, zs.stop, step):
            self._paint_part(layer, planes, (slice(start, min(start + step, zs.stop)), ys, xs), is_liver, over_liver)

    def _paint_part(self, layer: Layer, planes: _Planes, box: Box, is_liver: bool, over_liver: bool) -> None:
        """Paint a layer onto a box of the chunk."""
        alpha = self._alpha(layer, planes, box)
        if is_liver:
            self.liver[box] = alpha
        value: np.ndarray | np.float32 = np.float32(layer.hu)
        if layer.texture:
            value = np.float32(layer.texture) * self.texture[box]
            value += np.float32(layer.hu)
        self._blend(box, alpha, value)
        if over_liver:
            self._subtract(box, alpha)
        self._mark(layer.name, box, alpha)

    def _paint_tubes(self, tubes: Tubes, over_liver: bool) -> None:
        if id(tubes) not in self._voxels:
            self._voxels[id(tubes)] = capsule_voxels(tubes, self._all_z, self.y, self.x, self.pixel)
        voxels = self._voxels[id(tubes)]
        chunk = slice(voxels.starts[self._thin.start], voxels.starts[self._thin.stop])
        if chunk.stop == chunk.start:
            return
        index = voxels.index[chunk] - self._thin.start * self._background.size
        # where capsules overlap, the largest share counts
        cover = self._cover.reshape(-1)
        np.maximum.at(cover, index, voxels.share[chunk])
        alpha = cover[index]
        hu = self.hu.reshape(-1)
        before = hu[index]
        hu[index] = before + (np.float32(tubes.hu) - before) * alpha
        if over_liver:
            self.liver.reshape(-1)[index] *= 1 - alpha
            for _, rows, columns, share in self._lesions:
                share *= 1 - self._cover[:, rows, columns]
        if self.organs.size:
            self.organs.reshape(-1)[index[alpha > 0.5]] = self._name(tubes.name)
        cover[index] = 0

    def _subtract(self, box: Box, alpha: np.ndarray) -> None:
        """Subtract an item from the shares of liver and lesions."""
        boxes = [(self.liver[self._liver_box], self._liver_box)]
        boxes += [(share, (slice(0, len(self.z)), rows, columns)) for _, rows, columns, share in self._lesions]
        for share, share_box in boxes:
            in_item, in_share = _overlap(box, share_box)
            if in_item is not None:
                share[in_share] *= 1 - alpha[in_item]

    def _blend(self, box: Box, alpha: np.ndarray, value: np.ndarray | np.float32) -> None:
        region = self.hu[box]
        change = value - region
        change *= alpha
        region += change

    def _mark(self, name: str, box: Box, alpha: np.ndarray) -> None:
        if self.organs.size:
            self.organs[box][alpha > 0.5] = self._name(name)

    def _name(self, name: str) -> int:
        if name not in self.names:
            self.names.append(name)
        return self.names.index(name)

    def _span(self, axis: np.ndarray, low: float, high: float) -> slice:
        return slice(int(np.searchsorted(axis, low)), int(np.searchsorted(axis, high)))

    def _on_pixels(self, shape: Field) -> _Planes | None:
        """Interpolate a shape to pixels in-plane and cache it; None if it is outside the scan."""
        key = id(shape)
        if key not in self._planes:
            self._planes[key] = self._interpolate(shape, self._reach[key])
        return self._planes[key]

    def _interpolate(self, shape: Field, reach: float) -> _Planes | None:
        # points up to two steps away contribute to an interpolated value, one of which is in the bounds
        step = shape.lattice.step
        near, far = shape.box(reach), shape.box(_MARGIN_MM)
        thin, ys, xs = (
            self._span(axis, max(tight[0] - step, loose[0]), min(tight[1] + step, loose[1]))
            for axis, tight, loose in zip((self._all_z, self.y, self.x), near, far, strict=True)
        )
        if any(s.stop <= s.start for s in (thin, ys, xs)):
            return None
        index = (self._all_z[thin] - shape.lattice.origin[0]) / shape.lattice.step - shape.start[0]
        neighbours, weights = spline_weights(index, len(shape.values))
        first = int(neighbours.min())
        used = shape.values[first : int(neighbours.max()) + 1]
        rows = Field(Field(used, shape.start, shape.lattice).resample(self.y[ys], 1), shape.start, shape.lattice)
        values = rows.resample(self.x[xs], 2)
        neighbours -= first
        inside = values < reach
        low, high = [], []
        for axis, side in ((2, ys), (1, xs)):
            begin, end = _ends(np.asarray(inside.any(axis=axis)))
            low.append((begin[neighbours].min(axis=0) + side.start).tolist())
            high.append((end[neighbours].max(axis=0) + side.start).tolist())
        small = len(index) * values[0].size <= _SMALL
        return _Planes(
            values=values,
            on_thin=interpolate(values, neighbours, weights, 0) if small else None,
            corner=(ys.start, xs.start),
            thin=thin,
            neighbours=neighbours.T.tolist(),
            weights=weights.T,
            low=low,
            high=high,
        )

    def _box(self, planes: _Planes) -> Box | None:
        """Return a box of the chunk with all of a shape; None if it is not in the chunk."""
        start, stop = max(self._thin.start, planes.thin.start), min(self._thin.stop, planes.thin.stop)
        if stop <= start:
            return None
        in_planes = slice(start - planes.thin.start, stop - planes.thin.start)
        y0, x0 = (min(axis[in_planes]) for axis in planes.low)
        y1, x1 = (max(axis[in_planes]) for axis in planes.high)
        if y1 <= y0:
            return None
        return slice(start - self._thin.start, stop - self._thin.start), slice(y0, y1), slice(x0, x1)

    def _alpha(self, layer: Layer, planes: _Planes, box: Box) -> np.ndarray:
        """Return the layer's share of each voxel of a box."""
        key = id(layer.shape)
        if self._last[0] != key:
            self._last = (key, {})
        parts, start = self._last[1], box[0].start
        if start not in parts:
            parts[start] = self._distance(planes, box)
        width = np.float32(max(self.pixel, layer.blur))
        alpha = parts[start] * np.float32(-1 / width)
        alpha += np.float32(0.5 + layer.offset / width)
        return np.clip(alpha, 0, 1, out=alpha)

    def _distance(self, planes: _Planes, box: Box) -> np.ndarray:
        """Interpolate a shape to a box of the chunk."""
        zs, ys, xs = box
        y0, x0 = planes.corner
        in_plane = (slice(ys.start - y0, ys.stop - y0), slice(xs.start - x0, xs.stop - x0))
        first = zs.start + self._thin.start - planes.thin.start
        if planes.on_thin is not None:
            return planes.on_thin[(slice(first, first + zs.stop - zs.start), *in_plane)]
        values = planes.values[(slice(None), *in_plane)]
        result = np.empty((zs.stop - zs.start, *values.shape[1:]), dtype=np.float32)
        term = np.empty(values.shape[1:], dtype=np.float32)
        for number, plane in enumerate(result, first):
            neighbours, weights = planes.neighbours[number], planes.weights[number]
            np.multiply(values[neighbours[0]], weights[0], out=plane)
            for neighbour, weight in zip(neighbours[1:], weights[1:], strict=True):
                np.multiply(values[neighbour], weight, out=term)
                plane += term
        return result

    def paint_lesions(self) -> None:
        """Paint lesions into the liver; parts outside the liver are cut off."""
        for number, (lesion, (thin, ys, xs)) in enumerate(self._lesion_boxes, 1):
            start, stop = max(self._thin.start, thin.start), min(self._thin.stop, thin.stop)
            if stop <= start:
                continue
            zs = slice(start - self._thin.start, stop - self._thin.start)
            share, hu = lesion.evaluate(self.z[zs], self.y[ys], self.x[xs], self.pixel)
            share = share * self.liver[zs, ys, xs]
            self._blend((zs, ys, xs), share, hu)
            full = np.zeros((len(self.z), *share.shape[1:]), dtype=np.float32)
            full[zs] = share
            self._lesions.append((number, ys, xs, full))
            self._mark(lesion.kind, (zs, ys, xs), share)

    def _lesion_box(self, lesion: Lesion) -> Box:
        """Return the box of a lesion in the stack of all thin slices."""
        extent = np.minimum(lesion.reach, lesion.extent(self.pixel))
        thin, ys, xs = (
            self._span(axis, centre - half, centre + half)
            for axis, centre, half in zip((self._all_z, self.y, self.x), lesion.centre, extent, strict=True)
        )
        return thin, ys, xs

    def label_liver(self, liver: np.ndarray, inner: int) -> None:
        """Set the voxels of which at least half is liver."""
        _, ys, xs = self._liver_box
        liver[:, ys, xs] = _mean_over_thickness(self.liver[:, ys, xs], inner) >= 0.5

    def label_lesions(self, lesion_map: np.ndarray, inner: int) -> None:
        """Write each lesion's number where it fills at least half of the voxel."""
        for number, ys, xs, share in self._lesions:
            lesion_map[:, ys, xs][_mean_over_thickness(share, inner) >= 0.5] = number


def _ends(inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first true position of each row, and the one after the last; the length and 0 if there is none."""
    length, some = inside.shape[1], inside.any(axis=1)
    return (
        np.where(some, inside.argmax(axis=1), length),
        np.where(some, length - inside[:, ::-1].argmax(axis=1), 0),
    )


def _overlap(first: Box, second: Box) -> tuple[Box, Box] | tuple[None, None]:
    """Return the overlap of two boxes of one grid, in indices of the first and of the second; None twice if empty."""
    in_first, in_second = [], []
    for a, b in zip(first, second, strict=True):
        low, high = max(a.start, b.start), min(a.stop, b.stop)
        if high <= low:
            return None, None
        in_first.append(slice(low - a.start, high - a.start))
        in_second.append(slice(low - b.start, high - b.start))
    return (in_first[0], in_first[1], in_first[2]), (in_second[0], in_second[1], in_second[2])
