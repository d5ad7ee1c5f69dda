"""The fine pass: every voxel of the windows is labelled, and where the liver reaches a side of one, it grows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from liverseg.imageio.boxes import Box, box_shape
from liverseg.inference.components import keep_largest_liver, within_liver
from liverseg.inference.prediction import SlabPrediction, joined
from liverseg.inference.stages import Stages
from liverseg.inference.windows import STRIDE, Margin, Stride, beyond, grown

__all__ = ["fine_pass"]


def fine_pass(
    run: Callable[..., SlabPrediction],
    windows: Sequence[Box],
    margin: Margin,
    liver: np.ndarray | None,
    stages: Stages,
    stride: Stride = (STRIDE, STRIDE),
) -> SlabPrediction:
    """Label the windows and what they must grow to.

    Args:
        run: labels a `box` and tells `tell` the voxels of each batch.
        windows: at least one, in order.
        margin: how much they grow at a time, twice as much the next time: a side that is reached again is far from the
            liver's end, and each step there costs a pass.
        liver: mask of all of the volume, where one was given.
        stages: is told how much of it is done.
        stride: as for `windows_around`.

    Returns:
        One liver, or the given one, with its lesions, in the box that holds all that was labelled.
    """
    wanted, labelled = sum(map(_voxels, windows)), 0

    def tell(more: int) -> None:
        nonlocal labelled
        labelled += more
        stages.done(labelled / wanted)

    def label(window: Box) -> SlabPrediction:
        return run(box=window, tell=tell)

    parts = [label(window) for window in windows]
    while True:
        found = joined(parts)
        found = keep_largest_liver(found) if liver is None else within_liver(found, np.asarray(liver[found.box], bool))
        before, after = beyond(found, parts[0].box, parts[-1].box, margin)
        pieces: list[SlabPrediction | Box] = [before] if before else []
        for part in parts:
            pieces += _regrown(part, grown(found, part.box, margin, stride))
        pieces += [after] if after else []
        wanted = labelled + sum(_voxels(piece) for piece in pieces if isinstance(piece, tuple))
        if wanted == labelled:
            return found
        parts = [label(piece) if isinstance(piece, tuple) else piece for piece in pieces]
        margin = (2 * margin[0], 2 * margin[1], 2 * margin[2])


def _regrown(part: SlabPrediction, window: Box | None) -> list[SlabPrediction | Box]:
    """A part, or what is left of it beside a window that takes the place of some of its slices."""
    if window is None:
        return [part]
    slices, own = window[0], part.box[0]
    pieces: list[SlabPrediction | Box] = [window]
    if own.start < slices.start:
        pieces.insert(0, part.on_slices(slice(own.start, slices.start)))
    if slices.stop < own.stop:
        pieces.append(part.on_slices(slice(slices.stop, own.stop)))
    return pieces


def _voxels(box: Box) -> int:
    return math.prod(box_shape(box))
