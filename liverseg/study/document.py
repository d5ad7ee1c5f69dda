"""A report as headings, paragraphs, lists, tables and pictures, written as HTML or Markdown.

Text may hold `**strong**` and `` `code` ``, as in Markdown, and no other markup.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from liverseg.utils.html import render

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["Block", "Heading", "Items", "Paragraph", "Picture", "Table", "to_html", "to_markdown"]


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the report's title."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Items:
    """A bulleted list."""

    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table with a row of headings. In a cell, text after a line break is set small."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
        path: of the PNG; Markdown links it by the names of its folder and file.
        name: alternative text.
        text: caption.
    """

    path: Path
    name: str
    text: str


Block = Heading | Paragraph | Items | Table | Picture


def to_html(blocks: Sequence[Block], linked_from: Path | None = None) -> str:
    """Write a report as one HTML page without scripts. The same blocks and pictures give the same text.

    The first block is the title; headings of the second level are listed below it.

    Args:
        blocks: of the report.
        linked_from: folder of the page. Pictures, which must be in it or below, are then linked by relative paths. By
            default they are embedded, so that the page needs no other file.
    """

    def source(picture: Picture) -> str:
        if linked_from is None:
            return f"data:image/png;base64,{base64.b64encode(picture.path.read_bytes()).decode('ascii')}"
        return quote(picture.path.relative_to(linked_from).as_posix())

    headings = [block for block in blocks if isinstance(block, Heading)]
    return render(
        "document.html",
        title=headings[0].text,
        sections=[heading.text for heading in headings if heading.level == 2],
        blocks=[(type(block).__name__, block) for block in blocks],
        anchor=_anchor,
        inline=_inline_html,
        source=source,
    )


def to_markdown(blocks: Sequence[Block]) -> str:
    """Write a report as GitHub's Markdown, with linked pictures. The same blocks give the same text."""
    return "\n\n".join(_block_markdown(block) for block in blocks) + "\n"


def _anchor(text: str) -> str:
    words = ("".join(letters) for is_word, letters in groupby(text.lower(), str.isalnum) if is_word)
    return "-".join(words)


def _inline_html(text: str) -> Markup:
    from markupsafe import Markup, escape

    marked = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", str(escape(text)))
    return Markup(re.sub(r"`(.+?)`", r"<code>\1</code>", marked))


def _block_markdown(block: Block) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {block.text}"
        case Paragraph():
            return block.text
        case Items():
            return "\n".join(f"- {item}" for item in block.items)
        case Table():
            lines = [block.head, ["---"] * len(block.head), *block.rows]
            return "\n".join("| " + " | ".join(map(_cell_markdown, line)) + " |" for line in lines)
        case Picture():
            return f"![{block.name}]({block.path.parent.name}/{block.path.name})\n\n*{block.text}*"


def _cell_markdown(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "<br>")
