"""One phantom patient: volume, label map and lesion table from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from scipy import ndimage

from liverseg.imageio.boxes import bounding_box, full_box, to_global
from liverseg.labels import JOINT_LABELS, LIVER
from liverseg.phantom import difficulty as d
from liverseg.phantom.acquisition import Scanner, scan_noise, to_int16
from liverseg.phantom.fields import Field, Lattice, smooth_noise
from liverseg.phantom.lesions import draw_diameters, place_lesions
from liverseg.phantom.liver import hepatic_veins, liver_shape, portal_tree
from liverseg.phantom.organs import Organs
from liverseg.phantom.rendering import Rendering, render
from liverseg.phantom.scene import Layer, Scene, Tubes
from liverseg.phantom.tissue import draw_tissues
from liverseg.phantom.trunk import Habitus, Trunk, draw_habitus
from liverseg.synthesis import Lesion, Surroundings, draw_types

__all__ = ["Anatomy", "Coverage", "Phantom", "PhantomLesion", "draw_anatomy", "make_phantom"]

_LATTICE_STEP = 4.0
_INDEX = {label.name: label.index for label in JOINT_LABELS}


class Coverage(Enum):
    """Range of a scan, feet to head."""

    ABDOMEN = "lung base to lower kidneys"
    LIVER = "the liver with 1 to 2 cm of margin"


@dataclass(frozen=True)
class PhantomLesion:
    """One lesion, measured in the finished volume.

    Attributes:
        lesion: number in the patient, from 1.
        lesion_type: cyst, hemangioma or metastasis.
        volume_ml: volume of its label.
        diameter_mm: diameter of the ball with that volume.
        mean_hu: mean of the finished, noisy volume over its label.
        liver_hu: mean of the finished volume over voxels labelled liver (without lesions, with vessels).
        noise_hu: standard deviation of the noise in the liver.
        contrast_to_noise: |mean_hu - liver_hu| / noise_hu.
        x, y, z: centroid of its label, RAS+ mm.
        slices: number of pixels by slice.
    """

    lesion: int
    lesion_type: str
    volume_ml: float
    diameter_mm: float
    mean_hu: float
    liver_hu: float
    noise_hu: float
    contrast_to_noise: float
    x: float
    y: float
    z: float
    slices: dict[int, int]


@dataclass(frozen=True)
class Phantom:
    """A finished patient.

    Attributes:
        image: int16 HU, (x, y, z), axes to left, back and head.
        label: uint8, same shape: 0 background, 1 liver, 2 cyst, 3 hemangioma, 4 metastasis.
        affine: 4×4, index to RAS+ mm.
        lesions: one row per lesion of at least one voxel.
        facts: parameters drawn for this patient, for the record.
        organs: uint8 organ map with `organ_names`; None unless requested.
    """

    image: np.ndarray
    label: np.ndarray
    affine: np.ndarray
    lesions: tuple[PhantomLesion, ...]
    facts: dict[str, float | str]
    organs: np.ndarray | None = None
    organ_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Anatomy:
    """A patient without lesions, before a scan. Lengths are in mm, in the patient's frame, LPS+.

    Attributes:
        habitus: size of the trunk.
        scene: organs and vessels.
        liver: signed distance to the liver.
        not_liver: signed distance to gallbladder and great vessels, in which no lesion is placed.
        texture: unit-variance field for the texture of tissues.
        surroundings: attenuation of liver and vessels.
        hu: attenuation of the other tissues.
    """

    habitus: Habitus
    scene: Scene
    liver: Field
    not_liver: Field
    texture: Field
    surroundings: Surroundings
    hu: dict[str, float]

    def render(self, scanner: Scanner, lesions: list[Lesion], organs: bool = False) -> Rendering:
        """Scan the patient on a table, without noise; see `liverseg.phantom.rendering.render`."""
        table = _table(self.habitus, scanner, self.hu)
        return render(self.scene, lesions, self.texture, table, scanner, organs)


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw a patient without lesions."""
    habitus = draw_habitus(rng)
    hu = draw_tissues(rng)
    lattice = _lattice(habitus)
    warp = _warp(rng, lattice)
    trunk = Trunk(rng, habitus, lattice, warp, hu)
    abdomen = Organs(rng, trunk)
    liver = liver_shape(rng, abdomen)
    liver_hu, vessel_hu = _liver_hu(rng)
    hu["blood"] = vessel_hu - 12
    scene = Scene(
        under=[*trunk.layers(), *abdomen.layers()],
        liver=[
            Layer("liver", liver, liver_hu, d.LIVER_TEXTURE),
            Tubes("hepatic_vein", hepatic_veins(rng, abdomen, liver), vessel_hu - 3),
            Tubes("portal_branch", portal_tree(rng, abdomen, liver), vessel_hu),
        ],
        over=[*abdomen.gallbladder_layers(), *abdomen.great_vessels(), *trunk.bones()],
    )
    texture = Field(smooth_noise(rng, lattice, 6.0, 1.0), (0, 0, 0), lattice)
    surroundings = Surroundings(liver_hu, vessel_hu)
    return Anatomy(habitus, scene, liver, abdomen.not_liver(liver), texture, surroundings, hu)


