"""Checks of an image's voxels: HU, repeated slices, and digests that identify duplicates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from isal import isal_zlib
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

from liverseg.datalists.checks.findings import ERROR, WARNING, Finding
from liverseg.datalists.checks.geometry import image_grid_findings
from liverseg.datalists.checks.placement import TissueSample
from liverseg.datalists.checks.reading import ReadFile
from liverseg.errors import LiversegError
from liverseg.imageio.ct_check import check_ct
from liverseg.imageio.grid import InspectedHeader
from liverseg.imageio.volume import Volume

__all__ = ["ImageFacts", "check_image"]

_SAMPLES = 64
"""Samples per axis for histograms: a quarter of a million voxels are enough for shares of a percent."""
_PADDING = -1100
"""Below any tissue and air: scanners fill the corners outside their field of view with such values."""
_AIR = -500
_FAT = (-140, -60)
_SOFT_TISSUE = (0, 200)
_ANY_TISSUE = (-100, 300)
_OFFSET = 1024
"""Scanners add this to HU to store them unsigned; the rescale intercept subtracts it again."""
_SHIFTED_TISSUE = (_OFFSET - 160, _OFFSET + 240)
_SHARE_SHIFTED = 0.05
"""Bone and metal, which also have such values, fill far less of a trunk."""
_SHARE_SOFT = 0.10
_SHARE_FAT = 0.02
_SHARE_ANY = 0.01

_CANONICAL = axcodes2ornt(("L", "P", "S"))
"""DICOM's axis order, which most files have: their digests need no copy."""
_IDENTITY = np.array([[0, 1], [1, 1], [2, 1]])
_DIGEST_SLICES = 16


@dataclass(frozen=True)
class ImageFacts:
    """Properties of an image that comparisons with other files need.

    Attributes:
        grid: the image's grid.
        digests: digests of shape and HU, independent of the stored data type: of the array in the file's axis order,
            and in LPS order if that differs. A volume stored in two axis orders shares one digest.
        tissue: kinds of tissue at sampled voxels; None if the values are no HU.
    """

    grid: InspectedHeader
    digests: tuple[str, ...]
    tissue: TissueSample | None


def check_image(
    name: str, file: ReadFile, clipped_hu: tuple[float, float] | None = None
) -> tuple[list[Finding], ImageFacts]:
    """Run all checks of one CT that need no other file.

    Args:
        name: path as in the data list.
        file: the file's content.
        clipped_hu: `clipped_hu` of its items.
    """
    hu = _small_integers(file.array)
    findings = image_grid_findings(name, file.grid, of_slices=clipped_hu is not None)
    not_hu = _hu_findings(name, file, hu, clipped_hu)
    findings += not_hu
    findings += _gap_findings(name, hu, file.grid.slice_axis)
    digests = [_digest(hu)]
    if file.grid.affine is not None:
        turn = ornt_transform(io_orientation(file.grid.affine), _CANONICAL)
        if not np.array_equal(turn, _IDENTITY):
            digests.append(_digest(apply_orientation(hu, turn)))
    return findings, ImageFacts(
        file.grid, tuple(digests), None if not_hu else TissueSample.from_hu(hu, file.grid.slice_axis, clipped_hu)
    )


def _digest(hu: np.ndarray) -> str:
    """Return two checksums as text: enough to distinguish scans, in a tenth of the time of a cryptographic hash.

    Args:
        hu: (I, J, K), first axis fastest. A reoriented view is copied a few slices at a time.
    """
    crc, adler = 0, 1
    step = hu.shape[2] if hu.flags.f_contiguous else _DIGEST_SLICES
    for start in range(0, hu.shape[2], step):
        voxels = np.ascontiguousarray(hu[:, :, start : start + step].T).data  # memory order: no copy
        crc, adler = isal_zlib.crc32(voxels, crc), isal_zlib.adler32(voxels, adler)
    return f"{hu.shape} {hu.dtype} {crc:08x}{adler:08x}"


def _small_integers(array: np.ndarray) -> np.ndarray:
    """Convert to int16 if that loses nothing, so that equal HU have equal bytes; else return the array unchanged."""
    if array.dtype == np.int16:
        return array
    if array.min() < -32768 or array.max() > 32767:
        return array
    rounded = array.astype(np.int16)
    return rounded if array.dtype.kind in "iu" or np.array_equal(rounded, array) else array


