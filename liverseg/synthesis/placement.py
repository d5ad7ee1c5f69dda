"""Where lesions and distractors lie in a liver, and what the label map says of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage

from liverseg.imageio.boxes import Box
from liverseg.synthesis.appearance import Surroundings
from liverseg.synthesis.distractors import DISTRACTORS, draw_distractor
from liverseg.synthesis.lesion import Lesion, draw_lesion
from liverseg.synthesis.painting import Scan

__all__ = ["MOST_MARGIN_MM", "Placed", "add_distractors", "add_lesions", "depth_mm", "detectability", "outlined"]

_TRIES: Final = 8
_SECTION: Final = 0.9
"""A lesion's centre lies at most so many radii from the slice that crosses it."""
_LARGEST: Final = 2.6
"""A lesion's diameter is at most so many times the greatest depth of the liver, which it may bulge over."""

_NOISE_CELL_MM: Final = 2.0
"""Noise of CT is alike over about this distance: so many mm² of a disc add one independent sample to its mean."""

_SEEN_AT_ONCE_MM: Final = 5.0
"""Radius of the largest disc over which noise is averaged by eye: of larger lesions contrast alone decides. Ours."""

MOST_MARGIN_MM: Final = 5.0
"""Readers outline lesions generously, but no more than this."""

_Rng = np.random.Generator | np.random.RandomState


@dataclass(frozen=True)
class Placed:
    """Something painted.

    Attributes:
        kind: type of the lesion or kind of the distractor.
        box: where it lies.
        share: of each voxel of the box, 0 to 1.
    """

    kind: str
    box: Box
    share: np.ndarray


