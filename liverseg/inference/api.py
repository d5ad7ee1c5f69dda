"""The public Python interface: predict one CT, or load a model once for many."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import nibabel as nib
import numpy as np

from liverseg.bundle.outputs import check_output_types
from liverseg.cases.discover import check_series, find_cases
from liverseg.errors import LiversegError, UsageError
from liverseg.imageio import conversion
from liverseg.imageio.conversion import Image, geometry_warnings, is_image, to_volume
from liverseg.imageio.volume import Volume
from liverseg.inference.evaluator import CaseEvaluator
from liverseg.inference.output.case_writer import CaseWriter
from liverseg.inference.output.record import complete_record
from liverseg.inference.predict import case_evaluator, unwrap_user_errors
from liverseg.labels import result_labels
from liverseg.results.case_folder import read_case_record

if TYPE_CHECKING:
    import pandas as pd
    import SimpleITK
    import torch
    from monai.data import MetaTensor
from liverseg.utils.files import ensure_writable

__all__ = ["Model", "Prediction", "load_model", "predict"]

_CASE = "ct"
"""Name of a case that has no file."""
_WORDS = ("auto", "none")
_MAX_NAME = 200
"""Longest name of a case in bytes: file systems allow 255, and temporary names are longer."""
PathOrImage: TypeAlias = str | os.PathLike | Image
Array: TypeAlias = Literal["labels", "lesion_ids"]


@dataclass(frozen=True)
class Prediction:
    """The result of one CT.

    Attributes:
        labels: label map on the CT's own grid, uint8, shape (I, J, K): 0 background, 1 liver, 2 cyst, 3 hemangioma,
            4 metastasis, 5 a lesion of indeterminate type.
        lesion_ids: number of the lesion at each voxel, as in `lesions`, 0 elsewhere; uint16, same shape.
        affine: 4×4, voxel index to RAS+ mm.
        lesions: one row a lesion, with the columns of `lesions.csv`: type, probabilities, volume in ml, diameters in mm
            and so on.
        record: the content of `record.json`: settings, versions, weights, warnings. Without an output folder it has no
            files and no time of writing.
        warnings: caveats for readers of the result, one sentence each. One of them says if the geometry of a
            MetaTensor or SimpleITK image is only the library's default, voxels of 1 mm.
        folder: the case's folder; None if nothing was written.
    """

    labels: np.ndarray = field(repr=False)
    lesion_ids: np.ndarray = field(repr=False)
    affine: np.ndarray = field(repr=False)
    lesions: pd.DataFrame = field(repr=False)
    record: dict[str, Any] = field(repr=False)
    warnings: tuple[str, ...]
    folder: Path | None
    _grid: Volume = field(repr=False)

    def to_sitk(self, which: Array = "labels") -> SimpleITK.Image:
        """Return the labels, or the lesion ids, as a SimpleITK image, in LPS mm as all SimpleITK images.

        It lies where SimpleITK places the CT, also if a NIfTI file has neither qform nor sform; `affine` is then that
        of nibabel.
        """
        return conversion.to_sitk(self._array(which), self._grid.itk_affine)

    def to_nibabel(self, which: Array = "labels") -> nib.Nifti1Image:
        """Return the labels, or the lesion ids, as a NIfTI image with the qform and sform codes of the CT."""
        return conversion.to_nibabel(self._array(which), self._grid)

    def to_metatensor(self, which: Array = "labels") -> MetaTensor:
        """Return the labels, or the lesion ids, as a MetaTensor of shape (1, I, J, K), in RAS+ mm."""
        return conversion.to_metatensor(self._array(which), self.affine)

    def _array(self, which: Array) -> np.ndarray:
        arrays = {"labels": self.labels, "lesion_ids": self.lesion_ids}
        if which not in arrays:
            raise ValueError(f"which is {which!r}; it must be labels or lesion_ids")
        return arrays[which]


class Model:
    """A network with its weights and settings, ready for any number of CTs. `load_model` makes it."""

    def __init__(self, evaluator: CaseEvaluator) -> None:
        self._metadata = evaluator.prepare()
        self._pipeline = replace(evaluator.pipeline, writer=None)
        self._writer = evaluator.pipeline.writer

    @property
    def weights(self) -> Path:
        """The weights file."""
        return self._metadata.weights

    @property
    def settings(self) -> dict[str, Any]:
        """The settings, as records contain them."""
        return dict(self._metadata.settings)

    def __call__(self, ct: PathOrImage, output: str | os.PathLike | None = None, **own: Any) -> Prediction:
        """Call `predict`."""
        return self.predict(ct, output, **own)

    def predict(
        self,
        ct: PathOrImage,
        output: str | os.PathLike | None = None,
        *,
        case: str | None = None,
        series: str | None = None,
        liver: PathOrImage | None = None,
    ) -> Prediction:
        """Find the liver and its lesions in one CT.

        Args:
            ct, output, case, series: as for `liverseg.predict`.
            liver: mask of this CT's liver, a path or an image; by default the model's setting.

        Raises:
            As `liverseg.predict`.
        """
        return self._predict(_item(ct, case, series, liver, output), output)

    def _predict(self, item: dict[str, Any], output: str | os.PathLike | None) -> Prediction:
        """Predict for an item of `_item`."""
        pipeline = self._pipeline
        if output is not None:
            pipeline = replace(pipeline, writer=self._writer_to(ensure_writable(output)))
        with unwrap_user_errors():
            data = pipeline(item)
        folder = None if output is None else Path(output).absolute() / item["case"]
        volume, lesions = data["volume"], data["pred"]
        labels, ids = volume.from_axial(lesions.labels), volume.from_axial(lesions.ids)
        return Prediction(
            labels=labels,
            lesion_ids=ids,
            affine=volume.affine,
            lesions=data["lesions"].to_frame(),
            record=self._record(data, folder),
            warnings=tuple(data["warnings"]),
            folder=folder,
            _grid=replace(volume, array=labels),
        )

    def _writer_to(self, output: str) -> CaseWriter:
        chosen = self._writer
        if chosen is None:
            return CaseWriter(output)
        return CaseWriter(output, chosen.preview, chosen.report, chosen.output_types)

    def _record(self, data: dict[str, Any], folder: Path | None) -> dict[str, Any]:
        written = None if folder is None else read_case_record(folder)
        if written is not None:
            return written
        labels = result_labels(self._pipeline.network.out_channels)
        record = complete_record(self._metadata, data["case"], data, labels, {})
        return json.loads(json.dumps(record))  # lists for tuples, as in the file


def load_model(
    weights: str | os.PathLike | None = None,
    *,
    liver: str | os.PathLike | None = None,
    device: str | torch.device | None = None,
    batch_size: int | None = None,
    amp: bool | Literal["auto"] | None = None,
    min_lesion_ml: float | None = None,
    min_liver_contact: float | None = None,
    min_confidence: float | None = None,
    lesion_threshold: float | None = None,
    output_types: Sequence[str] | None = None,
    dicom: bool | None = None,
    keep_identifiers: bool | None = None,
    phase: Literal["portal", "arterial", "delayed", "native"] | None = None,
    untilt: bool | None = None,
    preview: bool | None = None,
    report: bool | None = None,
    bundle: str | os.PathLike | None = None,
) -> Model:
    """Load a network once, for many CTs.

    Each argument that is None has the default of the bundle's `configs/inference.yaml`, as in `liverseg predict`.

    Args:
        weights: .safetensors, .pt or .pth; by default the file that `LIVERSEG_WEIGHTS` names, else the bundle's own
            trained weights, else those that come with liverseg.
        liver: "auto" finds the liver first; "none" labels all of the CT. A path is a mask, or a folder of masks named
            as their cases; `mask.nii.gz:5` takes label 5.
        device: "auto", "cpu", "cuda" or "cuda:N".
        batch_size: slabs computed at a time.
        amp: compute in bfloat16; "auto" does so where the hardware has it.
        min_lesion_ml: smallest lesion to keep, in ml.
        min_liver_contact: smallest share of liver around a lesion to keep, 0 to 1.
        min_confidence: smallest probability of a lesion's likeliest type, 0 to 1; below it the type is indeterminate.
        lesion_threshold: smallest `lesion_score` to keep, 0 to 1.
        output_types: with an output folder, files to write: "labels", "dicom-seg", "dicom-sr", "rtstruct" and
            "seg-nrrd". DICOM files are only written for a CT read from DICOM; other CTs get a warning instead.
        dicom: with an output folder, also write DICOM SEG and SR for a CT read from DICOM.
        keep_identifiers: keep patient, study and series of DICOM headers in DICOM results, records and errors.
        phase: contrast phase to read of a DICOM study with several series of comparable length: "portal", "arterial",
            "delayed" or "native"; by default portal venous is preferred.
        untilt: move DICOM slices of a tilted gantry onto an upright grid; by default they are refused.
        preview: with an output folder, write `preview.png`.
        report: with an output folder, write `report.html`.
        bundle: folder of the bundle; by default the joint bundle.

    Raises:
        TypeError: if `weights`, `liver` or `bundle` is no path; `Model.predict` takes masks in memory.
        LiversegError: if the weights or a setting cannot be used.

    Example:
        >>> import numpy as np, liverseg
        >>> model = liverseg.load_model(min_lesion_ml=0.1, device="cpu")
        >>> air = liverseg.Volume(np.full((64, 64, 4), -1000, np.int16), np.diag([5.0, 5.0, 5.0, 1.0]))
        >>> for ct in (air, air):
        ...     print(model.predict(ct).warnings[-1])
        no liver found
        no liver found
    """
    if is_image(liver):
        raise TypeError("liver is an image; load_model takes auto, none or a path: give the mask to predict")
    for name, path in (("weights", weights), ("bundle", bundle), ("liver", liver)):
        _check_path(path, name)
    is_path = liver is not None and str(liver).strip().lower() not in _WORDS
    evaluator = case_evaluator(
        weights=weights,
        bundle=bundle,
        liver=os.path.abspath(str(liver)) if is_path else liver,
        device=None if device is None else str(device),
        batch_size=batch_size,
        amp=amp,
        min_lesion_ml=min_lesion_ml,
        min_liver_contact=min_liver_contact,
        min_confidence=min_confidence,
        lesion_threshold=lesion_threshold,
        # a text is refused as it is, and not as a list of its letters
        output_types=output_types if output_types is None or isinstance(output_types, str) else list(output_types),
        dicom=dicom,
        keep_identifiers=keep_identifiers,
        phase=phase,
        untilt=untilt,
        preview=preview,
        report=report,
    )
    return Model(evaluator)


def predict(
    ct: PathOrImage,
    output: str | os.PathLike | None = None,
    *,
    case: str | None = None,
    series: str | None = None,
    weights: str | os.PathLike | None = None,
    liver: PathOrImage | None = None,
    device: str | torch.device | None = None,
    **settings: Any,
) -> Prediction:
    """Find the liver and its lesions in one CT, as `liverseg predict` does.

    Loading the network takes longer than a small CT; for several CTs call `load_model` once.

    Args:
        ct: path of a NIfTI file, of a folder of DICOM files or of a zip of one; or an image in memory: a SimpleITK
            image, a nibabel image, a MONAI MetaTensor or a `liverseg.Volume(array, affine)`. Voxels are HU.
        output: folder in which the case's folder is written; None writes nothing.
        case: name of the case and its folder; by default the file's name without its ending, "ct" for an image in
            memory.
        series: the series to read of a DICOM study: its UID or description; by default an axial CT series, see
            `phase` of `load_model`. Refused for a NIfTI file and for an image in memory.
        weights, device: as for `load_model`.
        liver: as for `load_model`, or a mask in memory.
        settings: further arguments of `load_model`.

    Returns:
        Labels and lesions on the CT's own grid; neither resampled nor reoriented.

    Raises:
        TypeError: if an argument is of another type, or `ct` or `liver` has several numbers a voxel.
        LiversegError: if the CT cannot be read, is not a CT in HU, or does not state where its voxels are; if weights
            or settings cannot be used; if the output cannot be written.

    Example:
        >>> import numpy as np, liverseg
        >>> hu = np.full((64, 64, 4), -1000, np.int16)  # air
        >>> found = liverseg.predict(liverseg.Volume(hu, np.diag([5.0, 5.0, 5.0, 1.0])), device="cpu")
        >>> found.labels.shape, len(found.lesions), found.warnings[-1]
        ((64, 64, 4), 0, 'no liver found')
    """
    setting, mask = (liver, None) if isinstance(liver, str | os.PathLike) else (None, liver)
    item = _item(ct, case, series, mask, output)  # before the network is loaded: mistakes are reported at once
    if output is not None:
        check_output_types(settings.get("output_types"), [item["image"]])
    return load_model(weights, liver=setting, device=device, **settings)._predict(item, output)


def _item(
    ct: PathOrImage,
    case: str | None = None,
    series: str | None = None,
    liver: PathOrImage | None = None,
    output: str | os.PathLike | None = None,
) -> dict[str, Any]:
    """Return the pipeline's item for a CT, after a check of the arguments of `predict`."""
    _check_path(output, "output")
    item: dict[str, Any]
    if isinstance(ct, str | os.PathLike):
        if not os.fspath(ct).strip():
            raise UsageError("ct is an empty path; give a NIfTI file, a folder of DICOM files or a zip of one")
        found = find_cases(ct)
        if len(found) != 1:
            raise UsageError(
                f"{os.fspath(ct)}: {len(found)} CTs; give one, or call load_model once and predict for each"
            )
        item = dict(found[0])
    elif isinstance(ct, list | tuple):
        raise TypeError(f"ct is a {type(ct).__name__}; for several CTs, call load_model once and predict for each")
    else:
        item = {"image": to_volume(ct, "ct"), "case": _CASE, "warnings": geometry_warnings(ct, "ct")}
    if case is not None:
        if not _is_folder_name(case):
            raise UsageError(
                f"case is {case!r}; it names a folder in the output, so it must be a text without / and control "
                f"characters, up to {_MAX_NAME} bytes, that does not begin with a dot"
            )
        item["case"] = case
    if series is not None:
        _check_series(series, item["image"])
        item["series"] = series
    if liver is not None:
        item["liver_from"] = _liver_mask(liver)
        if not isinstance(liver, str | os.PathLike):
            item["warnings"] = [*item.get("warnings", ()), *geometry_warnings(liver, "liver")]
    return item


