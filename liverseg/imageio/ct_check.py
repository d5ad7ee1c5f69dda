"""Check that a volume is a CT in HU, before training and inference: the network would outline lesions in any image.

A CT holds air (about -1000 HU), fat (-100) and soft tissue (above 50 after contrast), so its values span hundreds of
units on both sides of zero. The limits below are ours, wide enough for a scan cropped to the trunk.
"""

from __future__ import annotations

import numpy as np

from liverseg.errors import NotCTError
from liverseg.imageio.volume import Volume

__all__ = ["BODY_HU", "body_middle", "bone_and_body", "check_ct"]

BODY_HU = -300
"""Voxels above are body or scanner table."""
_MAX_HU = 30000
"""Scanners of twelve and sixteen bits, and metal, stay far below; higher values are padding or not a CT."""
_AIR_HU = -200
_FAT_HU = -50
_SOFT_TISSUE_HU = 50
_MIN_RANGE_HU = 100
_BONE_HU = 300
_OFFSET = 1024
"""Scanners add this to HU to store them unsigned."""
_MIN_SLICES = 3


def check_ct(volume: Volume, clipped_hu: tuple[float, float] | None = None) -> list[str]:
    """Refuse a volume that cannot be a CT in HU, and warn about unusual ones.

    Values stored as floating-point numbers that reach neither fat nor soft tissue are a normalised image or another
    modality and are refused. Integers with the same range, as of a CT with masked surroundings, are accepted with a
    warning.

    An image whose HU are known to be clipped need not hold air or fat, and is one of a set of slices. It is refused if
    a value is outside the range.

    Args:
        volume: HU in any data type, all finite.
        clipped_hu: lower and upper limit that HU were clipped to, if known.

    Returns:
        Warnings, one sentence each, for the case's record.

    Raises:
        LiversegError: if a value is beyond ±30000 or beyond `clipped_hu`, or the values are floating-point numbers
            and do not look like HU.
    """
    lowest, highest = float(volume.array.min()), float(volume.array.max())
    if max(-lowest, highest) > _MAX_HU:
        raise NotCTError(
            f"{volume.path}: values from {lowest:g} to {highest:g}; HU are between -1024 and a few thousand: "
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
    tissue = lowest < _FAT_HU and highest > _SOFT_TISSUE_HU and highest - lowest >= _MIN_RANGE_HU
    if not tissue and not _is_integral(volume):
        raise NotCTError(f"{volume.path}: {found}{_describe_not_hu(volume, lowest, highest)}")
    warnings = []
    if not tissue:
        warnings.append(f"does not look like a CT in HU: {found}")
    elif lowest >= _AIR_HU:
        warnings.append(f"does not look like a CT in HU: no voxel below {_AIR_HU} HU, {found}")
    warnings += _orientation_warnings(volume)
    slices = volume.array.shape[volume.slice_axis]
    if slices < _MIN_SLICES:
        warnings.append(f"{slices} {'slice' if slices == 1 else 'slices'}: edge slices are repeated as neighbours")
    return warnings


def bone_and_body(slices: np.ndarray) -> tuple[float, float]:
    """Return the share of the body that is bone, 0 to 1, and the pixels of body, as medians over axial slices.

    Bone is above 300 HU, body above -300. In slices of a liver a few hundredths of the body are bone, in those of a
    head a tenth and more.

    Args:
        slices: HU in axial order, shape (slice, row, column).
    """
    body = (slices > BODY_HU).sum(axis=(1, 2))
    bone = (slices > _BONE_HU).sum(axis=(1, 2))
    return float(np.median(bone / np.maximum(body, 1))), float(np.median(body))


def _orientation_warnings(volume: Volume) -> list[str]:
    if volume.header["qform_code"] or volume.header["sform_code"]:
        return []
    return [
        "qform and sform code are 0: left, right, front, back, head and feet are a guess, that of nibabel; ITK and 3D "
        "Slicer exchange front and back, so positions in mm are not theirs"
    ]


def body_middle(slices: np.ndarray) -> float:
    """Return the mean column of the body, above -300 HU, in axial slices; the middle column if there is no body.

    Args:
        slices: HU in axial order, shape (slice, row, column).
    """
    columns = np.arange(slices.shape[2])
    body = (slices > BODY_HU).sum(axis=(0, 1))
    return float(columns @ body / body.sum()) if body.any() else float(columns.mean())


def _describe_not_hu(volume: Volume, lowest: float, highest: float) -> str:
    """Describe why values stored as floating-point numbers are no HU, and what to do, to follow their range."""
    expected = f"do not look like a CT in HU, which reaches from fat below {_FAT_HU} to tissue above {_SOFT_TISSUE_HU}"
    if not np.array_equal(volume.array, np.rint(volume.array)):
        return f" in fractions {expected}; give the CT itself, not normalised"
    if lowest >= 0 and highest >= _OFFSET:
        return f" {expected}; subtract {_OFFSET} if that was added to store it, or export the CT in HU"
    return f" {expected}; export the CT in HU, neither windowed nor normalised"


def _is_integral(volume: Volume) -> bool:
    """Return whether values are stored as integers and still integral after the header's scaling."""
    if volume.header.get_data_dtype().kind == "f":
        return False
    return volume.array.dtype.kind in "iu" or bool(np.all(volume.array == np.rint(volume.array)))
