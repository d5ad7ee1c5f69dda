"""Checks of headers: spacing, orientation, and whether a label is on its image's grid."""

from __future__ import annotations

import math

import nibabel as nib
import numpy as np
from nibabel.orientations import io_orientation

from liverseg.datalists.checks.findings import ERROR, WARNING, Finding
from liverseg.imageio.grid import InspectedHeader, affine_distance_mm

__all__ = ["FLIPPED", "RESET", "axis_codes", "grid_findings", "image_grid_findings", "spacing_findings", "turned_axes"]

FLIPPED = "flipped affine"
RESET = "reset affine"

_THICKEST_MM = 10.0
_MOST_OBLIQUE = 5.0
"""Degrees between an axis of the volume and the body's: networks are trained on axial slices."""
_FEWEST_SLICES = 3
_TOLERANCE = 1e-3
"""Tolerance of directions and spacings as a share of a voxel's edge: rounding by tools and single precision."""
_HOW_TO_REPAIR = "liverseg datalist check --repair writes a copy with the image's affine"


def spacing_findings(name: str, grid: InspectedHeader) -> list[Finding]:
    """Report spacings of an image or label that are not positive lengths, and the defects of its header."""
    findings = [Finding(name, ERROR, defect.kind, defect.message) for defect in grid.defects]
    if all(math.isfinite(length) and length > 0 for length in grid.pixdim):
        return findings
    # an unusable affine follows from an unusable spacing
    others = [finding for finding in findings if finding.defect != "spacing"]
    found = f"spacing {'×'.join(f'{length:g}' for length in grid.pixdim)} mm in its header"
    return [*others, Finding(name, ERROR, "spacing", f"{found}; lengths above 0 are needed: export it again")]


def image_grid_findings(name: str, grid: InspectedHeader, of_slices: bool = False) -> list[Finding]:
    """Report few, thick or oblique slices, and an image whose header has no orientation.

    Args:
        name: path as in the data list.
        grid: the image's grid.
        of_slices: whether the image is from a set of slices, where few slices are normal.
    """
    findings = spacing_findings(name, grid)
    slices = grid.shape[grid.slice_axis]
    if slices < _FEWEST_SLICES and not of_slices:
        found = f"{slices} {'slice' if slices == 1 else 'slices'}: edge slices are repeated as neighbours"
        findings.append(Finding(name, WARNING, "few slices", f"{found}; give the complete series if there is one"))
    if grid.affine is None:
        return findings
    edges = np.linalg.norm(grid.affine[:3, :3], axis=0)
    if edges[grid.slice_axis] > _THICKEST_MM:
        found = f"slices are {edges[grid.slice_axis]:.3g} mm apart, more than {_THICKEST_MM:g} mm"
        findings.append(Finding(name, WARNING, "thick slices", f"{found}; take a thinner series if there is one"))
    steepest = float(np.abs(grid.affine[:3, :3] / edges).max(axis=0).min())
    angle = math.degrees(math.acos(min(1.0, steepest)))
    if angle > _MOST_OBLIQUE:
        found = f"oblique by {angle:.1f} degrees, more than {_MOST_OBLIQUE:g}; resample it to axial slices"
        findings.append(Finding(name, WARNING, "oblique", found))
    if grid.codes == (0, 0):
        found = "qform and sform code are 0: left, right, head and feet are a guess; export it again"
        findings.append(Finding(name, WARNING, "orientation", found))
    if all(finding.defect != "spacing" for finding in findings):  # else its pixdim is reported already
        findings += [Finding(name, WARNING, "header", f"{warning}; export it again") for warning in grid.warnings]
    return findings


def axis_codes(affine: np.ndarray) -> str:
    """Return the directions of the array axes as letters, such as LPS."""
    return "".join(nib.aff2axcodes(affine))


