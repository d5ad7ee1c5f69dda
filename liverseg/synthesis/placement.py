"""Placement of lesions and distractors in a liver, and their outlines for the label map."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage

from liverseg.imageio.boxes import Box
from liverseg.synthesis.appearance import Appearance, Surroundings, match_contrast
from liverseg.synthesis.distractors import DISTRACTORS, draw_distractor
from liverseg.synthesis.lesion import Lesion, draw_lesion
from liverseg.synthesis.painting import Scan

__all__ = [
    "MAX_MARGIN_MM",
    "PaintedObject",
    "add_distractors",
    "add_lesions",
    "depth_mm",
    "detectability",
    "draw_centre",
    "is_free",
    "is_visible",
    "reader_outline",
]

_ATTEMPTS: Final = 8
_MAX_OFFSET_RADII: Final = 0.9
"""Largest distance of a lesion's centre from the slice that crosses it, in radii."""
_MAX_DIAMETER_DEPTHS: Final = 2.6
"""Largest diameter of a lesion by the greatest depth of the liver; lesions may bulge."""

_NOISE_CELL_MM: Final = 2.0
"""Correlation length of CT noise: a disc has one independent sample per square of this edge."""

_MAX_DISC_RADIUS_MM: Final = 5.0
"""Radius of the largest disc over which the eye averages noise; beyond it, only contrast counts (our choice)."""

_EYE_SIGMA_MM: Final = 2.0
_MIN_VISIBLE_HU: Final = 10.0
_ROSE_RATIO: Final = 3.0
"""What counts as visible: our choice but for the ratio, which is Rose's (1948)."""

MAX_MARGIN_MM: Final = 5.0
"""Readers outline lesions generously, but not more than this."""

_Rng = np.random.Generator | np.random.RandomState


@dataclass(frozen=True)
class PaintedObject:
    """A lesion or distractor that was painted.

    Attributes:
        kind: type of the lesion or kind of the distractor.
        box: box in the scan that contains it.
        share: its share of each voxel of the box, 0 to 1.
    """

    kind: str
    box: Box
    share: np.ndarray


