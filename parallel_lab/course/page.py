"""The few pieces of HTML that cards, quizzes and reports share: static, themed by JupyterLab's own CSS variables.

Outside JupyterLab the variables are missing and the fallbacks take the colors of the page around, so that the same
HTML reads on a light page, on a dark page, and where a web viewer strips the style altogether.
"""

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from markdown_it import MarkdownIt
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name

_CSS = files("parallel_lab.course").joinpath("page.css").read_text(encoding="utf-8")


def code(text: str, language: str = "python") -> str:
    """`text` as a block of highlighted code."""
    marked = highlight(text, get_lexer_by_name(language or "text"), HtmlFormatter(nowrap=True))
    return f"<pre><code>{marked}</code></pre>"


_MARKDOWN = MarkdownIt("commonmark", {"html": False, "highlight": lambda *fence: code(*fence[:2])}).enable("table")


def markdown(text: str) -> str:
    """`text` as HTML; raw HTML inside it is shown, not run."""
    return _MARKDOWN.render(text)


def box(parts: Iterable[str], label: str, look: str = "") -> str:
    """One framed block of HTML; `label` is read out by screen readers, `look` is `good`, `bad`, `note` or empty."""
    names = f"plab plab-{look}" if look else "plab"
    body = "\n".join(parts)
    return (
        f'<style>{_CSS}</style>\n<section class="{names}" aria-label="{escape(label)}" lang="en">\n{body}\n</section>'
    )


def paragraph(text: str, kind: str = "", lang: str = "") -> str:
    """`text` as one escaped paragraph. `kind` is `head`, `small` or empty; `lang` is set where it is not English."""
    attributes = (f' class="plab-{kind}"' if kind else "") + (f' lang="{lang}"' if lang else "")
    return f"<p{attributes}>{escape(text)}</p>"


def link(text: str, target: str) -> str:
    """`text` as a link; JupyterLab opens what is named from the notebook's folder."""
    return f'<a href="{escape(target)}">{escape(text)}</a>'


def folded(summary: str, html: str, lang: str = "") -> str:
    """A part that opens on a click and needs no script."""
    attribute = f' lang="{lang}"' if lang else ""
    return f"<details{attribute}><summary>{escape(summary)}</summary>{html}</details>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of escaped cells."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def columns(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The same table as plain text, columns padded to the widest cell."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
