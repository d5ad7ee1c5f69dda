"""Is it a CT in HU? Asked before training and before the network, which would outline something in any picture.

A CT holds air (about -1000 HU), fat (-100) and soft tissue (above 50 after contrast), so its values span hundreds of
units on both sides of zero. The limits below are ours, wide enough for a scan cropped to the trunk.
"""

from __future__ import annotations

import numpy as np

from liverseg.errors import NotCTError
from liverseg.imageio.volume import Volume

__all__ = ["BODY_HU", "body_middle", "bone_and_body", "check_ct"]

BODY_HU = -300
"""What is above is body, or the table it lies on."""
_LARGEST_HU = 30000
"""Twelve- and sixteen-bit scanners and metal stay far below; what is above is padding or no CT at all."""
_AIR = -200
_FAT = -50
_SOFT_TISSUE = 50
_SMALLEST_RANGE = 100
_BONE = 300
_FEWEST_SLICES = 3


def check_ct(volume: Volume, clipped_hu: tuple[float, float] | None = None) -> list[str]:
    """Refuse what cannot be a CT in HU, and say what is odd about the rest.

    Fractional values that reach neither fat nor soft tissue are taken for a normalised image or another modality and
    refused. Whole numbers like that (a CT with its surroundings masked out, say) are computed with a warning.

    Of an image whose HU are known to be clipped nobody can ask for air or fat, and it is one of a set of slices: it is
    refused where a value lies beyond the range.

    Args:
        volume: HU in any number type, all finite.
        clipped_hu: the range that HU were clipped to, lower and upper, where that is known.

    Returns:
        Warnings, one sentence each, for the case's record.

    Raises:
        LiversegError: if a value is beyond ±30000 or beyond `clipped_hu`, or the values are fractional and do not look
            like HU.
    """
    lowest, highest = float(volume.array.min()), float(volume.array.max())
    if max(-lowest, highest) > _LARGEST_HU:
        raise NotCTError(
            f"{volume.path}: values from {lowest:g} to {highest:g}; HU lie between -1024 and a few thousand: "
            "replace padding by -1024, or export the CT in HU"
        )
    found = f"values from {lowest:g} to {highest:g}"
    if clipped_hu is not None:
        if lowest < clipped_hu[0] or highest > clipped_hu[1]:
            raise NotCTError(
                f"{volume.path}: {found}, but its data list says that HU are clipped to {clipped_hu[0]:g} to "
                f"{clipped_hu[1]:g}; correct clipped_hu or the image"
            )
        return _orientation_warnings(volume)
    tissue = lowest < _FAT and highest > _SOFT_TISSUE and highest - lowest >= _SMALLEST_RANGE
    if not tissue and not _whole_numbers(volume):
        raise NotCTError(
            f"{volume.path}: {found} in fractions do not look like a CT in HU, which reaches from fat below {_FAT} to "
            f"tissue above {_SOFT_TISSUE}; give the CT itself, not normalised"
        )
    warnings = []
    if not tissue:
        warnings.append(f"does not look like a CT in HU: {found}")
    elif lowest >= _AIR:
        warnings.append(f"does not look like a CT in HU: no voxel below {_AIR} HU, {found}")
    warnings += _orientation_warnings(volume)
    slices = volume.array.shape[volume.slice_axis]
    if slices < _FEWEST_SLICES:
        warnings.append(f"{slices} {'slice' if slices == 1 else 'slices'}: edge slices are repeated as neighbours")
    return warnings


def bone_and_body(slices: np.ndarray) -> tuple[float, float]:
    """How much of the body is bone, 0 to 1, and how many pixels are body, each in the middle one of some axial slices.

    Bone is what is above 300 HU, body what is above -300. In the slices of a liver bone is a few hundredths, in those
    of a head a tenth and more.

    Args:
        slices: HU in axial order, shape (slice, row, column).
    """
    body = (slices > BODY_HU).sum(axis=(1, 2))
    bone = (slices > _BONE).sum(axis=(1, 2))
    return float(np.median(bone / np.maximum(body, 1))), float(np.median(body))


def _orientation_warnings(volume: Volume) -> list[str]:
    if volume.header["qform_code"] or volume.header["sform_code"]:
        return []
    return ["qform and sform code are 0: left, right, head and feet are a guess"]


def body_middle(slices: np.ndarray) -> float:
    """The mean column of the body, of what is above -300 HU, in some axial slices; the middle one where there is none.

    Args:
        slices: HU in axial order, shape (slice, row, column).
    """
    columns = np.arange(slices.shape[2])
    body = (slices > BODY_HU).sum(axis=(0, 1))
    return float(columns @ body / body.sum()) if body.any() else float(columns.mean())


def _whole_numbers(volume: Volume) -> bool:
    """True for values stored as integers and still whole after the header's scaling."""
    if volume.header.get_data_dtype().kind == "f":
        return False
    return volume.array.dtype.kind in "iu" or bool(np.all(volume.array == np.rint(volume.array)))
