"""Synthetic lesions on the fly: every slab of a training shows other lesions in its liver."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from monai.transforms import RandomizableTransform
from monai.utils import CommonKeys
from scipy import ndimage

from liverseg.errors import UsageError
from liverseg.imageio.boxes import Box
from liverseg.labels import JOINT_LABELS, LESION, LESION_TYPES, LIVER, LIVER_OR_LESION, PRETRAIN_LABELS, is_lesion
from liverseg.synthesis import draw_section, draw_types
from liverseg.synthesis.normal_liver import label_normal_liver
from liverseg.synthesis.painting import Scan, measure_surroundings
from liverseg.synthesis.placement import MOST_MARGIN_MM, add_distractors, add_lesions, depth_mm, outlined

__all__ = ["RandSyntheticLesionsd"]

_LEAST_LIVER_MM2: Final = 600.0
"""In smaller sections of a liver there is no room for a lesion beside its edge."""


class RandSyntheticLesionsd(RandomizableTransform):
    """Paint typed lesions and distractors into the liver of a slab and into its label map.

    Shapes, sizes, numbers and edges are those of `liverseg.synthesis`, shared by all types. Lesions cross the middle
    slice and go on in its neighbours as far as they reach; where neighbours show the same slice again, lesions do too.
    Types are equally likely, and of a slab's lesions most have one type.

    In a liver whose lesions are not told apart (`LIVER_OR_LESION`) painted lesions and distractors are known, so they
    get their own labels. With `normal_liver`, so does what looks like normal liver there: see `label_normal_liver`.

    Args:
        labels: rows of the label table, 3 (every lesion is 2) or 5 (typed).
        prob: how often a slab gets lesions. Slabs of less than 6 cm² of liver get none.
        distractor_prob: how often it gets distractors, one to four.
        normal_liver: whether to label what looks like normal liver where lesions are not told apart.
        outline_margin_mm: how far outside the contour of half contrast a slab's lesions are outlined, drawn between
            two limits: readers do so, each differently. See `liverseg.synthesis.placement.outlined`.
        min_detectability: lesions that would be seen less well in the scan's noise are drawn again, see
            `liverseg.synthesis.placement.detectability`; 0 paints all.

    Raises:
        UsageError: if an argument is not of its kind or out of range.
    """

    def __init__(
        self,
        labels: int,
        prob: float = 0.5,
        distractor_prob: float = 0.5,
        normal_liver: bool = True,
        outline_margin_mm: Sequence[float] = (0.0, 0.0),
        min_detectability: float = 0.0,
    ) -> None:
        super().__init__(prob=1.0)
        if labels not in (len(PRETRAIN_LABELS), len(JOINT_LABELS)):
            raise UsageError(f"synthetic lesions: labels is {labels!r}; it must be 3 or 5")
        for name, value in (("prob", prob), ("distractor_prob", distractor_prob)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise UsageError(f"synthetic lesions: {name} is {value!r}; it must be a number, 0 to 1")
        margin = tuple(outline_margin_mm)
        if len(margin) != 2 or not 0 <= margin[0] <= margin[1] <= MOST_MARGIN_MM:
            raise UsageError(
                f"synthetic lesions: outline_margin_mm is {list(margin)}; it must be two numbers, the lower first, "
                f"0 to {MOST_MARGIN_MM:g} mm"
            )
        if isinstance(min_detectability, bool) or not isinstance(min_detectability, int | float):
            raise UsageError(f"synthetic lesions: min_detectability is {min_detectability!r}; it must be a number")
        self.labels = labels
        self.lesion_prob, self.distractor_prob = prob, distractor_prob
        self.normal_liver = normal_liver
        self.outline_margin_mm = margin
        self.min_detectability = min_detectability

    def arguments(self) -> dict[str, Any]:
        """What it draws from, as JSON holds it: a resumed training must see the same."""
        arguments = {
            "lesion_prob": self.lesion_prob,
            "distractor_prob": self.distractor_prob,
            "normal_liver": self.normal_liver,
            "outline_margin_mm": list(self.outline_margin_mm),
        }
        # left out at 0, which is what trainings had before it could be set: their checkpoints stay valid
        return arguments | ({"min_detectability": self.min_detectability} if self.min_detectability else {})

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Paint into `image` (slab slices, H, W) in HU and `label` (1, H, W); needs `spacing`, mm (3,)."""
        out = dict(data)
        # drawn before anything else: the same draws whatever the slab shows
        with_lesions, with_distractors = self.R.uniform() < self.lesion_prob, self.R.uniform() < self.distractor_prob
        margin = self.R.uniform(*self.outline_margin_mm)
        label = torch.as_tensor(out[CommonKeys.LABEL])[0].numpy().copy()
        liver = label >= LIVER
        found = ndimage.find_objects(liver.astype(np.uint8))
        if not found:
            return out
        slice_mm, *pixel_mm = (float(mm) for mm in out["spacing"])
        pixels = (pixel_mm[0], pixel_mm[1])
        if np.count_nonzero(liver) * pixels[0] * pixels[1] < _LEAST_LIVER_MM2:
            return out
        image = torch.as_tensor(out[CommonKeys.IMAGE]).numpy().astype(np.float32)
        middle = len(image) // 2
        plane = tuple(
            slice(max(0, side.start - 8), min(length, side.stop + 8))
            for side, length in zip(found[0], label.shape, strict=True)
        )
        cut = image[(slice(None), *plane)]
        own = label[plane]
        around = measure_surroundings(cut[middle : middle + 1], (own == LIVER)[None] | (own == LIVER_OR_LESION)[None])
        if around is None:
            return out
        if self.normal_liver and (own == LIVER_OR_LESION).any():
            own[...] = label_normal_liver(cut[middle], own, around.liver_hu, around.noise_hu, pixels)
        if with_lesions or with_distractors:
            scan = Scan(
                hu=cut,
                liver=np.repeat((own >= LIVER)[None], len(cut), axis=0),
                positions_mm=_positions(image, slice_mm),
                thickness_mm=min(slice_mm, 5.0),
                pixel_mm=pixels,
                around=around,
            )
            depth = depth_mm(scan.liver[middle], pixels)
            if with_distractors:
                repeated = bool((scan.positions_mm == scan.positions_mm[middle]).sum() > 1)
                count = int(self.R.choice([1, 2, 3, 4]))
                for placed in add_distractors(self.R, scan, count, depth, middle, repeated):
                    _write(own, placed.box, placed.share >= 0.25, middle, LIVER, among=(LIVER_OR_LESION,))
            if with_lesions:
                self._add_lesions(out, scan, own, depth, middle, margin)
            out[CommonKeys.IMAGE] = torch.from_numpy(np.rint(image).astype(np.int16))
        out[CommonKeys.LABEL] = torch.from_numpy(label[None])
        return out

    def _add_lesions(
        self, out: dict[Hashable, Any], scan: Scan, label: np.ndarray, depth: np.ndarray, middle: int, margin: float
    ) -> None:
        there = is_lesion(torch.from_numpy(label)).numpy()
        # nor where a lesion may be that nobody outlined: one painted over its edge would teach neither's look
        unknown = (label == LIVER_OR_LESION) if self.normal_liver else np.zeros_like(there)
        taken = np.repeat((there | unknown)[None], len(scan.hu), axis=0)
        diameters = draw_section(self.R)
        kinds = draw_types(self.R, len(diameters))
        placed = add_lesions(self.R, scan, kinds, diameters, depth, taken, middle, self.min_detectability)
        for lesion in placed:
            value = LESION if self.labels == len(PRETRAIN_LABELS) else LESION + LESION_TYPES.index(lesion.kind)
            box, inside = outlined(lesion, scan.hu.shape, scan.pixel_mm, margin)
            _write(label, box, inside, middle, value, among=(LIVER, LIVER_OR_LESION))
        if not there.any() and len({lesion.kind for lesion in placed}) == 1 and "lesion_type" in out:
            out["lesion_type"] = LESION_TYPES.index(placed[0].kind)


def _positions(image: np.ndarray, slice_mm: float) -> np.ndarray:
    """Places of a slab's slices in mm; a slice that repeats its neighbour, at an end or in a set, is where that is."""
    steps = [0.0 if np.array_equal(one, other) else slice_mm for one, other in itertools.pairwise(image)]
    return np.concatenate([[0.0], np.cumsum(steps)])


def _write(label: np.ndarray, box: Box, inside: np.ndarray, middle: int, value: int, among: Sequence[int]) -> None:
    """Write a label inside of what lies in a box, on the middle slice, where the label is one of some."""
    slices, rows, columns = box
    if slices.start <= middle < slices.stop:
        here = label[rows, columns]
        here[inside[middle - slices.start] & np.isin(here, among)] = value
