"""Lesions of types that the networks do not know, for tests alone: HCC, abscess, calcified and fat-containing lesions.

A network gives every lesion one of its types. How often it calls a lesion of another type `indeterminate` can only be
measured on lesions of other types. No training draws them: `LESION_TYPES`, from which trainings draw, does not have
them, data lists refuse them as types, and nothing but benchmarks and tests imports this module.

Appearances are those of the portal venous phase. The signs and, where a source is named for them, the HU are published;
other HU are our choice.

- HCC: washout, 8 to 30 HU below the liver, with a thin capsule brighter than the liver, and from 20 mm on a mosaic of
  compartments (LI-RADS v2018: Chernyak et al., Radiology 289, 2018, 816).
- Abscess: pus of 20 to 35 HU, denser than the fluid of a cyst; an enhancing wall, and around it a dark zone of oedema,
  the double target (Mathieu et al., Radiology 154, 1985, 749). Half of them are clusters of small cavities (Jeffrey et
  al., AJR 151, 1988, 487).
- Calcified: tissue darker than the liver, as in calcified metastases of colorectal carcinoma (Hale et al., Clin Radiol
  53, 1998, 735), with specks, or in one of three with a part of a shell, of 150 to 500 HU. Calcium is counted from 130
  HU on (Agatston et al., JACC 15, 1990, 827).
- Fat-containing: soft tissue with portions of -80 to -20 HU, as in angiomyolipomas, adenomas and some HCC. Macroscopic
  fat is at or below -20 HU (Costa et al., AJR 210, 2018, 68).

Shapes, slow variation and, but for HCC and fat-containing lesions, edges are those of the known types. The two have a
sharp edge of .8 to 2 mm, because a capsule of 1 to 3 mm would otherwise not be seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from liverseg.synthesis.appearance import Surroundings, draw_appearance
from liverseg.synthesis.lesion import Lesion
from liverseg.synthesis.shape import Shape

__all__ = ["UNKNOWN_TYPES", "UnknownLesion", "draw_unknown_lesion"]

UNKNOWN_TYPES: Final = ("hcc", "abscess", "calcified", "fat-containing")

_SHARP_EDGE_MM: Final = (0.8, 2.0)

_WASHOUT_HU: Final = (8.0, 30.0)  # below the liver
_CAPSULE_HU: Final = (10.0, 35.0)  # above the liver
_CAPSULE_MM: Final = (1.0, 3.0)
_MOSAIC_FROM_MM: Final = 20.0
_COMPARTMENTS: Final = (4, 10)
_COMPARTMENT_HU: Final = (-20.0, 15.0)
_SEPTUM_MM: Final = 1.2

_PUS_HU: Final = (20.0, 35.0)
_CLUSTER_SHARE: Final = 0.5
_CAVITIES: Final = (4, 9)
_CAVITY_RADIUS: Final = (0.22, 0.40)  # share of the lesion's radius
_WALL_HU: Final = (0.0, 30.0)  # above the liver
_WALL_SHARE: Final = (0.12, 0.25)  # of the radius
_OEDEMA_HU: Final = (15.0, 35.0)  # below the liver
_OEDEMA_SHARE: Final = (0.10, 0.25)

_MATRIX_HU: Final = (15.0, 60.0)  # below the liver
_CALCIUM_HU: Final = (150.0, 500.0)
_SHELL_SHARE: Final = 1 / 3
_SPECKS: Final = (4, 16)
_SPECK_MM: Final = (0.7, 2.2)
_SHELL_MM: Final = (1.2, 2.5)
_SHELL_COSINE: Final = (-1.0, 0.3)  # -1 is a complete shell

_SOFT_TISSUE_HU: Final = (-30.0, 10.0)  # relative to the liver
_FAT_HU: Final = (-80.0, -20.0)
_FAT_PORTIONS: Final = (2, 6)
_FAT_RADIUS: Final = (0.30, 0.60)  # share of the lesion's radius

_WAVES: Final = np.float32(2.4)  # radians per radius of a part
_WAVE_HEIGHT: Final = 0.16  # share of the radius

_Rng = np.random.Generator | np.random.RandomState


@dataclass(frozen=True)
class UnknownLesion(Lesion):
    """A lesion of an unknown type: a `Lesion` whose base tissue holds parts with an attenuation of their own.

    Attributes:
        kind: one of `UNKNOWN_TYPES`.
        parts: (n, 5): centre in the shape's round frame (3) and radius, mm, and HU of each ball-shaped part.
        wall_mm, wall_hu: wall around all parts; no wall with 0 mm.
        seeds: (n, 4): centre in the round frame (3), mm, and HU of each compartment of a mosaic.
        shell_mm, shell_hu: shell inside the surface; no shell with 0 mm.
        shell_from: direction (3) and cosine: the shell covers the directions with at least this cosine to it.
    """

    parts: np.ndarray = field(default_factory=lambda: np.zeros((0, 5)))
    wall_mm: float = 0.0
    wall_hu: float = 0.0
    seeds: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    shell_mm: float = 0.0
    shell_hu: float = 0.0
    shell_from: np.ndarray = field(default_factory=lambda: np.array([1.0, 0.0, 0.0, -1.0]))

    def _hu(self, q: tuple[np.ndarray, np.ndarray, np.ndarray], surface: np.ndarray, pixel: float) -> np.ndarray:
        hu = super()._hu(q, surface, pixel)
        if len(self.seeds):
            hu = hu + self._mosaic(q, pixel)
        if len(self.parts):
            nearest, value = np.full_like(surface, np.inf), np.zeros_like(surface)
            for first, second, third, radius, part_hu in self.parts.astype(np.float32):
                offsets = (q[0] - first, q[1] - second, q[2] - third)
                ball = np.sqrt(sum(offset * offset for offset in offsets)) - radius
                # waves make the part irregular
                waves = sum(np.sin(_WAVES * offset / radius + phase) for phase, offset in enumerate(offsets))
                ball = ball + np.float32(_WAVE_HEIGHT) * radius * waves
                value = np.where(ball < nearest, part_hu, value)
                nearest = np.minimum(nearest, ball)
            edge = np.float32(max(0.5 * pixel, 0.5))
            if self.wall_mm:
                wall = np.clip(0.5 - (nearest - np.float32(self.wall_mm)) / edge, 0, 1)
                hu = hu + wall * (np.float32(self.wall_hu) - hu)
            hu = hu + np.clip(0.5 - nearest / edge, 0, 1) * (value - hu)
        if self.shell_mm:
            length = np.sqrt(q[0] ** 2 + q[1] ** 2 + q[2] ** 2) + np.float32(1e-3)
            first, second, third, cosine = self.shell_from.astype(np.float32)
            covered = (first * q[0] + second * q[1] + third * q[2]) / length >= cosine
            edge = np.float32(max(0.5 * pixel, 0.5))
            # outside the surface too, where the edge fades
            shell = np.clip(0.5 + (surface + np.float32(self.shell_mm)) / edge, 0, 1) * covered
            hu = hu + shell * (np.float32(self.shell_hu) - hu)
        return hu

    def _mosaic(self, q: tuple[np.ndarray, np.ndarray, np.ndarray], pixel: float) -> np.ndarray:
        """Return the difference of each compartment to the base tissue; septa between compartments have none."""
        distances = [
            np.sqrt((q[0] - first) ** 2 + (q[1] - second) ** 2 + (q[2] - third) ** 2)
            for first, second, third in self.seeds[:, :3].astype(np.float32)
        ]
        stacked = np.stack(np.broadcast_arrays(*distances))
        order = np.argsort(stacked, axis=0)[:2]
        nearest, second_nearest = np.take_along_axis(stacked, order, axis=0)
        inside = np.clip((second_nearest - nearest) / np.float32(max(_SEPTUM_MM, pixel)), 0, 1)
        return inside * self.seeds[:, 3].astype(np.float32)[order[0]]


def draw_unknown_lesion(
    rng: _Rng, kind: str, centre: tuple[float, float, float], shape: Shape, around: Surroundings
) -> UnknownLesion:
    """Draw a lesion of an unknown type.

    Args:
        rng: source of random numbers.
        kind: one of `UNKNOWN_TYPES`.
        centre: mm along slices, rows and columns.
        shape: shape around the centre.
        around: liver of the scan, in the portal venous phase.

    Raises:
        ValueError: if the type is not one of them.
    """
    if kind not in UNKNOWN_TYPES:
        raise ValueError(f"unknown lesion type {kind!r}; allowed: {', '.join(UNKNOWN_TYPES)}")
    # edge and slow variation are those of the known types
    appearance = replace(draw_appearance(rng, "cyst", shape, around), rim_mm=0.0, nodules=np.zeros((0, 4)))
    if kind in ("hcc", "fat-containing"):
        edge = min(float(np.exp(rng.uniform(*np.log(_SHARP_EDGE_MM)))), 0.8 * shape.radius)
        appearance = replace(appearance, edge_mm=edge)
    features = {"hcc": _hcc, "abscess": _abscess, "calcified": _calcified, "fat-containing": _fat}[kind]
    return features(rng, UnknownLesion(kind, centre, shape, appearance), around)


def _with_tissue(lesion: UnknownLesion, hu: float) -> UnknownLesion:
    """Return a lesion whose base tissue has an attenuation."""
    return replace(lesion, appearance=replace(lesion.appearance, centre_hu=hu, outer_hu=hu))


def _hcc(rng: _Rng, lesion: UnknownLesion, around: Surroundings) -> UnknownLesion:
    lesion = _with_tissue(lesion, around.liver_hu - rng.uniform(*_WASHOUT_HU))
    radius = lesion.shape.radius
    shell_mm, shell_hu = min(rng.uniform(*_CAPSULE_MM), 0.3 * radius), around.liver_hu + rng.uniform(*_CAPSULE_HU)
    seeds = np.zeros((0, 4))
    if 2 * radius >= _MOSAIC_FROM_MM:
        count = int(rng.uniform(*_COMPARTMENTS))
        seeds = np.array([[*(_point(rng) * radius), rng.uniform(*_COMPARTMENT_HU)] for _ in range(count)])
    return replace(lesion, shell_mm=shell_mm, shell_hu=shell_hu, seeds=seeds)


def _abscess(rng: _Rng, lesion: UnknownLesion, around: Surroundings) -> UnknownLesion:
    lesion = _with_tissue(lesion, around.liver_hu - rng.uniform(*_OEDEMA_HU))
    radius = lesion.shape.radius
    wall, oedema = rng.uniform(*_WALL_SHARE) * radius, rng.uniform(*_OEDEMA_SHARE) * radius
    if rng.uniform() < _CLUSTER_SHARE:
        wall *= 0.6
        cavities = []
        for _ in range(int(rng.uniform(*_CAVITIES))):
            size = rng.uniform(*_CAVITY_RADIUS) * radius
            cavities.append([*(_point(rng) * max(radius - oedema - wall - size, 0.0)), size])
    else:
        cavities = [[0.0, 0.0, 0.0, radius - wall - oedema]]
    parts = np.array([[*cavity, rng.uniform(*_PUS_HU)] for cavity in cavities])
    return replace(lesion, parts=parts, wall_mm=wall, wall_hu=around.liver_hu + rng.uniform(*_WALL_HU))


def _calcified(rng: _Rng, lesion: UnknownLesion, around: Surroundings) -> UnknownLesion:
    lesion = _with_tissue(lesion, around.liver_hu - rng.uniform(*_MATRIX_HU))
    radius = lesion.shape.radius
    if rng.uniform() < _SHELL_SHARE:
        direction = _point(rng)
        direction /= float(np.linalg.norm(direction))
        shell_mm, shell_hu = min(rng.uniform(*_SHELL_MM), 0.3 * radius), rng.uniform(*_CALCIUM_HU)
        cosine = rng.uniform(*_SHELL_COSINE)
        return replace(lesion, shell_mm=shell_mm, shell_hu=shell_hu, shell_from=np.array([*direction, cosine]))
    count = int(rng.uniform(*_SPECKS))
    specks = [[*(0.7 * radius * _point(rng)), rng.uniform(*_SPECK_MM), rng.uniform(*_CALCIUM_HU)] for _ in range(count)]
    return replace(lesion, parts=np.array(specks))


def _fat(rng: _Rng, lesion: UnknownLesion, around: Surroundings) -> UnknownLesion:
    lesion = _with_tissue(lesion, around.liver_hu + rng.uniform(*_SOFT_TISSUE_HU))
    radius = lesion.shape.radius
    count = int(rng.uniform(*_FAT_PORTIONS))
    portions = [
        [*(0.6 * radius * _point(rng)), rng.uniform(*_FAT_RADIUS) * radius, rng.uniform(*_FAT_HU)] for _ in range(count)
    ]
    return replace(lesion, parts=np.array(portions))


def _point(rng: _Rng) -> np.ndarray:
    """Draw a point in the ball of radius 1."""
    direction = rng.standard_normal(3)
    return np.asarray(rng.uniform() ** (1 / 3) * direction / np.linalg.norm(direction))