def depth_mm(liver: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Distance of each voxel of a liver to its surface in mm, float32, 0 outside; of any number of axes."""
    depth = np.zeros(liver.shape, np.float32)
    found = ndimage.find_objects(liver.astype(np.uint8))
    if found:
        box = tuple(
            slice(max(0, side.start - 1), side.stop + 1) for side in found[0]
        )  # a margin: the image's edge is no surface
        depth[box] = ndimage.distance_transform_edt(liver[box], sampling=spacing)
    return depth


def add_lesions(
    rng: _Rng,
    scan: Scan,
    kinds: Sequence[str],
    diameters: Sequence[float],
    depth: np.ndarray,
    taken: np.ndarray,
    section: int | None = None,
    min_detectability: float = 0.0,
) -> list[Placed]:
    """Paint lesions into a scan, apart from each other; those for which there is no room are left out.

    Args:
        rng: source of random numbers.
        scan: what is painted on.
        kinds: type of each lesion.
        diameters: mm, of each lesion.
        depth: `depth_mm` of the scan's liver; of the section alone, (row, column), where one is given.
        taken: boolean (slice, row, column), voxels of lesions that are there; those painted are added.
        section: number of the slice that crosses every lesion; None places their centres anywhere in the liver.
        min_detectability: lesions of a lower `detectability` are drawn again, or left out if that does not help.
    """
    placed: list[Placed] = []
    deepest = float(depth.max(initial=0.0))
    candidates = np.flatnonzero(depth > 0)
    if not len(candidates):
        return placed
    depths = depth.ravel()[candidates]
    first = None
    for kind, wanted in zip(kinds, diameters, strict=True):
        diameter = min(wanted, _LARGEST * deepest)
        for _ in range(_TRIES):
            least = min(rng.uniform(0.1, 1.1) * diameter / 2, 0.8 * deepest)
            deep = candidates[depths >= least]
            centre = _position(rng, scan, int(deep[rng.choice(len(deep))]), depth.shape, diameter, section)
            lesion, as_first = draw_lesion(rng, kind, centre, diameter, scan.around, first, flat=scan.is_flat)
            beside_mm = 0.0 if section is None else centre[0] - float(scan.positions_mm[section])
            if detectability(lesion, scan.around, beside_mm) < min_detectability:
                continue
            first = as_first
            if _is_free(lesion, scan, taken):
                painted = scan.paint(lesion)
                if painted is not None:
                    placed.append(Placed(kind, *painted))
                    taken[painted[0]] |= painted[1] >= 0.1
                break
            diameter = max(0.85 * diameter, 3.0)
    return placed


def detectability(lesion: Lesion, around: Surroundings, beside_mm: float = 0.0) -> float:
    """How well a lesion is seen: contrast of its centre or rim, whichever is larger, by the noise of the mean over it.

    The mean is over its section, and of a large one over a disc of 5 mm radius. Rose (1948) asks for 3 to 5 on an even
    background. What no reader would have outlined teaches a network to ignore faint lesions.

    Args:
        lesion: seen on one slice.
        around: liver and noise of its scan.
        beside_mm: distance of the slice to the lesion's centre.
    """
    look = lesion.appearance
    contrast = max(abs(look.centre_hu - around.liver_hu), abs(look.outer_hu - around.liver_hu))
    area_mm2 = math.pi * float(np.clip(lesion.shape.radius**2 - beside_mm**2, 0.0, _SEEN_AT_ONCE_MM**2))
    return contrast * math.sqrt(area_mm2) / (_NOISE_CELL_MM * max(around.noise_hu, 1.0))


def outlined(
    placed: Placed, shape: Sequence[int], pixel_mm: Sequence[float], margin_mm: float
) -> tuple[Box, np.ndarray]:
    """A lesion as a reader outlines it, slice by slice.

    Readers' outlines hold the blurred edge: those of 3D-IRCADb 1 lie 2 to 3 mm outside the contour where a lesion's
    contrast has fallen to a half.

    Args:
        placed: the lesion.
        shape: of the scan, (slice, row, column).
        pixel_mm: between rows and between columns.
        margin_mm: how far outside the contour of half contrast the outline runs; 0 for the contour itself.

    Returns:
        The box that the outline lies in and its inside, boolean, shape of the box.
    """
    filled = placed.share >= 0.5
    if not margin_mm:
        return placed.box, filled
    plane, added = [], [(0, 0)]
    for side, length, pixel in zip(placed.box[1:], shape[1:], pixel_mm, strict=True):
        more = math.ceil(margin_mm / pixel)
        plane.append(slice(max(0, side.start - more), min(length, side.stop + more)))
        added.append((side.start - plane[-1].start, plane[-1].stop - side.stop))
    inside = np.pad(filled, added)
    for own in inside:
        if own.any():
            own |= ndimage.distance_transform_edt(~own, sampling=pixel_mm) <= margin_mm
    return (placed.box[0], plane[0], plane[1]), inside


def add_distractors(rng: _Rng, scan: Scan, count: int, depth: np.ndarray, section: int, in_plane: bool) -> list[Placed]:
    """Paint distractors that cross a slice of a scan.

    Args:
        rng: source of random numbers.
        scan: what is painted on.
        count: how many.
        depth: `depth_mm` of the section's liver, (row, column).
        section: number of the slice.
        in_plane: see `draw_distractor`.
    """
    placed: list[Placed] = []
    inside, surface = np.flatnonzero(depth > 6), np.flatnonzero((depth > 0) & (depth < 3.5))
    if not len(inside) or not len(surface):
        return placed
    middle = np.array(np.unravel_index(inside, depth.shape)).mean(axis=1)
    for _ in range(count):
        kind = str(rng.choice(list(DISTRACTORS), p=list(DISTRACTORS.values())))
        among = inside if kind in ("vein", "vessel") else surface
        row, column = np.unravel_index(int(among[rng.choice(len(among))]), depth.shape)
        inwards = (middle - (row, column)) * scan.pixel_mm
        inwards /= max(float(np.linalg.norm(inwards)), 1e-6)
        centre = (
            float(scan.positions_mm[section]) + rng.uniform(-3, 3),
            float(row) * scan.pixel_mm[0],
            float(column) * scan.pixel_mm[1],
        )
        painted = scan.paint_distractor(draw_distractor(rng, kind, centre, inwards, in_plane=in_plane))
        if painted is not None:
            placed.append(Placed(kind, *painted))
    return placed


def _position(
    rng: _Rng, scan: Scan, index: int, shape: tuple[int, ...], diameter: float, section: int | None
) -> tuple[float, float, float]:
    """Centre of a lesion in mm at the voxel of that index, within the voxel."""
    number, row, column = np.unravel_index(index, shape) if section is None else (section, *divmod(index, shape[1]))
    spread = scan.thickness_mm / 2 if section is None else _SECTION * diameter / 2
    return (
        float(scan.positions_mm[int(number)]) + rng.uniform(-spread, spread),
        (float(row) + rng.uniform(-0.5, 0.5)) * scan.pixel_mm[0],
        (float(column) + rng.uniform(-0.5, 0.5)) * scan.pixel_mm[1],
    )


def _is_free(lesion: Lesion, scan: Scan, taken: np.ndarray) -> bool:
    """Whether no other lesion is within a lesion's radius and a tenth of its centre."""
    near = np.flatnonzero(np.abs(scan.positions_mm - lesion.centre[0]) <= lesion.shape.radius)
    slices = slice(int(near[0]), int(near[-1]) + 1) if len(near) else slice(0, 0)
    reach = 1.1 * lesion.shape.radius + 2
    rows, columns = (
        slice(max(0, int((place - reach) / pixel)), int((place + reach) / pixel) + 1)
        for place, pixel in zip(lesion.centre[1:], scan.pixel_mm, strict=True)
    )
    return not taken[slices, rows, columns].any()
