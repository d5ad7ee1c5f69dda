"""Write report.html: a case's facts, lesions, key images and viewer in one file that works offline."""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from liverseg.imageio.volume import Volume
from liverseg.inference.lesion_measurements import LesionMeasurements
from liverseg.inference.lesions import LesionMap
from liverseg.inference.output.preview import NOTICE, WINDOW_HU
from liverseg.inference.output.report.lesion_table import lesion_table, swatch
from liverseg.inference.output.report.niivue import library_source, licences
from liverseg.inference.output.report.viewer_volume import ViewerVolume, ct_nifti, labels_nifti, viewer_volume
from liverseg.labels import LIVER, Label
from liverseg.utils.files import write_text
from liverseg.utils.html import read_markup, render

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["NOTICE", "encode_base64", "page_script", "report_html", "sha256_base64", "viewer_library", "write_report"]

_DISPATCH = (
    "\nwindow.dispatchEvent(new CustomEvent('niivue', { detail: { Niivue, NVImage, SLICE_TYPE, DRAG_MODE } }));\n"
)
"""Appended to the library: an inline module has no address to import it from, so it sends its exports as an event."""


def write_report(
    path: str | os.PathLike,
    case: str,
    volume: Volume,
    lesions: LesionMap,
    table: LesionMeasurements,
    labels: Sequence[Label],
    picture: bytes,
    facts: Mapping[str, str],
    warnings: Sequence[str],
) -> None:
    """Write a case's page, atomically, into an existing folder.

    Args:
        path: the .html to write.
        case: name of the case, which is the title.
        volume: the CT, HU.
        lesions: of the volume, in axial order.
        table: lesion table; mm, ml, HU, centroids in RAS+ mm.
        labels: label table with names and colours, in order of index.
        picture: the PNG of `draw_preview`.
        facts: of the case and the run, by name, in the order in which they are shown.
        warnings: shown first.

    Raises:
        LiversegError: if it cannot be written, or the installed package lacks a file.
    """
    write_text(path, report_html(case, volume, lesions, table, labels, picture, facts, warnings))


def report_html(
    case: str,
    volume: Volume,
    lesions: LesionMap,
    table: LesionMeasurements,
    labels: Sequence[Label],
    picture: bytes,
    facts: Mapping[str, str],
    warnings: Sequence[str],
) -> str:
    """Return the page; arguments and errors as in `write_report`. The same case gives the same text."""
    shown = viewer_volume(volume, lesions)
    viewer = page_script("viewer.js")
    library = viewer_library()
    return render(
        "report.html",
        script_hashes=[sha256_base64(script) for script in (viewer, library)],
        case=case,
        notice=NOTICE,
        warnings=warnings,
        facts=facts,
        legend=[swatch(label) for label in labels[LIVER:]],
        viewer_content=_describe_content(shown),
        lesions=lesion_table(table, labels),
        picture=encode_base64(picture),
        licences=licences(),
        viewer_facts=_viewer_facts(volume, table, labels),
        ct=encode_base64(ct_nifti(shown)),
        labels=encode_base64(labels_nifti(shown)),
        library=encode_base64(gzip.compress(library.encode(), mtime=0)),
        viewer=viewer,
    )


def page_script(name: str) -> Markup:
    """Return the script of a page with NiiVue: what such pages share, and a template of its own."""
    return read_markup("niivue.js") + read_markup(name)


def viewer_library() -> str:
    """Return NiiVue as the text of an inline module that dispatches its exports as the event "niivue"."""
    return library_source() + _DISPATCH


def sha256_base64(script: str) -> str:
    """Return a script's hash as a content security policy names it."""
    return encode_base64(hashlib.sha256(script.encode()).digest())


def _describe_content(shown: ViewerVolume) -> str:
    low, high = WINDOW_HU
    part = "all of the CT" if shown.is_full else "the part of the CT around the liver"
    text = f"The viewer holds {part}, in 8 bits between {low:g} and {high:g} HU".replace("-", "−")
    slices, rows, columns = shown.factors
    if shown.factors != (1, 1, 1):
        text += f"; blocks of {columns} × {rows} × {slices} voxels (columns, rows, slices) were averaged"
    return text + ". Figures in the table are of the full CT."


def _viewer_facts(volume: Volume, table: LesionMeasurements, labels: Sequence[Label]) -> dict[str, Any]:
    axes = ("centroid_x_mm", "centroid_y_mm", "centroid_z_mm")
    # a point's slice number in the file is its product with one row of the inverse affine
    to_slice = np.linalg.inv(volume.affine)[volume.slice_axis]
    return {
        "lesions": {str(row["id"]): [float(row[axis]) for axis in axes] for row in table.records()},
        "labels": [{"index": label.index, "name": label.name, "color": list(label.color)} for label in labels],
        "window_hu": list(WINDOW_HU),
        "to_slice": [float(number) for number in to_slice],
    }


def encode_base64(content: bytes) -> str:
    """Encode bytes for a page."""
    return base64.b64encode(content).decode("ascii")
