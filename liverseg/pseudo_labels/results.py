"""The table of a run, in which a person decides which cases are kept, and the data list and page made from it."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from liverseg.datalists import DataItem, DataList, label_table, write_datalist
from liverseg.datalists.model import LABELLED
from liverseg.errors import LiversegError, UnreadableError, one_line
from liverseg.pseudo_labels.cases import OutlinedCase, picture_path
from liverseg.pseudo_labels.checks import Measures, OutlineLimits
from liverseg.results.case_folder import write_json
from liverseg.study.document import Block, Heading, Items, Paragraph, Picture, Table, to_html
from liverseg.utils.csv_table import read_csv
from liverseg.utils.files import atomic_write, is_file, write_text

__all__ = [
    "ACCEPTED",
    "DATALIST",
    "FAILED",
    "PAGE",
    "REFUSED",
    "TABLE",
    "PseudoLabelMetadata",
    "copy_decisions",
    "is_kept",
    "read_metadata",
    "read_table",
    "relative_path",
    "results_table",
    "write_metadata",
    "write_results",
]

TABLE, DATALIST, PAGE, _METADATA = "pseudo_labels.csv", "datalist.json", "index.html", "run.json"
ACCEPTED, REFUSED, FAILED = "accepted", "refused", "failed"
_KEEP = ("", "yes", "no")
_DECIMALS = {
    "volume_ml": 0,
    "largest_part": 4,
    "right_of_midline_mm": 1,
    "median_hu": 0,
    "flip_agreement": 4,
    "network_agreement": 4,
}
_COLUMNS = (
    *("case", "keep", "status", "reason"),
    *("volume_ml", "largest_part", "cut_off", "right_of_midline_mm", "median_hu"),
    *("flip_agreement", "network_agreement", "warnings", "image", "label", "label_sha256"),
)
_NEEDED = ("case", "keep", "status", "reason", "image", "label")
_LABELS = 3
"""Rows of the pre-training bundle's label table. For label maps of the liver only, both bundles' tables agree."""


@dataclass(frozen=True)
class PseudoLabelMetadata:
    """Properties that all cases of a run share.

    Attributes:
        name: name of the data list, and prefix of the names of its patients.
        source: where the CTs come from, and which network outlined them.
        licence: licence of the CTs.
        dataset_dir: absolute folder that the list's paths are relative to.
        fold: fold of the list's items.
        networks: names of the weights; the first network's masks are written.
        limits: limits of accepted outlines.
    """

    name: str
    source: str
    licence: str
    dataset_dir: str
    fold: int
    networks: tuple[str, ...]
    limits: Mapping[str, Any]


def write_metadata(output: Path, metadata: PseudoLabelMetadata) -> None:
    """Write `run.json`.

    Raises:
        OutputError: if it cannot be written.
    """
    with atomic_write(output / _METADATA) as temporary:
        write_json(temporary, asdict(metadata))


def read_metadata(output: Path) -> PseudoLabelMetadata:
    """Read the `run.json` of a run.

    Raises:
        LiversegError: if it is missing or was not written by `write_metadata`.
    """
    path = output / _METADATA
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return PseudoLabelMetadata(**{**content, "networks": tuple(content["networks"])})
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise UnreadableError(
            f"{path}: not the record of a run ({one_line(error)}); the table must be in the folder that "
            "`liverseg pseudo-label` wrote it to"
        ) from error


def relative_path(path: Path, dataset_dir: Path) -> str:
    """Return a path as it is written in a data list.

    Raises:
        LiversegError: if the path is not UTF-8, which JSON needs.
    """
    relative = Path(os.path.relpath(path, dataset_dir)).as_posix()
    try:
        relative.encode("utf-8")
    except UnicodeEncodeError as error:
        escaped = relative.encode("utf-8", "backslashreplace").decode()
        raise UnreadableError(f"{escaped}: a name that is not UTF-8, which no data list can hold; rename it") from error
    return relative


def results_table(
    cases: Sequence[str],
    done: Mapping[str, OutlinedCase],
    failures: Mapping[str, str],
    limits: OutlineLimits,
    dataset_dir: Path,
    labels: Mapping[str, Path],
) -> pd.DataFrame:
    """Return a table with one row per case and text in all cells; a person fills `keep`.

    Args:
        cases: names of the cases, in order.
        done: outlined cases by name.
        failures: reasons of failures of the other cases.
        limits: limits of accepted outlines.
        dataset_dir: folder that paths are relative to.
        labels: path of each case's mask.
    """
    rows = []
    for case in cases:
        outlined = done.get(case)
        if outlined is None:
            rows.append({"case": case, "status": FAILED, "reason": failures[case]})
            continue
        reasons = limits.failed_checks(outlined.measures)
        rows.append(
            {
                "case": case,
                "status": REFUSED if reasons else ACCEPTED,
                "reason": "; ".join(reasons),
                **_cells(outlined.measures),
                "warnings": "; ".join(outlined.warnings),
                "image": relative_path(outlined.image, dataset_dir),
                "label": relative_path(labels[case], dataset_dir),
                "label_sha256": outlined.label_sha256,
            }
        )
    return pd.DataFrame(rows, columns=list(_COLUMNS), dtype=str).fillna("")


def _cells(measures: Measures) -> dict[str, str]:
    cells = {"cut_off": "yes" if measures.cut_off else "no"}
    for name, decimals in _DECIMALS.items():
        value = getattr(measures, name)
        cells[name] = "" if value is None else f"{value:.{decimals}f}"
    return cells


def copy_decisions(table: pd.DataFrame, earlier: pd.DataFrame) -> pd.DataFrame:
    """Return the table with a person's decisions in an earlier table, for masks that have not changed."""
    if "label_sha256" not in earlier:
        return table
    decisions = earlier[earlier["label_sha256"] != ""].set_index(["case", "label_sha256"])["keep"].to_dict()
    keep = [decisions.get((row["case"], row["label_sha256"]), "") for row in table.to_dict("records")]
    return table.assign(keep=keep)


