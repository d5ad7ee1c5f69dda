"""Data lists: model, importers, splits by patient."""

from liverseg.datalists.build import SOURCES, build_datalist
from liverseg.datalists.cohort import cohort_items
from liverseg.datalists.lits import lits_items
from liverseg.datalists.model import (
    DataItem,
    DataList,
    label_table,
    read_datalist,
    write_datalist,
)
from liverseg.datalists.splits import assign_folds, hold_out

__all__ = [
    "SOURCES",
    "DataItem",
    "DataList",
    "assign_folds",
    "build_datalist",
    "cohort_items",
    "hold_out",
    "label_table",
    "lits_items",
    "read_datalist",
    "write_datalist",
]
