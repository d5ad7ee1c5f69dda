"""Tables of a campaign's journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from benchmarks.soak.material import Journal

__all__ = ["report"]


def report(folder: Path) -> str:
    """Return a folder's journal in Markdown: kills, inputs by kind and outcome, broken guarantees."""
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
    faults = [line["fault"] for kind in ("round", "inputs") for line in journal.lines(kind) if line["fault"]]
    parts.append(f"broken guarantees: {len(faults)}" + "".join(f"\n- {fault}" for fault in faults))
    return "\n\n".join(parts)


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
