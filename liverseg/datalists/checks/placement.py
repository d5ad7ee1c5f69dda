"""Check that a label map lies on its image's anatomy, by the HU under its liver.

Headers may agree although the voxels do not: some tools mirror, turn or shift a label map and keep the header. Liver is
soft tissue. Under a label map that lies elsewhere are lung, fat, air and bone as well. If one fits better mirrored,
turned or shifted along the slices, the finding says so.

It cannot see a label map that is moved within soft tissue, as by one or two slices, nor one of a CT whose HU were
clipped above fat, nor wrong details of an outline. A liver that reaches far to the left gives less when it is mirrored.

Image and label map are sampled on the same coarse grid, so that every file is still read once, and on its own.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import nibabel as nib
import numpy as np

from liverseg.datalists.checks.findings import ERROR, WARNING, Finding
from liverseg.imageio.grid import slice_axis
from liverseg.labels import LIVER

__all__ = ["LiverSample", "TissueSample", "placement_findings"]

_SAMPLES = 96
"""Samples per axis: 4 mm apart in a slice of 400 mm, and mostly every slice."""
_LUNG_HU, _FAT_HU, _BONE_HU = -200, -30, 250
"""Upper limits of air and lung and of fat, and lower limit of bone. Our choice: a fatty liver without contrast stays
above -30 but for noise, and a liver below 250 in every phase."""
_SOFT = 2
"""Code of soft tissue; 0 is air and lung, 1 fat, 3 bone."""
_PADDING = 4
"""Code of slices that hold one value throughout: they show no anatomy."""
_FEWEST = 200
"""Fewest sampled voxels of liver for a share of percents. Our choice."""
_MAX_SHIFT = 12
"""Largest shift along the slices that is tried, in slices."""
_KEPT = 0.7
"""Least share of the liver that a shift may leave within the image."""

_DOUBTFUL, _CLEAR, _ELSEWHERE = 0.03, 0.10, 0.15
"""Shares of a liver that is not soft tissue. Below the first, nothing is reported. From the second on, it is an error
if another placement fits much better; from the third on, a warning if none does. Our choice, on 8 phantoms and 5 real
CTs: at most 0.002 in place, 0.10 and more mirrored, 0.03 and more shifted by three slices of 1.5 to 5 mm."""
_MUCH_LESS, _LEAST_GAIN = 0.5, 0.02
"""A placement fits much better if its share is at most this part of the label map's own, and less by this."""
_AXIS_NAMES = {
    **dict.fromkeys("LR", "left to right"),
    **dict.fromkeys("AP", "front to back"),
    **dict.fromkeys("SI", "head to feet"),
}
_WHAT_TO_DO = "compare both in a viewer, and export the label map again"


@dataclass(frozen=True)
class TissueSample:
    """Kinds of tissue of an image at sampled voxels.

    Attributes:
        shape: samples per axis, in the file's axis order.
        codes: compressed bytes, one for each sample.
        clipped: whether HU are clipped so that fat and lung look like fluid.
    """

    shape: tuple[int, ...]
    codes: bytes
    clipped: bool = False

    @classmethod
    def from_hu(
        cls, hu: np.ndarray, slice_axis: int = 2, clipped_hu: tuple[float, float] | None = None
    ) -> TissueSample:
        """Sample an image.

        Args:
            hu: shape (I, J, K).
            slice_axis: axis along which slices are counted.
            clipped_hu: range that HU were clipped to, if known.
        """
        sampled = hu[_sampling(hu.shape)]
        codes = np.digitize(sampled, (_LUNG_HU, _FAT_HU, _BONE_HU)).astype(np.uint8)
        slices = np.moveaxis(sampled, slice_axis, 0)
        np.moveaxis(codes, slice_axis, 0)[(slices == slices[:, :1, :1]).all(axis=(1, 2))] = _PADDING
        clipped = clipped_hu is not None and clipped_hu[0] > _LUNG_HU
        return cls(sampled.shape, _compress(codes), clipped)

    def other(self) -> np.ndarray:
        """Return where tissue other than soft tissue is, shape as `shape`; padding counts as none."""
        codes = np.frombuffer(zlib.decompress(self.codes), np.uint8).reshape(self.shape)
        return np.asarray((codes != _SOFT) & (codes != _PADDING))