def grid_findings(name: str, label: InspectedHeader, image_name: str, image: InspectedHeader) -> list[Finding]:
    """Report a label that is not on its image's grid: at most one finding, the most specific."""
    image_text = f"its image {image_name}"
    if label.shape != image.shape:
        shapes = ["×".join(map(str, grid.shape)) for grid in (label, image)]
        found = f"shape {shapes[0]}, but {image_text} has {shapes[1]}; both must share one grid: resample or replace it"
        return [Finding(name, ERROR, "grid", found)]
    if label.affine is None or image.affine is None or not affine_distance_mm(image.affine, label.affine, image.shape):
        return []
    never_set = label.codes == (0, 0) != image.codes
    if never_set or _is_default(label.affine, image.affine):
        found = f"its header places it at the origin as if never set, {image_text} elsewhere; {_HOW_TO_REPAIR}"
        return [Finding(name, ERROR, RESET, found)]
    if _is_flip(label.affine, image.affine):
        codes = f"axes run {axis_codes(label.affine)}, those of {image_text} {axis_codes(image.affine)}"
        return [Finding(name, ERROR, FLIPPED, f"{codes}, nothing else differs; {_HOW_TO_REPAIR}")]
    return [Finding(name, ERROR, "grid", _difference(label.affine, image.affine, image_text))]


def turned_axes(label: np.ndarray, image: np.ndarray) -> tuple[int, ...]:
    """Return the array axes along which two affines run in opposite directions; none if the axes are permuted."""
    axes, others = io_orientation(label), io_orientation(image)
    if not np.array_equal(axes[:, 0], others[:, 0]):
        return ()
    return tuple(int(axis) for axis in np.flatnonzero(axes[:, 1] != others[:, 1]))


def _is_default(label: np.ndarray, image: np.ndarray) -> bool:
    """Whether a label has a tool's default affine (axis-aligned, origin 0) and its image an origin or a spacing."""
    directions = np.abs(label[:3, :3])
    edges = np.diag(directions)
    if np.abs(label[:3, 3]).max() > _TOLERANCE or not np.allclose(directions, np.diag(edges), atol=_TOLERANCE):
        return False
    has_origin = np.abs(image[:3, 3]).max() > _TOLERANCE
    has_spacing = not np.allclose(np.linalg.norm(image[:3, :3], axis=0), 1, rtol=_TOLERANCE)
    return bool(has_origin or (has_spacing and np.allclose(edges, 1, rtol=_TOLERANCE)))


def _is_flip(label: np.ndarray, image: np.ndarray) -> bool:
    """Whether the affines differ only in the signs of array or body axes, as when LPS is taken for RAS."""
    label_axes, image_axes = label[:3, :3], image[:3, :3]
    for change in (np.linalg.solve(image_axes, label_axes), label_axes @ np.linalg.inv(image_axes)):
        signs = np.sign(np.diag(change))
        if (signs < 0).any() and np.allclose(change, np.diag(signs), atol=_TOLERANCE):
            return True
    return False


def _difference(label: np.ndarray, image: np.ndarray, image_text: str) -> str:
    edges, others = (np.linalg.norm(affine[:3, :3], axis=0) for affine in (label, image))
    what_to_do = "both must share one grid: resample or replace it"
    if not np.allclose(edges, others, rtol=_TOLERANCE):
        spacings = ["×".join(f"{edge:.4g}" for edge in lengths) for lengths in (edges, others)]
        return f"spacing {spacings[0]} mm, but {image_text} has {spacings[1]} mm; {what_to_do}"
    cosines = (label[:3, :3] / edges * (image[:3, :3] / others)).sum(axis=0)
    angle = math.degrees(math.acos(float(np.clip(cosines.min(), -1, 1))))
    if angle > 0.1:
        codes = f"{axis_codes(label)} against {axis_codes(image)}"
        return f"direction up to {angle:.3g} degrees from that of {image_text} ({codes}); {what_to_do}"
    distance = float(np.linalg.norm(label[:3, 3] - image[:3, 3]))
    return f"origin {distance:.3g} mm from that of {image_text}; {what_to_do}"
