"""What a report is made of, whatever it is written as: headings, paragraphs, tables and pictures.

Text may hold `**strong**` and `` `code` ``, as in Markdown, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Block", "Heading", "Items", "Paragraph", "Picture", "Table"]


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
    """A list with a dot before each item."""

    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table with a row of headings; a line break in a cell sets what follows it small."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
        path: of the PNG; Markdown names it by its folder and name.
        name: what it is, for those who cannot see it.
        text: what it shows: its caption.
    """

    path: Path
    name: str
    text: str


Block = Heading | Paragraph | Items | Table | Picture
