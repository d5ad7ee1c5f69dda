"""What has changed between two CTs of one patient: livers registered, lesions matched, growth, RECIST arithmetic."""

from liverseg.utils.lazy import lazy_imports

__all__ = ["LiverComparison", "compare"]

__getattr__ = lazy_imports(__name__, {"api": ("compare",), "comparison": ("LiverComparison",)})
