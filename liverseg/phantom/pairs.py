"""Two scans of one phantom patient: breathing, table, grid and noise differ, and lesions grow, shrink, come and go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from liverseg.labels import JOINT_LABELS, LIVER
from liverseg.phantom.acquisition import Scanner, scan_noise, to_int16
from liverseg.phantom.fields import Field, Lattice, smooth_noise
from liverseg.phantom.lesions import place_lesions
from liverseg.phantom.patient import Anatomy, Coverage, draw_anatomy, draw_scanner
from liverseg.synthesis import Lesion, draw_types
from liverseg.synthesis.painting import Scan

__all__ = ["PairedLesion", "PairedScan", "PhantomPair", "make_pair"]

_INDEX = {label.name: label.index for label in JOINT_LABELS}
_FATES = {"grown": 0.3, "shrunk": 0.2, "stable": 0.2, "gone": 0.15, "new": 0.15}
"""What becomes of a lesion, with the share of lesions. Our choice: a patient with every kind is likely."""
_FACTORS = {"grown": (1.2, 1.9), "shrunk": (0.5, 0.8), "stable": (1.0, 1.0), "gone": (1.0, 1.0), "new": (1.0, 1.0)}
"""Ranges of the diameter at the follow-up over that at the baseline."""
_DIAMETERS_MM = (6.0, 32.0)
_SHIFT_MM = (5.0, 25.0)
"""Range of the liver's movement along the body between two breath-holds."""
_REACH_MM = (95.0, 110.0, 120.0)
"""Standard deviations of the movement's extent along z, y and x: it is largest in the liver, and smooth."""
_WOBBLE_MM, _WOBBLE_GRAIN_MM = 1.5, 45.0
"""Of an irregular part of the movement."""
_FINE_MM = 0.5


@dataclass(frozen=True)
class PairedScan:
    """A scan of a pair.

    Attributes:
        image: int16 HU, (x, y, z), axes to left, back and head.
        label: uint8, same shape, the joint label table.
        ids: uint16, same shape: number of the lesion as in `PhantomPair.lesions`, from 1.
        affine: 4×4, index to RAS+ mm.
    """

    image: np.ndarray
    label: np.ndarray
    ids: np.ndarray
    affine: np.ndarray


@dataclass(frozen=True)
class PairedLesion:
    """The truth of a lesion.

    Attributes:
        kind: its type.
        fate: grown, shrunk, stable, gone or new, as it was drawn.
        baseline_mm, followup_mm: longest axial diameter of the drawn shape, not cut by the liver's surface; None where
            the lesion does not exist.
        baseline_centre, followup_centre: RAS+ mm.
        baseline_uncut, followup_uncut: share of the drawn shape that is in the liver and in the scan.
    """

    kind: str
    fate: str
    baseline_mm: float | None
    followup_mm: float | None
    baseline_centre: np.ndarray
    followup_centre: np.ndarray
    baseline_uncut: float
    followup_uncut: float


@dataclass(frozen=True)
class PhantomPair:
    """Two scans and their truth.

    Attributes:
        baseline, followup: the scans.
        lesions: in the order of the scans' ids.
        to_followup: maps points of the baseline to the follow-up, RAS+ mm, shape (n, 3).
        shift_mm: movement of the liver's middle along the body.
    """

    baseline: PairedScan
    followup: PairedScan
    lesions: tuple[PairedLesion, ...]
    to_followup: Callable[[np.ndarray], np.ndarray]
    shift_mm: float


