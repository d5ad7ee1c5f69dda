"""Checks of a label map's voxels: allowed values, a liver, and lesions that touch it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import cc3d
import numpy as np

from liverseg.datalists.checks.findings import ERROR, WARNING, Finding
from liverseg.datalists.checks.geometry import spacing_findings
from liverseg.datalists.checks.placement import LiverSample
from liverseg.datalists.checks.reading import ReadFile
from liverseg.imageio.boxes import bounding_box
from liverseg.imageio.grid import InspectedHeader
from liverseg.labels import FACE_CONNECTIVITY, LESION, LIVER

__all__ = ["LabelFacts", "check_label"]


@dataclass(frozen=True)
class LabelFacts:
    """Properties of a label map that comparisons with its image and items need.

    Attributes:
        grid: the label map's grid.
        values: label values that occur anywhere.
        on_slice: label values that occur on each annotated slice.
        liver: the liver at sampled voxels; None without a liver.
    """

    grid: InspectedHeader
    values: frozenset[int]
    on_slice: dict[int, frozenset[int]]
    liver: LiverSample | None = None


def check_label(
    name: str, file: ReadFile, allowed: Collection[int], slices: Collection[int], training: bool
) -> tuple[list[Finding], LabelFacts]:
    """Run all checks of one label map that need no other file.

    Args:
        name: path as in the data list.
        file: the file's content.
        allowed: values of the list's label table.
        slices: annotated slices, from 0 along the file's slice axis; those out of range are left out.
        training: whether a training item has it. A map without a liver is an error then, else a warning. A map of a
            single slice, which may be above or below the liver, gets a warning only.
    """
    findings = spacing_findings(name, file.grid)
    array = file.array
    training = training and array.shape[file.grid.slice_axis] > 1
    box = bounding_box(array)
    if box is None:
        found = "it is 0 throughout"
        findings.append(Finding(name, ERROR if training else WARNING, "empty label", f"{found}; outline the liver"))
        return findings, LabelFacts(file.grid, frozenset({0}), {})
    inside = array[box]
    counts = _counts(inside)
    findings += _value_findings(name, counts, allowed)
    values = frozenset(int(value) for value in counts if value == int(value))
    axis = file.grid.slice_axis
    on_slice = {
        k: frozenset(int(value) for value in np.unique(np.take(array, k, axis)) if value == int(value))
        for k in slices
        if k < array.shape[axis]
    }
    liver = LiverSample.from_labels(array) if LIVER in values else None
    if liver is None:
        found = f"no voxel of liver ({LIVER}); outline the liver as well"
        findings.append(Finding(name, ERROR if training else WARNING, "empty label", found))
    elif any(value >= LESION for value in values.intersection(allowed)):
        findings += _outside_findings(name, inside, max(allowed), file.grid)
    return findings, LabelFacts(file.grid, values, on_slice, liver)


def _counts(inside: np.ndarray) -> dict[float, int]:
    """Return the number of voxels of each value, including 0."""
    lowest, highest = inside.min(), inside.max()
    if inside.dtype.kind in "iu" and lowest >= 0 and highest < 256:
        # comparing value by value is faster than sorting and needs one byte per voxel
        counts = {float(v): int(np.count_nonzero(inside == v)) for v in range(min(int(highest), LESION + 2) + 1)}
        if highest > LESION + 2:
            rare = np.bincount(inside[inside > LESION + 2])
            counts |= {float(v): int(rare[v]) for v in np.flatnonzero(rare)}
        return {value: count for value, count in counts.items() if count}
    unique_values, voxels = np.unique(inside, return_counts=True)
    return {float(value): int(count) for value, count in zip(unique_values, voxels, strict=True)}


def _value_findings(name: str, counts: dict[float, int], allowed: Collection[int]) -> list[Finding]:
    fractions = [value for value in counts if value != int(value)]
    others = [value for value in counts if value == int(value) and int(value) not in {0, *allowed}]
    findings = []
    allowed_text = ", ".join(map(str, sorted(allowed)))
    for kind, values, what_to_do in (
        ("value", others, "correct it"),
        ("fractional value", fractions, "resample label maps by nearest neighbour"),
    ):
        if values:
            values_text = ", ".join(f"{value:g}" for value in values[:4]) + (", ..." if len(values) > 4 else "")
            voxels = sum(counts[value] for value in values)
            kinds = kind if len(values) == 1 else f"{kind}s"
            found = f"{kinds} {values_text} in {voxels} voxels; the list allows {allowed_text}"
            findings.append(Finding(name, ERROR, "label value", f"{found}: {what_to_do}"))
    return findings


def _outside_findings(name: str, inside: np.ndarray, highest: int, grid: InspectedHeader) -> list[Finding]:
    """Report lesions without a voxel that shares a face with the liver; values above `highest` are no lesions."""
    lesion = (inside >= LESION) & (inside <= highest)
    box = bounding_box(lesion)
    if box is None:
        return []
    near = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in box)
    components = cc3d.connected_components(lesion[near], connectivity=FACE_CONNECTIVITY[3])
    liver = inside[near] == LIVER
    count = int(components.max())
    touching = np.zeros(count + 1, bool)
    for axis in range(3):
        upper = tuple(slice(1, None) if k == axis else slice(None) for k in range(3))
        lower = tuple(slice(None, -1) if k == axis else slice(None) for k in range(3))
        touching[components[upper][liver[lower]]] = True
        touching[components[lower][liver[upper]]] = True
    outside = np.flatnonzero(~touching[1:]) + 1
    if outside.size == 0:
        return []
    voxels = int(np.isin(components, outside).sum())
    volume = f"{voxels} voxels"
    if grid.affine is not None:
        volume = f"{voxels * abs(float(np.linalg.det(grid.affine[:3, :3]))) / 1000:.3g} ml"
    found = f"{outside.size} of {count} lesions, {volume}, touch no liver; outline the liver around them or erase them"
    return [Finding(name, WARNING, "outside liver", found)]
