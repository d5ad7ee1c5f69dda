"""The steps before and after the network, as MONAI dictionary transforms for a bundle's config.

A case is a dictionary:

- `case`: its name;
- `image`: the CT's path or a `Volume` in memory, then its HU in axial order;
- `volume`: the CT on its own grid;
- `input`: path, hash and size of the CT, for the record;
- `warnings`: sentences for the record; some may come with the case;
- `liver`: mask of the liver, if one is given;
- `pred`: the network's prediction, then the lesions found in it;
- `lesions`: the table of lesions.

Settings of one case come with it: `series` and `study` (of a DICOM folder), `liver_from` (its mask: a path or a
`Volume`) and `type_priors` (`with_type_priors`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from liverseg.bundle.validation import check_values
from liverseg.errors import GantryTiltError, LiversegError
from liverseg.evaluation.lesion_ranges import LesionRanges, unlike_training
from liverseg.imageio.archives import extracted
from liverseg.imageio.conversion import describe_volume
from liverseg.imageio.ct_check import check_ct
from liverseg.imageio.liver_mask import LiverSource
from liverseg.imageio.volume import Volume, is_nifti, read_volume
from liverseg.inference.failures import describe_cause
from liverseg.inference.lesions import find_lesions
from liverseg.inference.measurements import lesion_table, with_types
from liverseg.inference.prediction import SlabPrediction
from liverseg.labels import LESION_TYPES, result_labels
from liverseg.results.inputs import describe_input, unchanged_while_read

if TYPE_CHECKING:
    from liverseg.imageio.dicom_header import Slice

__all__ = [
    "FindLesionsd",
    "MeasureLesionsd",
    "ReadCTd",
    "ReadLiverd",
    "Steps",
    "with_type_priors",
]

Keys = str | Sequence[str]


def with_type_priors(prediction: SlabPrediction, priors: Mapping[str, float]) -> SlabPrediction:
    """Return a prediction whose type probabilities are those of a patient with given odds of each type.

    Bayes' rule for a network trained with other proportions (Saerens, Latinne and Decaestecker, Neural Computation 14,
    2002): each probability is multiplied by the prior of its type over that of the training, and all are scaled to sum
    to 1. The training's priors are taken to be equal; this is our choice, since weights records do not have them.

    Args:
        prediction: of a network with lesion types.
        priors: by type, above 0; only their proportions matter.

    Raises:
        LiversegError: if the priors are not for the network's types.
    """
    if not len(prediction.type_probabilities):
        return prediction
    if prediction.type_probabilities.shape[1] != len(LESION_TYPES) or set(priors) != set(LESION_TYPES):
        raise LiversegError(
            f"type priors of {', '.join(priors)}; they are for a network that names {', '.join(LESION_TYPES)}"
        )
    weighted = prediction.type_probabilities * np.array([priors[name] for name in LESION_TYPES], np.float32)
    # in float32 a row can underflow to 0 if its likely types have a prior near 0; it keeps the network's probabilities
    sums = weighted.sum(axis=1, keepdims=True)
    rows = np.where(sums > 0, weighted / np.maximum(sums, np.finfo(np.float32).tiny), prediction.type_probabilities)
    return replace(prediction, type_probabilities=rows)


@dataclass(frozen=True)
class Steps:
    """Transforms that are applied one after the other, as MONAI's `Compose` without its import."""

    transforms: Sequence[Callable[[Any], Any]]

    def __call__(self, data: Any) -> Any:
        """Apply all transforms."""
        for transform in self.transforms:
            data = transform(data)
        return data


class _DictionaryTransform:
    """The part of MONAI's `MapTransform` that is needed here, without its import: which entries a transform changes.

    Args:
        keys: entries to change.
        allow_missing_keys: skip entries that are not there.
    """

    def __init__(self, keys: Keys, allow_missing_keys: bool = False) -> None:
        self.keys = (keys,) if isinstance(keys, str) else tuple(keys)
        self.allow_missing_keys = allow_missing_keys

    def key_iterator(self, data: Mapping[Hashable, Any]) -> Iterator[Hashable]:
        """Yield the keys that are in the data.

        Raises:
            KeyError: if one is missing and that is not allowed.
        """
        for key in self.keys:
            if key in data:
                yield key
            elif not self.allow_missing_keys:
                raise KeyError(f"{type(self).__name__}: no {key!r} in the case; there are {', '.join(map(str, data))}")