def make_phantom(
    seed: np.random.SeedSequence,
    *,
    matrix: int,
    coverage: Coverage,
    main_type: str,
    annotated: bool = True,
    organs: bool = False,
) -> Phantom:
    """Make one patient.

    Args:
        seed: seed of all random numbers; the same seed gives the same voxels.
        matrix: in-plane pixels along one edge.
        coverage: range of the scan.
        main_type: type of the patient's first lesion.
        annotated: whether there must be a lesion that can be annotated; otherwise one patient in ten has none.
        organs: also return an organ map, for tests and pictures.
    """
    streams = [np.random.default_rng(child) for child in seed.spawn(4)]
    body_rng, lesion_rng, scan_rng, noise_rng = streams
    anatomy = draw_anatomy(body_rng)
    scanner = draw_scanner(scan_rng, anatomy.habitus, anatomy.liver, matrix, coverage)
    smallest = max(1.3 * scanner.thickness, 3.5 * scanner.pixel)
    diameters = draw_diameters(lesion_rng, smallest, annotated)
    drawn_types = draw_types(lesion_rng, len(diameters), main_type) if diameters else []
    lesions = place_lesions(lesion_rng, drawn_types, diameters, anatomy.liver, anatomy.not_liver, anatomy.surroundings)
    rendering = anatomy.render(scanner, lesions, organs)
    noise = scan_noise(noise_rng, scanner)
    image = np.empty(noise.shape, dtype=np.int16)
    for on_slice, noise_free, noise_on_slice in zip(image, rendering.hu, noise, strict=True):
        on_slice[...] = to_int16(noise_free + noise_on_slice)
    kinds = [lesion.kind for lesion in lesions]
    label, rows = _measure(image, noise, rendering, kinds, scanner)
    facts: dict[str, float | str] = {
        "main_type": main_type,
        "liver_hu": round(anatomy.surroundings.liver_hu, 1),
        "vessel_hu": round(anatomy.surroundings.vessel_hu, 1),
        "noise_hu": round(scanner.noise, 1),
        "thickness_mm": scanner.thickness,
        "pixel_mm": round(scanner.pixel, 4),
        "cavity_width_mm": round(2 * anatomy.habitus.width, 1),
        "subcutaneous_fat_mm": round(anatomy.habitus.fat[0], 1),
        "liver_ml": round(float(np.count_nonzero(label)) * scanner.pixel**2 * scanner.thickness / 1000, 1),
    }
    return Phantom(
        image=image.transpose(2, 1, 0),
        label=label.transpose(2, 1, 0),
        affine=scanner.affine,
        lesions=tuple(rows),
        facts=facts,
        organs=None if rendering.organs is None else rendering.organs.transpose(2, 1, 0),
        organ_names=rendering.names,
    )


def _lattice(habitus: Habitus) -> Lattice:
    half_x = habitus.width + habitus.wall + habitus.fat[0] + 8
    front = habitus.depth + 0.75 * habitus.wall + habitus.fat[1] + 8
    back = habitus.depth + 1.2 * habitus.wall + habitus.fat[2] + 8
    low, high = -175.0, habitus.dome + 70.0
    s = _LATTICE_STEP
    shape = (int((high - low) / s) + 1, int((front + back) / s) + 1, int(2 * half_x / s) + 1)
    return Lattice((low, -front, -half_x), s, shape)


def _warp(rng: np.random.Generator, lattice: Lattice) -> list[np.ndarray]:
    """Draw the displacement in mm that varies the template organs between patients."""
    return [smooth_noise(rng, lattice, 60.0, 5.0) + smooth_noise(rng, lattice, 24.0, 1.6) for _ in range(3)]


def _liver_hu(rng: np.random.Generator) -> tuple[float, float]:
    """Draw the HU of parenchyma and vessels; a fatty liver is darker, but not its vessels."""
    mean, spread = d.LIVER_HU
    liver = mean + spread * float(np.clip(rng.standard_normal(), -2, 2))
    fatty, drop = rng.random() < d.FATTY_SHARE, rng.uniform(*d.FATTY_DROP)
    mean, spread = d.VESSEL_HU
    vessel = mean + spread * float(np.clip(rng.standard_normal(), -2, 2))
    return (liver - drop if fatty else liver), max(vessel, liver + 28)


