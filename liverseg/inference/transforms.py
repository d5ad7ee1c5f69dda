"""The steps before and after the network, as MONAI dictionary transforms a bundle's config can name.

A case is a dictionary: `image` (path, then HU in axial order), `volume` (the CT on its own grid), `warnings` (sentences
for its record), `liver` (its mask, where one is given), `pred` (the network's prediction, then the lesions found in it)
and `lesions` (their table). Where cases differ in more than their CT it also begins with `series` and `study` (which of
a DICOM folder's), `liver_from` (its own mask's path) and `type_priors` (`with_type_priors`).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform

from liverseg.errors import LiversegError, UsageError
from liverseg.evaluation.lesion_ranges import LesionRanges, unlike_training
from liverseg.imageio.archives import extracted
from liverseg.imageio.ct_check import check_ct
from liverseg.imageio.liver_mask import LiverSource, liver_source
from liverseg.imageio.volume import is_nifti, read_volume
from liverseg.inference.failures import describe_cause
from liverseg.inference.lesions import find_lesions
from liverseg.inference.measurements import lesion_table, with_types
from liverseg.inference.prediction import SlabPrediction
from liverseg.labels import LESION_TYPES, result_labels
from liverseg.results.inputs import describe_input, unchanged_while_read

__all__ = [
    "FindLesionsd",
    "MeasureLesionsd",
    "ReadCTd",
    "ReadLiverd",
    "with_type_priors",
]


def with_type_priors(prediction: SlabPrediction, priors: Mapping[str, float]) -> SlabPrediction:
    """A prediction whose type probabilities are those of a patient with these odds of each type.

    Bayes' rule for a network that has learnt from other proportions (Saerens, Latinne and Decaestecker, Neural
    Computation 14, 2002): each probability is multiplied by the prior of its type over that of the training, and all
    are scaled to sum to 1. That of the training is taken to be the same for every type; this is ours, since records of
    weights do not tell it.

    Args:
        prediction: of a network that names types.
        priors: by type, above 0; only their proportions matter.

    Raises:
        LiversegError: if they are not of the network's types.
    """
    if not len(prediction.type_probabilities):
        return prediction
    if prediction.type_probabilities.shape[1] != len(LESION_TYPES) or set(priors) != set(LESION_TYPES):
        raise LiversegError(
            f"type priors of {', '.join(priors)}; they are for a network that names {', '.join(LESION_TYPES)}"
        )
    weighted = prediction.type_probabilities * np.array([priors[name] for name in LESION_TYPES], np.float32)
    # float32 can lose all of a row whose likely types have a prior near 0: nothing is known of such a voxel then
    sums = weighted.sum(axis=1, keepdims=True)
    rows = np.where(sums > 0, weighted / np.maximum(sums, np.finfo(np.float32).tiny), prediction.type_probabilities)
    return replace(prediction, type_probabilities=rows)


class ReadCTd(MapTransform):
    """Read a CT from its path, refuse what is none, and present it in axial order without copying or resampling.

    Adds `volume`, `warnings`, `input` (path, SHA-256 and size, for its record) and, where it came as DICOM and DICOM
    comes out, `reference`, the `SeriesReference` for it. The entry itself becomes HU of shape (slice, row, column), a
    view in the file's own number type.

    Args:
        keys: the entry with the path: of a NIfTI file, a folder of DICOM files or a .zip of such a folder.
        series: which of a study's series is read: its UID, description or the end of its UID; by default the axial CT
            series with most slices. A case's own entry `series` goes before it.
        dicom_results: DICOM is to come out where it comes in.
        keep_identifiers: what DICOM headers say of patient, study and series may be told, in results and in errors;
            else nothing of them is but UIDs, geometry and modality.

    Raises:
        LiversegError: from `read_volume`, `choose_series` and `check_ct`.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        series: str | None = None,
        dicom_results: bool = True,
        keep_identifiers: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.series = series
        self.dicom_results = dicom_results
        self.keep_identifiers = keep_identifiers

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        for key in self.key_iterator(out):
            path = Path(out[key])
            read: dict[str, Any]
            with unchanged_while_read(path):
                if is_nifti(path):
                    read = {"volume": read_volume(path), "input": describe_input(path, [path]), "warnings": []}
                else:
                    read = self._read_dicom(path, out.get("series") or self.series, out.get("study"))
            out.update(read)
            out["warnings"] = [*check_ct(read["volume"]), *read["warnings"]]
            out[key] = out["volume"].axial
        return out

    def _read_dicom(self, path: Path, named: str | None, study: str | None) -> dict[str, Any]:
        # here, not above: pydicom takes a while to import, and a run over NIfTI files does not need it
        from liverseg.imageio.dicom_select import choose_series, read_dicom_volume
        from liverseg.inference.output.dicom_common import series_reference

        with extracted(path) as folder, _told_of(path, folder):
            series = choose_series(folder, named, study, self.keep_identifiers)
            volume = replace(read_dicom_volume(series), path=path)
            description = series.description if self.keep_identifiers else None  # free text, where names may stand
            about = {"uid": series.uid, "description": description, "slices": len(series.files)}
            facts = describe_input(path, series.files if path.is_dir() else [path], about)
            read: dict[str, Any] = {"volume": volume, "input": facts, "warnings": []}
            if self.dicom_results:
                try:
                    read["reference"] = series_reference(series, volume, self.keep_identifiers)
                except Exception as error:  # what is odd in a series' tags must not cost the case its labels
                    read["warnings"].append(f"no DICOM results: {describe_cause(error)}")
        return read


