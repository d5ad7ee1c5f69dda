"""report.html of a comparison: linked viewers of both CTs, the table of changes, and pictures lesion by lesion."""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from liverseg.followup.growth import Change, Trend, size_value
from liverseg.followup.matching import Status
from liverseg.followup.pictures import describe_change, draw_pair, type_groups
from liverseg.inference.output.preview import NOTICE, WINDOW_HU
from liverseg.inference.output.report.lesion_table import TableCell, swatch
from liverseg.inference.output.report.niivue import licences
from liverseg.inference.output.report.page import encode_base64, page_script, sha256_base64, viewer_library
from liverseg.inference.output.report.viewer_volume import ct_nifti, labels_nifti, viewer_volume
from liverseg.labels import LIVER, Label
from liverseg.utils.html import render

if TYPE_CHECKING:
    from liverseg.followup.comparison import LesionChange, LiverComparison
    from liverseg.followup.examination import Examination
    from liverseg.followup.registration import DisplacementField

__all__ = ["comparison_facts", "comparison_html", "recist_facts"]

_MOST_VOXELS = 5_000_000
"""Of each CT: half of a case's page, so that a page with two is no larger."""
_MOST_PICTURES = 40
_PAGE_FIELD_MM = 12.0
"""Step of the displacements in the page; the crosshairs need them to about a voxel."""
_HEADS = (
    ("Lesion", ""),
    ("Status", ""),
    ("Ids", "baseline → follow-up"),
    ("Type", ""),
    ("Longest diameter", "mm"),
    ("Change", "mm (limit)"),
    ("Short diameter", "mm"),
    ("Volume", "ml"),
    ("Change", "ml (limit)"),
    ("Centres apart", "mm"),
    ("", ""),
)
_MISSING = "–"


@dataclass(frozen=True)
class _Value:
    text: str
    small: str = ""
    trend: str = ""


def comparison_html(comparison: LiverComparison) -> str:
    """Return the page of a comparison. The same comparison gives the same text.

    Raises:
        LiversegError: if the installed package lacks a file.
    """
    baseline, followup = comparison.baseline, comparison.followup
    viewer, library = page_script("comparison.js"), viewer_library()
    shown = {"baseline": viewer_volume(baseline.volume, baseline.lesions, _MOST_VOXELS)}
    shown["followup"] = viewer_volume(followup.volume, followup.lesions, _MOST_VOXELS)
    names = [str(examination.record["case"]) for examination in (baseline, followup)]
    sides = [
        {
            "id": side,
            "head": head,
            "name": name,
            "ct": encode_base64(ct_nifti(volume)),
            "labels": encode_base64(labels_nifti(volume)),
        }
        for (side, volume), head, name in zip(shown.items(), ("Baseline", "Follow-up"), names, strict=True)
    ]
    pictured = comparison.changes[:_MOST_PICTURES]
    return render(
        "comparison.html",
        script_hashes=[sha256_base64(script) for script in (viewer, library)],
        title=f"{names[0]} → {names[1]}",
        notice=NOTICE,
        warnings=comparison.warnings,
        facts=comparison_facts(comparison),
        recist=recist_facts(comparison),
        legend=[swatch(label) for label in baseline.labels[LIVER:]],
        viewer_content=_describe_content([volume.is_full for volume in shown.values()]),
        heads=_HEADS,
        rows=[_row(change, baseline.labels) for change in comparison.changes],
        pictures=[
            {
                "number": change.number,
                "text": describe_change(change),
                "content": encode_base64(draw_pair(comparison, change)),
            }
            for change in pictured
        ],
        more_pictures=len(comparison.changes) - len(pictured),
        sides=sides,
        licences=licences(),
        viewer_facts=_viewer_facts(comparison),
        library=encode_base64(gzip.compress(library.encode(), mtime=0)),
        viewer=viewer,
    )


def comparison_facts(comparison: LiverComparison) -> dict[str, str]:
    """Describe a comparison by name: counts, growth, registration."""
    quality = comparison.registration.quality
    counts = [f"{count} {name}" for name, count in comparison.counts().items() if count]
    trends = [f"{count} {name}" for name, count in comparison.trends().items() if count]
    liver = comparison.to_json()["liver_ml"]
    return {
        "Interval": "not known" if comparison.days is None else f"{comparison.days} days",
        "Lesions": ", ".join(counts) or "none at either examination",
        "Longest diameters": ", ".join(trends) or "none to compare",
        "Liver with lesions": f"{liver['baseline']:.0f} → {liver['followup']:.0f} ml",
        "Surfaces apart after registration": f"{quality.surface_mean_mm:.1f} mm on average, 95 % within "
        f"{quality.surface_p95_mm:.1f} mm",
        "Smallest Jacobian in the liver": f"{quality.min_jacobian:.2f}"
        + (f", folded in {100 * quality.folded_share:.1f} %" if quality.folded_share else ", no folding"),
        "Tolerance of a lesion’s place": f"{comparison.tolerance_mm:.1f} mm and the difference of the radii",
    }


