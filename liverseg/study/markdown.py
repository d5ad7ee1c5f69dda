"""A report as Markdown, the flavour GitHub shows; pictures are linked."""

from __future__ import annotations

from collections.abc import Sequence

from liverseg.study.document import Block, Heading, Items, Paragraph, Picture, Table

__all__ = ["to_markdown"]


def to_markdown(blocks: Sequence[Block]) -> str:
    """The report as one text; the same blocks give the same text."""
    return "\n\n".join(_written(block) for block in blocks) + "\n"


def _written(block: Block) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {block.text}"
        case Paragraph():
            return block.text
        case Items():
            return "\n".join(f"- {item}" for item in block.items)
        case Table():
            lines = [block.head, ["---"] * len(block.head), *block.rows]
            return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)
        case Picture():
            return f"![{block.name}]({block.path.parent.name}/{block.path.name})\n\n*{block.text}*"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "<br>")
