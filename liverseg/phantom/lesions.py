"""Liver lesions: how many, how large, where, of what shape, and how each type looks in the portal venous phase."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from liverseg.phantom import difficulty as d
from liverseg.phantom.fields import Field, smooth_min

__all__ = ["Lesion", "draw_lesions", "lesion_types_of_patient"]

_CLEAR_SHARE = 0.6
"""A lesion's centre is at least this share of its radius away from what takes its place from the liver."""


@dataclass(frozen=True)
class Lesion:
    """One lesion, ready to be evaluated anywhere.

    Attributes:
        kind: cyst, hemangioma or metastasis.
        centre: (x, y, z), LPS+ mm.
        radius: mean radius, mm.
        stretch: 3×3, scales and turns mm into the lesion's round frame.
        waves: (n, 5): direction (x, y, z), phase and height (share of the radius) of each bump on its surface.
        lobes: (n, 4): centre in the round frame and radius, mm, of each lobe besides the main one.
        margin: mm over which it fades into the liver; 0 is sharp.
        hu: HU of its centre, of its rim or nodules.
        rim: width of the rim in mm, 0 without one.
        nodules: (n, 4): centre in the round frame and radius, mm, of enhancing nodules.
        texture: standard deviation of its own variation, HU.
    """

    kind: str
    centre: tuple[float, float, float]
    radius: float
    stretch: np.ndarray
    waves: np.ndarray
    lobes: np.ndarray
    margin: float
    hu: tuple[float, float]
    rim: float
    nodules: np.ndarray
    texture: float

    @property
    def reach(self) -> float:
        """Radius in mm of a ball around the centre that holds it with its margin."""
        return 1.55 * self.radius + self.margin + 2.0

    def evaluate(self, z: np.ndarray, y: np.ndarray, x: np.ndarray, pixel: float) -> tuple[np.ndarray, np.ndarray]:
        """Share of the lesion in, and its HU at, positions on a grid.

        Args:
            z, y, x: the grid's axes, mm, one-dimensional.
            pixel: in-plane pixel, mm: a sharp edge is as wide.
        """
        offset = [axis.astype(np.float32) - np.float32(c) for axis, c in zip((x, y, z), self.centre, strict=True)]
        px, py, pz = offset[0][None, None, :], offset[1][None, :, None], offset[2][:, None, None]
        s = self.stretch.astype(np.float32)
        q = [s[k, 0] * px + s[k, 1] * py + s[k, 2] * pz for k in range(3)]
        length = np.sqrt(q[0] ** 2 + q[1] ** 2 + q[2] ** 2) + np.float32(1e-3)
        bumps = np.zeros_like(length)
        for wx, wy, wz, phase, height in self.waves.astype(np.float32):
            bumps += height * np.sin((wx * q[0] + wy * q[1] + wz * q[2]) / length + phase)
        surface = length - np.float32(self.radius) * (1 + bumps)
        for lx, ly, lz, radius in self.lobes.astype(np.float32):
            lobe = np.sqrt((q[0] - lx) ** 2 + (q[1] - ly) ** 2 + (q[2] - lz) ** 2) - radius
            surface = smooth_min(surface, lobe, 0.25 * self.radius)
        share = np.clip(0.5 - surface / np.float32(max(pixel, self.margin)), 0, 1)
        return share, self._hu(q, surface, pixel)

    def _hu(self, q: list[np.ndarray], surface: np.ndarray, pixel: float) -> np.ndarray:
        inner, outer = (np.float32(value) for value in self.hu)
        grain = np.float32(2 * np.pi / 9.0)  # a variation of about 9 mm
        wave = (
            np.sin(grain * (q[0] + 0.4 * q[1]))
            + np.sin(grain * (q[1] - 0.5 * q[2]) + 1)
            + np.sin(grain * (q[2] + 0.3 * q[0]) + 2)
        )
        hu = inner + np.float32(self.texture / 1.22) * wave
        if self.rim:
            depth = -surface + 0.12 * np.float32(self.rim) * wave
            rim = 1 / (1 + np.exp((depth - np.float32(self.rim)) / np.float32(0.22 * self.rim)))
            hu = hu + (outer - inner) * rim
        if len(self.nodules):
            nearest = np.full_like(surface, np.inf)
            for nx, ny, nz, radius in self.nodules.astype(np.float32):
                ball = np.sqrt((q[0] - nx) ** 2 + (q[1] - ny) ** 2 + (q[2] - nz) ** 2) - radius
                np.minimum(nearest, ball, out=nearest)
            bright = np.clip(0.5 - (nearest + 0.5 * wave) / np.float32(max(pixel, 1.6)), 0, 1)
            hu = hu + (outer - inner) * bright
        return hu


def lesion_types_of_patient(rng: np.random.Generator, main: str) -> list[str]:
    """Types of a patient's one to six lesions, the main type first."""
    chances = np.array(d.COUNT[main])
    count = 1 + int(rng.choice(len(chances), p=chances / chances.sum()))
    kinds = [main] * count
    if rng.random() < d.MIXED_SHARE:
        others = [kind for kind in d.PATIENT_TYPES if kind != main]
        kinds += [str(rng.choice(others))] * int(rng.integers(1, 3))
    return kinds[:6]


