"""Check whether a result is plausible for a portal venous CT of an abdomen.

Findings are reported with the result: the measured value and the plausible range. Nothing is refused, and no label is
changed. docs/evaluation.md has the limits with their sources.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from liverseg.imageio.boxes import Box, bounding_box, pad_box, to_global, to_local
from liverseg.inference.lesions import LesionMap
from liverseg.labels import LESION, LIVER

if TYPE_CHECKING:
    from liverseg.inference.contrast_phase import ContrastPhase, LiverHU

__all__ = ["FINDING_CODES", "PLAUSIBLE_LIVER_ML", "Plausibility", "PlausibilityFinding", "check_plausibility"]

FINDING_CODES: Final = (
    "no_liver",
    "liver_cut_off",
    "liver_at_image_edge",
    "liver_volume",
    "liver_hu",
    "contrast_phase",
    "lesion_count",
    "lesion_share",
)
"""Codes of the findings, in the order in which they are reported."""

_EDGE_CM2: Final = 5.0
"""A spherical cap with the liver's curvature (radius 7 cm) and this base is 1 mm high, less than a slice."""
PLAUSIBLE_LIVER_ML: Final = (600.0, 4000.0)
"""Volume of an adult's liver; docs/evaluation.md has the sources."""
_LIVER_HU: Final = (80.0, 140.0)
_UNENHANCED_HU: Final = 40.0
_MAX_LESIONS: Final = 75
_MAX_LESION_SHARE: Final = 0.6
_PADDING_HU: Final = -1024
"""Largest value with which scanners fill the corners outside the round field of view; air in a lung is brighter."""


@dataclass(frozen=True)
class PlausibilityFinding:
    """An implausible property of a result.

    Attributes:
        code: one of `FINDING_CODES`, for programs.
        sentence: the measured value and the plausible range, for readers.
    """

    code: str
    sentence: str


@dataclass(frozen=True)
class Plausibility:
    """The outcome of the checks of a case.

    Attributes:
        findings: in order of `FINDING_CODES`; empty if all is plausible.
        contrast: the estimated contrast phase; None without a liver.
    """

    findings: tuple[PlausibilityFinding, ...]
    contrast: ContrastPhase | None


def check_plausibility(hu: np.ndarray, lesions: LesionMap, spacing: Sequence[float]) -> Plausibility:
    """Check a result against published values of livers in portal venous CT.

    Args:
        hu: of the CT in axial order, shape (slice, row, column), any number type.
        lesions: found in it.
        spacing: mm between slices, rows and columns.
    """
    found = bounding_box(lesions.inside)
    if found is None:
        return Plausibility((PlausibilityFinding("no_liver", "no liver found"),), None)
    from liverseg.inference.contrast_phase import contrast_phase, liver_hu  # with SciPy, which only a liver needs

    box, labels = to_global(found, lesions.box), lesions.inside[found]
    liver = liver_hu(hu[box], labels, spacing)
    contrast = contrast_phase(hu, liver, box[0], spacing)
    cut_off = _cut_off(labels, box, lesions.shape, spacing)
    findings = [
        *cut_off,
        *_at_image_edge(hu, labels, box, spacing),
        *_volume(labels, spacing, bool(cut_off)),
        *_parenchyma(liver, contrast),
        *_phase(contrast),
        *_lesions(labels, len(lesions.voxels)),
    ]
    return Plausibility(tuple(findings), contrast)


def _cut_off(labels: np.ndarray, box: Box, shape: Sequence[int], spacing: Sequence[float]) -> list[PlausibilityFinding]:
    """Find a scan that ends within the liver."""
    ends = []
    for name, at_end, plane in (
        ("lowest", box[0].start == 0, labels[0]),
        ("highest", box[0].stop == shape[0], labels[-1]),
    ):
        area = np.count_nonzero(plane) * spacing[1] * spacing[2] / 100
        if at_end and area > _EDGE_CM2:
            ends.append((name, area))
    if not ends:
        return []
    names, areas = " and the ".join(name for name, _ in ends), " and ".join(f"{area:.0f}" for _, area in ends)
    return [
        PlausibilityFinding(
            "liver_cut_off",
            f"the liver reaches the {names} slice of the scan ({areas} cm2 there, more than {_EDGE_CM2:g}): its volume "
            "is that of the part shown",
        )
    ]