def make_pair(
    seed: np.random.SeedSequence,
    *,
    matrix: int = 256,
    lesions: int = 6,
    cut_mm: float = 0.0,
    move_mm: float | None = None,
) -> PhantomPair:
    """Make two scans of one patient.

    The follow-up is scanned at another breath-hold, which a smooth field describes, on another grid with other noise,
    on a table at another place. Lesions keep their shape but for its size.

    Args:
        seed: seed of all random numbers.
        matrix: in-plane pixels along one edge, of both.
        lesions: number of lesions over both scans; where there is no space, fewer.
        cut_mm: height of the liver's lower end that the follow-up leaves out.
        move_mm: movement of the liver along the body; drawn between 5 and 25 mm, up or down, by default.
    """
    body, size, place, movement, *scans = (np.random.default_rng(child) for child in seed.spawn(8))
    anatomy = draw_anatomy(body)
    fates = [str(fate) for fate in size.choice(list(_FATES), size=lesions, p=list(_FATES.values()))]
    factors = [float(size.uniform(*_FACTORS[fate])) for fate in fates]
    diameters = [float(np.exp(size.uniform(*np.log(_DIAMETERS_MM)))) for _ in fates]
    kinds = draw_types(size, lesions, str(size.choice(["cyst", "hemangioma", "metastasis"])))
    # placed at the larger of both sizes, so that no two touch; the order of placing is by size
    largest = [diameter * max(1.0, factor) for diameter, factor in zip(diameters, factors, strict=True)]
    order = np.argsort(largest)[::-1]
    placed: list[tuple[Lesion, int]] = []
    for number in order:
        found = place_lesions(
            place, [kinds[number]], [largest[number]], anatomy.liver, _taken(anatomy, [lesion for lesion, _ in placed]),
            anatomy.surroundings,
        )  # fmt: skip
        placed += [(lesion, int(number)) for lesion in found]
    move = _Movement(movement, anatomy, move_mm)
    table = np.array([movement.uniform(-80, 80), movement.uniform(-25, 25), movement.uniform(-300, 300)])
    before, after = [], []
    for lesion, number in placed:
        growth = factors[number] / max(1.0, factors[number])
        start, end = _scaled(lesion, growth / factors[number]), _scaled(lesion, growth)
        z, y, x = (float(position) for position in move.forward(np.array([lesion.centre]))[0])
        before.append(None if fates[number] == "new" else start)
        after.append(None if fates[number] == "gone" else replace(end, centre=(z, y, x)))
    first, uncut = _scan(scans[0], scans[1], anatomy, before, matrix, 0.0, None)
    second, uncut_after = _scan(scans[2], scans[3], anatomy, after, matrix, cut_mm, move)
    lps_to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    moved_table = np.eye(4)
    moved_table[:3, 3] = table
    second = replace(second, affine=lps_to_ras @ moved_table @ lps_to_ras @ second.affine)
    to_ras = np.array([-1.0, -1.0, 1.0])

    def to_followup(points: np.ndarray) -> np.ndarray:
        zyx = (np.asarray(points, float) * to_ras)[:, ::-1]
        return (move.forward(zyx)[:, ::-1] + table) * to_ras

    truth = tuple(
        PairedLesion(
            kind=lesion.kind,
            fate=fates[number],
            baseline_mm=None if start is None else _longest_mm(start),
            followup_mm=None if end is None else _longest_mm(end),
            baseline_centre=(centre := np.array(lesion.centre[::-1]) * to_ras),
            followup_centre=to_followup(centre[None])[0],
            baseline_uncut=inside,
            followup_uncut=inside_after,
        )
        for (lesion, number), start, end, inside, inside_after in zip(
            placed, before, after, uncut, uncut_after, strict=True
        )
    )
    return PhantomPair(first, second, truth, to_followup, move.amplitude)


def _taken(anatomy: Anatomy, lesions: list[Lesion]) -> Field:
    """Return the signed distance to where no lesion can be placed: other organs, and lesions with their lobes."""
    field = anatomy.not_liver
    values = field.values.copy()
    z, y, x = (
        field.lattice.axis(axis)[field.start[axis] : field.start[axis] + values.shape[axis]] for axis in range(3)
    )
    for lesion in lesions:
        distance = np.sqrt(
            (z[:, None, None] - lesion.centre[0]) ** 2
            + (y[None, :, None] - lesion.centre[1]) ** 2
            + (x[None, None, :] - lesion.centre[2]) ** 2
        )
        # a lesion's centre stays 0.6 radii away from this; 1.6 radii of the other are its lobes and a gap
        np.minimum(values, distance - 2.2 * lesion.shape.radius - 6.0, out=values)
    return replace(field, values=values)


