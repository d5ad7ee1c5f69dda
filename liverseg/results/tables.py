"""What a folder of results says in two tables: a row a case, a row a lesion."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from liverseg.results.case_folder import RECORD
from liverseg.utils.files import is_file, write_text

__all__ = ["SUMMARY", "summary_of", "write_statistics"]

SUMMARY = ("summary.csv", "lesions.csv")


def summary_of(output_dir: Path, cases: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Gather the results of cases; those without a record are left out.

    Args:
        output_dir: holds a folder for each case.
        cases: their names, in the order of the rows.

    Returns:
        A row a case: `liver_ml` (with its lesions), `lesions`, one count a type, `lesions_ml` (all lesions together),
        `lesion_share` of the liver, `longest_diameter_mm` (of the longest lesion, empty without one), `contrast_phase`
        (as estimated, empty without a liver), `seconds`, `warnings`, `input`; and a row a lesion: `case` and the
        columns of its `lesions.csv`.
    """
    rows, tables = [], []
    for case in cases:
        folder = output_dir / case
        if not is_file(folder / RECORD):
            continue
        try:
            record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            lesions = pd.read_csv(folder / "lesions.csv", keep_default_na=True)
            volume, liver = float(lesions["volume_ml"].sum()), float(record["liver_ml"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not whole, or just being written by another run
        rows.append(
            {
                "case": case,
                "liver_ml": liver,
                "lesions": record["lesions"],
                **record["lesions_by_type"],
                "lesions_ml": round(volume, 4),
                "lesion_share": round(volume / liver, 4) if liver else 0.0,
                "longest_diameter_mm": lesions["longest_diameter_mm"].max(),
                "contrast_phase": (record.get("contrast_phase") or {}).get("phase", ""),
                "seconds": round(sum(record["seconds"].values()), 3),
                "warnings": "; ".join(record["warnings"]),
                "input": record["input"]["path"],
            }
        )
        lesions.insert(0, "case", case)
        tables.append(lesions)
    found = [table for table in tables if len(table)] or tables[:1]
    nothing = pd.DataFrame(columns=["case"])
    return pd.DataFrame(rows) if rows else nothing, pd.concat(found, ignore_index=True) if found else nothing


def write_statistics(output_dir: Path, cases: Sequence[str]) -> None:
    """Write `summary.csv` and `lesions.csv` of `summary_of` into the folder of results.

    Raises:
        LiversegError: if they cannot be written.
    """
    for name, table in zip(SUMMARY, summary_of(output_dir, cases), strict=True):
        write_text(output_dir / name, table.to_csv(index=False))
