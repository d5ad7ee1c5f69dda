"""report.html: a case's findings, key images and a viewer of the CT with its labels on one page."""

from liverseg.inference.output.report.page import write_report

__all__ = ["write_report"]