def _at_image_edge(
    hu: np.ndarray, labels: np.ndarray, box: Box, spacing: Sequence[float]
) -> Iterator[PlausibilityFinding]:
    """Find a liver that reaches a side of the image, or the padding around a round field of view."""
    area = 0.0  # mm2
    for axis in (1, 2):
        across = spacing[0] * spacing[3 - axis]
        for at_edge, place in ((box[axis].start == 0, 0), (box[axis].stop == hu.shape[axis], -1)):
            area += across * np.count_nonzero(labels.take(place, axis=axis)) if at_edge else 0.0
    around = pad_box(box, (0, 1, 1), hu.shape)
    padding = hu[around] <= _PADDING_HU
    if padding.any():
        inner = to_local(box, around)
        liver = np.zeros(padding.shape, bool)
        liver[inner] = labels >= LIVER
        for axis in (1, 2):
            ahead, behind = [slice(None)] * 3, [slice(None)] * 3
            ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
            for voxel, neighbour in ((tuple(ahead), tuple(behind)), (tuple(behind), tuple(ahead))):
                area += spacing[0] * spacing[3 - axis] * np.count_nonzero(liver[voxel] & padding[neighbour])
    if area / 100 > _EDGE_CM2:
        yield PlausibilityFinding(
            "liver_at_image_edge",
            f"{area / 100:.0f} cm2 of the liver's surface are at the edge of the field of view, more than "
            f"{_EDGE_CM2:g}: part of the liver may be missing",
        )


def _volume(labels: np.ndarray, spacing: Sequence[float], cut_off: bool) -> Iterator[PlausibilityFinding]:
    lowest, highest = PLAUSIBLE_LIVER_ML
    found = np.count_nonzero(labels) * spacing[0] * spacing[1] * spacing[2] / 1000
    if found > highest or (found < lowest and not cut_off):  # a part of a liver may have any small volume
        yield PlausibilityFinding(
            "liver_volume",
            f"the liver has {found:.0f} ml; {lowest:.0f} to {highest:.0f} ml are plausible in an adult "
            "(mean 1205 ml, SD 258, Feng 2017; 1162 to 2530 ml with tumours, LiTS)",
        )


def _parenchyma(liver: LiverHU | None, contrast: ContrastPhase) -> Iterator[PlausibilityFinding]:
    if liver is None:
        return
    lowest, highest = _LIVER_HU
    found = f"the liver's parenchyma has {liver.median:.0f} HU"
    expected = f"{lowest:.0f} to {highest:.0f} HU are expected in the portal venous phase (Goshima 2006)"
    if liver.median < _UNENHANCED_HU:
        without = f"even without contrast medium {_UNENHANCED_HU:.0f} HU or more are (mean 59 HU, SD 11, Boyce 2010)"
        yield PlausibilityFinding("liver_hu", f"{found}; {expected}, and {without}: it is fatty, or not liver")
    elif liver.median < lowest and contrast.phase in ("portal venous", "unknown"):
        yield PlausibilityFinding("liver_hu", f"{found}; {expected}: it is fatty, or hardly enhanced")
    elif liver.median > highest:
        yield PlausibilityFinding(
            "liver_hu", f"{found}; {expected}: it holds iron, the tube voltage was low, or it is not liver"
        )


def _phase(contrast: ContrastPhase) -> Iterator[PlausibilityFinding]:
    if contrast.phase not in ("portal venous", "unknown"):
        yield PlausibilityFinding(
            "contrast_phase",
            f"the contrast phase looks {contrast.describe()}; in the portal venous phase, which the network has learnt "
            "from, the aorta has 120 to 240 HU and the liver 80 to 140 HU (Goshima 2006)",
        )


def _lesions(labels: np.ndarray, count: int) -> Iterator[PlausibilityFinding]:
    if count > _MAX_LESIONS:
        yield PlausibilityFinding(
            "lesion_count", f"{count} lesions; {_MAX_LESIONS} are the most in a scan of LiTS (Bilic 2023)"
        )
    share = np.count_nonzero(labels >= LESION) / np.count_nonzero(labels)
    if share > _MAX_LESION_SHARE:
        yield PlausibilityFinding(
            "lesion_share",
            f"lesions fill {share:.0%} of the liver; more than {_MAX_LESION_SHARE:.0%} is implausible (ours)",
        )
