"""How much a lesion grew, and whether that is more than its measurements are uncertain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from liverseg.inference.lesion_measurements import MeasuredLesion

__all__ = [
    "Change",
    "Size",
    "Trend",
    "diameter_uncertainty_mm",
    "measure_change",
    "size_value",
    "volume_uncertainty_ml",
]

_COVERAGE_FACTOR = 1.96
"""Half the width of a 95 % interval in standard deviations."""
_EDGE_PIXELS, _MIN_EDGE_MM = 0.5, 0.5
"""Standard uncertainty of the place of an outline: half a pixel, at least half a millimetre. Our choice: the edge of a
lesion is blurred over a pixel and over the scanner's point spread of about a millimetre."""


class Trend(str, Enum):
    """A change against the uncertainty of its measurement."""

    GROWN = "grown"
    SHRUNK = "shrunk"
    STABLE = "stable"


@dataclass(frozen=True)
class Size:
    """The size of a lesion at one examination, or of several that count as one.

    Attributes:
        longest_mm: longest axial diameter; the sum for several.
        short_mm: the diameter perpendicular to it; the sum for several.
        volume_ml: volume.
        longest_uncertainty_mm: standard uncertainty of `longest_mm`.
        volume_uncertainty_ml: standard uncertainty of `volume_ml`.
    """

    longest_mm: float
    short_mm: float
    volume_ml: float
    longest_uncertainty_mm: float
    volume_uncertainty_ml: float

    @classmethod
    def of(cls, lesions: Sequence[MeasuredLesion], spacing: tuple[float, float, float]) -> Size:
        """Add up lesions.

        The diameters of the parts of a split lesion are added, as RECIST 1.1 does (Eisenhauer et al. 2009, 4.3.2).

        Args:
            lesions: measured on one CT, at least one.
            spacing: of its slices, rows and columns, mm.
        """
        pixel, thickness = max(spacing[1:]), spacing[0]
        diameters = [diameter_uncertainty_mm(row.longest_diameter_mm, pixel, thickness) for row in lesions]
        volumes = [volume_uncertainty_ml(row.volume_ml, pixel, thickness) for row in lesions]
        return cls(
            sum(row.longest_diameter_mm for row in lesions),
            sum(row.perpendicular_diameter_mm for row in lesions),
            sum(row.volume_ml for row in lesions),
            math.hypot(*diameters),
            math.hypot(*volumes),
        )


@dataclass(frozen=True)
class Change:
    """The difference of two measurements.

    Attributes:
        difference: the later minus the earlier one.
        percent: of the earlier one.
        limit: the difference beyond which it is more than the uncertainty of both, 95 %.
        trend: by that limit.
    """

    difference: float
    percent: float
    limit: float
    trend: Trend


def size_value(size: Size | None, name: str) -> float | None:
    """Return a measurement of a size by name; None without a size."""
    return None if size is None else float(getattr(size, name))


def measure_change(before: float, after: float, uncertainty_before: float, uncertainty_after: float) -> Change:
    """Return the change of a measurement with its limit, 1.96 √(u₁² + u₂²), for independent errors (JCGM 100 5.1.2)."""
    limit = _COVERAGE_FACTOR * math.hypot(uncertainty_before, uncertainty_after)
    difference = after - before
    trend = Trend.STABLE
    if abs(difference) > limit:
        trend = Trend.GROWN if difference > 0 else Trend.SHRUNK
    return Change(difference, 100 * difference / before if before else math.inf, limit, trend)


def diameter_uncertainty_mm(diameter_mm: float, pixel_mm: float, slice_mm: float) -> float:
    """Return the standard uncertainty of a longest axial diameter, in mm.

    u² = p² / 6 + 2 e² + (0.149 s² / d)², with the pixel p, the slice spacing s, the diameter d and the uncertainty e of
    an outline's place, p / 2 but at least 0.5 mm. The terms are, in order:

    - both ends are known to within a pixel, evenly distributed: p² / 12 each (JCGM 100:2008, 4.3.7);
    - both ends of the outline are uncertain by e, independently;
    - a slice that is off the widest section of a ball by o shortens its diameter by 2 o² / d; with o evenly distributed
      over ± s / 2, the standard deviation of that is s² / (√45 d).

    The formula is ours. It knows neither the readers nor the network: these may differ by more.
    """
    edge = max(_EDGE_PIXELS * pixel_mm, _MIN_EDGE_MM)
    section = slice_mm**2 / (math.sqrt(45) * max(diameter_mm, slice_mm, 1e-6))
    return math.sqrt(pixel_mm**2 / 6 + 2 * edge**2 + section**2)


def volume_uncertainty_ml(volume_ml: float, pixel_mm: float, slice_mm: float) -> float:
    """Return the standard uncertainty of a volume, in ml.

    u² = (A e)² + A v^(4/3) / 12, with the surface A of the ball of that volume, a voxel's volume v = p² s and e as for
    `diameter_uncertainty_mm`. An outline that is off by e everywhere changes the volume by A e. Some A / v^(2/3) voxels
    are at the surface, each in or out as if its share were evenly distributed: a variance of v² / 12. The formula is
    ours, for a ball; a lobulated lesion has more surface.
    """
    edge = max(_EDGE_PIXELS * pixel_mm, _MIN_EDGE_MM)
    surface = math.pi ** (1 / 3) * (6 * volume_ml * 1000) ** (2 / 3)
    voxel = pixel_mm**2 * slice_mm
    return math.sqrt((surface * edge) ** 2 + surface * voxel ** (4 / 3) / 12) / 1000