class ReadCTd(_DictionaryTransform):
    """Read a CT, refuse images that cannot be one, and present it in axial order, neither copied nor resampled.

    Adds `volume`, `warnings`, `input` and, for a CT read from DICOM with DICOM results, `reference`, the
    `SeriesReference` of the results. The entry itself becomes HU of shape (slice, row, column), a view in the file's
    own number type.

    Args:
        keys: the entry with the path of a NIfTI file, of a folder of DICOM files or of a .zip of such a folder, or with
            a `Volume` from `to_volume`.
        series: the series to read of a DICOM study: its UID, its description or the end of its UID; by default an axial
            CT series, see `phase`. A case's own entry `series` takes precedence.
        phase: the contrast phase to read of a DICOM study: portal, arterial, delayed or native; by default portal
            venous is preferred among axial CT series of comparable length, then the one with most slices. Other CTs get
            a warning that their phase was not checked.
        untilt: move the slices of a tilted gantry onto an upright grid; otherwise they are refused.
        dicom_results: write DICOM results for a CT read from DICOM.
        keep_identifiers: keep patient, study and series of DICOM headers in results and errors; otherwise only UIDs,
            geometry and modality.

    Raises:
        UsageError: if a value is not allowed, see `liverseg.bundle.validation.RULES`.
        LiversegError: when a case is read, from `read_volume`, `choose_series` and `check_ct`.
    """

    def __init__(
        self,
        keys: Keys = "image",
        series: str | None = None,
        dicom_results: bool = True,
        keep_identifiers: bool = False,
        phase: str | None = None,
        untilt: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        check_values(phase=phase, untilt=untilt)
        self.series = series
        self.phase = phase
        self.untilt = untilt
        self.dicom_results = dicom_results
        self.keep_identifiers = keep_identifiers

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        for key in self.key_iterator(out):
            read = self._read(out[key], out.get("series") or self.series, out.get("study"))
            volume = read["volume"]
            warnings = [*out.get("warnings", ()), *volume.warnings, *check_ct(volume), *read["warnings"]]
            out.update(read, warnings=warnings)
            out[key] = volume.axial
        return out

    def _read(self, source: str | Path | Volume, series: str | None, study: str | None) -> dict[str, Any]:
        """Return the entries `volume`, `input`, `warnings` and, with DICOM results, `reference`."""
        unknown = [] if self.phase is None else [f"the CT is not DICOM: whether it is {self.phase} was not checked"]
        if isinstance(source, Volume):
            return {"volume": source, "input": describe_volume(source), "warnings": unknown}
        path = Path(source)
        with unchanged_while_read(path):
            if is_nifti(path):
                return {"volume": read_volume(path), "input": describe_input(path, [path]), "warnings": unknown}
            return self._read_dicom(path, series, study)

    def _read_dicom(self, path: Path, named: str | None, study: str | None) -> dict[str, Any]:
        # imported here: pydicom takes a while to import, and a run over NIfTI files does not need it
        from liverseg.imageio.dicom_select import choose_series, read_dicom_with_shifts
        from liverseg.inference.output.dicom_common import series_reference

        with extracted(path) as folder, _name_in_errors(path, folder):
            series = choose_series(folder, named, study, self.keep_identifiers, self.phase, _estimate_phase)
            try:
                volume, found = read_dicom_with_shifts(series, self.untilt)
            except GantryTiltError as error:
                raise GantryTiltError(f"{error}, which --untilt does (untilt=True in Python)") from error
            volume = replace(volume, path=path)
            description = series.description if self.keep_identifiers else None  # free text may contain names
            described: dict[str, Any] = {"uid": series.uid, "description": description, "slices": series.depth}
            if found.shifts is not None:
                described["tilt_degrees"] = round(found.tilt_degrees, 3)
            source = describe_input(path, series.files if path.is_dir() else [path], described)
            warnings = [*series.warnings, *found.warnings]
            read: dict[str, Any] = {"volume": volume, "input": source, "warnings": warnings}
            if self.dicom_results:
                try:
                    read["reference"] = series_reference(series, volume, self.keep_identifiers, found.shifts)
                except Exception as error:  # a series with odd tags still gets its labels
                    cause = _with_name(describe_cause(error), path, folder)
                    read["warnings"].append(f"no DICOM results: {cause}")
        return read


def _estimate_phase(slices: Sequence[Slice]) -> str | None:
    from liverseg.inference.contrast_phase import phase_of_slices  # with SciPy, for studies of several series alone

    return phase_of_slices(slices)


@contextmanager
def _name_in_errors(path: Path, folder: Path) -> Iterator[None]:
    """Name the zip in errors about the temporary folder it was extracted to."""
    try:
        yield
    except LiversegError as error:
        if str(folder) == str(path):
            raise
        raise type(error)(_with_name(str(error), path, folder)) from error


def _with_name(message: str, path: Path, folder: Path) -> str:
    """Return a message with a zip's path and name in place of those of the folder it was extracted to."""
    return message.replace(str(folder), str(path)).replace(folder.name, path.name)


class ReadLiverd(_DictionaryTransform):
    """Read the mask of the liver if there is one: adds `liver`, true in the liver, in axial order.

    Comes after `ReadCTd`, whose `volume` has the grid.

    Args:
        source: source of the livers, from `LiverSource.parse`. A case's own entry `liver_from` takes precedence.
        keys: the entry with the CT.

    Raises:
        LiversegError: from `LiverSource`, when a case is read.
    """

    def __init__(self, source: LiverSource, keys: Keys = "image", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.source = source

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        own = out.get("liver_from")
        if isinstance(own, Volume):
            out["liver"] = LiverSource().resample(own, out["volume"])
            out["input"] = {**out["input"], "liver": describe_volume(own)}
            return out
        source = self.source if own is None else LiverSource.parse(own).check()
        mask = source.find_mask(out["case"])
        if mask is not None:
            with unchanged_while_read(mask):
                out["liver"] = source.read(mask, out["volume"])
                out["input"] = {**out["input"], "liver": describe_input(mask, [mask])}
        return out


class FindLesionsd(_DictionaryTransform):
    """Dictionary form of `find_lesions`: a `SlabPrediction` becomes a `LesionMap`, with the case's priors if any.

    Args:
        keys: entries with a `SlabPrediction`.
        min_lesion_ml: smallest lesion to keep.
        min_confidence: smallest probability of the likeliest type; a lesion below it is indeterminate.
        lesion_threshold: smallest `lesion_score` to keep; 0 keeps all.
        min_liver_contact: smallest share of liver around a lesion to keep, see `liver_contact`; 0 keeps all.

    Raises:
        UsageError: if a value is not allowed, see `liverseg.bundle.validation.RULES`.
    """

    def __init__(
        self,
        keys: Keys = "pred",
        min_lesion_ml: float = 0.03,
        min_confidence: float = 0.0,
        lesion_threshold: float = 0.0,
        min_liver_contact: float = 0.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        check_values(
            min_lesion_ml=min_lesion_ml,
            min_confidence=min_confidence,
            lesion_threshold=lesion_threshold,
            min_liver_contact=min_liver_contact,
        )
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


class MeasureLesionsd(_DictionaryTransform):
    """Dictionary form of `lesion_table`: adds the table as `lesions`.

    Args:
        keys: the entry with a `LesionMap`.
        num_channels: output channels of the network, which determine its label table.
        lesion_ranges: measurements of the training's lesions, from the weights' record. Lesions that measure like none
            of them (`unlike_training`) are indeterminate. None skips the check.
    """

    def __init__(
        self,
        keys: Keys = "pred",
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
            if self.lesion_ranges and (reasons := unlike_training(out["lesions"].records(), self.lesion_ranges)):
                out[key] = out[key].mark_indeterminate(reasons)
                out["lesions"] = with_types(out["lesions"], out[key], self.labels)
        return out