def draw_lesions(
    rng: np.random.Generator,
    kinds: list[str],
    liver: Field,
    not_liver: Field,
    liver_hu: float,
    vessel_hu: float,
    smallest: float,
) -> list[Lesion]:
    """Draw lesions and place them in the liver, apart from each other.

    Args:
        rng: the patient's random numbers.
        kinds: types to draw.
        liver: signed distance to the liver, mm.
        not_liver: signed distance to gallbladder and great vessels, mm; a lesion may touch them, not lie in them.
        liver_hu, vessel_hu: attenuation around them.
        smallest: diameter in mm below which the scan could not show one.
    """
    lesions: list[Lesion] = []
    candidates = np.argwhere(liver.values < -3.0)
    depth = -liver.values[tuple(candidates.T)]
    for number, kind in enumerate(kinds):
        median, spread = d.DIAMETER[kind]
        low = max(d.DIAMETER_LIMITS[0], smallest, 11.0 if number == 0 else 0.0)
        diameter = float(np.clip(rng.lognormal(np.log(median), spread), low, d.DIAMETER_LIMITS[1]))
        for _ in range(60):
            radius = diameter / 2
            deep = np.flatnonzero(depth > min(rng.uniform(0.35, 1.1) * radius + 1.0, 0.8 * depth.max()))
            row = candidates[rng.choice(deep)]
            lattice = liver.lattice
            z, y, x = (
                lattice.origin[k] + lattice.step * (row[k] + liver.start[k] + rng.uniform(-0.4, 0.4)) for k in range(3)
            )
            if not_liver.at(z, y, x) < _CLEAR_SHARE * radius:
                continue
            gaps = [
                np.linalg.norm(np.subtract((x, y, z), other.centre)) - 1.15 * (radius + other.radius)
                for other in lesions
            ]
            if all(gap > 3.0 for gap in gaps):
                lesions.append(_lesion(rng, kind, (float(x), float(y), float(z)), radius, liver_hu, vessel_hu))
                break
            diameter = max(0.93 * diameter, low)
    return lesions


def _direction(rng: np.random.Generator) -> np.ndarray:
    v = rng.standard_normal(3)
    return v / np.linalg.norm(v)


def _lesion(
    rng: np.random.Generator,
    kind: str,
    centre: tuple[float, float, float],
    radius: float,
    liver_hu: float,
    vessel_hu: float,
) -> Lesion:
    axes = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    ratio = np.exp(rng.uniform(-0.16, 0.16, 3))
    rough = {"cyst": 0.02, "hemangioma": 0.055, "metastasis": 0.06}[kind]
    waves = np.array(
        [
            [*(rng.uniform(1.5, 5.0) * _direction(rng)), rng.uniform(0, 6.28), rough * rng.uniform(0.4, 1.0)]
            for _ in range(6)
        ]
    )
    lobes, nodules = np.zeros((0, 4)), np.zeros((0, 4))
    margin = rim = texture = 0.0
    if kind == "cyst":
        thick = rng.random() < d.CYST_THICK_SHARE
        inner = outer = rng.uniform(*(d.CYST_THICK_HU if thick else d.CYST_HU))
        if rng.random() < d.CYST_LOBULATED_SHARE:
            lobes = _lobes(rng, radius)
    elif kind == "hemangioma":
        rise = vessel_hu - liver_hu
        texture = 3.0
        if rng.random() < 0.5:
            lobes = _lobes(rng, radius)
        if 2 * radius < d.FILLED_BELOW and rng.random() < d.FILLED_SHARE:
            inner = outer = liver_hu + rng.uniform(*d.FILLED_LEVEL) * rise
        else:
            inner = max(liver_hu - rng.uniform(*d.POOL_DROP), 30.0)
            outer = liver_hu + rng.uniform(*d.NODULE_LEVEL) * rise
            nodules = _nodules(rng, radius)
    else:
        inner, outer, rim = _metastasis_hu(rng, radius, liver_hu)
        margin = min(rng.uniform(*d.MARGIN), 0.9 * radius)
        texture = d.METASTASIS_TEXTURE
        if rng.random() < 0.3:
            lobes = _lobes(rng, radius)
    return Lesion(
        kind, centre, radius, ratio[:, None] * axes, waves, lobes, margin, (inner, outer), rim, nodules, texture
    )


def _lobes(rng: np.random.Generator, radius: float) -> np.ndarray:
    count = int(rng.integers(1, 4))
    sizes = rng.uniform(0.45, 0.7, count) * radius
    return np.array([[*(0.72 * radius * _direction(rng)), size] for size in sizes])


def _nodules(rng: np.random.Generator, radius: float) -> np.ndarray:
    rows = []
    for _ in range(int(rng.integers(*d.NODULES))):
        size = max(rng.uniform(*d.NODULE_RADIUS) * radius, 1.6)
        rows.append([*((radius - 0.75 * size) * _direction(rng)), size])
    return np.array(rows)


def _metastasis_hu(rng: np.random.Generator, radius: float, liver_hu: float) -> tuple[float, float, float]:
    """HU of centre and rim, and the rim's width in mm."""
    width = max(rng.uniform(*d.RIM_WIDTH) * radius, 1.8)
    ceiling = liver_hu - d.METASTASIS_BELOW_LIVER
    draw = rng.random()
    if draw < d.HYPERVASCULAR_SHARE:
        return liver_hu + rng.uniform(-25, 5), liver_hu + rng.uniform(*d.HYPERVASCULAR_RISE), 1.4 * width
    necrotic = draw < d.HYPERVASCULAR_SHARE + d.NECROTIC_SHARE
    inner = rng.uniform(*d.NECROTIC_HU) if necrotic else min(rng.uniform(*d.METASTASIS_HU), ceiling)
    if not necrotic and rng.random() > d.RIM_SHARE:
        return inner, inner, 0.0
    return inner, max(liver_hu + rng.uniform(*d.RIM_ABOVE_LIVER), inner + 8.0), width