def recist_facts(comparison: LiverComparison) -> dict[str, str]:
    """Describe the arithmetic of RECIST 1.1 by name."""
    recist = comparison.recist
    targets = ", ".join(map(str, recist.targets)) or f"none of {recist.smallest_target_mm:g} mm or more"
    facts = {"Targets, baseline ids": targets}
    if recist.targets:
        after = _MISSING if recist.followup_sum_mm is None else f"{recist.followup_sum_mm:.1f} mm"
        facts["Sum of longest diameters"] = f"{recist.baseline_sum_mm:.1f} mm → {after}"
    if recist.change_mm is not None and recist.change_percent is not None:
        facts["Change of the sum"] = _minus(f"{recist.change_mm:+.1f} mm, {recist.change_percent:+.1f} %")
    facts["Of the targets"] = recist.of_targets.value
    facts["New lesions, follow-up ids"] = ", ".join(map(str, recist.new_lesions)) or "none"
    facts["With new lesions"] = recist.overall.value
    facts["Because"] = _minus("; ".join(recist.reasons))
    return facts


def _describe_content(full: Sequence[bool]) -> str:
    low, high = (f"{number:g}".replace("-", "−") for number in WINDOW_HU)
    part = "all of each CT" if all(full) else "the part of each CT around the liver"
    return f"The viewers hold {part}, in 8 bits between {low} and {high} HU, and coarser if it is large."


def _row(change: LesionChange, labels: Sequence[Label]) -> dict[str, Any]:
    by_name = {label.name: label for label in labels}
    before, after = change.before, change.after
    status = change.match.status
    kind = {Status.NEW: "new", Status.GONE: "gone"}.get(status, "")
    return {
        "number": change.number,
        "status": status.value,
        "kind": kind,
        "target": change.target,
        "ids": f"{_ids(change.match.baseline)} → {_ids(change.match.followup)}",
        "types": [
            [swatch(by_name[name]) if name in by_name else TableCell(name) for name in group]
            for group in type_groups(change)
        ],
        "cells": [
            _both(size_value(before, "longest_mm"), size_value(after, "longest_mm"), 1),
            _difference(change.longest, 1),
            _both(size_value(before, "short_mm"), size_value(after, "short_mm"), 1),
            _both(size_value(before, "volume_ml"), size_value(after, "volume_ml"), 2),
            _difference(change.volume, 2),
            _Value(_MISSING if change.distance_mm is None else f"{change.distance_mm:.1f}"),
        ],
        "note": change.note,
    }


def _ids(ids: Sequence[int]) -> str:
    return "+".join(map(str, ids)) or _MISSING


def _both(before: float | None, after: float | None, digits: int) -> _Value:
    texts = [_MISSING if value is None else f"{value:.{digits}f}" for value in (before, after)]
    return _Value(" → ".join(texts))


def _difference(change: Change | None, digits: int) -> _Value:
    if change is None:
        return _Value(_MISSING)
    trend = "" if change.trend is Trend.STABLE else change.trend.value
    percent = f"{change.percent:+.0f} %" if np.isfinite(change.percent) else ""
    detail = f"{percent}, {change.trend.value}" if percent else change.trend.value
    return _Value(_minus(f"{change.difference:+.{digits}f} (±{change.limit:.{digits}f})"), _minus(detail), trend)


def _minus(text: str) -> str:
    """Write the minus of numbers as a sign that is as wide as a digit."""
    return re.sub(r"-(?=\d)", "−", text)


def _viewer_facts(comparison: LiverComparison) -> Mapping[str, Any]:
    registration = comparison.registration
    sides = {
        "baseline": (comparison.baseline, registration.forward),
        "followup": (comparison.followup, registration.backward),
    }
    return {
        "lesions": {
            str(change.number): {"baseline": list(change.baseline_mm), "followup": list(change.followup_mm)}
            for change in comparison.changes
        },
        "labels": [
            {"index": label.index, "name": label.name, "color": list(label.color)}
            for label in comparison.baseline.labels
        ],
        "window_hu": list(WINDOW_HU),
        "sides": {
            side: {"to_slice": _to_slice(examination), "field": _packed_field(field)}
            for side, (examination, field) in sides.items()
        },
    }


def _to_slice(examination: Examination) -> list[float]:
    """Return the row of the inverse affine whose product with a point, RAS+ mm, is the slice number in the file."""
    volume = examination.volume
    return [float(number) for number in np.linalg.inv(volume.affine)[volume.slice_axis]]


def _packed_field(field: DisplacementField) -> dict[str, Any]:
    """Return displacements on a coarser grid in tenths of a millimetre, int16 in base64; x runs fastest."""
    every = max(1, round(_PAGE_FIELD_MM / field.step))
    vectors = field.vectors[::every, ::every, ::every]
    tenths = np.clip(np.rint(10 * vectors), -32767, 32767).astype("<i2")
    return {
        "origin": [float(number) for number in field.origin],
        "step": field.step * every,
        "size": list(tenths.shape[:3]),
        "vectors": encode_base64(np.ascontiguousarray(tenths.transpose(2, 1, 0, 3)).tobytes()),
    }
