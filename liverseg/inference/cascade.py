"""The liver first, then its lesions: the paper's cascade with one network in two passes.

The paper finds the liver with a network of its own and cuts the slices to it. Here the same network does both: a coarse
pass looks at few slices at a lower resolution, and the fine pass at every voxel of the box around the liver found. That
the network knows the liver at half its resolution is our observation, not the paper's; so the fine pass checks the box:
where the liver reaches one of its sides, the box grows and what is new is computed, until it holds the whole liver.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import torch
from monai.inferers import Inferer

from liverseg.boxes import Box, bounding_box, enlarged, whole_box
from liverseg.ct_check import bone_and_body
from liverseg.inference.components import keep_largest_liver, largest_part, within_liver
from liverseg.inference.inferer import SlabInferer
from liverseg.inference.prediction import SlabPrediction, joined
from liverseg.labels import LIVER

__all__ = ["LiverCascade"]

_STRIDE: Final = 32
"""Pixels the network halves five times: boxes of other sizes would be padded."""
_MOST_BONE: Final = 0.08
"""Of the body in a liver's slices: three real trunks and three phantoms have 0.07 at most, a real head 0.10 or more."""
_LEAST_TRUNK_CM2: Final = 400.0
"""Of body in a slice: what has more is no head, however much bone, metal or contrast medium is in it."""
_FEW: Final = 8


