"""MONAI Label app: the joint bundle of liverseg for MONAI Label's clients."""

from __future__ import annotations

import logging
from typing import Any

from lib.infer import LiverLesionsInfer
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.tasks.infer_v2 import InferTask

import liverseg

logger = logging.getLogger(__name__)

MODEL = "liver_lesions"


class LiverLesionsApp(MONAILabelApp):
    """App with one model, `liver_lesions`. It trains nothing and selects no samples.

    Args:
        app_dir: this folder.
        studies: folder of images, or a DICOMweb server.
        conf: values of `--conf NAME VALUE`: `weights`, a file, by default those that come with liverseg; `device`, by
            default auto.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="liverseg",
            description="Liver and lesions on CT with lesion types. Research only, not a medical device.",
            version=liverseg.__version__,
        )

    def init_infers(self) -> dict[str, InferTask]:
        """Return the app's model."""
        task = LiverLesionsInfer(weights=self.conf.get("weights") or None, device=self.conf.get("device", "auto"))
        logger.info("%s: liverseg %s", MODEL, liverseg.__version__)
        return {MODEL: task}

    def init_strategies(self) -> dict[str, Any]:
        """Return nothing: the app selects no samples."""
        return {}
