"""A run's table, in which a person decides what is kept, and what follows from it: the data list and the page."""

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
from liverseg.pseudo_labels.cases import Outlined, picture_path
from liverseg.pseudo_labels.checks import Limits, Measures
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
    "RunFacts",
    "is_kept",
    "read_facts",
    "read_table",
    "relative_path",
    "table_of",
    "with_decisions",
    "write_facts",
    "write_results",
]

TABLE, DATALIST, PAGE, _FACTS = "pseudo_labels.csv", "datalist.json", "index.html", "run.json"
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
"""Rows of the list's label table, the pre-training's: where a label map holds the liver alone, both bundles' mean the
same."""


@dataclass(frozen=True)
class RunFacts:
    """What all cases of a run share.

    Attributes:
        name: of the data list; it begins the names of its patients.
        source: where the CTs come from, and which network outlined them.
        licence: of the CTs.
        dataset_dir: folder that the list's paths are relative to, absolute.
        fold: of the list's items.
        networks: names of the weights, that whose masks are written first.
        limits: what was checked.
    """

    name: str
    source: str
    licence: str
    dataset_dir: str
    fold: int
    networks: tuple[str, ...]
    limits: Mapping[str, Any]


def write_facts(output: Path, facts: RunFacts) -> None:
    """Write `run.json`.

    Raises:
        LiversegError: if it cannot be written.
    """
    with atomic_write(output / _FACTS) as temporary:
        write_json(temporary, asdict(facts))


def read_facts(output: Path) -> RunFacts:
    """Read what `write_facts` wrote.

    Raises:
        LiversegError: if it is not there or was not written by it.
    """
    path = output / _FACTS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return RunFacts(**{**content, "networks": tuple(content["networks"])})
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise UnreadableError(
            f"{path}: not the record of a run ({one_line(error)}); the table belongs into the folder that "
            "`liverseg pseudo-label` wrote it to"
        ) from error


def relative_path(path: Path, dataset_dir: Path) -> str:
    """A path as a data list names it.

    Raises:
        LiversegError: if the path is not UTF-8, which JSON needs.
    """
    relative = Path(os.path.relpath(path, dataset_dir)).as_posix()
    try:
        relative.encode("utf-8")
    except UnicodeEncodeError as error:
        shown = relative.encode("utf-8", "backslashreplace").decode()
        raise UnreadableError(f"{shown}: a name that is not UTF-8, which no data list can hold; rename it") from error
    return relative


def table_of(
    cases: Sequence[str],
    done: Mapping[str, Outlined],
    failures: Mapping[str, str],
    limits: Limits,
    dataset_dir: Path,
    labels: Mapping[str, Path],
) -> pd.DataFrame:
    """A row a case, all cells text, '' where there is nothing to tell; `keep` is for a person to fill.

    Args:
        cases: their names, in order.
        done: outlined ones.
        failures: why the others failed.
        limits: what an outline must keep.
        dataset_dir: folder that paths are told from.
        labels: path of each case's mask.
    """
    rows = []
    for case in cases:
        outlined = done.get(case)
        if outlined is None:
            rows.append({"case": case, "status": FAILED, "reason": failures[case]})
            continue
        reasons = limits.failed(outlined.measures)
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


def with_decisions(table: pd.DataFrame, earlier: pd.DataFrame) -> pd.DataFrame:
    """A table with what a person decided in an earlier one, wherever the mask is still the one that was looked at."""
    if "label_sha256" not in earlier:
        return table
    decided = earlier[earlier["label_sha256"] != ""].set_index(["case", "label_sha256"])["keep"].to_dict()
    keep = [decided.get((row["case"], row["label_sha256"]), "") for row in table.to_dict("records")]
    return table.assign(keep=keep)


def is_kept(table: pd.DataFrame) -> pd.Series:
    """Which rows' cases go into the list: what a person decided, else those that are accepted."""
    return (table["keep"] == "yes") | ((table["keep"] == "") & (table["status"] == ACCEPTED))


def read_table(path: Path) -> pd.DataFrame:
    """A table in which a person may have filled `keep`; cells as text.

    Raises:
        LiversegError: if it cannot be read, lacks a column, keeps what has no mask, or `keep` is something else than
            yes, no or empty.
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


def write_results(output: Path, table: pd.DataFrame, facts: RunFacts) -> Path | None:
    """Write page and data list, the list's items being the table's rows that are kept.

    Args:
        output: the run's folder.
        table: of `table_of` or `read_table`.
        facts: of the run.

    Returns:
        The list's path; None where nothing is kept: an earlier list is taken away then.

    Raises:
        LiversegError: if a file cannot be written.
    """
    write_text(output / PAGE, to_html(_page(output, table, facts), linked_from=output))
    path = output / DATALIST
    kept = table[is_kept(table)]
    if kept.empty:
        path.unlink(missing_ok=True)
        return None
    items = tuple(
        DataItem(
            image=row["image"],
            label=row["label"],
            patient=f"{facts.name}-{row['case']}",
            fold=facts.fold,
            labelled=LABELLED[0],
        )
        for row in kept.to_dict("records")
    )
    return write_datalist(path, DataList(facts.name, "1", facts.source, facts.licence, label_table(_LABELS), items))


_COLORS = ("orange", "blue")
_HEADS = {
    "volume_ml": "volume, ml",
    "largest_part": "largest part",
    "cut_off": "cut off",
    "right_of_midline_mm": "right of midline, mm",
    "median_hu": "median HU",
    "flip_agreement": "flips agree",
    "network_agreement": "networks agree",
}


def _page(output: Path, table: pd.DataFrame, facts: RunFacts) -> list[Block]:
    rows = table.to_dict("records")
    drawn = [f"`{name}` is drawn in {color}" for name, color in zip(facts.networks, _COLORS, strict=False)]
    blocks: list[Block] = [
        Heading(f"Livers of {facts.name}, outlined by a network", level=1),
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
        Paragraph(f"{'; '.join(drawn)}. {facts.source}; licence: {facts.licence}."),
        Heading("All cases"),
        _table_of_all(rows),
    ]
    for status, title in ((ACCEPTED, "Accepted"), (REFUSED, "Refused")):
        some = [row for row in rows if row["status"] == status]
        blocks.append(Heading(f"{title}: {len(some)}"))
        for row in some:
            blocks += _case(output, row)
    failed = [f"{row['case']}: {row['reason']}" for row in rows if row["status"] == FAILED]
    blocks += [Heading(f"Failed: {len(failed)}"), Items(failed)] if failed else []
    return blocks


def _table_of_all(rows: Sequence[Mapping[Hashable, str]]) -> Table:
    cells = [
        [row["case"] + (f"\n{row['reason']}" if row["reason"] else ""), row["status"], row["keep"]]
        + [row.get(name, "") for name in _HEADS]
        for row in rows
    ]
    return Table(["case", "status", "keep", *_HEADS.values()], cells)


def _case(output: Path, row: Mapping[Hashable, str]) -> list[Block]:
    decided = {"yes": " (kept by hand)", "no": " (left out by hand)"}.get(row["keep"], "")
    told = [row["reason"]] if row["reason"] else []
    told += [f"warning: {row['warnings']}"] if row.get("warnings") else []
    blocks: list[Block] = [Heading(f"{row['case']}{decided}", level=3)]
    blocks += [Paragraph("; ".join(told))] if told else []
    path = picture_path(output, row["case"])
    if is_file(path):
        blocks.append(Picture(path, f"axial slices of {row['case']} with outlines", f"Mask: {row['label']}"))
    return blocks
