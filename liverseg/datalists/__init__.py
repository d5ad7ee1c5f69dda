"""Data lists: model, importers, splits by patient."""

from liverseg.datalists.build import SOURCES, build_datalist
from liverseg.datalists.duplicate_patients import SharedPatients, find_shared_patients
from liverseg.datalists.importers.cohort import cohort_items
from liverseg.datalists.importers.decathlon import decathlon_items
from liverseg.datalists.importers.ircadb import ircadb_items
from liverseg.datalists.importers.lits import lits_items
from liverseg.datalists.importers.slices import SLICE_MM, slice_items
from liverseg.datalists.join import join_datalists
from liverseg.datalists.lesion_load import lesion_loads
from liverseg.datalists.model import (
    DataItem,
    DataList,
    contradicts_labelled,
    datalist_text,
    label_table,
    read_datalist,
    write_datalist,
)
from liverseg.datalists.splits import adopt_folds, assign_folds, hold_out

__all__ = [
    "SLICE_MM",
    "SOURCES",
    "DataItem",
    "DataList",
    "SharedPatients",
    "adopt_folds",
    "assign_folds",
    "build_datalist",
    "cohort_items",
    "contradicts_labelled",
    "datalist_text",
    "decathlon_items",
    "find_shared_patients",
    "hold_out",
    "ircadb_items",
    "join_datalists",
    "label_table",
    "lesion_loads",
    "lits_items",
    "read_datalist",
    "slice_items",
    "write_datalist",
]
