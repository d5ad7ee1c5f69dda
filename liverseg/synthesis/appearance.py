"""Attenuation of lesions by type in the portal venous phase, relative to the surrounding liver.

Types differ only in their radiological appearance. Edges, slow variation, sizes, numbers and positions come from
distributions that all types share, because a network would learn any other difference as a sign of the type.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from liverseg.labels import LESION_TYPES
from liverseg.synthesis.shape import Shape

__all__ = ["Appearance", "Surroundings", "draw_appearance", "match_contrast", "match_viable_tissue"]

_CYST_HU: Final = (0.0, 20.0)
_THICK_CYST_SHARE: Final = 0.2  # protein or old blood, or a mean raised by partial volume
_THICK_CYST_HU: Final = (20.0, 45.0)

_HYPODENSE_HU: Final = (15.0, 60.0)  # below the liver
_NECROTIC_SHARE: Final = 0.35  # of all metastases; all of them have a rim
_NECROTIC_HU: Final = (10.0, 30.0)
_RIM_SHARE: Final = 0.60
_RIM_ABOVE_CENTRE_HU: Final = (10.0, 30.0)
_RIM_MM: Final = (2.0, 5.0)
_MIN_BELOW_LIVER_HU: Final = 12.0

_POOL_BELOW_LIVER_HU: Final = (20.0, 60.0)
_NODULE_LEVEL: Final = (0.80, 1.05)  # 0 is liver, 1 is vessel
_NODULES: Final = (7, 15)
_NODULE_RADIUS: Final = (0.25, 0.50)  # share of the lesion's radius
_FILLED_BELOW_MM: Final = 15.0
_FILLED_SHARE: Final = 0.75

_EDGE_MM: Final = (0.8, 6.0)  # log-uniform; lesions of 3D-IRCADb 1 have edges of 4 to 6 mm
_TEXTURE_HU: Final = (0.5, 5.0)


@dataclass(frozen=True)
class Surroundings:
    """Attenuation and noise of the liver in a scan.

    Attributes:
        liver_hu: attenuation of the parenchyma.
        vessel_hu: attenuation of enhanced vessels, limited to the range of portal venous scans.
        noise_hu: standard deviation of a voxel's noise.
        measured_contrast_hu: measured difference of the brightest parts of the liver to `liver_hu`, not limited.
    """

    liver_hu: float
    vessel_hu: float
    noise_hu: float = 0.0
    measured_contrast_hu: float = 0.0


@dataclass(frozen=True)
class Appearance:
    """Attenuation inside a lesion, and its edge.

    Attributes:
        centre_hu: attenuation outside rim and nodules.
        outer_hu: attenuation of the rim or the nodules.
        rim_mm: width of the rim, 0 without a rim.
        nodules: (n, 4): centre in the shape's round frame (3) and radius, mm.
        edge_mm: width of the transition from lesion to liver.
        texture_hu: standard deviation of the slow variation.
    """

    centre_hu: float
    outer_hu: float
    rim_mm: float
    nodules: np.ndarray
    edge_mm: float
    texture_hu: float


def draw_appearance(
    rng: np.random.Generator | np.random.RandomState,
    kind: str,
    shape: Shape,
    around: Surroundings,
    *,
    flat: bool = False,
) -> Appearance:
    """Draw the appearance of a lesion.

    Args:
        rng: source of random numbers.
        kind: one of `LESION_TYPES`.
        shape: shape of the lesion.
        around: liver of the scan.
        flat: whether the scan is a single slice. Hemangiomas are then not bright throughout, because these could not be
            distinguished from a vessel that crosses the slice.

    Raises:
        ValueError: if the type is not known.
    """
    if kind not in LESION_TYPES:
        raise ValueError(f"lesion type {kind!r}; allowed: {', '.join(LESION_TYPES)}")
    edge = float(np.exp(rng.uniform(*np.log(_EDGE_MM))))
    # an edge wider than the lesion would erase it
    common = {"edge_mm": min(edge, 0.8 * shape.radius), "texture_hu": float(rng.uniform(*_TEXTURE_HU))}
    if kind == "hemangioma":
        centre, outer, rim, nodules = _hemangioma(rng, shape, around, flat)
    else:
        centre, outer, rim, nodules = (_cyst if kind == "cyst" else _metastasis)(rng, shape, around)
    return Appearance(centre, outer, rim, nodules, **common)


def match_contrast(
    rng: np.random.Generator | np.random.RandomState, drawn: Appearance, first: Appearance, around: Surroundings
) -> Appearance:
    """Give a metastasis the contrast of the patient's first one, within 10 HU, because metastases resemble each other.

    Args:
        rng: source of random numbers.
        drawn: appearance of the metastasis; rim and edge are kept.
        first: appearance of the patient's first metastasis.
        around: liver of the scan.
    """
    centre = min(first.centre_hu + rng.uniform(-10, 10), around.liver_hu - _MIN_BELOW_LIVER_HU)
    return replace(drawn, centre_hu=centre, outer_hu=centre + drawn.outer_hu - drawn.centre_hu)


def match_viable_tissue(
    rng: np.random.Generator | np.random.RandomState, drawn: Appearance, first: Appearance, around: Surroundings
) -> Appearance:
    """Give the viable tissue of a metastasis the contrast of the patient's first one, within 10 HU.

    Unlike `match_contrast`, the drawn necrosis stays: a metastasis beside a necrotic one keeps its own centre, and the
    rim of a necrotic one is no brighter than the viable tissue. Training and phantoms use `match_contrast`, with which
    their published results were made.

    Args:
        rng, drawn, first, around: as for `match_contrast`.
    """
    viable = min(_viable_hu(first) + rng.uniform(-10, 10), around.liver_hu - _MIN_BELOW_LIVER_HU)
    if _is_necrotic(drawn):
        return replace(drawn, outer_hu=max(viable, drawn.centre_hu + _RIM_ABOVE_CENTRE_HU[0]))
    return replace(drawn, centre_hu=viable, outer_hu=viable + drawn.outer_hu - drawn.centre_hu)


def _is_necrotic(metastasis: Appearance) -> bool:
    return metastasis.rim_mm > 0 and metastasis.centre_hu <= _NECROTIC_HU[1]


def _viable_hu(metastasis: Appearance) -> float:
    return metastasis.outer_hu if _is_necrotic(metastasis) else metastasis.centre_hu


_CentreOuterRimNodules = tuple[float, float, float, np.ndarray]
_NO_NODULES: Final = np.zeros((0, 4))


def _cyst(
    rng: np.random.Generator | np.random.RandomState, shape: Shape, around: Surroundings
) -> _CentreOuterRimNodules:
    """Draw a homogeneous cyst with the attenuation of water, whatever the liver, without a rim."""
    hu = rng.uniform(*(_THICK_CYST_HU if rng.uniform() < _THICK_CYST_SHARE else _CYST_HU))
    return hu, hu, 0.0, _NO_NODULES


def _metastasis(
    rng: np.random.Generator | np.random.RandomState, shape: Shape, around: Surroundings
) -> _CentreOuterRimNodules:
    """Draw a metastasis: darker than the liver, mostly with a brighter rim, some with a necrotic centre.

    Necrosis leaves a rim of viable tumour, which enhances as other metastases do. Without it, a necrotic metastasis
    could not be distinguished from a cyst.
    """
    viable = around.liver_hu - rng.uniform(*_HYPODENSE_HU)
    if rng.uniform() >= _RIM_SHARE:
        return viable, viable, 0.0, _NO_NODULES
    rim, above = min(rng.uniform(*_RIM_MM), 0.6 * shape.radius), rng.uniform(*_RIM_ABOVE_CENTRE_HU)
    if rng.uniform() >= _NECROTIC_SHARE / _RIM_SHARE:
        return viable, viable + above, rim, _NO_NODULES
    centre = min(rng.uniform(*_NECROTIC_HU), around.liver_hu - _MIN_BELOW_LIVER_HU)
    return centre, max(centre + above, viable), rim, _NO_NODULES


def _hemangioma(
    rng: np.random.Generator | np.random.RandomState, shape: Shape, around: Surroundings, flat: bool
) -> _CentreOuterRimNodules:
    """Draw a hemangioma: peripheral nodules as bright as vessels around a dark centre; small ones bright throughout."""
    bright = around.liver_hu + rng.uniform(*_NODULE_LEVEL) * (around.vessel_hu - around.liver_hu)
    if not flat and 2 * shape.radius < _FILLED_BELOW_MM and rng.uniform() < _FILLED_SHARE:
        return bright, bright, 0.0, _NO_NODULES
    centre = max(around.liver_hu - rng.uniform(*_POOL_BELOW_LIVER_HU), 20.0)
    nodules = []
    for _ in range(int(rng.uniform(*_NODULES))):
        direction = rng.standard_normal(3)
        direction /= np.linalg.norm(direction)
        size = max(rng.uniform(*_NODULE_RADIUS) * shape.radius, 1.6)
        nodules.append([*(max(shape.radius - 0.75 * size, 0) * direction), size])
    return centre, bright, 0.0, np.array(nodules)
