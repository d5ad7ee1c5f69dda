"""Two tables over a folder of results: one row per case, and one row per lesion."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from liverseg.errors import UnreadableError
from liverseg.results.case_folder import RECORD
from liverseg.utils.files import is_file, read_json, write_text

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SUMMARY", "summary_of", "write_statistics"]

SUMMARY = ("summary.csv", "lesions.csv")
JOINED = 500
"""Number of lesion tables that are joined as they are read: separate ones take many times the memory of their rows."""


def summary_of(output_dir: Path, cases: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Collect the results of cases; cases without a record are left out.

    Args:
        output_dir: folder with one folder per case.
        cases: names of the cases, in the order of the rows.

    Returns:
        A table with one row per case: `liver_ml` (with its lesions), `lesions`, one count per type, `lesions_ml` (total
        volume), `lesion_share` of the liver, `longest_diameter_mm` (of the longest lesion, empty without lesions),
        `contrast_phase` (estimated, empty without a liver), `seconds`, `warnings`, `input`; and a table with one row
        per lesion: `case` and the columns of `lesions.csv`.
    """
    import pandas as pd  # slow to import, and needed for several cases only

    rows, tables = [], []
    joined: list[pd.DataFrame] = []
    for case in cases:
        folder = output_dir / case
        if not is_file(folder / RECORD):
            continue
        try:
            record = read_json(folder / RECORD)
            lesions = pd.read_csv(folder / "lesions.csv", keep_default_na=True)
            volume, liver = float(lesions["volume_ml"].sum()), float(record["liver_ml"])
        except (UnreadableError, OSError, ValueError, KeyError, TypeError):
            continue  # incomplete, or being written by another run
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
        if len(tables) == JOINED:
            joined.append(_join(tables))
            tables.clear()
    no_rows = pd.DataFrame(columns=["case"])
    joined += [_join(tables)] if tables else []
    return pd.DataFrame(rows) if rows else no_rows, _join(joined) if joined else no_rows


def _join(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of all tables; if all are empty, the first."""
    import pandas as pd

    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def write_statistics(output_dir: Path, cases: Sequence[str]) -> None:
    """Write `summary.csv` and `lesions.csv` of `summary_of` into the folder of results.

    Raises:
        OutputError: if they cannot be written.
    """
    for name, table in zip(SUMMARY, summary_of(output_dir, cases), strict=True):
        write_text(output_dir / name, table.to_csv(index=False))
