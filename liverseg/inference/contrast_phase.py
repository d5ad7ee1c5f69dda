"""Estimate the contrast phase of a CT from the blood in the aorta and from the liver.

No network is needed. On axial slices the aorta is a round object of a known size, in front of the spine or to the left
of it, brighter than its surroundings, and on successive slices in nearly the same place. In unenhanced scans it is
found as well, because fat surrounds it.

The rules rest on these figures: 10 to 15 s after the bolus arrives the aorta enhances by 300 to 336 HU and the liver by
15 to 25 HU; 45 to 55 s after, by 117 to 125 HU and by 59 to 63 HU (Goshima et al., AJR 187, 2006, W25). Without
contrast medium the liver has 58.8 ± 10.8 HU (Boyce et al., AJR 194, 2010, 623) and blood about 40 HU. The limits
between the phases are ours, and so is the search for the aorta; docs/evaluation.md describes their tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from scipy import ndimage

from liverseg.errors import LiversegError
from liverseg.labels import LIVER

if TYPE_CHECKING:
    from liverseg.imageio.dicom_header import Slice

__all__ = [
    "PHASES",
    "ContrastPhase",
    "LiverHU",
    "aorta_hu",
    "contrast_phase",
    "liver_hu",
    "phase_of",
    "phase_of_blood",
    "phase_of_slices",
]

PHASES: Final = ("unenhanced", "arterial", "portal venous", "delayed", "unknown")

_PIXEL_MM: Final = 1.5
"""Pixels are averaged to about this size, which reduces noise; an aorta is ten times as wide."""
_STEP_MM, _MIN_SLICES = 5.0, 40
"""The aorta is searched on a slice every 5 mm, in a short scan on more slices."""
_BEYOND_LIVER_MM: Final = 30.0
_LIVER_SLICES: Final = 24
_ERODED_MM: Final = 2.0
_MIN_PIXELS: Final = 200

_BODY: Final = -300
_BONE: Final = 220
_MIN_BONE_MM2: Final = 300.0
_SPINE_MM: Final = (45.0, 110.0)
"""Bone counts as spine within this distance of the body's midline, and down to this distance behind its middle."""
_WINDOW_MM: Final = (95.0, 10.0, 25.0, 65.0)
"""Position of the aorta, at most: from the spine's middle to the front, back, right and left."""
_LEVELS: Final = (0, 15, 30, 45, 60, 75, 90, 105, 120, 140, 160, 190, 220, 260, 300, 350, 400)
_AREA_MM2: Final = (120.0, 1500.0)
"""Discs of 12 to 44 mm: from a slender aorta to an aneurysm."""
_MIN_FILL, _MIN_ASPECT = 0.85, 0.65
_EDGE_HU: Final = 40.0
_MAX_GAP_MM: Final = 30.0
_MIN_LENGTH_MM, _MIN_DISCS = 20.0, 4
_ENHANCED_HU: Final = 90.0
"""Blood above it contains contrast medium."""


class LiverHU(NamedTuple):
    """HU of the liver's parenchyma.

    Attributes:
        median: of liver voxels without lesions, without those near its edge.
        vessels: distance of the brightest hundredth of the smoothed liver above the median, as a multiple of its value
            for noise of the liver's own spread: 1 without bright vessels.
    """

    median: float
    vessels: float


class _Disc(NamedTuple):
    """A round object on a slice; lengths in mm from the corner of the image, z from the first slice."""

    z: float
    y: float
    x: float
    area: float
    hu: float
    weight: float


@dataclass(frozen=True)
class ContrastPhase:
    """A contrast phase and the measurements it is based on.

    Attributes:
        phase: one of `PHASES`; "unknown" if the measurements do not determine it.
        confidence: "high" if the measurements are well within a phase, "low" near its limits, "none" for unknown.
        aorta_hu: median HU of the aorta's blood; None if no aorta was found.
        aorta_mm: length of the aorta that was found.
        liver_hu: median HU of the parenchyma; None if there is too little of it.
    """

    phase: str
    confidence: str
    aorta_hu: float | None
    aorta_mm: float
    liver_hu: float | None

    def describe(self) -> str:
        """Return phase, confidence and measurements in one line."""
        aorta = (
            "no aorta found" if self.aorta_hu is None else f"aorta {self.aorta_hu:.0f} HU over {self.aorta_mm:.0f} mm"
        )
        liver = "liver not measured" if self.liver_hu is None else f"liver {self.liver_hu:.0f} HU"
        sure = "" if self.confidence == "none" else f", {self.confidence} confidence"
        return f"{self.phase}{sure} ({aorta}, {liver})"

    def to_json(self) -> dict[str, Any]:
        """Return the content for a case's record."""
        return asdict(self)


