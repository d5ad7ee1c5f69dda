"""Inference task: one CT to a label map and a table of its lesions, with liverseg's Python interface."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from typing import Any

import SimpleITK as sitk
from fastapi import HTTPException
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

import liverseg
from liverseg.errors import LiversegError
from liverseg.labels import JOINT_LABELS, result_labels

__all__ = ["LiverLesionsInfer"]

EXTENSIONS = (".nii.gz", ".nii", ".nrrd")
DEFAULT_EXTENSION = ".nii.gz"


class LiverLesionsInfer(InferTask):
    """Find the liver and its lesions in a CT: NIfTI, or a folder of DICOM files.

    The network is loaded with the first request and stays in memory. Requests are computed one at a time.

    Args:
        weights: trained weights; None for those that come with liverseg.
        device: auto, cpu, cuda or cuda:N.
    """

    def __init__(self, weights: str | None = None, device: str = "auto") -> None:
        labels = result_labels(len(JOINT_LABELS))[1:]
        super().__init__(
            type=InferType.SEGMENTATION,
            labels={label.name: label.index for label in labels},
            dimension=3,
            description="Liver, cysts, hemangiomas and metastases on portal venous CT. Research only.",
        )
        self._weights, self._device = weights, device
        self._model: Any = None
        self._lock = threading.Lock()

    def is_valid(self) -> bool:
        """Return True: the weights come with liverseg."""
        return True

    def model(self) -> Any:
        """Return the network, loaded once.

        Raises:
            LiversegError: if the weights or the device cannot be used.
        """
        if self._model is None:
            self._model = liverseg.load_model(self._weights, device=self._device)
        return self._model

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Compute the CT of a request.

        Args:
            request: `image`, a path; optionally `result_extension`, one of `EXTENSIONS`.

        Returns:
            Path of the label map, on the CT's grid, which the server removes; and `label_names`, `lesions`, a row for
            each lesion as in lesions.csv, `liver_ml` and `warnings`.

        Raises:
            HTTPException: 400 with the reason, if the CT or a parameter cannot be used. The server would answer a
                MONAILabelException without its reason.
        """
        extension = request.get("result_extension") or DEFAULT_EXTENSION
        if extension not in EXTENSIONS:
            allowed = ", ".join(EXTENSIONS)
            raise HTTPException(400, f"result_extension is {extension!r}; it must be one of {allowed}")
        try:
            with self._lock:
                found = self.model()(request["image"])
        except LiversegError as error:
            raise HTTPException(400, str(error)) from error
        number, path = tempfile.mkstemp(suffix=extension)
        os.close(number)
        sitk.WriteImage(found.to_sitk(), path, useCompression=True)
        return path, {
            "label_names": self.labels,
            "lesions": json.loads(found.lesions.to_json(orient="records")),
            "liver_ml": found.record["liver_ml"],
            "warnings": list(found.warnings),
        }
