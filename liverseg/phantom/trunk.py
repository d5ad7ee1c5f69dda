"""The trunk: habitus, wall, cavity, lungs, heart base, spine and ribs. Frame LPS+, mm; z = 0 at the porta hepatis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from liverseg.phantom.fields import Field, Lattice, Region, ellipsoid, smooth_max, smooth_min, smooth_noise
from liverseg.phantom.scene import Layer, Tubes, segments
from liverseg.phantom.tissue import TISSUES

__all__ = ["Habitus", "Trunk", "draw_habitus"]

_VERTEBRA = 33.0
"""Height of one vertebra with its disc at the thoracolumbar junction, mm (Gray's Anatomy)."""


@dataclass(frozen=True)
class Habitus:
    """Build of a patient, in mm unless noted otherwise.

    Attributes:
        width, depth: half axes of the abdominal cavity.
        wall: muscle thickness at the flank.
        fat: thickness of subcutaneous fat at flank, front and back.
        front_power, back_power: roundness of the outline's front and back, 2 is an ellipse.
        dome: height of the right diaphragm above the porta hepatis.
        spine: y of the vertebral bodies' centre.
    """

    width: float
    depth: float
    wall: float
    fat: tuple[float, float, float]
    front_power: float
    back_power: float
    dome: float
    spine: float

    @property
    def scale(self) -> tuple[float, float, float]:
        """Scale (x, y, z) of the template organs, which fit a cavity of 132 × 95 mm half axes and a dome at 80 mm."""
        return (self.width / 132.0, self.depth / 95.0, self.dome / 80.0)


def draw_habitus(rng: np.random.Generator) -> Habitus:
    """Draw the build of an adult: half widths of 116 to 150 mm, subcutaneous fat of 5 to 38 mm at the flank."""
    width = float(np.clip(rng.normal(132, 8), 116, 150))
    depth = width * rng.uniform(0.68, 0.80)
    fat = float(np.clip(rng.lognormal(np.log(15), 0.55), 5, 38))
    return Habitus(
        width=width,
        depth=depth,
        wall=rng.uniform(11, 16),
        fat=(fat, fat * rng.uniform(0.7, 1.3), 4 + fat * rng.uniform(0.4, 0.9)),
        front_power=rng.uniform(2.05, 2.35),
        back_power=rng.uniform(2.35, 2.8),
        dome=rng.uniform(70, 90),
        spine=0.50 * depth + rng.uniform(-3, 3),
    )


class Trunk:
    """Fields of the trunk on the patient's lattice.

    Args:
        rng: the patient's random number generator.
        habitus: the patient's build.
        lattice: lattice of the fields.
        warp: displacement fields for soft organs.
        hu: HU of the tissues.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        habitus: Habitus,
        lattice: Lattice,
        warp: list[np.ndarray],
        hu: dict[str, float],
    ) -> None:
        self.rng, self.habitus, self.lattice, self.hu = rng, habitus, lattice, hu
        self.straight = Region(lattice)
        self.soft = Region(lattice, warp)
        self._half = Region(lattice, [0.35 * w for w in warp])
        self.cavity = self._cavity()
        self.abdomen = self._abdomen()
        self._spine_sway = (rng.uniform(-4, 4), rng.uniform(60, 120), rng.uniform(0, 6.3))
        self._vertebra_phase = rng.uniform(0, _VERTEBRA)

    def outline(self, region: Region, sides: tuple[float, float, float]) -> np.ndarray:
        """Return the signed distance to the trunk's cross-section, enlarged by `sides` (flank, front, back), mm."""
        h = self.habitus
        flank, front, back = sides
        distance = np.empty(region.shape, dtype=np.float32)
        for slab, x, y, z in region.slabs():
            # the thorax narrows a little towards the shoulders and the pelvis
            size = 1 - 0.05 * ((z - 10) / 130) ** 2
            a = (h.width + flank) * size
            behind = y > 0
            b = np.where(behind, h.depth + back, h.depth + front).astype(np.float32)
            power = np.where(behind, h.back_power, h.front_power).astype(np.float32)
            u, v = np.abs(x) / a, np.abs(y) / b
            rho = (u**power + v**power) ** (1 / power) + np.float32(1e-4)
            distance[slab] = np.sqrt(x**2 + y**2) * (1 - 1 / rho)
        return distance

    def spine_centre(self, z: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """Return (x, y) of the centre of the vertebral bodies at height z, mm."""
        sway, length, phase = self._spine_sway
        x = sway * np.sin(np.asarray(z) / length + phase)
        y = self.habitus.spine + 0.00045 * (np.asarray(z) + 60) ** 2
        return np.asarray(x, dtype=np.float32), np.asarray(y, dtype=np.float32)

    def _cavity(self) -> np.ndarray:
        inner = self.outline(self._half, (0.0, 0.0, 0.0))
        r = self._half
        back = ellipsoid(r, (0, self.habitus.depth + 12, 0), (60, 34, 900))
        return smooth_max(inner, -back, 22)

    def _abdomen(self) -> np.ndarray:
        """Return the space below the diaphragm: two domes, the right higher, on a base that is deeper at the back."""
        sx, sy, _ = self.habitus.scale
        dome, r = self.habitus.dome, self._half
        right = ellipsoid(r, (-60 * sx, -8 * sy, dome - 96), (79 * sx, 88 * sy, 96))
        left = ellipsoid(r, (62 * sx, -6 * sy, dome - 110), (76 * sx, 86 * sy, 98))
        middle = ellipsoid(r, (0, -30 * sy, dome - 112), (80 * sx, 70 * sy, 96))
        domes = smooth_min(smooth_min(right, left, 16), middle, 22)
        recess = r.z - (dome - 92 - 0.42 * r.y)  # the costophrenic recess reaches lower at the back
        return smooth_min(domes, np.broadcast_to(recess, r.shape), 10)

    def layers(self) -> list[Layer | Tubes]:
        """Return wall, fat, lungs, heart and muscles, to paint before the organs."""
        h, hu, s = self.habitus, self.hu, self.straight
        flank, front, back = h.fat
        w = h.wall
        body = s.field(self.outline(s, (w + flank, 0.75 * w + front, 1.2 * w + back)))
        muscle = self._half.field(self.outline(self._half, (w, 0.75 * w, 1.2 * w)))
        cavity = self._half.field(self.cavity)
        mediastinum = ellipsoid(self._half, (6, 0, 100), (27, h.depth + 18, 400))
        lung = smooth_max(smooth_max(self.cavity + 1.0, -(self.abdomen - 1.0), 5), -mediastinum, 12)
        lung_field = self._half.field(lung)
        fat = TISSUES["fat"].texture
        return [
            Layer("skin", body, hu["skin"]),
            Layer("subcutaneous_fat", body, hu["fat"], fat, offset=-2.0),
            Layer("muscle", muscle, hu["muscle"], TISSUES["muscle"].texture, blur=2.0),
            Layer("muscle_fat", muscle, hu["fat"] + 40, fat, offset=-0.42 * w),
            Layer("muscle", self._inner_muscle(muscle), hu["muscle"], TISSUES["muscle"].texture, offset=-0.42 * w),
            Layer("visceral_fat", cavity, hu["visceral_fat"], TISSUES["visceral_fat"].texture),
            Layer("diaphragm", lung_field, hu["muscle"], offset=1.8),
            Layer("lung", lung_field, hu["lung"], TISSUES["lung"].texture),
            self._pulmonary_vessels(lung_field),
            *self._heart(),
            *self._deep_muscles(),
        ]

    def _inner_muscle(self, muscle: Field) -> Field:
        """Draw the deeper muscle layer of the wall, in places separated from the outer layer by a thin plane of fat."""
        gap = smooth_noise(self.rng, self.lattice, 26.0, 1.3) + np.float32(0.4 + 0.03 * self.habitus.fat[0])
        return self._half.field(muscle.values + np.clip(gap, 0, 3.5))

    def _pulmonary_vessels(self, lung: Field) -> Tubes:
        z0, z1 = lung.bounds(0)
        lines = []
        if np.isfinite(z0):
            n = 420
            x = self.rng.uniform(-self.habitus.width, self.habitus.width, n)
            y = self.rng.uniform(-self.habitus.depth, self.habitus.depth, n)
            z = self.rng.uniform(z0, z1, n)
            inside = np.flatnonzero(lung.at(z, y, x) < -6)[:170]
            for k in inside:
                hilum = np.array([np.sign(x[k]) * 25.0, 0.0, z1 + 40])
                start = np.array([x[k], y[k], z[k]])
                direction = hilum - start
                direction = direction / np.linalg.norm(direction) + 0.35 * self.rng.standard_normal(3)
                length = self.rng.uniform(8, 26)
                radius = self.rng.uniform(0.8, 2.4)
                lines.append((np.stack([start, start + direction * length]), np.array([0.7 * radius, radius])))
        return Tubes("pulmonary_vessel", segments(lines), self.hu["pulmonary_vessel"])

    def _heart(self) -> list[Layer]:
        sx, sy, _ = self.habitus.scale
        c = (24 * sx, -36 * sy, self.habitus.dome + 46)
        r = self.soft.around(c, (70, 62, 62))
        tilt = np.array([[0.80, -0.45, -0.40], [0.49, 0.87, 0.0], [0.35, -0.20, 0.92]])
        outer = ellipsoid(r, c, (66 * sx, 50 * sy, 52), tilt)
        sac = smooth_max(outer, r.cut(self.cavity) + 3, 8)
        left = ellipsoid(r, (c[0] + 14, c[1] + 4, c[2] + 4), (40 * sx, 26 * sy, 36), tilt)
        right = ellipsoid(r, (c[0] - 22, c[1] - 10, c[2] + 2), (36 * sx, 24 * sy, 38), tilt)
        septum = np.abs(0.80 * (r.x - c[0]) + 0.5 * (r.y - c[1]) + 2) - 5.0
        chambers = smooth_max(smooth_max(smooth_min(left, right, 6), -septum, 4), sac + 7, 6)
        return [
            Layer("pericardial_fat", r.field(sac), self.hu["visceral_fat"], offset=5.0),
            Layer("heart", r.field(sac), self.hu["myocardium"], 3.0),
            Layer("heart_chamber", r.field(chambers), self.hu["blood"], 3.0, blur=3.0),
        ]

    def _deep_muscles(self) -> list[Layer]:
        hu, texture, y0 = self.hu["muscle"], TISSUES["muscle"].texture, self.habitus.spine
        layers = []
        for side in (-1, 1):
            c = (34 * side, y0 + 8, -120)
            r = self.soft.around(c, (26, 26, 86))
            layers.append(Layer("psoas", r.field(ellipsoid(r, c, (20, 21, 80), taper=0.0)), hu, texture))
            c = (64 * side, y0 + 24, -125)
            r = self.soft.around(c, (22, 14, 86))
            layers.append(Layer("muscle", r.field(ellipsoid(r, c, (22, 11, 80))), hu, texture))
        return layers

    def bones(self) -> list[Layer | Tubes]:
        """Return spine, ribs and their cartilage, to paint last."""
        hu, r = self.hu, self.straight
        x0, y0 = self.spine_centre(r.z)
        box = Region(self.lattice, None, ((-1e3, 1e3), (0.0, 200.0), (-60.0, 60.0)))
        x, y = box.x - x0[box.slices[0]], box.y - y0[box.slices[0]]
        height = np.mod(box.z - self._vertebra_phase, _VERTEBRA) - _VERTEBRA / 2
        waist = 1 - 0.07 * np.cos(2 * np.pi * height / _VERTEBRA)
        rho = np.sqrt((x / (22.5 * waist)) ** 2 + (y / (16.5 * waist)) ** 2) + np.float32(1e-4)
        round_body = np.sqrt(x**2 + y**2) * (1 - 1 / rho)
        bone = np.maximum(round_body, np.abs(height) - 13.5)
        canal = np.sqrt((x / 11.5) ** 2 + ((y - 25) / 9.0) ** 2)
        canal = (canal - 1) * 10.0
        cortical, marrow = hu["cortical_bone"], hu["marrow"]
        arch, ribs, cartilage = self._arches(), self._ribs(), self._cartilage()
        return [
            Layer("canal", box.field(canal), hu["canal"]),
            Layer("disc", box.field(round_body), hu["disc"], offset=-0.5),
            Layer("cortical_bone", box.field(bone), cortical * 0.75, offset=0.5),
            Layer("marrow", box.field(bone), marrow, TISSUES["marrow"].texture, offset=-1.6, blur=2.0),
            Tubes("cortical_bone", arch, cortical * 0.85),
            Tubes("marrow", arch, marrow + 60, lumen=1.8),
            Tubes("cartilage", cartilage, hu["cartilage"]),
            Tubes("cortical_bone", ribs, cortical),
            Tubes("marrow", ribs, marrow, lumen=1.5),
        ]

    def _arches(self) -> np.ndarray:
        lines = []
        for number in range(-8, 9):
            z = self._vertebra_phase + _VERTEBRA * (number + 0.5)
            x0, y0 = (float(v) for v in self.spine_centre(z))
            tip = np.array([x0, y0 + 60, z - 14])
            lines.append((np.array([[x0, y0 + 36, z - 4], tip]), np.array([3.2, 4.6])))
            for side in (-1, 1):
                foot = np.array([x0 + 14 * side, y0 + 12, z + 4])
                knee = np.array([x0 + 15 * side, y0 + 26, z + 1])
                lines.append((np.array([foot, knee, [x0, y0 + 37, z - 3]]), np.array([5.0, 5.0, 3.4])))
                wing = np.array([x0 + 38 * side, y0 + 33, z + 1])
                lines.append((np.array([knee, wing]), np.array([4.6, 3.2])))
        return segments(lines)

    def _rib_points(self, angles: np.ndarray, heights: np.ndarray, side: int, depth: float) -> np.ndarray:
        h = self.habitus
        x, y = np.sin(angles), np.cos(angles)  # angle 0 is the back
        b = np.where(y > 0, h.depth + 1.2 * h.wall * depth, h.depth + 0.75 * h.wall * depth)
        power = np.where(y > 0, h.back_power, h.front_power)
        a = (h.width + h.wall * depth) * (1 - 0.05 * ((heights - 10) / 130) ** 2)
        radius = ((np.abs(x) / a) ** power + (np.abs(y) / b) ** power) ** (-1 / power)
        return np.stack([side * x * radius, y * radius, heights], axis=1)

    def _ribs(self) -> np.ndarray:
        lines, dome = [], self.habitus.dome
        for number, reach in enumerate((150, 148, 146, 142, 138, 132, 120, 92, 72)):
            top = dome + 118 - 26 * number
            for side in (-1, 1):
                angles = np.radians(np.linspace(24, reach + self.rng.uniform(-4, 4), 26))
                share = (angles - angles[0]) / np.pi
                heights = top - 128 * share - 14 * np.sin(np.pi * share)
                points = self._rib_points(angles, heights, side, 0.52)
                x0, y0 = (float(v) for v in self.spine_centre(top))
                root = np.array([[x0 + 20 * side, y0 + 22, top + 2]])
                lines.append((np.concatenate([root, points]), 4.6))
        return segments(lines)

    def _cartilage(self) -> np.ndarray:
        lines, dome = [], self.habitus.dome
        for number, reach in enumerate((150, 148, 146, 142, 138)):
            for side in (-1, 1):
                angles = np.radians(np.linspace(reach + 2, 176, 8))
                share = (np.radians(reach) - np.radians(24)) / np.pi
                start = dome + 118 - 26 * number - 128 * share - 14 * np.sin(np.pi * share)
                heights = start + np.linspace(0, 55, 8)
                lines.append((self._rib_points(angles, heights, side, 0.6), 4.8))
        return segments(lines)