def _scaled(lesion: Lesion, factor: float) -> Lesion:
    shape = replace(lesion.shape, radius=lesion.shape.radius * factor, lobes=lesion.shape.lobes * factor)
    nodules = lesion.appearance.nodules * factor if len(lesion.appearance.nodules) else lesion.appearance.nodules
    return replace(lesion, shape=shape, appearance=replace(lesion.appearance, nodules=nodules))


def _longest_mm(lesion: Lesion) -> float:
    """Return the longest axial diameter of a lesion's shape, measured on a grid of 0.5 mm."""
    from scipy.spatial.distance import pdist

    axes = [
        np.arange(-half, half + _FINE_MM, _FINE_MM) + centre
        for half, centre in zip(lesion.shape.extent(0.0), lesion.centre, strict=True)
    ]
    share, _ = lesion.evaluate(axes[0], axes[1], axes[2], _FINE_MM)
    longest = 0.0
    for plane in share >= 0.5:
        edge = np.argwhere(plane & ~ndimage.binary_erosion(plane)) * _FINE_MM
        if len(edge):
            # half a pixel beyond the outermost centres at both ends, as measurements of label maps do
            longest = max(longest, float(pdist(edge).max(initial=0.0)) + _FINE_MM)
    return longest


class _Movement:
    """A smooth movement of the abdomen; points are (z, y, x) in the patient's frame, LPS+ mm.

    Args:
        rng: source of random numbers.
        anatomy: of the patient.
        move_mm: of the liver's middle along z; drawn if None.
    """

    def __init__(self, rng: np.random.Generator, anatomy: Anatomy, move_mm: float | None) -> None:
        drawn = float(rng.uniform(*_SHIFT_MM) * rng.choice([-1, 1]))
        self.amplitude = drawn if move_mm is None else move_mm
        self._middle = np.array([np.mean(bounds) for bounds in anatomy.liver.box()])
        lattice = anatomy.texture.lattice
        shape = tuple(int(count * lattice.step / 8.0) + 2 for count in lattice.shape)
        self._lattice = Lattice(lattice.origin, 8.0, (shape[0], shape[1], shape[2]))
        self._wobble = [smooth_noise(rng, self._lattice, _WOBBLE_GRAIN_MM, _WOBBLE_MM) for _ in range(3)]

    def backward(self, points: np.ndarray) -> np.ndarray:
        """Return where points of the follow-up were at the baseline, shape (n, 3)."""
        offset = (points - self._middle) / _REACH_MM
        bump = np.exp(-0.5 * (offset**2).sum(axis=1))
        index = ((points - self._lattice.origin) / self._lattice.step).T
        moved = [ndimage.map_coordinates(field, index, order=1, mode="nearest") for field in self._wobble]
        result = points + np.stack(moved, axis=1)
        result[:, 0] -= self.amplitude * bump
        return result

    def forward(self, points: np.ndarray) -> np.ndarray:
        """Return where points of the baseline are at the follow-up, shape (n, 3), by fixed-point iteration."""
        found = np.asarray(points, float).copy()
        for _ in range(40):
            found += points - self.backward(found)
        return found


