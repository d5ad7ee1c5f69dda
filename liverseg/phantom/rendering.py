"""Rendering of a scene: layers, tubes and lesions on thin slices, averaged over the slice thickness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from liverseg.imageio.boxes import Box
from liverseg.phantom.acquisition import Scanner, blur_in_plane
from liverseg.phantom.fields import Field
from liverseg.phantom.scene import Layer, Scene, Tubes
from liverseg.synthesis import Lesion

__all__ = ["Rendering", "render"]

_THIN_MM = 1.3
"""Largest thickness in mm of the thin slices that are averaged to one slice."""

_CHUNK = 400_000
"""Voxels painted at a time, few enough for the processor's cache."""


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
    hu = np.empty((n, m, m), dtype=np.float32)
    liver = np.zeros((n, m, m), dtype=bool)
    lesion_map = np.zeros((n, m, m), dtype=np.uint8)
    organ_map = np.zeros((n, m, m), dtype=np.uint8) if organs else None
    painter = _Painter(scanner, texture)
    step = max(_CHUNK // (inner * m * m), 1)
    for start in range(0, n, step):
        chunk = slice(start, min(start + step, n))
        count = chunk.stop - chunk.start
        centres = scanner.z[chunk]
        thin = (np.arange(inner) - (inner - 1) / 2) * (scanner.thickness / inner)
        painter.start_chunk((centres[:, None] + thin).ravel(), background, organs)
        for item in scene.under:
            painter.paint(item)
        for number, item in enumerate(scene.liver):
            painter.paint(item, is_liver=number == 0)
        painter.paint_lesions(lesions)
        for item in scene.over:
            painter.paint(item, over_liver=True)
        hu[chunk] = blur_in_plane(painter.hu.reshape(count, inner, m, m).mean(axis=1), scanner)
        liver[chunk] = painter.liver.reshape(count, inner, m, m).mean(axis=1) >= 0.5
        painter.label_lesions(lesion_map[chunk], inner)
        if organ_map is not None:
            organ_map[chunk] = painter.organs.reshape(count, inner, m, m)[:, inner // 2]
    lesion_map[~liver] = 0
    return Rendering(hu, liver, lesion_map, organ_map, tuple(painter.names))


class _Painter:
    """Paints onto a stack of thin slices, the chunk, and keeps the shares of liver and lesions."""

    def __init__(self, scanner: Scanner, texture: Field) -> None:
        self.x, self.y, self.pixel = scanner.x, scanner.y, scanner.pixel
        self.names: list[str] = ["air"]
        self._planes: dict[int, tuple[slice, slice, tuple[float, float], Field]] = {}
        self._texture_field = Field(
            texture.resample(self.y, 1), (texture.start[0], 0, texture.start[2]), texture.lattice
        )
        self._texture_field = Field(self._texture_field.resample(self.x, 2), texture.start, texture.lattice)
        self._last: tuple[int, np.ndarray] | None = None

    def start_chunk(self, z: np.ndarray, background: np.ndarray, organs: bool) -> None:
        """Start a chunk at thin-slice positions `z` (mm) from the empty scanner."""
        self.z = z
        shape = (len(z), *background.shape)
        self.hu = np.broadcast_to(background, shape).astype(np.float32)
        self.texture = self._texture_field.resample(z, 0)
        self.liver = np.zeros(shape, dtype=np.float32)
        self.organs = np.zeros(shape, dtype=np.uint8) if organs else np.zeros(0, dtype=np.uint8)
        self._last = None
        self._lesions: list[tuple[int, slice, slice, np.ndarray]] = []

    def paint(self, item: Layer | Tubes, is_liver: bool = False, over_liver: bool = False) -> None:
        """Paint an item.

        Args:
            item: the item.
            is_liver: the item is the liver, whose share is kept.
            over_liver: subtract the item from the shares of liver and lesions.
        """
        region = self._layer(item) if isinstance(item, Layer) else self._tubes(item)
        if region is None:
            return
        box, alpha = region
        if is_liver:
            self.liver[box] = alpha
        value: np.ndarray | np.float32 = np.float32(item.hu)
        if isinstance(item, Layer) and item.texture:
            value = value + np.float32(item.texture) * self.texture[box]
        self._blend(box, alpha, value)
        if over_liver:
            self.liver[box] *= 1 - alpha
            for _, ys, xs, lesion_share in self._lesions:
                in_item, in_lesion = _overlap(box, (slice(0, len(self.z)), ys, xs))
                if in_lesion is not None:
                    lesion_share[in_lesion] *= 1 - alpha[in_item]
        if self.organs.size:
            if item.name not in self.names:
                self.names.append(item.name)
            self.organs[box][alpha > 0.5] = self.names.index(item.name)

    def _blend(self, box: tuple[slice, slice, slice], alpha: np.ndarray, value: np.ndarray | np.float32) -> None:
        region = self.hu[box]
        change = value - region
        change *= alpha
        region += change

    def _span(self, axis: np.ndarray, low: float, high: float) -> slice:
        return slice(int(np.searchsorted(axis, low)), int(np.searchsorted(axis, high)))

    def _on_pixels(self, layer: Layer) -> tuple[slice, slice, tuple[float, float], Field]:
        """Interpolate the layer's shape to the pixels in-plane, and cache it; slices remain those of the lattice."""
        key = id(layer.shape)
        if key not in self._planes:
            shape = layer.shape
            margin = 8.0  # the largest offset and half edge any layer has
            ys = self._span(self.y, *shape.bounds(1, margin))
            xs = self._span(self.x, *shape.bounds(2, margin))
            planes = shape
            if ys.stop > ys.start and xs.stop > xs.start:
                rows = Field(shape.resample(self.y[ys], 1), shape.start, shape.lattice)
                planes = Field(rows.resample(self.x[xs], 2), shape.start, shape.lattice)
            self._planes[key] = (ys, xs, shape.bounds(0, margin), planes)
        return self._planes[key]

    def _layer(self, layer: Layer) -> tuple[tuple[slice, slice, slice], np.ndarray] | None:
        ys, xs, (low, high), planes = self._on_pixels(layer)
        zs = self._span(self.z, low, high)
        if zs.stop <= zs.start or ys.stop <= ys.start or xs.stop <= xs.start:
            return None
        key = id(layer.shape)
        if self._last is None or self._last[0] != key:
            self._last = (key, planes.resample(self.z[zs], 0))
        width = np.float32(max(self.pixel, layer.blur))
        alpha = self._last[1] * np.float32(-1 / width)
        alpha += np.float32(0.5 + layer.offset / width)
        np.clip(alpha, 0, 1, out=alpha)
        return (zs, ys, xs), alpha

    def _tubes(self, tubes: Tubes) -> tuple[tuple[slice, slice, slice], np.ndarray] | None:
        parts = tubes.parts
        reach = np.maximum(parts[:, 6], parts[:, 7]) + self.pixel
        near = np.minimum(parts[:, 2], parts[:, 5]) - reach < self.z[-1]
        near &= np.maximum(parts[:, 2], parts[:, 5]) + reach > self.z[0]
        parts, reach = parts[near], reach[near]
        if len(parts) == 0:
            return None
        ends = np.concatenate([parts[:, :3] - reach[:, None], parts[:, 3:6] - reach[:, None]])
        low_all = ends.min(axis=0)
        high_all = (ends + 2 * np.concatenate([reach, reach])[:, None]).max(axis=0)
        axes = ((self.z, 2), (self.y, 1), (self.x, 0))
        outer = tuple(self._span(axis, low_all[k], high_all[k]) for axis, k in axes)
        if any(s.stop <= s.start for s in outer):
            return None
        z_axis, y_axis, x_axis = (axis[s] for (axis, _), s in zip(axes, outer, strict=True))
        alpha = np.zeros((len(z_axis), len(y_axis), len(x_axis)), dtype=np.float32)
        width = np.float32(self.pixel)
        for part, r in zip(parts, reach, strict=True):
            low, high = np.minimum(part[:3], part[3:6]) - r, np.maximum(part[:3], part[3:6]) + r
            box = tuple(self._span(axis, low[k], high[k]) for axis, k in ((z_axis, 2), (y_axis, 1), (x_axis, 0)))
            if any(s.stop <= s.start for s in box):
                continue
            pz = (z_axis[box[0]] - part[2]).astype(np.float32)[:, None, None]
            py = (y_axis[box[1]] - part[1]).astype(np.float32)[None, :, None]
            px = (x_axis[box[2]] - part[0]).astype(np.float32)[None, None, :]
            axis = part[3:6] - part[:3]
            t = np.clip((px * axis[0] + py * axis[1] + pz * axis[2]) / max(float(axis @ axis), 1e-6), 0, 1)
            squared = (px - t * axis[0]) ** 2 + (py - t * axis[1]) ** 2 + (pz - t * axis[2]) ** 2
            inside = part[6] - tubes.lumen + t * (part[7] - part[6]) - np.sqrt(squared)
            region = alpha[box]
            np.maximum(region, np.clip(0.5 + inside / width, 0, 1), out=region)
        return (outer[0], outer[1], outer[2]), alpha

    def paint_lesions(self, lesions: list[Lesion]) -> None:
        """Paint lesions into the liver; parts outside the liver are cut off."""
        for number, lesion in enumerate(lesions, 1):
            z, y, x = lesion.centre
            r = lesion.reach
            zs = self._span(self.z, z - r, z + r)
            ys, xs = self._span(self.y, y - r, y + r), self._span(self.x, x - r, x + r)
            if zs.stop <= zs.start:
                continue
            box = (zs, ys, xs)
            share, hu = lesion.evaluate(self.z[zs], self.y[ys], self.x[xs], self.pixel)
            share = share * self.liver[box]
            self._blend(box, share, hu)
            full = np.zeros((len(self.z), *share.shape[1:]), dtype=np.float32)
            full[zs] = share
            self._lesions.append((number, ys, xs, full))
            if self.organs.size:
                if lesion.kind not in self.names:
                    self.names.append(lesion.kind)
                self.organs[box][share > 0.5] = self.names.index(lesion.kind)

    def label_lesions(self, lesion_map: np.ndarray, inner: int) -> None:
        """Write each lesion's number where it fills at least half of the voxel."""
        for number, ys, xs, share in self._lesions:
            mean = share.reshape(-1, inner, *share.shape[1:]).mean(axis=1)
            lesion_map[:, ys, xs][mean >= 0.5] = number


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