def draw_scanner(rng: np.random.Generator, habitus: Habitus, liver: Field, matrix: int, coverage: Coverage) -> Scanner:
    half = habitus.width + habitus.wall + habitus.fat[0]
    view = float(np.clip(2 * half * rng.uniform(1.04, 1.14), 320, 430))
    thicknesses, shares = d.THICKNESS
    thickness = float(rng.choice(thicknesses, p=shares))
    low, high = liver.bounds(0)
    if coverage is Coverage.LIVER:
        low, high = low - rng.uniform(10, 20) + 4, high + rng.uniform(10, 20) - 4
    else:
        low, high = rng.uniform(-150, -132), habitus.dome + rng.uniform(18, 36)
    median, spread = d.NOISE_HU
    return Scanner(
        field_of_view=view,
        matrix=matrix,
        centre=(rng.uniform(-6, 6), rng.uniform(8, 16)),
        first=low + thickness / 2,
        slices=max(int((high - low) / thickness), 1),
        thickness=thickness,
        point_spread=rng.uniform(0.8, 1.2),
        noise=float(np.clip(rng.lognormal(np.log(median), spread), *d.NOISE_LIMITS)),
        kernel=rng.uniform(0.55, 0.8),
        correlation=rng.uniform(0.2, 0.5),
    )


def _table(habitus: Habitus, scanner: Scanner, hu: dict[str, float]) -> np.ndarray:
    """Return the HU of the empty scanner, (y, x): air, and a curved table with a mattress."""
    x, y = scanner.x[None, :], scanner.y[:, None]
    back = habitus.depth + 1.2 * habitus.wall + habitus.fat[2]
    top = back + 9 - x**2 / 1100
    pixel = scanner.pixel
    plane = np.full((scanner.matrix, scanner.matrix), hu["air"], dtype=np.float32)

    def paint(depth: np.ndarray, half: float, value: float) -> None:
        inside = np.minimum(half - np.abs(depth), 205 - np.abs(x))
        alpha = np.clip(0.5 + inside / pixel, 0, min(1.0, 2 * half / pixel))
        plane[...] += (alpha * (value - plane)).astype(np.float32)

    paint(y - (top - 4), 4.0, -930)
    paint(y - (top + 14), 13.0, -960)
    paint(y - (top + 1), 1.1, 60)
    paint(y - (top + 26 + x**2 / 2600), 0.9, -120)
    return plane


def _measure(
    image: np.ndarray, noise: np.ndarray, rendering: Rendering, kinds: list[str], scanner: Scanner
) -> tuple[np.ndarray, list[PhantomLesion]]:
    """Return the label map, (z, y, x), and a row for each lesion of at least one voxel."""
    label = rendering.liver * np.uint8(LIVER)
    liver_box = bounding_box(rendering.liver) or full_box(label.shape)
    found = ndimage.find_objects(rendering.lesions[liver_box], len(kinds)) if kinds else []
    boxes = {number: to_global(box, liver_box) for number, box in enumerate(found, 1) if box}
    for number, box in boxes.items():
        label[box][rendering.lesions[box] == number] = _INDEX[kinds[number - 1]]
    liver = label[liver_box] == LIVER
    liver_hu = float(image[liver_box][liver].mean())
    noise_hu = float(noise[liver_box][liver].std())
    voxel_ml = scanner.pixel**2 * scanner.thickness / 1000
    rows: list[PhantomLesion] = []
    for number, box in boxes.items():
        where = np.nonzero(rendering.lesions[box] == number)
        count = len(where[0])
        mean = float(image[box][where].mean())
        z, y, x = (
            float(axis[side][index].mean())
            for axis, side, index in zip((scanner.z, scanner.y, scanner.x), box, where, strict=True)
        )
        per_slice = np.bincount(where[0])
        rows.append(
            PhantomLesion(
                lesion=len(rows) + 1,
                lesion_type=kinds[number - 1],
                volume_ml=round(count * voxel_ml, 4),
                diameter_mm=round(float(np.cbrt(6000 * count * voxel_ml / np.pi)), 2),
                mean_hu=round(mean, 2),
                liver_hu=round(liver_hu, 2),
                noise_hu=round(noise_hu, 2),
                contrast_to_noise=round(abs(mean - liver_hu) / noise_hu, 3),
                x=round(-x, 2),
                y=round(-y, 2),
                z=round(z, 2),
                slices={box[0].start + int(k): int(per_slice[k]) for k in np.flatnonzero(per_slice)},
            )
        )
    return label, rows