def _scan(
    grid_rng: np.random.Generator,
    noise_rng: np.random.Generator,
    anatomy: Anatomy,
    lesions: list[Lesion | None],
    matrix: int,
    cut_mm: float,
    move: _Movement | None,
) -> tuple[PairedScan, list[float]]:
    """Scan a patient, moved if there is a movement, and paint the lesions.

    Returns:
        The scan, and for each lesion the share of its shape that the scan shows in the liver; 0 without a lesion.
    """
    scanner: Scanner = draw_scanner(grid_rng, anatomy.habitus, anatomy.liver, matrix, Coverage.ABDOMEN)
    if cut_mm:
        low = anatomy.liver.bounds(0)[0] + cut_mm + (0.0 if move is None else move.amplitude)
        first = max(0, int(np.ceil((low - scanner.first) / scanner.thickness)))
        scanner = replace(
            scanner, first=scanner.first + first * scanner.thickness, slices=max(8, scanner.slices - first)
        )
    rendering = anatomy.render(scanner, [])
    hu, liver = rendering.hu, rendering.liver
    if move is not None:
        hu, liver = _warped(scanner, hu, liver, move)
    painted = Scan(hu, liver, scanner.z, scanner.thickness, (scanner.pixel, scanner.pixel), anatomy.surroundings)
    label, ids = liver * np.uint8(LIVER), np.zeros(liver.shape, np.uint16)
    uncut = []
    for number, lesion in enumerate(lesions, start=1):
        uncut.append(0.0)
        if lesion is None:
            continue
        z, y, x = lesion.centre
        result = painted.paint(replace(lesion, centre=(z, y - scanner.y[0], x - scanner.x[0])))
        if result is None:
            continue
        box, share = result
        where = (share >= 0.5) & liver[box]
        label[box][where], ids[box][where] = _INDEX[lesion.kind], number
        uncut[-1] = _uncut(lesion, scanner, liver)
    noise = scan_noise(noise_rng, scanner)
    image = to_int16(hu + noise)
    turned = [array.transpose(2, 1, 0) for array in (image, label, ids)]
    return PairedScan(turned[0], turned[1], turned[2], scanner.affine), uncut


def _uncut(lesion: Lesion, scanner: Scanner, liver: np.ndarray) -> float:
    """Return the share of a lesion's shape that is in the scan's liver."""
    step = 1.0
    axes = [
        np.arange(-half, half + step, step) + centre
        for half, centre in zip(lesion.shape.extent(0.0), lesion.centre, strict=True)
    ]
    share, _ = lesion.evaluate(axes[0], axes[1], axes[2], step)
    places = np.argwhere(share >= 0.5)
    if not len(places):
        return 0.0
    points = np.stack([axis[index] for axis, index in zip(axes, places.T, strict=True)], axis=1)
    starts, steps = (scanner.first, scanner.y[0], scanner.x[0]), (scanner.thickness, scanner.pixel, scanner.pixel)
    index = np.rint((points - starts) / steps).astype(int)
    inside = ((index >= 0) & (index < liver.shape)).all(axis=1)
    return float(liver[tuple(index[inside].T)].sum() / len(points))


def _warped(scanner: Scanner, hu: np.ndarray, liver: np.ndarray, move: _Movement) -> tuple[np.ndarray, np.ndarray]:
    """Return HU and liver after the movement: each voxel takes the value of where it was."""
    result, moved_liver = np.empty_like(hu), np.zeros_like(liver)
    y, x = np.meshgrid(scanner.y, scanner.x, indexing="ij")
    starts = np.array([scanner.first, scanner.y[0], scanner.x[0]])
    steps = np.array([scanner.thickness, scanner.pixel, scanner.pixel])
    levels = liver.astype(np.float32)
    for number, z in enumerate(scanner.z):
        points = np.stack([np.full(y.size, z), y.ravel(), x.ravel()], axis=1)
        index = ((move.backward(points) - starts) / steps).T
        result[number] = ndimage.map_coordinates(hu, index, order=1, mode="nearest").reshape(y.shape)
        moved_liver[number] = ndimage.map_coordinates(levels, index, order=1, mode="nearest").reshape(y.shape) >= 0.5
    return result, moved_liver
