"""liverseg: segment focal liver lesions on CT and name their type (cyst, hemangioma, metastasis).

Research software, not a medical device.

Example:
    >>> import liverseg
    >>> found = liverseg.predict("scan.nii.gz")  # doctest: +SKIP
    >>> found.lesions[["type", "volume_ml"]]  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

from liverseg.utils.lazy import lazy_imports
from liverseg.utils.torch_imports import sleep_while_waiting

if TYPE_CHECKING:
    from liverseg.errors import LiversegError
    from liverseg.imageio.volume import Volume
    from liverseg.inference.api import Model, Prediction, load_model, predict

__all__ = ["LiversegError", "Model", "Prediction", "Volume", "__version__", "load_model", "predict"]

__version__ = "0.1.0"

_lazy_import = lazy_imports(
    __name__,
    {
        "LiversegError": "liverseg.errors",
        "Model": "liverseg.inference.api",
        "Prediction": "liverseg.inference.api",
        "Volume": "liverseg.imageio.volume",
        "load_model": "liverseg.inference.api",
        "predict": "liverseg.inference.api",
    },
)


def __getattr__(name: str) -> Any:
    if name in ("Model", "Prediction", "load_model", "predict"):
        sleep_while_waiting()  # before these import torch
    return _lazy_import(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
