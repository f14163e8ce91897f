"""Links to a heading of a chapter: its anchor, as JupyterLab makes it, and the heading that a cell stands under."""

import json
from functools import cache
from html import escape
from itertools import pairwise

from markdown_it import MarkdownIt

from parallel_lab.course import page, workspace


def headings(markdown: str) -> list[str]:
    """The headings in a cell of Markdown, without markup."""
    tokens = MarkdownIt("commonmark").parse(markdown)
    inside = [after for token, after in pairwise(tokens) if token.type == "heading_open"]
    return ["".join(piece.content for piece in token.children or ()) for token in inside]


def anchor(heading: str) -> str:
    """The id that JupyterLab gives to a heading (4.6, `createHeaderId` of @jupyterlab/rendermime).

    A link finds it only where the id is ASCII: the browser encodes all else, and JupyterLab does not decode it.
    """
    return heading.replace(" ", "-")


@cache
def heading_above(notebook: str, cell: str) -> tuple[str, str] | None:
    """The file of a chapter, and its nearest heading above the cell with the tag or id `cell`.

    `notebook` is the chapter's name, or its two digits; None where the course's folder has no such cell.
    """
    try:
        file, last = workspace.notebook(notebook), ""
    except FileNotFoundError:
        return None
    for one in json.loads(file.read_text(encoding="utf-8"))["cells"]:
        if one["cell_type"] == "markdown":
            last = [last, *headings("".join(one["source"]))][-1]
        if cell in (one["id"], *one["metadata"].get("tags", ())):
            return file.name, last
    return None


def proof(words: str, evidence: str) -> page.Part:
    """A small line: `words`, then a link to where the cell `evidence` (`notebook#cell`) stands in its chapter."""
    notebook, _, cell = evidence.partition("#")
    if (found := heading_above(notebook, cell)) is None:
        return page.paragraph(f"{words} by the cell {evidence}.", "small")
    file, heading = found
    link = f'<a href="{escape(f"{file}#{anchor(heading)}")}">{escape(heading)}</a>'
    html = f'<p class="plab-small">{escape(words)} under {link}.</p>'
    return page.Part(html, f"{words} under “{heading}” in {file}.")