def depth_mm(liver: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Return the distance of each voxel of a liver to its surface in mm, float32, 0 outside; any number of axes."""
    depth = np.zeros(liver.shape, np.float32)
    boxes = ndimage.find_objects(liver.astype(np.uint8))
    if boxes:
        # one voxel of margin, so that the surface is inside the box; the image's border is no surface
        box = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in boxes[0])
        depth[box] = ndimage.distance_transform_edt(liver[box], sampling=spacing)
    return depth


def add_lesions(
    rng: _Rng,
    scan: Scan,
    kinds: Sequence[str],
    diameters: Sequence[float],
    depth: np.ndarray,
    occupied: np.ndarray,
    section: int | None = None,
    min_detectability: float = 0.0,
    first: Appearance | None = None,
    match: Callable[..., Appearance] = match_contrast,
) -> list[PaintedObject]:
    """Paint lesions into a scan, separate from each other; lesions without enough space are left out.

    Args:
        rng: source of random numbers.
        scan: the scan, changed in place.
        kinds: type of each lesion.
        diameters: diameter of each lesion, mm.
        depth: `depth_mm` of the scan's liver, or of the liver in the section, (row, column), if that is given.
        occupied: boolean (slice, row, column), voxels of existing lesions; painted lesions are added in place.
        section: number of the slice that crosses every lesion; None places centres anywhere in the liver.
        min_detectability: lesions of a lower `detectability` are drawn again, or left out after some attempts.
        first: appearance of the patient's first metastasis, if that is in another scan.
        match: see `draw_lesion`.
    """
    painted: list[PaintedObject] = []
    deepest = float(depth.max(initial=0.0))
    candidates = np.flatnonzero(depth > 0)
    if not len(candidates):
        return painted
    depths = depth.ravel()[candidates]
    for kind, drawn_diameter in zip(kinds, diameters, strict=True):
        diameter = min(drawn_diameter, _MAX_DIAMETER_DEPTHS * deepest)
        for _ in range(_ATTEMPTS):
            min_depth = min(rng.uniform(0.1, 1.1) * diameter / 2, 0.8 * deepest)
            deep = candidates[depths >= min_depth]
            centre = draw_centre(rng, scan, int(deep[rng.choice(len(deep))]), depth.shape, diameter, section)
            lesion, first_if_kept = draw_lesion(
                rng, kind, centre, diameter, scan.around, first, flat=scan.is_flat, match=match
            )
            offset_mm = 0.0 if section is None else centre[0] - float(scan.positions_mm[section])
            if detectability(lesion, scan.around, offset_mm) < min_detectability:
                continue
            first = first_if_kept
            if is_free(centre, lesion.shape.radius, scan, occupied):
                region = scan.paint(lesion)
                if region is not None:
                    box, share = region
                    painted.append(PaintedObject(kind, box, share))
                    occupied[box] |= share >= 0.1
                break
            diameter = max(0.85 * diameter, 3.0)
    return painted


def detectability(lesion: Lesion, around: Surroundings, offset_mm: float = 0.0) -> float:
    """Return the contrast-to-noise ratio of a lesion.

    It is the larger contrast of centre and rim, divided by the noise of the mean over the lesion's section, or over a
    disc of 5 mm radius for a large lesion. Rose (1948) asks for 3 to 5 on a homogeneous background. Lesions that no
    reader would have outlined teach a network to ignore faint lesions.

    Args:
        lesion: the lesion.
        around: attenuation and noise of the liver in its scan.
        offset_mm: distance of the slice to the lesion's centre.
    """
    appearance = lesion.appearance
    contrast = max(abs(appearance.centre_hu - around.liver_hu), abs(appearance.outer_hu - around.liver_hu))
    area_mm2 = math.pi * float(np.clip(lesion.shape.radius**2 - offset_mm**2, 0.0, _MAX_DISC_RADIUS_MM**2))
    return contrast * math.sqrt(area_mm2) / (_NOISE_CELL_MM * max(around.noise_hu, 1.0))


def is_visible(lesion: PaintedObject, change: np.ndarray, scan: Scan) -> bool:
    """Whether a reader would see a painted lesion.

    The root mean square of the change of attenuation over the lesion, averaged by a Gaussian filter of 2 mm, must be
    three times the noise of that average, and 10 HU. `detectability` cannot replace this: where nodules are as bright
    as the centre is dark, they cancel each other.

    Args:
        lesion: the lesion.
        change: HU of the scan with the lesion minus HU before, (slice, row, column).
        scan: the scan.
    """
    inside = lesion.share >= 0.5
    if not inside.any():
        return False
    sigma = [_EYE_SIGMA_MM / mm for mm in scan.pixel_mm]
    smooth = np.stack([ndimage.gaussian_filter(plane, sigma) for plane in change[lesion.box]])
    # the mean of white noise under a Gaussian filter of width s has 1 / (4 pi s²) of the variance per area
    noise = scan.around.noise_hu * _NOISE_CELL_MM / (2 * math.sqrt(math.pi) * _EYE_SIGMA_MM)
    return math.sqrt(float(np.square(smooth[inside]).mean())) >= max(_MIN_VISIBLE_HU, _ROSE_RATIO * noise)


def reader_outline(
    lesion: PaintedObject, shape: Sequence[int], pixel_mm: Sequence[float], margin_mm: float
) -> tuple[Box, np.ndarray]:
    """Outline a lesion as a reader would, slice by slice.

    Readers include the blurred edge: the outlines of 3D-IRCADb 1 are 2 to 3 mm outside the contour of half contrast.

    Args:
        lesion: the painted lesion.
        shape: shape of the scan, (slice, row, column).
        pixel_mm: distance of rows and of columns.
        margin_mm: distance of the outline from the contour of half contrast; 0 for the contour itself.

    Returns:
        The box of the outline and the mask inside the outline, boolean, shape of the box.
    """
    filled = lesion.share >= 0.5
    if not margin_mm:
        return lesion.box, filled
    plane, padding = [], [(0, 0)]
    for side, length, pixel in zip(lesion.box[1:], shape[1:], pixel_mm, strict=True):
        margin = math.ceil(margin_mm / pixel)
        plane.append(slice(max(0, side.start - margin), min(length, side.stop + margin)))
        padding.append((side.start - plane[-1].start, plane[-1].stop - side.stop))
    inside = np.pad(filled, padding)
    for on_slice in inside:
        if on_slice.any():
            on_slice |= ndimage.distance_transform_edt(~on_slice, sampling=pixel_mm) <= margin_mm
    return (lesion.box[0], plane[0], plane[1]), inside


def add_distractors(
    rng: _Rng, scan: Scan, count: int, depth: np.ndarray, section: int, in_plane: bool
) -> list[PaintedObject]:
    """Paint distractors that cross a slice of a scan.

    Args:
        rng: source of random numbers.
        scan: the scan, changed in place.
        count: number of distractors.
        depth: `depth_mm` of the section's liver, (row, column).
        section: number of the slice.
        in_plane: see `draw_distractor`.
    """
    painted: list[PaintedObject] = []
    inside, surface = np.flatnonzero(depth > 6), np.flatnonzero((depth > 0) & (depth < 3.5))
    if not len(inside) or not len(surface):
        return painted
    middle = np.array(np.unravel_index(inside, depth.shape)).mean(axis=1)
    for _ in range(count):
        kind = str(rng.choice(list(DISTRACTORS), p=list(DISTRACTORS.values())))
        candidates = inside if kind in ("vein", "vessel") else surface
        row, column = np.unravel_index(int(candidates[rng.choice(len(candidates))]), depth.shape)
        inwards = (middle - (row, column)) * scan.pixel_mm
        inwards /= max(float(np.linalg.norm(inwards)), 1e-6)
        centre = (
            float(scan.positions_mm[section]) + rng.uniform(-3, 3),
            float(row) * scan.pixel_mm[0],
            float(column) * scan.pixel_mm[1],
        )
        region = scan.paint_distractor(draw_distractor(rng, kind, centre, inwards, in_plane=in_plane))
        if region is not None:
            painted.append(PaintedObject(kind, *region))
    return painted


def draw_centre(
    rng: _Rng, scan: Scan, index: int, shape: tuple[int, ...], diameter: float, section: int | None
) -> tuple[float, float, float]:
    """Draw the centre of a lesion in mm, within the voxel of a flat index.

    Args:
        rng: source of random numbers.
        scan: the scan.
        index: flat index of the voxel.
        shape: shape of the array that the index is for: (slice, row, column), or (row, column) of the section.
        diameter: of the lesion, mm.
        section: number of the slice that crosses the lesion; None for an index into the scan.
    """
    number, row, column = np.unravel_index(index, shape) if section is None else (section, *divmod(index, shape[1]))
    spread = scan.thickness_mm / 2 if section is None else _MAX_OFFSET_RADII * diameter / 2
    return (
        float(scan.positions_mm[int(number)]) + rng.uniform(-spread, spread),
        (float(row) + rng.uniform(-0.5, 0.5)) * scan.pixel_mm[0],
        (float(column) + rng.uniform(-0.5, 0.5)) * scan.pixel_mm[1],
    )


def is_free(centre: Sequence[float], radius: float, scan: Scan, occupied: np.ndarray) -> bool:
    """Whether there is no other lesion within 1.1 radii and 2 mm in-plane, and one radius across slices.

    Args:
        centre: mm along slices, rows and columns.
        radius: mm.
        scan: the scan.
        occupied: boolean (slice, row, column), voxels of other lesions.
    """
    near = np.flatnonzero(np.abs(scan.positions_mm - centre[0]) <= radius)
    slices = slice(int(near[0]), int(near[-1]) + 1) if len(near) else slice(0, 0)
    reach = 1.1 * radius + 2
    rows, columns = (
        slice(max(0, int((position - reach) / pixel)), int((position + reach) / pixel) + 1)
        for position, pixel in zip(centre[1:], scan.pixel_mm, strict=True)
    )
    return not occupied[slices, rows, columns].any()