def _check_path(path: object, name: str) -> None:
    """Refuse what is no path, and an empty path, which would be the current folder; None passes."""
    if path is None:
        return
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{name} is of type {type(path).__name__}; a path is needed")
    if not os.fspath(path).strip():
        raise UsageError(f"{name} is an empty path")


def _check_series(series: object, image: str | Volume) -> None:
    if not isinstance(series, str) or not series.strip():
        raise UsageError(f"series is {series!r}; it must be the UID or the description of a DICOM series")
    if isinstance(image, Volume):
        raise UsageError(f"series is {series!r}, but ct is an image in memory; only DICOM has series, so leave it out")
    check_series(series, [image])


def _is_folder_name(case: object) -> bool:
    if not isinstance(case, str) or not case or not case.isprintable():
        return False
    return not case.startswith(".") and "/" not in case and len(case.encode("utf-8", "replace")) <= _MAX_NAME


def _liver_mask(liver: PathOrImage) -> str | Volume:
    if isinstance(liver, str | os.PathLike):
        if str(liver).strip().lower() in _WORDS:
            raise UsageError(f"liver is {liver!r}; a mask is needed here: auto and none are settings of load_model")
        return str(liver)
    mask = to_volume(liver, "liver")
    inside = mask.array[mask.array != 0]
    if inside.size and inside.min() != inside.max():
        raise LiversegError(f"{mask.path}: several labels; give the liver alone, as labels == 5")
    return mask
