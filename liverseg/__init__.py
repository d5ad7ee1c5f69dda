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

_WITH_TORCH = ("Model", "Prediction", "load_model", "predict")
_lazy_import = lazy_imports(
    __name__,
    {"errors": ("LiversegError",), "imageio.volume": ("Volume",), "inference.api": _WITH_TORCH},
)


def __getattr__(name: str) -> Any:
    if name in _WITH_TORCH:
        sleep_while_waiting()
    return _lazy_import(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
