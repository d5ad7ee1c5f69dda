"""Augmentation with synthetic lesions, painted into the liver of every slab during training."""

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
from liverseg.synthesis.placement import MAX_MARGIN_MM, add_distractors, add_lesions, depth_mm, reader_outline

__all__ = ["RandSyntheticLesionsd"]

_MIN_LIVER_MM2: Final = 600.0
"""Smaller liver sections have no room for a lesion away from their edge."""

_MARGIN_PIXELS: Final = 8
"""Margin around the liver's bounding box in which lesions are painted."""

_MAX_SLICE_MM: Final = 5.0
"""Largest slice thickness that is assumed for painting."""

_MIN_DISTRACTOR_SHARE: Final = 0.25
"""Least share of a pixel that a distractor fills where the label becomes liver."""


class RandSyntheticLesionsd(RandomizableTransform):
    """Paint typed lesions and distractors into the liver of a slab and into its label map.

    Shapes, sizes, numbers and edges are those of `liverseg.synthesis` and do not depend on the type. Lesions cross the
    middle slice and extend into its neighbours; where a neighbour repeats the slice, it repeats the lesion too. Types
    are equally likely, and most lesions of a slab have the same type.

    In a liver whose lesions are not distinguished (`LIVER_OR_LESION`), painted lesions get their own labels and
    distractors the liver's. With `normal_liver`, tissue that looks like normal liver is also labelled as liver, see
    `label_normal_liver`.

    Args:
        labels: rows of the label table, 3 (every lesion is 2) or 5 (typed).
        prob: probability of lesions. Slabs with less than 6 cm² of liver get none.
        distractor_prob: probability of distractors, one to four.
        normal_liver: whether to label tissue that looks like normal liver where lesions are not distinguished.
        outline_margin_mm: lower and upper limit of the distance between the contour of half contrast and the outline,
            drawn for each slab. Readers outline outside that contour, each at another distance, see
            `liverseg.synthesis.placement.reader_outline`.
        min_detectability: least detectability of lesions; others are drawn again, see
            `liverseg.synthesis.placement.detectability`. 0 paints all.

    Raises:
        UsageError: if an argument is of the wrong type or out of range.
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
        if len(margin) != 2 or not 0 <= margin[0] <= margin[1] <= MAX_MARGIN_MM:
            raise UsageError(
                f"synthetic lesions: outline_margin_mm is {list(margin)}; it must be two numbers, the lower first, "
                f"0 to {MAX_MARGIN_MM:g} mm"
            )
        if isinstance(min_detectability, bool) or not isinstance(min_detectability, int | float):
            raise UsageError(f"synthetic lesions: min_detectability is {min_detectability!r}; it must be a number")
        self.labels = labels
        self.lesion_prob, self.distractor_prob = prob, distractor_prob
        self.normal_liver = normal_liver
        self.outline_margin_mm = margin
        self.min_detectability = min_detectability

    def arguments(self) -> dict[str, Any]:
        """Return the arguments as JSON values for the checkpoint's settings: a resumed training must have the same."""
        arguments = {
            "lesion_prob": self.lesion_prob,
            "distractor_prob": self.distractor_prob,
            "normal_liver": self.normal_liver,
            "outline_margin_mm": list(self.outline_margin_mm),
        }
        # the default is left out: checkpoints from before the argument existed stay valid
        return arguments | ({"min_detectability": self.min_detectability} if self.min_detectability else {})

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Paint into `image` (slab slices, H, W) in HU and `label` (1, H, W); needs `spacing`, mm (3,)."""
        out = dict(data)
        # drawn first, so that the draws do not depend on the slab's content
        with_lesions, with_distractors = self.R.uniform() < self.lesion_prob, self.R.uniform() < self.distractor_prob
        margin = self.R.uniform(*self.outline_margin_mm)
        label = torch.as_tensor(out[CommonKeys.LABEL])[0].numpy().copy()
        liver = label >= LIVER
        boxes = ndimage.find_objects(liver.astype(np.uint8))
        if not boxes:
            return out
        slice_mm, row_mm, column_mm = (float(mm) for mm in out["spacing"])
        pixel_mm = (row_mm, column_mm)
        if np.count_nonzero(liver) * row_mm * column_mm < _MIN_LIVER_MM2:
            return out
        image = torch.as_tensor(out[CommonKeys.IMAGE]).numpy().astype(np.float32)
        middle = len(image) // 2
        box = tuple(
            slice(max(0, side.start - _MARGIN_PIXELS), min(length, side.stop + _MARGIN_PIXELS))
            for side, length in zip(boxes[0], label.shape, strict=True)
        )
        hu, label_crop = image[(slice(None), *box)], label[box]  # views: writing into them changes image and label
        liver_tissue = (label_crop == LIVER)[None] | (label_crop == LIVER_OR_LESION)[None]
        around = measure_surroundings(hu[middle : middle + 1], liver_tissue)
        if around is None:
            return out
        if self.normal_liver and (label_crop == LIVER_OR_LESION).any():
            label_crop[...] = label_normal_liver(hu[middle], label_crop, around.liver_hu, around.noise_hu, pixel_mm)
        if with_lesions or with_distractors:
            scan = Scan(
                hu=hu,
                liver=np.repeat((label_crop >= LIVER)[None], len(hu), axis=0),
                positions_mm=_slice_positions(image, slice_mm),
                thickness_mm=min(slice_mm, _MAX_SLICE_MM),
                pixel_mm=pixel_mm,
                around=around,
            )
            depth = depth_mm(scan.liver[middle], pixel_mm)
            if with_distractors:
                repeated = bool((scan.positions_mm == scan.positions_mm[middle]).sum() > 1)
                count = int(self.R.choice([1, 2, 3, 4]))
                for placed in add_distractors(self.R, scan, count, depth, middle, repeated):
                    inside = placed.share >= _MIN_DISTRACTOR_SHARE
                    _write_label(label_crop, placed.box, inside, middle, LIVER, replaces=(LIVER_OR_LESION,))
            if with_lesions:
                self._add_lesions(out, scan, label_crop, depth, middle, margin)
            out[CommonKeys.IMAGE] = torch.from_numpy(np.rint(image).astype(np.int16))
        out[CommonKeys.LABEL] = torch.from_numpy(label[None])
        return out

    def _add_lesions(
        self, out: dict[Hashable, Any], scan: Scan, label: np.ndarray, depth: np.ndarray, middle: int, margin: float
    ) -> None:
        lesions = is_lesion(torch.from_numpy(label)).numpy()
        # a lesion painted over the edge of one that is not outlined would show the look of neither
        unknown = (label == LIVER_OR_LESION) if self.normal_liver else np.zeros_like(lesions)
        occupied = np.repeat((lesions | unknown)[None], len(scan.hu), axis=0)
        diameters = draw_section(self.R)
        kinds = draw_types(self.R, len(diameters))
        placed = add_lesions(self.R, scan, kinds, diameters, depth, occupied, middle, self.min_detectability)
        for lesion in placed:
            value = LESION if self.labels == len(PRETRAIN_LABELS) else LESION + LESION_TYPES.index(lesion.kind)
            box, inside = reader_outline(lesion, scan.hu.shape, scan.pixel_mm, margin)
            _write_label(label, box, inside, middle, value, replaces=(LIVER, LIVER_OR_LESION))
        if not lesions.any() and len({lesion.kind for lesion in placed}) == 1 and "lesion_type" in out:
            out["lesion_type"] = LESION_TYPES.index(placed[0].kind)


def _slice_positions(image: np.ndarray, slice_mm: float) -> np.ndarray:
    """Return the positions of a slab's slices in mm; a slice that repeats its neighbour has the same position."""
    steps = [0.0 if np.array_equal(lower, upper) else slice_mm for lower, upper in itertools.pairwise(image)]
    return np.concatenate([[0.0], np.cumsum(steps)])


def _write_label(
    label: np.ndarray, box: Box, inside: np.ndarray, middle: int, value: int, replaces: Sequence[int]
) -> None:
    """Write a value into the middle slice's label map where `inside` is true and the label is one of `replaces`."""
    slices, rows, columns = box
    if slices.start <= middle < slices.stop:
        crop = label[rows, columns]
        crop[inside[middle - slices.start] & np.isin(crop, replaces)] = value
