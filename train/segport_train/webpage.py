"""The report of a training as a page: the Markdown of report.md through the template of segport's reports.

Only the Markdown that reports are written in is known: headings, tables, lists, pictures, paragraphs; in text `code`,
**strong** and *emphasis*. Text of cells is other people's and stays as it is.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup, escape

from segport.outputs import write_bytes
from segport.report.claim import STYLE
from segport.report.pages import read_asset, render

PICTURE = re.compile(r"!\[(?P<text>[^]]*)\]\((?P<file>[\w.-]+)\)")
INLINE = (
    ("code", re.compile(r"`([^`]+)`")),
    ("strong", re.compile(r"\*\*(.+?)\*\*")),
    ("em", re.compile(r"\*(.+?)\*")),
)
CELLS = re.compile(r"(?<!\\)\|")  # cells write a bar as \|


@dataclass(frozen=True)
class Block:
    """A part of a page. `kind`: "heading", "table", "list", "picture" or "text"; `rows`: its lines, as cells."""

    kind: str
    rows: list[list[str | Markup]]


def write_page(path: Path, markdown: str, licence: str) -> None:
    """Write a report as HTML, with its style sheet beside it. `licence`: of the weights."""
    title, *blocks = read_blocks(markdown)
    page = render("training.html", {"title": title.rows[0][0], "blocks": blocks, "licence": licence})
    write_bytes(path.with_name(STYLE), read_asset(STYLE))
    write_bytes(path, page)


def read_blocks(markdown: str) -> Iterator[Block]:
    """Yield the parts of a report, its title first."""
    for part in re.split(r"\n{2,}", markdown.strip()):
        lines = part.split("\n")
        if part.startswith("#"):
            yield Block("heading", [[part.lstrip("# ")]])
        elif part.startswith("| "):
            yield Block("table", [_cells(line) for i, line in enumerate(lines) if i != 1])
        elif part.startswith("- "):
            yield Block("list", [[_inline(line.removeprefix("- "))] for line in lines])
        elif found := PICTURE.fullmatch(part):
            yield Block("picture", [[found["file"], found["text"]]])
        else:
            yield Block("text", [[_inline(" ".join(lines))]])


def _cells(line: str) -> list[str | Markup]:
    return [cell.strip().replace("\\|", "|") for cell in CELLS.split(line)[1:-1]]


def _inline(text: str) -> Markup:
    marked = str(escape(text))
    for tag, mark in INLINE:
        marked = mark.sub(rf"<{tag}>\1</{tag}>", marked)
    return Markup(marked)  # escaped above
