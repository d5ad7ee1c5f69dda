"""Checks of headers: spacing, orientation, and whether a label lies on its image's grid."""

from __future__ import annotations

import math

import nibabel as nib
import numpy as np
from nibabel.orientations import io_orientation

from liverseg.datalists.checks.findings import ERROR, WARNING, Finding
from liverseg.datalists.checks.reading import Grid
from liverseg.imageio.volume import affine_distance_mm

__all__ = ["FLIPPED", "RESET", "axis_codes", "grid_findings", "image_grid_findings", "spacing_findings", "turned_axes"]

FLIPPED = "flipped affine"
RESET = "reset affine"

_THICKEST_MM = 10.0
_MOST_OBLIQUE = 5.0
"""Degrees between an axis of the volume and the body's: slices are learned as axial ones."""
_FEWEST_SLICES = 3
_SAME = 1e-3
"""Share of a voxel's edge by which directions and spacings may differ: what single precision and tools round."""
_MEND = "liverseg datalist check --repair writes a copy with the image's affine"


def spacing_findings(name: str, grid: Grid) -> list[Finding]:
    """Spacings that are no lengths, of an image or of a label."""
    if all(math.isfinite(length) and length > 0 for length in grid.spacing):
        if grid.affine is not None:
            return []
        found = "its affine is singular or not finite"
    else:
        found = f"spacing {'×'.join(f'{length:g}' for length in grid.spacing)} mm in its header"
    return [Finding(name, ERROR, "spacing", f"{found}; lengths above 0 are needed: export it again")]


def image_grid_findings(name: str, grid: Grid, of_slices: bool = False) -> list[Finding]:
    """Slices that are few, thick or oblique, and an image whose header tells no orientation.

    Args:
        name: as the data list names it.
        grid: its own.
        of_slices: it is known to be one of a set of slices, where few are no defect.
    """
    findings = spacing_findings(name, grid)
    slices = grid.shape[grid.slice_axis]
    if slices < _FEWEST_SLICES and not of_slices:
        found = f"{slices} {'slice' if slices == 1 else 'slices'}: edge slices are repeated as neighbours"
        findings.append(Finding(name, WARNING, "few slices", f"{found}; give the whole series if there is one"))
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
    return findings


def axis_codes(affine: np.ndarray) -> str:
    """Where the array axes run to, as in LPS."""
    return "".join(nib.aff2axcodes(affine))


def grid_findings(name: str, label: Grid, image_name: str, image: Grid) -> list[Finding]:
    """Whether a label's voxels lie on its image's: at most one finding, the most telling."""
    theirs = f"its image {image_name}"
    if label.shape != image.shape:
        shapes = ["×".join(map(str, grid.shape)) for grid in (label, image)]
        found = f"shape {shapes[0]}, but {theirs} has {shapes[1]}; both must share one grid: resample or replace it"
        return [Finding(name, ERROR, "grid", found)]
    if label.affine is None or image.affine is None or not affine_distance_mm(image.affine, label.affine, image.shape):
        return []
    nobody_set_it = label.codes == (0, 0) != image.codes
    if nobody_set_it or _is_default(label.affine, image.affine):
        found = f"its header places it at the origin as if never set, {theirs} elsewhere; {_MEND}"
        return [Finding(name, ERROR, RESET, found)]
    if _is_flip(label.affine, image.affine):
        codes = f"axes run {axis_codes(label.affine)}, those of {theirs} {axis_codes(image.affine)}"
        return [Finding(name, ERROR, FLIPPED, f"{codes}, nothing else differs; {_MEND}")]
    return [Finding(name, ERROR, "grid", _difference(label.affine, image.affine, theirs))]


def turned_axes(label: np.ndarray, image: np.ndarray) -> tuple[int, ...]:
    """The array axes along which two affines run in opposite directions; none if their axes are not the same ones."""
    axes, others = io_orientation(label), io_orientation(image)
    if not np.array_equal(axes[:, 0], others[:, 0]):
        return ()
    return tuple(int(axis) for axis in np.flatnonzero(axes[:, 1] != others[:, 1]))


def _is_default(label: np.ndarray, image: np.ndarray) -> bool:
    """Axis-aligned with origin 0, as tools write when nobody tells them, where the image has an origin or a spacing."""
    directions = np.abs(label[:3, :3])
    edges = np.diag(directions)
    if np.abs(label[:3, 3]).max() > _SAME or not np.allclose(directions, np.diag(edges), atol=_SAME):
        return False
    has_origin = np.abs(image[:3, 3]).max() > _SAME
    has_spacing = not np.allclose(np.linalg.norm(image[:3, :3], axis=0), 1, rtol=_SAME)
    return bool(has_origin or (has_spacing and np.allclose(edges, 1, rtol=_SAME)))


def _is_flip(label: np.ndarray, image: np.ndarray) -> bool:
    """Equal but for the signs of array axes, or of body axes, as when LPS is taken for RAS."""
    one, other = label[:3, :3], image[:3, :3]
    for change in (np.linalg.solve(other, one), one @ np.linalg.inv(other)):
        signs = np.sign(np.diag(change))
        if (signs < 0).any() and np.allclose(change, np.diag(signs), atol=_SAME):
            return True
    return False


def _difference(label: np.ndarray, image: np.ndarray, theirs: str) -> str:
    edges, others = (np.linalg.norm(affine[:3, :3], axis=0) for affine in (label, image))
    what_to_do = "both must share one grid: resample or replace it"
    if not np.allclose(edges, others, rtol=_SAME):
        spacings = ["×".join(f"{edge:.4g}" for edge in lengths) for lengths in (edges, others)]
        return f"spacing {spacings[0]} mm, but {theirs} has {spacings[1]} mm; {what_to_do}"
    cosines = (label[:3, :3] / edges * (image[:3, :3] / others)).sum(axis=0)
    angle = math.degrees(math.acos(float(np.clip(cosines.min(), -1, 1))))
    if angle > 0.1:
        codes = f"{axis_codes(label)} against {axis_codes(image)}"
        return f"direction up to {angle:.3g} degrees from that of {theirs} ({codes}); {what_to_do}"
    apart = float(np.linalg.norm(label[:3, 3] - image[:3, 3]))
    return f"origin {apart:.3g} mm from that of {theirs}; {what_to_do}"