def _hu_findings(name: str, file: ReadFile, hu: np.ndarray, clipped_hu: tuple[float, float] | None) -> list[Finding]:
    affine = np.eye(4) if file.grid.affine is None else file.grid.affine
    path = Path(name)
    try:
        warnings = check_ct(Volume(hu, affine, file.header, path), clipped_hu)
    except LiversegError as error:
        return [Finding(name, ERROR, "HU", str(error).removeprefix(f"{path}: "))]
    if clipped_hu is not None:  # its histogram has no air and perhaps no fat
        return []
    rescaled = _rescaled_finding(name, hu, file.grid.slice_axis)
    if rescaled:  # more specific than the warnings
        return [rescaled]
    # warnings about few slices are left out: image_grid_findings reports them
    hu_warnings = [warning for warning in warnings if "CT in HU" in warning]
    return [Finding(name, WARNING, "HU", f"{warning}; export it again if it is one") for warning in hu_warnings]


def _rescaled_finding(name: str, hu: np.ndarray, slice_axis: int) -> Finding | None:
    """Report a CT whose values are no longer HU, by the air, fat and soft tissue in its histogram."""
    steps = tuple(slice(None, None, max(1, n // _SAMPLES)) for n in hu.shape)
    values = hu[steps].ravel()
    values = values[values >= _PADDING]
    if values.size == 0:
        return None

    def share(low: int, high: int) -> float:
        return np.count_nonzero((values >= low) & (values < high)) / values.size

    if share(*_SHIFTED_TISSUE) >= _SHARE_SHIFTED and np.percentile(values, 1) > -_OFFSET / 4:
        tissue = values[(values >= _SHIFTED_TISSUE[0]) & (values < _SHIFTED_TISSUE[1])]
        found = f"tissue around {np.median(tissue):.0f}, nothing at -1000: looks unsigned, its rescale intercept lost"
        return Finding(name, ERROR, "rescaled", f"{found}; subtract {_OFFSET}, or export the CT in HU")
    if share(*_ANY_TISSUE) < _SHARE_ANY:
        found = f"{share(*_ANY_TISSUE):.1%} of it from {_ANY_TISSUE[0]} to {_ANY_TISSUE[1]} HU, where soft tissue is"
        return Finding(name, WARNING, "rescaled", f"{found}: looks rescaled; export the CT in HU")
    if share(*_SOFT_TISSUE) >= _SHARE_SOFT and share(*_FAT) < _SHARE_FAT and not _has_air_around(hu, slice_axis):
        found = f"no air below {_AIR} HU at its border and {share(*_FAT):.1%} fat ({_FAT[0]} to {_FAT[1]} HU)"
        return Finding(name, WARNING, "rescaled", f"{found}: looks rescaled, windowed or masked; export the CT in HU")
    return None


def _has_air_around(hu: np.ndarray, slice_axis: int) -> bool:
    """Whether there is air at the in-plane edges of any slice."""
    edges = (np.take(hu, index, axis) for axis in range(3) if axis != slice_axis for index in (0, -1))
    return any(bool(edge.min() < _AIR) for edge in edges)


def _gap_findings(name: str, hu: np.ndarray, slice_axis: int) -> list[Finding]:
    """Report slices that replace lost ones: copies of the slice before, or constant slices between others."""
    slices = np.moveaxis(hu, slice_axis, 0)
    # a few rows rule nearly every slice out; only the remaining slices are compared completely
    sample = slices[:, :: max(1, slices.shape[1] // 8), :: max(1, slices.shape[2] // 64)]
    corner = sample[:, :1, :1]
    flat = [int(k) for k in np.flatnonzero((sample == corner).all(axis=(1, 2))) if (slices[k] == slices[k, 0, 0]).all()]
    body = sorted(set(range(len(slices))) - set(flat))
    if not body:
        return []
    findings = []
    between = [k for k in flat if body[0] < k < body[-1]]
    if between:
        found = f"{_format_slices(between)} hold one value throughout, with others above and below"
        findings.append(Finding(name, WARNING, "slice gap", f"{found}; export the complete series again"))
    candidates = np.flatnonzero((sample[1:] == sample[:-1]).all(axis=(1, 2))) + 1
    repeated = [int(k) for k in candidates if k not in flat and np.array_equal(slices[k], slices[k - 1])]
    if repeated:
        found = f"{_format_slices(repeated)} repeat the slice before, voxel by voxel"
        findings.append(Finding(name, WARNING, "slice gap", f"{found}: padding for lost ones? Export the series again"))
    return findings


def _format_slices(slices: list[int]) -> str:
    numbers = ", ".join(map(str, slices[:8])) + (", ..." if len(slices) > 8 else "")
    return f"{len(slices)} {'slice' if len(slices) == 1 else 'slices'} ({numbers}, from 0)"
