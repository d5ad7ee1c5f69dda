"""liverseg: segment focal liver lesions on CT and name their type (cyst, hemangioma, metastasis).

Research software, not a medical device.

Example:
    >>> import liverseg
    >>> found = liverseg.predict("scan.nii.gz")  # doctest: +SKIP
    >>> found.lesions[["type", "volume_ml"]]  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from liverseg.errors import LiversegError
    from liverseg.imageio.volume import Volume
    from liverseg.inference.api import Model, Prediction, load_model, predict

__all__ = ["LiversegError", "Model", "Prediction", "Volume", "__version__", "load_model", "predict"]

__version__ = "0.1.0"

_MODULES = {
    "LiversegError": "liverseg.errors",
    "Model": "liverseg.inference.api",
    "Prediction": "liverseg.inference.api",
    "Volume": "liverseg.imageio.volume",
    "load_model": "liverseg.inference.api",
    "predict": "liverseg.inference.api",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch and MONAI take seconds (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
