"""liverseg: segment focal liver lesions on CT and name their type (cyst, hemangioma, metastasis).

Research software, not a medical device.

Example:
    >>> import liverseg
    >>> found = liverseg.predict("scan.nii.gz")  # doctest: +SKIP
    >>> found.lesions[["type", "volume_ml"]]  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

from liverseg.utils.lazy import lazy_imports
from liverseg.utils.torch_imports import ensure_user_name, sleep_while_waiting

if TYPE_CHECKING:
    from liverseg.errors import LiversegError
    from liverseg.followup import LiverComparison, compare
    from liverseg.imageio.volume import Volume
    from liverseg.inference.api import Model, Prediction, load_model, predict

__all__ = [
    "LiverComparison",
    "LiversegError",
    "Model",
    "Prediction",
    "Volume",
    "__version__",
    "compare",
    "load_model",
    "predict",
]

__version__ = "0.1.0"

ensure_user_name()

_WITH_TORCH = ("LiverComparison", "Model", "Prediction", "compare", "load_model", "predict")
_lazy_import = lazy_imports(
    __name__,
    {
        "errors": ("LiversegError",),
        "imageio.volume": ("Volume",),
        "inference.api": ("Model", "Prediction", "load_model", "predict"),
        "followup.api": ("compare",),
        "followup.comparison": ("LiverComparison",),
    },
)


def __getattr__(name: str) -> Any:
    if name in _WITH_TORCH:
        sleep_while_waiting()
    return _lazy_import(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
