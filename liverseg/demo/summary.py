"""Summary of the demo's scores, as JSON and Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from liverseg.imageio.volume import case_name
from liverseg.utils.files import write_text

__all__ = ["write_summary"]

_COLUMNS = ("liver_dice", "lesion_dice", "lesion_recall", "type_accuracy")


def write_summary(output: Path, seconds: Mapping[str, float], case: Path) -> str:
    """Write the evaluations of a demo to `summary.json` and `summary.md`.

    Args:
        output: the demo's folder.
        seconds: seconds by stage.
        case: the CT that was predicted.

    Returns:
        The Markdown, with the paths of the summary and of the preview.
    """
    scores = {
        name: json.loads((output / name / "evaluation.json").read_text(encoding="utf-8"))
        for name in ("pretrain", "joint_scratch", "joint_transfer")
    }
    transfer = json.loads((output / "joint_transfer" / "transfer.json").read_text(encoding="utf-8"))
    preview = output / "predictions" / case_name(case) / "preview.png"
    summary: dict[str, Any] = {
        **scores,
        "transfer": {
            "loaded": len(transfer["loaded"]),
            "left": len(transfer["left"]),
            "left_because": transfer["left"],
        },
        "seconds": dict(seconds),
        "preview": str(preview.relative_to(output)),
        "data": "phantoms: synthetic volumes, no patients",
    }
    text = _markdown(summary)
    for name, content in (("summary.md", text), ("summary.json", json.dumps(summary, indent=1) + "\n")):
        write_text(output / name, content)
    return f"{text}\nwritten: {output / 'summary.json'}\nopen:    {preview}"


def _markdown(summary: Mapping[str, Any]) -> str:
    rows = {
        "pretrain (volumes)": summary["pretrain"],
        "joint, from scratch (slices)": summary["joint_scratch"],
        "joint, from exported weights (slices)": summary["joint_transfer"],
    }
    lines = [
        "Phantoms, not patients; test patients were never trained on.",
        "",
        "| network | liver Dice | lesion Dice | lesion recall | type accuracy | tested on |",
        "|---|---|---|---|---|---|",
    ]
    for name, scores in rows.items():
        cells = [f"{scores[column]:.2f}" if column in scores else "" for column in _COLUMNS]
        unit = "volumes" if name.startswith("pretrain") else "slices"
        tested = f"{scores['units']} {unit} of {scores['patients']} patients"
        lines.append(f"| {name} | {' | '.join(cells)} | {tested} |")
    transfer = summary["transfer"]
    seconds = summary["seconds"]
    lines += [
        "",
        f"Hand-over: {transfer['loaded']} tensors loaded, {transfer['left']} left new.",
        "",
        "| stage | seconds |",
        "|---|---|",
        *(f"| {stage} | {value:.0f} |" for stage, value in seconds.items()),
        f"| all | {sum(seconds.values()):.0f} |",
        "",
    ]
    return "\n".join(lines)
