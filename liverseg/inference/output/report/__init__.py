"""A case as one page: what was found, key images, and the CT to scroll through with its labels."""

from liverseg.inference.output.report.page import write_report

__all__ = ["write_report"]
