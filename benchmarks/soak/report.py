"""Tables of a campaign's journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.soak.material import Journal

__all__ = ["report"]


def report(folder: Path) -> str:
    """Return a folder's journal in Markdown: kills, inputs by kind and outcome, batches of many cases, broken
    guarantees.
    """
    journal = Journal(folder)
    parts = []
    for engine in ("local", "ray"):
        kills = [(line["what"], line["moment"]) for line in journal.of_complete_rounds(f"kill {engine}")]
        if kills:
            parts.append(_table(f"kills, engine {engine}", kills))
    rounds = list(journal.lines("round"))
    if rounds:
        ended = sum((Counter(line["cases"]) for line in rounds), Counter())
        runs, seconds = sum(line["runs"] for line in rounds), sum(line["seconds"] for line in rounds)
        parts.append(f"{len(rounds)} batches in {runs} runs, {seconds / 60:.0f} minutes; cases: {dict(ended)}")
    for kind, name in (("input", "inputs"), ("list", "manifests")):
        outcomes = [(line["what"], line["how"]) for line in journal.lines(kind)]
        if outcomes:
            parts.append(_table(name, outcomes))
    odd = Counter(
        (line["what"], line["reason"].split(": ", 1)[-1][:150])
        for line in journal.lines("input")
        if line["how"] in ("internal", "timeout", "output", "out of memory")
    )
    parts += [f"{times} × {what}: {reason}" for (what, reason), times in sorted(odd.items())]
    parts += [f"wrong: {line['what']}: {line['reason']}" for line in journal.lines("list") if line["how"] == "wrong"]
    parts += [_many(line) for line in journal.lines("many")]
    faults = [line["fault"] for kind in ("round", "inputs") for line in journal.lines(kind) if line["fault"]]
    parts.append(f"broken guarantees: {len(faults)}" + "".join(f"\n- {fault}" for fault in faults))
    return "\n\n".join(parts)


def _many(line: Mapping[str, Any]) -> str:
    """Return the measurements of a batch of many cases."""
    columns = [f"{process} {name}" for name in ("ms CPU", "MB", "files", "threads") for process in ("batch", "worker")]
    rows = [f"| quarter of {line['cases']} cases | cases/s | {' | '.join(columns)} |", "|---" * 10 + "|"]
    for number, quarter in enumerate(line["quarters"], 1):
        cells = [f"{quarter['cases_per_s']:.2f}"]
        for name, unit in (("cpu_ms", 1), ("memory", 1e6), ("descriptors", 1), ("threads", 1)):
            cells += [f"{quarter[f'{process}_{name}'] / unit:.0f}" for process in ("batch", "worker")]
        rows.append(f"| {number} | {' | '.join(cells)} |")
    for name, run in (("computed", line["computed"]), ("started again", line["recognised"])):
        recognised = f", recognising the cases {run['recognised_s']:.1f} s" if "recognised_s" in run else ""
        rows.append(
            f"\n{name}: {run['seconds']:.1f} s{recognised}, tables {run['tables_s']:.1f} s, "
            f"peak of the batch process {run['batch_peak'] / 1e6:.0f} MB"
        )
    sizes = line["sizes"]
    tables = ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in sizes.items() if "." in name)
    return "\n".join([*rows, f"\n{tables}; results: {sizes['files']} files, {sizes['results'] / 1e6:.1f} MB"])


def _table(name: str, pairs: Iterable[tuple[str, str]]) -> str:
    """Return a table of counts: rows are the pairs' first values, columns the second."""
    counts = Counter(pairs)
    rows, columns = (sorted({pair[n] for pair in counts}) for n in (0, 1))
    lines = [f"| {name} | {' | '.join(columns)} | all |", "|---" * (len(columns) + 2) + "|"]
    for row in rows:
        cells = [counts[row, column] for column in columns]
        lines.append(f"| {row} | {' | '.join(str(cell or '') for cell in cells)} | {sum(cells)} |")
    totals = [sum(counts[row, column] for row in rows) for column in columns]
    return "\n".join([*lines, f"| all | {' | '.join(map(str, totals))} | {sum(totals)} |"])