def contrast_phase(hu: np.ndarray, liver: LiverHU | None, slices: slice, spacing: Sequence[float]) -> ContrastPhase:
    """Estimate the contrast phase.

    Args:
        hu: in axial order, shape (slice, row, column), any number type.
        liver: of `liver_hu`.
        slices: the slices of the liver.
        spacing: mm between slices, rows and columns.
    """
    beyond = round(_BEYOND_LIVER_MM / spacing[0])
    found = aorta_hu(hu, slice(max(0, slices.start - beyond), min(len(hu), slices.stop + beyond)), spacing)
    blood, length = (None, 0.0) if found is None else found
    phase, confidence = phase_of(blood, liver)
    rounded = [None if value is None else round(value, 1) for value in (blood, liver and liver.median)]
    return ContrastPhase(phase, confidence, rounded[0], round(length, 1), rounded[1])


def phase_of(aorta: float | None, liver: LiverHU | None) -> tuple[str, str]:
    """Return phase and confidence for the HU of blood and liver.

    Example:
        >>> phase_of(385.0, LiverHU(66.0, 1.2)), phase_of(150.0, LiverHU(117.0, 1.5)), phase_of(None, None)
        (('arterial', 'high'), ('portal venous', 'high'), ('unknown', 'none'))
    """
    if aorta is None or liver is None:
        return "unknown", "none"
    if aorta < 75:
        # the liver may be fatty or contain iron, but no phase has an enhanced liver with unenhanced blood
        return ("unenhanced", "high" if aorta < 65 else "low") if liver.median < 90 else ("unknown", "none")
    if aorta >= 240 and aorta >= 2.2 * liver.median:
        return "arterial", "high" if aorta >= 280 else "low"
    if aorta >= 240 and liver.median < 100:
        return "unknown", "none"
    if aorta >= 120:
        if liver.median >= 80:
            return "portal venous", "high" if 130 <= aorta < 220 and liver.median >= 90 else "low"
        # the liver is fatty, or not enhanced yet; the veins of a fatty liver are brighter than the parenchyma
        return ("portal venous", "low") if liver.vessels >= 1.25 else ("unknown", "none")
    return ("delayed", "low") if 70 <= liver.median <= aorta + 20 else ("unknown", "none")


def phase_of_blood(aorta: float | None) -> str | None:
    """Return the phase that the blood's HU suggest before the liver is known, as --phase names it; None near limits.

    The limits are those of `phase_of`, with a distance to each of them.

    Example:
        >>> [phase_of_blood(hu) for hu in (45.0, 95.0, 150.0, 225.0, 330.0, None)]
        ['native', 'delayed', 'portal', None, 'arterial', None]
    """
    if aorta is None:
        return None
    for phase, low, high in (
        ("native", -np.inf, 65),
        ("delayed", 80, 110),
        ("portal", 120, 220),
        ("arterial", 250, np.inf),
    ):
        if low <= aorta < high:
            return phase
    return None


def phase_of_slices(slices: Sequence[Slice]) -> str | None:
    """Estimate the phase of a stack of DICOM slices from the aorta, before the network has found the liver.

    Reads a slice every 5 mm.

    Args:
        slices: of an axial stack.

    Returns:
        As `phase_of_blood`; None too if the slices cannot be read.
    """
    from liverseg.imageio.dicom_select import read_thinned  # with pydicom, which only DICOM needs

    try:
        volume = read_thinned(slices, _STEP_MM)
    except LiversegError:
        return None
    found = aorta_hu(volume.axial, slice(0, volume.array.shape[volume.slice_axis]), volume.axial_spacing)
    return None if found is None else phase_of_blood(found[0])