@contextmanager
def _told_of(path: Path, folder: Path) -> Iterator[None]:
    """Errors about a folder that a zip was unpacked to, and that is gone when they are read, name the zip instead."""
    try:
        yield
    except LiversegError as error:
        if str(folder) == str(path):
            raise
        raise type(error)(str(error).replace(str(folder), str(path))) from error


class ReadLiverd(MapTransform):
    """Read the liver's mask where one is given: adds `liver`, true in it, in axial order.

    Comes after `ReadCTd`, whose `volume` has the grid.

    Args:
        source: where it comes from, see `liver_source`.
        keys: the entry with the CT.

    Raises:
        LiversegError: when it reads, from `LiverSource`.
    """

    def __init__(self, source: LiverSource, keys: KeysCollection = "image", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.source = source

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        source = self.source if out.get("liver_from") is None else liver_source(out["liver_from"])
        mask = source.mask_of(out["case"])
        if mask is not None:
            with unchanged_while_read(mask):
                out["liver"] = source.read(mask, out["volume"])
                out["input"] = {**out["input"], "liver": describe_input(mask, [mask])}
        return out


class FindLesionsd(MapTransform):
    """Dictionary form of `find_lesions`: a `SlabPrediction` becomes a `LesionMap`, by the case's priors if it has any.

    Args:
        keys: entries with a `SlabPrediction`.
        min_lesion_ml: smallest lesion that is kept.
        min_confidence: least probability of the likeliest type; below it a lesion is indeterminate.
        lesion_threshold: least score of a lesion that is kept; 0 keeps all.
        min_liver_contact: least share of liver around a lesion that is kept, see `liver_contact`; 0 keeps all.

    Raises:
        UsageError: if one is not a number of at least 0, or confidence, threshold or contact above 1.
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        min_lesion_ml: float = 0.03,
        min_confidence: float = 0.0,
        lesion_threshold: float = 0.0,
        min_liver_contact: float = 0.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if isinstance(min_lesion_ml, bool) or not isinstance(min_lesion_ml, int | float) or not min_lesion_ml >= 0:
            raise UsageError(f"min_lesion_ml is {min_lesion_ml!r}; it must be a volume in ml, 0 or more")
        for name, value, what in (
            ("min_confidence", min_confidence, "a probability"),
            ("lesion_threshold", lesion_threshold, "a probability"),
            ("min_liver_contact", min_liver_contact, "a share"),
        ):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise UsageError(f"{name} is {value!r}; it must be {what}, 0 to 1")
        self.min_lesion_ml = float(min_lesion_ml)
        self.min_confidence = float(min_confidence)
        self.lesion_threshold = float(lesion_threshold)
        self.min_liver_contact = float(min_liver_contact)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        for key in self.key_iterator(out):
            priors = out.get("type_priors")
            prediction = out[key] if priors is None else with_type_priors(out[key], priors)
            out[key] = find_lesions(
                prediction,
                out["volume"].voxel_ml,
                self.min_lesion_ml,
                self.min_confidence,
                self.lesion_threshold,
                self.min_liver_contact,
            )
        return out


class MeasureLesionsd(MapTransform):
    """Dictionary form of `lesion_table`: adds the table as `lesions`.

    Args:
        keys: the entry with a `LesionMap`.
        num_channels: channels of the network, which say what its label table is.
        lesion_ranges: what the training's lesions measured, from the weights' record; lesions that measure like none
            of them (`unlike_training`) are indeterminate. None judges none.
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        num_channels: int = 5,
        lesion_ranges: LesionRanges | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.labels = result_labels(num_channels)
        self.lesion_ranges = lesion_ranges

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        for key in self.key_iterator(out):
            out["lesions"] = lesion_table(out[key], out["volume"], self.labels)
            if self.lesion_ranges and (reasons := unlike_training(out["lesions"], self.lesion_ranges)):
                out[key] = out[key].indeterminate(reasons)
                out["lesions"] = with_types(out["lesions"], out[key], self.labels)
        return out