@dataclass(frozen=True)
class LiverSample:
    """The liver of a label map at sampled voxels.

    Attributes:
        shape: samples per axis, in the file's axis order.
        bits: compressed bits, one for each sample.
        steps: voxels between samples, per axis.
    """

    shape: tuple[int, ...]
    bits: bytes
    steps: tuple[int, ...]

    @classmethod
    def from_labels(cls, labels: np.ndarray) -> LiverSample:
        """Sample a label map, shape (I, J, K). Lesions are left out: they may hold gas, calcium or embolisates."""
        sampled = labels[_sampling(labels.shape)] == LIVER
        return cls(sampled.shape, _compress(np.packbits(sampled)), tuple(map(_step, labels.shape)))

    def liver(self) -> np.ndarray:
        """Return where the liver is, shape as `shape`."""
        bits = np.frombuffer(zlib.decompress(self.bits), np.uint8)
        return np.unpackbits(bits, count=int(np.prod(self.shape))).reshape(self.shape).astype(bool)


def _step(length: int) -> int:
    return max(1, -(-length // _SAMPLES))


def _sampling(shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Return every n-th voxel of each axis, as far from its end as from its start, so that samples can be mirrored."""
    return tuple(slice((length - 1) % _step(length) // 2, None, _step(length)) for length in shape)


def _compress(array: np.ndarray) -> bytes:
    return zlib.compress(np.ascontiguousarray(array).tobytes(), 1)


@dataclass(frozen=True)
class _Placement:
    """A way to place a label map on its image.

    Attributes:
        how: what was done to it, for the message.
        share: share of its liver that is not soft tissue, 0 to 1.
    """

    how: str
    share: float


def placement_findings(
    name: str, liver: LiverSample, image_name: str, tissue: TissueSample, affine: np.ndarray
) -> list[Finding]:
    """Report a label map whose liver covers lung, fat, air or bone: at most one finding.

    Args:
        name: path of the label map, as in the data list.
        liver: its sample.
        image_name: path of its image.
        tissue: the image's sample.
        affine: 4×4, of both, voxel index to RAS+ mm.
    """
    if tissue.clipped or liver.shape != tissue.shape:
        return []
    inside, other = liver.liver(), tissue.other()
    if inside.sum() < _FEWEST:
        return []
    share = _share(inside, other)
    if share < _DOUBTFUL:
        return []
    best = min(_alternatives(inside, other, affine, liver.steps), key=lambda placement: placement.share)
    found = f"{share:.0%} of its liver is air, lung, fat or bone in its image {image_name}"
    if best.share <= _MUCH_LESS * share and share - best.share >= _LEAST_GAIN:
        level = ERROR if share >= _CLEAR else WARNING
        return [Finding(name, level, "misplaced", f"{found}, {best.how} only {best.share:.0%}; {_WHAT_TO_DO}")]
    if share < _ELSEWHERE:
        return []
    return [Finding(name, WARNING, "misplaced", f"{found}; is it the label map of this image? {_WHAT_TO_DO}")]


def _share(inside: np.ndarray, other: np.ndarray) -> float:
    """Return the share of a liver that is not soft tissue."""
    return float(np.count_nonzero(inside & other)) / max(1, int(np.count_nonzero(inside)))


def _alternatives(
    inside: np.ndarray, other: np.ndarray, affine: np.ndarray, steps: tuple[int, ...]
) -> Iterator[_Placement]:
    """Yield a liver mirrored along one or more axes, turned within the slices, and shifted along them."""
    axis = slice_axis(affine)
    first, second = (number for number in range(3) if number != axis)
    names = [_AXIS_NAMES[code] for code in nib.aff2axcodes(affine)]
    for mirrored in product((False, True), repeat=3):
        axes = tuple(number for number in range(3) if mirrored[number])
        if axes:
            how = "mirrored " + " and ".join(names[number] for number in axes)
            yield _Placement(how, _share(np.flip(inside, axes), other))
    if inside.shape[first] == inside.shape[second]:
        for quarters, flipped in product((1, 3), (False, True)):
            turned = np.rot90(inside, quarters, (first, second))
            turned = np.flip(turned, first) if flipped else turned
            how = f"turned by 90 degrees within its slices{' and mirrored' if flipped else ''}"
            yield _Placement(how, _share(turned, other))
    count = int(inside.sum())
    for shift in range(1, _MAX_SHIFT // steps[axis] + 1):
        for low, high, towards in ((shift, None, 1), (None, -shift, -1)):
            target, source = [slice(None)] * 3, [slice(None)] * 3
            target[axis] = slice(low, high)
            source[axis] = slice(None, -shift) if towards > 0 else slice(shift, None)
            moved = inside[tuple(source)]
            if moved.sum() >= _KEPT * count:
                slices = shift * steps[axis]
                where = "head" if (affine[2, axis] > 0) == (towards > 0) else "feet"
                how = f"shifted by about {slices} {'slice' if slices == 1 else 'slices'} towards the {where}"
                yield _Placement(how, _share(moved, other[tuple(target)]))
