"""A report as one HTML file without a script: its style is in it, and so are its pictures unless they are linked."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from urllib.parse import quote

from liverseg.study.document import Block, Heading, Items, Paragraph, Picture, Table

__all__ = ["to_html"]

_STYLE = """
:root { color-scheme: light dark; --text: #1c1e21; --faint: #5c6370; --ground: #ffffff; --line: #d9dde3;
        --band: #f5f7f9; --link: #0b5cad; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e6ea; --faint: #9aa3b0; --ground: #16181c; --line: #353a43; --band: #1e2127; --link: #7db8f5; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem 1.25rem 4rem; color: var(--text); background: var(--ground);
       font: 16px/1.55 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.8rem; line-height: 1.25; margin: .5rem 0 1rem; }
h2 { font-size: 1.3rem; margin: 2.6rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
p, ul { max-width: 52rem; }
nav { font-size: .9rem; } nav ul { columns: 18rem; padding-left: 1.1rem; margin: .5rem 0; max-width: none; }
a { color: var(--link); }
code { font: .88em ui-monospace, "DejaVu Sans Mono", monospace; background: var(--band); padding: .08em .3em;
       border-radius: 3px; overflow-wrap: anywhere; }
.table { overflow-x: auto; margin: .8rem 0 1.2rem; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; line-height: 1.35; }
th, td { padding: .38rem .7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { background: var(--band); border-bottom: 2px solid var(--line); }
tbody tr:hover { background: var(--band); }
td small { display: block; color: var(--faint); font-size: .82em; }
figure { margin: 1rem 0 1.6rem; }
figure img { max-width: 100%; height: auto; background: #ffffff; border: 1px solid var(--line); border-radius: 4px; }
figcaption { color: var(--faint); font-size: .88rem; max-width: 52rem; }
@media print { body { max-width: none; font-size: 11px; } figure, tr { break-inside: avoid; } }
"""


def to_html(blocks: Sequence[Block], linked_from: Path | None = None) -> str:
    """The report as one text; the same blocks and pictures give the same text.

    The first block is its title; headings of the second level are listed below it.

    Args:
        blocks: of the report.
        linked_from: folder of a report with many pictures, which lie in it or below and are linked by their paths from
            there; by default they are in the text, which needs nothing else then.
    """
    titles = [block.text for block in blocks if isinstance(block, Heading)]
    chapters = [block.text for block in blocks if isinstance(block, Heading) and block.level == 2]
    listed = "\n".join(f'<li><a href="#{_anchor(text)}">{_inline(text)}</a></li>' for text in chapters)
    body = [_written(block, linked_from) for block in blocks]
    body.insert(1, f"<nav><ul>\n{listed}\n</ul></nav>")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(titles[0])}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _written(block: Block, linked_from: Path | None) -> str:
    match block:
        case Heading():
            anchor = f' id="{_anchor(block.text)}"' if block.level == 2 else ""
            return f"<h{block.level}{anchor}>{_inline(block.text)}</h{block.level}>"
        case Paragraph():
            return f"<p>{_inline(block.text)}</p>"
        case Items():
            return "<ul>\n" + "\n".join(f"<li>{_inline(item)}</li>" for item in block.items) + "\n</ul>"
        case Table():
            head = "".join(f'<th scope="col">{_inline(text)}</th>' for text in block.head)
            rows = "\n".join(
                "<tr>" + "".join(f"<td>{_cell(text)}</td>" for text in row) + "</tr>" for row in block.rows
            )
            return (
                f'<div class="table"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>'
            )
        case Picture():
            if linked_from is None:
                source = f"data:image/png;base64,{base64.b64encode(block.path.read_bytes()).decode('ascii')}"
            else:
                source = quote(block.path.relative_to(linked_from).as_posix())
            name, text = html.escape(block.name, quote=True), html.escape(block.text)
            image = f'<img alt="{name}" src="{source}">'
            return f"<figure>{image}\n<figcaption>{text}</figcaption></figure>"


def _anchor(text: str) -> str:
    words = ("".join(letters) for is_word, letters in groupby(text.lower(), str.isalnum) if is_word)
    return "-".join(words)


def _cell(text: str) -> str:
    main, _, small = text.partition("\n")
    return _inline(main) + (f"<small>{_inline(small)}</small>" if small else "")


def _inline(text: str) -> str:
    escaped = html.escape(text, quote=False)
    escaped = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escaped)
    return re.sub(r"`(.+?)`", r"<code>\1</code>", escaped)
