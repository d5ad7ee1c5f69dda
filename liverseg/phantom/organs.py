"""Abdominal organs around the liver, templates scaled to the patient. Frame LPS+, mm; z = 0 at the porta hepatis."""

from __future__ import annotations

import numpy as np

from liverseg.phantom.fields import Field, Region, ellipsoid, smooth_max, smooth_min, tube
from liverseg.phantom.scene import Layer, Tubes, segments
from liverseg.phantom.tissue import TISSUES
from liverseg.phantom.trunk import Trunk

__all__ = ["Organs"]

_MAX_VESSEL_RADIUS = 12.5
"""Radius of the widest cava and aorta, mm."""


def _rotation(axis: int, degrees: float) -> np.ndarray:
    """Return the rotation about x (0), y (1) or z (2)."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


class Organs:
    """Organs of one patient, randomly placed near their template position.

    Args:
        rng: the patient's random number generator.
        trunk: the trunk around the organs.

    Attributes:
        kidneys: centre and radii (x, y, z) in mm of the right and left kidney.
        gallbladder: centre, radii and rotation; None after a cholecystectomy.
        portal: points of the portal trunk from the confluence to the porta hepatis, (n, 3) mm.
        cava: points of the inferior vena cava from below to the heart, (n, 3) mm.
    """

    def __init__(self, rng: np.random.Generator, trunk: Trunk) -> None:
        self.rng, self.trunk, self.hu = rng, trunk, trunk.hu
        self.scale = np.array(trunk.habitus.scale)
        self.soft = trunk.soft
        size = rng.uniform(0.9, 1.1)
        self.kidneys = [
            (self._at(-62, 48, -72, 5), (28 * size, 27 * size, 53 * size)),
            (self._at(62, 48, -50, 5), (28 * size, 28 * size, 55 * size)),
        ]
        self.gallbladder = None
        if rng.random() < 0.92:
            width = rng.uniform(12, 19)
            tilt = _rotation(0, rng.uniform(-10, 25)) @ _rotation(1, rng.uniform(-25, 25))
            self.gallbladder = (self._at(-42, -40, -36, 5), (width, width * 1.05, rng.uniform(28, 42)), tilt)
        porta = self._at(-22, 2, -4, 2)
        self.portal = np.array([self._at(4, 6, -48, 3), self._at(-8, 2, -26, 2), porta])
        self.cava = self._cava()

    def _at(self, x: float, y: float, z: float, jitter: float) -> tuple[float, float, float]:
        point = np.array([x, y, z]) * self.scale + jitter * self.rng.standard_normal(3).clip(-2, 2)
        return (float(point[0]), float(point[1]), float(point[2]))

    def _cava(self) -> np.ndarray:
        heights = np.array([-220, -120, -60, -20, 20, 50, self.trunk.habitus.dome - 12, self.trunk.habitus.dome + 16])
        x0, y0 = self.trunk.spine_centre(heights)
        forward = np.array([20, 20, 22, 27, 30, 32, 38, 52])
        return np.stack([x0 + np.array([-20, -20, -22, -24, -24, -23, -19, -6]), y0 - forward, heights], axis=1)

    def layers(self) -> list[Layer | Tubes]:
        """Return the organs to paint before the liver, in order."""
        return [
            *self._mesentery(),
            *self._bowel(),
            *self._pancreas(),
            *self._kidneys(),
            *self._spleen(),
            *self._stomach(),
            *self._colon(),
        ]

    def _inside(self, region: Region, margin: float) -> np.ndarray:
        """Return the space for abdominal organs: in the cavity and below the diaphragm, `margin` mm from both."""
        return smooth_max(region.cut(self.trunk.cavity), region.cut(self.trunk.abdomen), 8) + np.float32(margin)

    def _kidneys(self) -> list[Layer]:
        layers = []
        for side, (centre, radii) in zip((-1, 1), self.kidneys, strict=True):
            r = self.soft.around(centre, radii, 36)
            tilt = _rotation(1, 12 * side) @ _rotation(0, -10) @ _rotation(2, -28 * side)
            bean = ellipsoid(r, centre, radii, tilt)
            hilum = np.array(centre) + np.array([-side * 20.0, -12.0, 0.0])
            sinus = ellipsoid(r, tuple(hilum), (16, 10, 24), tilt)
            calyces = ellipsoid(r, tuple(np.array(centre) - np.array([side * 7.0, 4, 0])), (8, 7, 31), tilt)
            sinus = smooth_min(sinus, calyces, 6)
            wave = np.cos(r.x * 0.55) * np.cos(r.y * 0.55) * np.cos(r.z * 0.5) * 3.5
            cortex = smooth_max(bean, -sinus, 5)
            medulla = np.maximum(bean + 7.5, -(sinus - 1.5)) + wave
            layers += [
                Layer("kidney", r.field(cortex), self.hu["kidney"], TISSUES["kidney"].texture),
                Layer(
                    "kidney_medulla", r.field(np.maximum(medulla, cortex + 4)), self.hu["kidney_medulla"], 3.0, blur=3
                ),
            ]
            vein = np.array([hilum, [self.cava[3, 0] if side < 0 else 12, hilum[1] - 14, hilum[2] + 6]])
            layers.append(Tubes("vein", segments([(vein, np.array([4.0, 5.0]))]), self.hu["blood"]))  # type: ignore[arg-type]
        return layers

    def _spleen(self) -> list[Layer]:
        size = self.rng.uniform(0.85, 1.2)
        c = self._at(104, 34, 18, 4)
        r = self.soft.around(c, (62, 66, 66))
        outer = ellipsoid(r, c, (36 * size, 58 * size, 56 * size), _rotation(2, 18))
        medial = ellipsoid(r, (c[0] - 36 * size, c[1] - 10, c[2] - 4), (27, 50 * size, 80))
        shape = smooth_max(smooth_max(outer, -medial, 9), self._inside(r, 3.0), 7)
        shape = smooth_max(shape, -(ellipsoid(r, *self.kidneys[1]) - 4), 8)
        return [Layer("spleen", r.field(shape), self.hu["spleen"], TISSUES["spleen"].texture)]

    def _stomach(self) -> list[Layer]:
        fill = self.rng.uniform(0.82, 1.15)
        points = np.array(
            [self._at(*p, 4) for p in [(60, 12, 50), (66, -8, 32), (62, -34, 6), (40, -52, -16), (8, -46, -24)]]
        )
        r = self.soft.around(tuple(points.mean(axis=0)), (80, 84, 90))
        radii = np.array([36, 36, 30, 21, 13]) * fill
        shape = tube(r, points, radii)
        shape = smooth_max(shape, self._inside(r, 2.5), 6)
        folds = 1.3 * np.sin(r.x * 0.5 + 0.3 * r.z) * np.sin(r.y * 0.45 - 0.2 * r.z)
        lumen = shape + 4.5 + folds
        level = points[:, 1].mean() - self.rng.uniform(14, 34)
        straight = Region(self.trunk.lattice)
        gas = np.maximum(lumen + 1.0, straight.y[:, r.slices[1]] - np.float32(level))
        content = self.hu["stomach_content"]
        return [
            Layer("stomach", r.field(shape), self.hu["stomach_wall"]),
            Layer("stomach_content", r.field(lumen), content, TISSUES["stomach_content"].texture, blur=2.5),
            Layer("gas", r.field(gas), self.hu["gas"]),
        ]

    def _pancreas(self) -> list[Layer | Tubes]:
        path = [(-24, 6, -58), (-14, -6, -38), (10, -16, -26), (42, -2, -12), (72, 18, 4)]
        points = np.array([self._at(*p, 3) for p in path])
        r = self.soft.around(tuple(points.mean(axis=0)), (74, 44, 56))
        lobules = 1.6 * np.sin(r.x * 0.75) * np.sin(r.y * 0.7) * np.sin(r.z * 0.7)
        shape = tube(r, points, np.array([13, 12, 9, 9.5, 8])) + lobules
        splenic = points[1:] + np.array([0, 11, 1])
        splenic[0] = self.portal[0]
        superior = np.array([self.portal[0], self.portal[0] + [6, -8, -60], self.portal[0] + [4, -22, -150]])
        lines = [(splenic, np.array([5.0, 4.6, 4.2, 3.8])), (superior, np.array([5.6, 5.0, 4.2]))]
        return [
            Layer("pancreas", r.field(shape), self.hu["pancreas"], TISSUES["pancreas"].texture, blur=2.0),
            Tubes("vein", segments(lines), self.hu["blood"] + 4),
        ]

    def _loops(self, centre: tuple[float, float, float], spread: np.ndarray, count: int, step: float) -> np.ndarray:
        """Draw a random walk that stays near `centre`."""
        point = np.array(centre, dtype=float) + 0.5 * spread * self.rng.standard_normal(3)
        direction = self.rng.standard_normal(3)
        points = []
        for _ in range(count):
            pull = (np.array(centre) - point) / spread
            direction = 0.75 * direction + 0.55 * self.rng.standard_normal(3) + 0.35 * pull
            point = point + step * direction / np.linalg.norm(direction)
            points.append(point)
        return np.array(points)

    def _bowel(self) -> list[Layer]:
        layers: list[Layer] = []
        sx, sy, _ = self.scale
        centres = [
            (38, -30, -78),
            (10, -44, -112),
            (56, -8, -112),
            (-24, -36, -128),
            (30, -20, -150),
            (66, -40, -140),
            (84, 4, -76),
            (-52, -30, -150),
            (-10, -62, -120),
            (48, -62, -104),
        ]
        for centre in centres:
            c = self._at(*centre, 6)
            points = self._loops(c, np.array([24 * sx, 18 * sy, 18]), 11, 17)
            low, high = points.min(axis=0) - 16, points.max(axis=0) + 16
            r = self.soft.around(tuple((low + high) / 2), tuple((high - low) / 2), 22)
            shape = tube(r, points, self.rng.uniform(9, 13))
            shape = smooth_max(shape, self._inside(r, 4.0), 6)
            texture = TISSUES["bowel_content"].texture
            layers += [
                Layer("bowel", r.field(shape), self.hu["bowel_wall"]),
                Layer("bowel_content", r.field(shape), self.hu["bowel_content"], texture, offset=-3.2, blur=3.0),
            ]
        return layers

    def _colon(self) -> list[Layer]:
        right = [(-98, 26, -190), (-100, 22, -140), (-94, 8, -104), (-74, -30, -96)]
        across = [(-74, -30, -96), (-40, -66, -86), (0, -72, -92), (40, -68, -78), (78, -52, -46), (98, -18, -20)]
        down = [(98, -18, -20), (108, 18, -46), (106, 34, -100), (102, 32, -190)]
        layers: list[Layer] = []
        for path, width in ((right, 21), (across, 17), (down, 14)):
            points = np.array([self._at(*p, 3) for p in path])
            low, high = points.min(axis=0) - 28, points.max(axis=0) + 28
            r = self.soft.around(tuple((low + high) / 2), tuple((high - low) / 2), 22)
            shape = tube(r, points, width * self.rng.uniform(0.85, 1.2))
            haustra = 2.2 * np.cos((r.x + r.z) * 2 * np.pi / 34) * np.cos((r.y - r.z) * 2 * np.pi / 48)
            shape = smooth_max(shape + haustra, self._inside(r, 3.0), 6)
            level = float(np.quantile(points[:, 1], 0.3)) + self.rng.uniform(-16, 6)
            straight = Region(self.trunk.lattice)
            gas = np.maximum(shape + 4.5, straight.y[:, r.slices[1]] - np.float32(level))
            layers += [
                Layer("colon", r.field(shape), self.hu["bowel_wall"] - 15),
                Layer("stool", r.field(shape), self.hu["stool"], TISSUES["stool"].texture, offset=-3.0, blur=3.0),
                Layer("gas", r.field(gas), self.hu["gas"]),
            ]
        return layers

    def _mesentery(self) -> list[Tubes]:
        """Draw small vessels in the visceral fat."""
        lines = []
        for _ in range(46):
            start = np.array(
                self._at(self.rng.uniform(-40, 60), self.rng.uniform(-30, 25), self.rng.uniform(-150, -40), 4)
            )
            direction = self.rng.standard_normal(3) * [1, 0.8, 0.8]
            steps = [direction * 9 + 5 * self.rng.standard_normal(3) for _ in range(3)]
            points = np.cumsum(np.vstack([start, steps]), axis=0)
            lines.append((points, np.linspace(self.rng.uniform(1.2, 2.6), 0.8, 4)))
        return [Tubes("mesenteric_vessel", segments(lines), self.hu["blood"] - 20)]

    def gallbladder_layers(self) -> list[Layer]:
        """Return wall and bile of the gallbladder, if there is one."""
        if self.gallbladder is None:
            return []
        r = self.soft.around(self.gallbladder[0], (46, 46, 46))
        shape = self._gallbladder_in(r)
        return [
            Layer("gallbladder_wall", r.field(shape), self.hu["gallbladder_wall"]),
            Layer("gallbladder", r.field(shape), self.hu["gallbladder"], offset=-1.6),
        ]

    def _gallbladder_in(self, region: Region) -> np.ndarray:
        if self.gallbladder is None:
            return np.full(region.shape, np.inf, dtype=np.float32)
        centre, radii, tilt = self.gallbladder
        rotation = tilt @ _rotation(1, 60) @ _rotation(2, -30)
        return ellipsoid(region, centre, (radii[2], radii[0], radii[1]), rotation, taper=0.35)

    def not_liver(self, liver: Field) -> Field:
        """Return the signed distance to gallbladder, cava and portal trunk, mm, which are painted over the liver.

        Args:
            liver: signed distance to the liver. The result is limited to a box around it.
        """
        box = tuple(liver.box(liver.lattice.step))
        straight, soft = self.trunk.straight.box(box), self.soft.box(box)
        vessels = [tube(straight, line, _MAX_VESSEL_RADIUS) for line in (self.cava, self.portal)]
        return straight.field(np.minimum.reduce([self._gallbladder_in(soft), *vessels]))

    def great_vessels(self) -> list[Layer | Tubes]:
        """Return aorta, cava, portal trunk, crura and esophagus, to paint after the liver."""
        heights = np.linspace(-240, 240, 25)
        x0, y0 = self.trunk.spine_centre(heights)
        climb = np.clip((heights - 10) / 100, 0, 1)
        aorta = np.stack([x0 + 9 + 12 * climb, y0 - 27 + 8 * climb, heights], axis=1)
        radius = self.rng.uniform(9, _MAX_VESSEL_RADIUS)
        crus = []
        for side, low in ((-1, -70), (1, -60)):
            z = np.linspace(low, self.trunk.habitus.dome - 28, 7)
            sx, sy = self.trunk.spine_centre(z)
            lift = np.linspace(0, 1, 7)
            line = np.stack([sx + side * (19 - 8 * lift) + 8 * lift, sy - 12 - 24 * lift, z], axis=1)
            crus.append((line, np.linspace(3.5, 5.5, 7)))
        top = self.trunk.habitus.dome
        gullet = np.array(
            [[34, aorta[12, 1] - 14, top - 44], [18, aorta[12, 1] - 18, top - 18], [10, aorta[-4, 1] - 26, top + 80]]
        )
        hepatic = self.portal[1:] + np.array([6.0, -11.0, 0.0])
        return [
            Tubes("muscle", segments(crus), self.hu["muscle"]),
            Tubes("esophagus", segments([(gullet, 8.0)]), self.hu["muscle"] + 8),
            Tubes("cava", segments([(self.cava, self.rng.uniform(9.5, _MAX_VESSEL_RADIUS))]), self.hu["blood"] - 8),
            Tubes("aorta", segments([(aorta, radius)]), self.hu["blood"] + 6),
            Tubes("portal_vein", segments([(self.portal, np.array([7.0, 6.6, 6.2]))]), self.hu["blood"] + 12),
            Tubes("hepatic_artery", segments([(hepatic, 2.4)]), self.hu["blood"]),
        ]