def liver_hu(inside: np.ndarray, labels: np.ndarray, spacing: Sequence[float]) -> LiverHU | None:
    """Measure the HU of the parenchyma on at most 24 slices.

    Args:
        inside: HU in axial order, shape (slice, row, column).
        labels: label map of that shape; voxels of label 1 count, if they are 2 mm from its edge.
        spacing: mm between slices, rows and columns.

    Returns:
        None if fewer than 200 pixels of about 1.5 mm are left.
    """
    by = max(1, round(_PIXEL_MM / min(spacing[1:])))
    pixel = by * min(spacing[1:])
    eroded = max(1, round(_ERODED_MM / pixel))
    on = np.flatnonzero((labels == LIVER).any(axis=(1, 2)))
    raw, smooth = [], []
    for index in on[np.unique(np.linspace(0, len(on) - 1, min(len(on), _LIVER_SLICES)).round().astype(int))]:
        plane = _downsample(inside[index], by)
        core = ndimage.binary_erosion(_downsample(labels[index] == LIVER, by) > 0.999, iterations=eroded)
        raw.append(plane[core])
        smooth.append(ndimage.gaussian_filter(plane, 1.5 / pixel)[core])
    values = np.concatenate(raw) if raw else np.zeros(0)
    if len(values) < _MIN_PIXELS:
        return None
    low, median, high, brightest = np.percentile(np.concatenate(smooth), [25, 50, 75, 99])
    # in a normal distribution the quartiles are 1.349 standard deviations apart, and the top hundredth starts at 2.326
    spread = max(float(high - low) / 1.349, 1.0)
    return LiverHU(float(np.median(values)), float(brightest - median) / (2.326 * spread))


def aorta_hu(hu: np.ndarray, slices: slice, spacing: Sequence[float]) -> tuple[float, float] | None:
    """Measure the HU of the blood in the aorta.

    Args:
        hu: in axial order, shape (slice, row, column).
        slices: the slices to search, one every 5 mm at least.
        spacing: mm between slices, rows and columns.

    Returns:
        Median over the slices of the aorta's HU, without its edge, and the length in mm that was found; None if less
        than 20 mm or four slices of it were found.
    """
    by = max(1, round(_PIXEL_MM / min(spacing[1:])))
    pixel = (by * spacing[1], by * spacing[2])
    step_mm = min(_STEP_MM, (slices.stop - slices.start) * spacing[0] / _MIN_SLICES)
    numbers = np.arange(slices.start, slices.stop, max(1, round(step_mm / spacing[0])))
    planes = [_downsample(hu[index], by) for index in numbers]
    spine = _spine(planes, pixel)
    if spine is None:
        return None
    discs = [
        disc
        for index, plane, middle in zip(numbers, planes, spine, strict=True)
        for disc in _find_discs(plane, middle, pixel, float(index) * spacing[0])
    ]
    bright, soft = (
        _heaviest_chain([disc for disc in discs if (disc.hu >= _ENHANCED_HU) is enhanced]) for enhanced in (True, False)
    )
    # in an enhanced scan, tubes without contrast medium are oesophagus, bowel or muscle
    chain = bright if 2 * sum(disc.weight for disc in bright) >= sum(disc.weight for disc in soft) else soft
    length = chain[-1].z - chain[0].z + spacing[0] if chain else 0.0
    if len(chain) < _MIN_DISCS or length < _MIN_LENGTH_MM:
        return None
    return float(np.median([disc.hu for disc in chain])), length


def _downsample(plane: np.ndarray, by: int) -> np.ndarray:
    """Average squares of pixels; pixels that make no full square are left out."""
    rows, columns = plane.shape[0] // by, plane.shape[1] // by
    cut = plane[: rows * by, : columns * by].astype(np.float32)
    return np.asarray(cut.reshape(rows, by, columns, by).mean(axis=(1, 3)))


def _spine(planes: Sequence[np.ndarray], pixel: tuple[float, float]) -> np.ndarray | None:
    """Return the middle of the spine's bone on each plane, (planes, 2) of row and column; None without a spine."""
    aside, behind = _SPINE_MM[0] / pixel[1], _SPINE_MM[1] / pixel[0]
    middles = np.full((len(planes), 2), np.nan)
    for number, plane in enumerate(planes):
        rows, columns = np.nonzero(plane > _BODY)
        if not len(rows):
            continue
        top, left = int(np.median(rows)), max(0, int(np.median(columns) - aside))
        bone = plane[top : top + int(behind), left : int(np.median(columns) + aside)] > _BONE
        if bone.sum() * pixel[0] * pixel[1] >= _MIN_BONE_MM2:
            on = np.nonzero(bone)
            middles[number] = np.median(on[0]) + top, np.median(on[1]) + left
    known = np.flatnonzero(np.isfinite(middles[:, 0]))
    if not len(known) or 2 * len(known) < len(planes):
        return None
    every = np.arange(len(planes))
    filled = [np.interp(every, known, middles[known, axis]) for axis in (0, 1)]
    return np.stack([ndimage.median_filter(axis, 5, mode="nearest") for axis in filled], axis=1)


