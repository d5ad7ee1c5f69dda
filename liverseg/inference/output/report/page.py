"""report.html: facts, lesions, key images and viewer of a case in one file, which opens from disk without a network."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import pandas as pd

from liverseg.errors import LiversegError
from liverseg.imageio.volume import Volume
from liverseg.inference.lesions import LesionMap
from liverseg.inference.output.preview import NOTICE, WINDOW_HU, write_preview
from liverseg.inference.output.report.lesion_rows import lesion_rows, swatch
from liverseg.inference.output.report.shown_volume import ViewerVolume, ct_nifti, labels_nifti, viewer_volume
from liverseg.inference.output.report.vendor import library_source, licences
from liverseg.labels import LIVER, Label
from liverseg.utils.files import write_text

__all__ = ["NOTICE", "report_html", "write_report"]

_TEMPLATE = Path(__file__).parent / "template"
_HAND_OVER = (
    "\nwindow.dispatchEvent(new CustomEvent('niivue', { detail: { Niivue, NVImage, SLICE_TYPE, DRAG_MODE } }));\n"
)
"""A module that is not loaded from an address cannot be imported, so it says itself what it has."""


def write_report(
    path: str | os.PathLike,
    case: str,
    volume: Volume,
    lesions: LesionMap,
    table: pd.DataFrame,
    labels: Sequence[Label],
    facts: Mapping[str, str],
    warnings: Sequence[str],
) -> None:
    """Write a case's page, whole, into an existing folder.

    Args:
        path: the .html to write.
        case: its name, the title.
        volume: the CT, HU.
        lesions: of the volume, in axial order.
        table: their table; mm, ml, HU, centroids in RAS+ mm.
        labels: label table with names and colours, in order of index.
        facts: what to tell about the case and the run, in this order.
        warnings: what a reader has to know before all else.

    Raises:
        LiversegError: if it cannot be written, or the package lacks a file.
    """
    write_text(path, report_html(case, volume, lesions, table, labels, facts, warnings))


def report_html(
    case: str,
    volume: Volume,
    lesions: LesionMap,
    table: pd.DataFrame,
    labels: Sequence[Label],
    facts: Mapping[str, str],
    warnings: Sequence[str],
) -> str:
    """The page as one text; arguments and errors as for `write_report`. The same case gives the same text."""
    shown = viewer_volume(volume, lesions)
    viewer = _part("viewer.js")
    library = library_source() + _HAND_OVER
    return Template(_part("page.html")).substitute(
        policy=_policy(viewer, library),
        style=_part("style.css"),
        case=_escaped(case),
        notice=_escaped(NOTICE),
        warnings=_warnings(warnings),
        facts=_facts(facts),
        legend="\n".join(f"<li>{swatch(label)}</li>" for label in labels[LIVER:]),
        shown=_escaped(_describe_shown(shown)),
        lesions=lesion_rows(table, labels),
        picture=_picture(case, volume, lesions, table, labels),
        licences=_escaped(licences()),
        facts_of_viewer=_json(_viewer_facts(volume, table, labels)),
        ct=_base64(ct_nifti(shown)),
        labels=_base64(labels_nifti(shown)),
        library=_base64(gzip.compress(library.encode(), mtime=0)),
        viewer=viewer,
    )


def _policy(*scripts: str) -> str:
    """What the page may do: run these two scripts, show what is in it, and reach nothing outside."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    items = "\n".join(f"<li>{_escaped(warning)}</li>" for warning in warnings)
    head = "Warning" if len(warnings) == 1 else "Warnings"
    opening = f'<section class="warnings" role="alert" aria-label="{head}">'
    return f"{opening}\n<h2>{head}</h2>\n<ul>\n{items}\n</ul>\n</section>"


def _facts(facts: Mapping[str, str]) -> str:
    return "\n".join(
        f"<div><dt>{_escaped(str(name))}</dt><dd>{_escaped(str(value))}</dd></div>" for name, value in facts.items()
    )


def _describe_shown(shown: ViewerVolume) -> str:
    low, high = WINDOW_HU
    part = "all of the CT" if shown.whole else "the part of the CT around the liver"
    told = f"The viewer holds {part}, in 8 bits between {low:g} and {high:g} HU".replace("-", "−")
    slices, rows, columns = shown.factors
    if shown.factors != (1, 1, 1):
        told += f"; blocks of {columns} × {rows} × {slices} voxels (columns, rows, slices) were averaged"
    return told + ". Figures in the table are of the full CT."


def _viewer_facts(volume: Volume, table: pd.DataFrame, labels: Sequence[Label]) -> dict[str, Any]:
    axes = ("centroid_x_mm", "centroid_y_mm", "centroid_z_mm")
    # the file's own slice number of a place is one row of the inverse affine
    to_slice = np.linalg.inv(volume.affine)[volume.slice_axis]
    return {
        "lesions": {str(row["id"]): [float(row[axis]) for axis in axes] for row in table.to_dict("records")},
        "labels": [{"index": label.index, "name": label.name, "color": list(label.color)} for label in labels],
        "window_hu": list(WINDOW_HU),
        "to_slice": [float(number) for number in to_slice],
    }


def _picture(case: str, volume: Volume, lesions: LesionMap, table: pd.DataFrame, labels: Sequence[Label]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "preview.png"
        write_preview(path, case, volume, lesions, table, labels)
        return _base64(path.read_bytes())


def _json(content: Any) -> str:
    """JSON no HTML parser can take for a tag."""
    text = json.dumps(content, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _part(name: str) -> str:
    try:
        return (_TEMPLATE / name).read_text(encoding="utf-8")
    except OSError as error:
        raise LiversegError(f"{_TEMPLATE / name}: cannot be read ({error.strerror}); install liverseg again") from error


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _escaped(text: str) -> str:
    return html.escape(text, quote=True)