class LiverCascade(Inferer):
    """Labels a CT within the box around its liver; outside it is background.

    Args:
        slabs: runs the network over slices.
        find_liver: look for the liver first; else all of the CT goes through the network and the largest part of what
            it calls liver is kept.
        coarse_mm: pixels of about this size are looked at in the coarse pass.
        step_mm: distance of the slices it looks at. A liver is some 150 mm high.
        margin_mm: around the liver of the coarse pass, along rows and columns; along slices it is half a step.

    Raises:
        ValueError: if a distance is not above 0.
    """

    def __init__(
        self,
        slabs: SlabInferer,
        find_liver: bool = True,
        coarse_mm: float = 1.5,
        step_mm: float = 15.0,
        margin_mm: float = 10.0,
    ) -> None:
        if not min(coarse_mm, step_mm, margin_mm) > 0:
            raise ValueError(f"coarse_mm {coarse_mm}, step_mm {step_mm}, margin_mm {margin_mm}; all must be above 0")
        self.slabs = slabs
        self.find_liver = find_liver
        self.coarse_mm = coarse_mm
        self.step_mm = step_mm
        self.margin_mm = margin_mm

    def __call__(
        self,
        inputs: torch.Tensor | np.ndarray,
        network: Callable[..., Any],
        *args: Any,
        spacing: Sequence[float] = (1.0, 1.0, 1.0),
        liver: np.ndarray | None = None,
        **kwargs: Any,
    ) -> SlabPrediction:
        """Label a CT.

        Args:
            inputs: HU of any number type in axial order, shape (slice, row, column).
            network: as `SlabInferer` takes it.
            spacing: mm between slices, rows and columns.
            liver: mask of the liver from elsewhere, shape of `inputs`; it takes the place of the coarse pass, and its
                voxels are the liver of the result.
            args, kwargs: handed on to the network.

        Returns:
            One liver with its lesions; an empty box where none was found.
        """
        if liver is not None:
            seen = bounding_box(liver)
            box = None if seen is None else self._with_margin(seen, spacing, inputs.shape)
        elif not self.find_liver:
            box = whole_box(inputs.shape)
        else:
            box = self._coarse(inputs, network, spacing)
        if box is None:
            return _nothing(inputs.shape)
        if liver is None and self.find_liver and (reason := _as_in_a_head(inputs, box[0], spacing)):
            return _nothing(inputs.shape, reason)

        def kept(found: SlabPrediction) -> SlabPrediction:
            if liver is None:
                return keep_largest_liver(found)
            return within_liver(found, np.asarray(liver[found.box], bool))

        found = self.slabs(inputs, network, *args, slice_mm=spacing[0], box=box, **kwargs)
        times = 1
        while (wider := self._wider(kept(found), spacing, times)) != found.box:
            found = self._grown(found, wider, inputs, network, spacing, *args, **kwargs)
            times *= 2  # a side that is reached again is far from the liver's end, and each step there costs a pass
        return kept(found)

    def _coarse(
        self, inputs: torch.Tensor | np.ndarray, network: Callable[..., Any], spacing: Sequence[float]
    ) -> Box | None:
        """The box around the liver as seen on few slices, with its margin; None without a liver."""
        depth = inputs.shape[0]
        step = max(1, round(self.step_mm / spacing[0]))
        slices = np.arange(min(step // 2, (depth - 1) // 2), depth, step)
        reduced = max(1, round(self.coarse_mm / min(spacing[1:])))
        for reduction in sorted({min(reduced, *inputs.shape[1:]), 1}, reverse=True):
            mask = self.slabs.liver(inputs, network, slices, reduction, spacing[0])
            box = bounding_box(largest_part(mask))
            if box is not None:
                seen, rows, columns = box
                first, last = int(slices[seen.start]), int(slices[seen.stop - 1])
                box = (slice(first, last + 1), _times(rows, reduction), _times(columns, reduction))
                return self._with_margin(box, spacing, inputs.shape)
        return None

    def _with_margin(self, box: Box, spacing: Sequence[float], shape: Sequence[int]) -> Box:
        slices, *plane = enlarged(box, self._margin(spacing), shape)
        rows, columns = (_to_stride(side, length) for side, length in zip(plane, shape[1:], strict=True))
        return slices, rows, columns

    def _margin(self, spacing: Sequence[float]) -> tuple[int, int, int]:
        along, rows, columns = (
            max(1, round(mm / edge))
            for mm, edge in zip((self.step_mm / 2, *[self.margin_mm] * 2), spacing, strict=True)
        )
        return along, rows, columns

    def _wider(self, found: SlabPrediction, spacing: Sequence[float], times: int) -> Box:
        """The box with so many margins beyond each side the liver reaches, as far as the volume goes."""
        liver = bounding_box(found.inside >= LIVER)
        if liver is None:
            return found.box
        sides = []
        for at, own, more, length in zip(liver, found.box, self._margin(spacing), found.shape, strict=True):
            start = max(0, own.start - times * more) if at.start == 0 else own.start
            stop = min(length, own.stop + times * more) if at.stop == own.stop - own.start else own.stop
            sides.append(slice(start, stop))
        slices, rows, columns = sides
        if (rows, columns) != found.box[1:]:
            rows, columns = (
                _to_stride(side, length) for side, length in zip((rows, columns), found.shape[1:], strict=True)
            )
        return slices, rows, columns

    def _grown(
        self,
        found: SlabPrediction,
        wider: Box,
        inputs: torch.Tensor | np.ndarray,
        network: Callable[..., Any],
        spacing: Sequence[float],
        *args: Any,
        **kwargs: Any,
    ) -> SlabPrediction:
        """The prediction of a wider box; slices already seen with the same rows and columns are not computed again."""

        def computed(start: int, stop: int) -> SlabPrediction:
            box = (slice(start, stop), *wider[1:])
            return self.slabs(inputs, network, *args, slice_mm=spacing[0], box=box, **kwargs)

        slices, own = wider[0], found.box[0]
        if wider[1:] != found.box[1:]:
            return computed(slices.start, slices.stop)
        parts = [found]
        if slices.start < own.start:
            parts.insert(0, computed(slices.start, own.start))
        if slices.stop > own.stop:
            parts.append(computed(own.stop, slices.stop))
        return joined(parts)


def _times(side: slice, factor: int) -> slice:
    return slice(side.start * factor, side.stop * factor)


def _to_stride(side: slice, length: int) -> slice:
    """A side made longer, to both ends alike, until it is a multiple of the network's stride or the volume ends."""
    wanted = min(length, -(-(side.stop - side.start) // _STRIDE) * _STRIDE)
    start = min(max(0, (side.start + side.stop - wanted) // 2), length - wanted)
    return slice(start, start + wanted)


def _as_in_a_head(inputs: torch.Tensor | np.ndarray, slices: slice, spacing: Sequence[float]) -> str:
    """Why the slices of what looks like a liver are those of a head; empty where they are not."""
    every = max(1, (slices.stop - slices.start) // _FEW)
    seen = np.asarray(inputs[slices][::every, ::2, ::2])  # enough to see what part of the body it is
    bone, area = bone_and_body(seen)
    body_cm2 = area * 4 * spacing[1] * spacing[2] / 100
    if bone <= _MOST_BONE or body_cm2 >= _LEAST_TRUNK_CM2:
        return ""
    return (
        f"{bone:.0%} of the {body_cm2:.0f} cm2 of body around what looks like a liver is bone, as in a head; "
        "liver none computes it all the same"
    )


def _nothing(shape: Sequence[int], *warnings: str) -> SlabPrediction:
    """No liver."""
    depth, rows, columns = (int(length) for length in shape)
    empty = (slice(0, 0), slice(0, 0), slice(0, 0))
    no_voxels, no_rows = np.zeros((0, 0, 0), np.uint8), np.zeros((0, 1), np.float32)
    return SlabPrediction(no_voxels, no_rows, empty, (depth, rows, columns), warnings)