def _find_discs(plane: np.ndarray, middle: np.ndarray, pixel: tuple[float, float], z: float) -> list[_Disc]:
    """Find round objects of an aorta's size in front of the spine and to its left, at every level of HU."""
    front, back, right, left = _WINDOW_MM
    top, bottom = max(0, int(middle[0] - front / pixel[0])), int(middle[0] + back / pixel[0])
    first, last = max(0, int(middle[1] - right / pixel[1])), int(middle[1] + left / pixel[1])
    window = ndimage.gaussian_filter(plane[top:bottom, first:last], [1.0 / mm for mm in pixel])
    discs = []
    for level in _LEVELS:
        parts, count = ndimage.label(window > level)
        if not count:
            break
        sizes = np.bincount(parts.ravel())
        for number, box in enumerate(ndimage.find_objects(parts), start=1):
            area = sizes[number] * pixel[0] * pixel[1]
            height, width = (side.stop - side.start for side in box)
            tall, wide = height * pixel[0], width * pixel[1]
            if not _AREA_MM2[0] <= area <= _AREA_MM2[1] or min(tall, wide) < _MIN_ASPECT * max(tall, wide):
                continue
            if sizes[number] < _MIN_FILL * np.pi / 4 * height * width or _at_edge(box, window.shape):
                continue
            measured = _measure_disc(window, parts, number, box)
            if measured is not None:
                hu, contrast = measured
                rows, columns = np.nonzero(parts[box] == number)
                y, x = (rows.mean() + box[0].start + top) * pixel[0], (columns.mean() + box[1].start + first) * pixel[1]
                discs.append(_Disc(z, float(y), float(x), float(area), hu, min(1.0, contrast / _EDGE_HU)))
    return discs


def _at_edge(box: tuple[slice, ...], shape: tuple[int, ...]) -> bool:
    return any(side.start == 0 or side.stop == length for side, length in zip(box, shape, strict=True))


def _measure_disc(
    window: np.ndarray, parts: np.ndarray, number: int, box: tuple[slice, ...]
) -> tuple[float, float] | None:
    """Return the median HU of a part without its edge, and its contrast to the surroundings; None if not brighter."""
    around = tuple(slice(max(0, side.start - 3), side.stop + 3) for side in box)
    own, values = parts[around] == number, window[around]
    core = ndimage.binary_erosion(own)
    if not core.any():
        return None
    near = ndimage.binary_dilation(own)
    ring = ndimage.binary_dilation(near, iterations=2) & ~near
    hu = float(np.median(values[core]))
    contrast = hu - float(np.median(values[ring]))
    return (hu, contrast) if contrast > 0 else None


def _heaviest_chain(discs: Sequence[_Disc]) -> list[_Disc]:
    """Return the chain of discs with the largest weight, each on a later slice, near the previous one and like it."""
    if not discs:
        return []
    ordered = sorted(discs)
    weights, before = np.zeros(len(ordered)), np.full(len(ordered), -1)
    z, y, x, area, hu = (np.array([disc[place] for disc in ordered]) for place in range(5))
    for number, disc in enumerate(ordered):
        weights[number] = disc.weight
        apart = disc.z - z[:number]
        fits = (apart > 0) & (apart <= _MAX_GAP_MM)
        fits &= np.hypot(y[:number] - disc.y, x[:number] - disc.x) <= 4 + 0.6 * apart
        fits &= np.abs(hu[:number] - disc.hu) <= np.maximum(15, 0.15 * np.minimum(hu[:number], disc.hu))
        fits &= np.abs(np.log(area[:number] / disc.area)) <= np.log(2.5)
        choices = np.flatnonzero(fits)
        if len(choices):
            before[number] = choices[np.argmax(weights[choices])]
            weights[number] += weights[before[number]]
    chain, number = [], int(np.argmax(weights))
    while number >= 0:
        chain.append(ordered[number])
        number = int(before[number])
    return chain[::-1]
