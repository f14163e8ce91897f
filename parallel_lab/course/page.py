"""What cards, quizzes and reports are shown as: parts that are each written twice, for a cell and for a terminal.

The HTML is static and themed by JupyterLab's own CSS variables. Outside JupyterLab the variables are missing and the
fallbacks take the colors of the page around, so that the same HTML reads on a light page, on a dark page, and where a
web viewer strips the style altogether.
"""

import re
import textwrap
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import NamedTuple
from unicodedata import east_asian_width

from markdown_it import MarkdownIt
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name

STYLE = f"<style>{files('parallel_lab.course').joinpath('page.css').read_text(encoding='utf-8')}</style>"
# A browser would set a blank for a break inside a Chinese paragraph; one before an item, a table or code stays.
_CHINESE_BREAK = re.compile(r"(?<=[\u3000-\u9fff\uff00-\uffef])\n(?=[^\n])(?! *(?:[-*] |\d+\. |```|[|#>]))")


class Part(NamedTuple):
    """A piece of a page; one that is empty for a cell, or None for a terminal, is left out there."""

    html: str
    text: str | None


class Page(NamedTuple):
    """A framed block in a cell, lines in a terminal."""

    label: str  # read out by screen readers
    parts: Sequence[Part]
    look: str = ""  # `good`, `bad`, `note` or empty

    @property
    def section(self) -> str:
        """The block for a cell that has the style already."""
        names = f"plab plab-{self.look}" if self.look else "plab"
        body = "\n".join(part.html for part in self.parts if part.html)
        return f'<section class="{names}" aria-label="{escape(self.label)}" lang="en">\n{body}\n</section>'

    def _repr_html_(self) -> str:
        return f"{STYLE}\n{self.section}"

    def __repr__(self) -> str:
        return "\n".join(part.text for part in self.parts if part.text is not None)


class Shown:
    """What shows itself as a page."""

    def as_page(self) -> Page:
        """The page."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        return self.as_page()._repr_html_()

    def __repr__(self) -> str:
        return repr(self.as_page())


def code(text: str, language: str = "python") -> Part:
    """A block of highlighted code."""
    marked = highlight(text, get_lexer_by_name(language or "text"), HtmlFormatter(nowrap=True))
    return Part(f"<pre><code>{marked}</code></pre>", text)


_MARKDOWN = MarkdownIt("commonmark", {"html": False, "highlight": lambda *fence: code(*fence[:2]).html}).enable("table")


def markdown(text: str) -> Part:
    """Markdown; raw HTML inside it is shown, not run."""
    return Part(_MARKDOWN.render(_CHINESE_BREAK.sub("", text)), text)


def paragraph(text: str, kind: str = "", lang: str = "", indent: int = 0, tag: str = "p") -> Part:
    """A paragraph. `kind` is `head`, `small` or empty; `lang` is set where it is not English; a terminal indents."""
    attributes = (f' class="plab-{kind}"' if kind else "") + (f' lang="{lang}"' if lang else "")
    return Part(f"<{tag}{attributes}>{escape(text)}</{tag}>", textwrap.indent(text, " " * indent))


def folded(summary: str, inside: Part, lang: str = "", unfolded: bool = False) -> Part:
    """A part that opens and closes on a click and needs no script."""
    attributes = (f' lang="{lang}"' if lang else "") + (" open" if unfolded else "")
    html = f"<details{attributes}><summary>{escape(summary)}</summary>{inside.html}</details>"
    return Part(html, f"\n{summary}\n{inside.text}")


def verdict(right: bool, word: str, said: str) -> Page:
    """What is said to an answer: a mark, a word and a color tell right from wrong."""
    mark, kind, look = ("✓", "right", "good") if right else ("✗", "wrong", "bad")
    return Page(word, [paragraph(f"{mark} {word}", kind), paragraph(said)], look)


def _columns(text: str) -> int:
    """The columns that a terminal gives to a text: two to a Chinese sign."""
    return sum(2 if east_asian_width(sign) in "WF" else 1 for sign in text)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Part:
    """A table of cells; a terminal pads its columns to the widest cell."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    widths = [max(map(_columns, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        "  ".join(cell + " " * (width - _columns(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]
    return Part(f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>", "\n".join(lines))