def is_kept(table: pd.DataFrame) -> pd.Series:
    """Return whether each row is kept: by a person's decision, else if it is accepted."""
    return (table["keep"] == "yes") | ((table["keep"] == "") & (table["status"] == ACCEPTED))


def read_table(path: Path) -> pd.DataFrame:
    """Read a table with a person's decisions in `keep`; cells are text.

    Raises:
        LiversegError: if it cannot be read, lacks a column, keeps a case without a mask, or `keep` is not yes, no or
            empty.
    """
    if not is_file(path):
        raise UnreadableError(f"{path}: no such table; `liverseg pseudo-label` writes one")
    try:
        table = read_csv(path, _NEEDED)
    except (OSError, ValueError) as error:
        raise UnreadableError(f"{path}: not a readable table ({one_line(error)})") from error
    table["keep"] = table["keep"].str.strip().str.lower()
    for number, (row, kept) in enumerate(zip(table.to_dict("records"), is_kept(table), strict=True), 2):
        where = f"{path}, row {number}, case {row['case']}"
        if row["keep"] not in _KEEP:
            raise LiversegError(f"{where}: keep is {row['keep']!r}; it must be yes, no or empty")
        if kept and not (row["image"] and row["label"]):
            raise LiversegError(f"{where}: keep is yes, but there is no mask; set it to no, or label the CT again")
    return table[table["case"] != ""].reset_index(drop=True)


def write_results(output: Path, table: pd.DataFrame, metadata: PseudoLabelMetadata) -> Path | None:
    """Write the page, and the data list with the kept rows of the table.

    Args:
        output: the run's folder.
        table: table from `results_table` or `read_table`.
        metadata: metadata of the run.

    Returns:
        The path of the list; None if no case is kept. An earlier list is then removed.

    Raises:
        LiversegError: if a file cannot be written.
    """
    write_text(output / PAGE, to_html(_page(output, table, metadata), linked_from=output))
    path = output / DATALIST
    kept = table[is_kept(table)]
    if kept.empty:
        path.unlink(missing_ok=True)
        return None
    items = tuple(
        DataItem(
            image=row["image"],
            label=row["label"],
            patient=f"{metadata.name}-{row['case']}",
            fold=metadata.fold,
            labelled=LABELLED[0],
        )
        for row in kept.to_dict("records")
    )
    datalist = DataList(metadata.name, "1", metadata.source, metadata.licence, label_table(_LABELS), items)
    return write_datalist(path, datalist)


_COLORS = ("orange", "blue")
_HEADINGS = {
    "volume_ml": "volume, ml",
    "largest_part": "largest part",
    "cut_off": "cut off",
    "right_of_midline_mm": "right of midline, mm",
    "median_hu": "median HU",
    "flip_agreement": "flips agree",
    "network_agreement": "networks agree",
}


def _page(output: Path, table: pd.DataFrame, metadata: PseudoLabelMetadata) -> list[Block]:
    rows = table.to_dict("records")
    colors = [f"`{name}` is drawn in {color}" for name, color in zip(metadata.networks, _COLORS, strict=False)]
    blocks: list[Block] = [
        Heading(f"Livers of {metadata.name}, outlined by a network", level=1),
        Paragraph(
            "**No person drew these outlines. Look at every one of them before anything is trained on them**: a "
            "network repeats its mistakes with confidence, and the checks find only the coarse ones. Lesions belong "
            "to the liver here, at its border too. Research only, not a medical device."
        ),
        Paragraph(
            f"{is_kept(table).sum()} of {len(rows)} cases are in the data list. To leave one out, or to take a refused "
            f"one in, write no or yes into its cell `keep` in `{TABLE}`. Then "
            f"`liverseg pseudo-label --from-table {shlex.quote(str(output / TABLE))}` writes list and page again."
        ),
        Paragraph(f"{'; '.join(colors)}. {metadata.source}; licence: {metadata.licence}."),
        Heading("All cases"),
        _all_cases(rows),
    ]
    for status, title in ((ACCEPTED, "Accepted"), (REFUSED, "Refused")):
        with_status = [row for row in rows if row["status"] == status]
        blocks.append(Heading(f"{title}: {len(with_status)}"))
        for row in with_status:
            blocks += _case(output, row)
    failed = [f"{row['case']}: {row['reason']}" for row in rows if row["status"] == FAILED]
    blocks += [Heading(f"Failed: {len(failed)}"), Items(failed)] if failed else []
    return blocks


def _all_cases(rows: Sequence[Mapping[Hashable, str]]) -> Table:
    cells = [
        [row["case"] + (f"\n{row['reason']}" if row["reason"] else ""), row["status"], row["keep"]]
        + [row.get(name, "") for name in _HEADINGS]
        for row in rows
    ]
    return Table(["case", "status", "keep", *_HEADINGS.values()], cells)


def _case(output: Path, row: Mapping[Hashable, str]) -> list[Block]:
    decision = {"yes": " (kept by hand)", "no": " (left out by hand)"}.get(row["keep"], "")
    remarks = [row["reason"]] if row["reason"] else []
    remarks += [f"warning: {row['warnings']}"] if row.get("warnings") else []
    blocks: list[Block] = [Heading(f"{row['case']}{decision}", level=3)]
    blocks += [Paragraph("; ".join(remarks))] if remarks else []
    path = picture_path(output, row["case"])
    if is_file(path):
        blocks.append(Picture(path, f"axial slices of {row['case']} with outlines", f"Mask: {row['label']}"))
    return blocks
