"""From the tree that MyST makes of a page to HTML: one function a kind of node."""

import re
from collections.abc import Mapping
from html import escape
from typing import Any, NamedTuple

from pygments import highlight
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from parallel_lab.course.anchors import anchor
from tools.book.listing import MARKED
from tools.book.outputs import Outputs
from tools.book.pages import OF_PAGE
from tools.book.words import both

Node = Mapping[str, Any]
BREAKS = ("paragraph", "listItem", "tableCell", "math", "inlineMath")  # the index of the search sees a blank here
_MATH = re.compile(r"<math.*?</math>", re.DOTALL)
_LISTED = ("nbval-", "hide-", "remove-", "raises-")
LANG = ' lang="zh"'
WRAPPED = {
    "paragraph": "p",
    "strong": "strong",
    "emphasis": "em",
    "delete": "del",
    "blockquote": "blockquote",
    "superscript": "sup",
    "subscript": "sub",
    "listItem": "li",
    "tableRow": "tr",
    "details": "details",
    "summary": "summary",
    "underline": "u",
}


class Heading(NamedTuple):
    """A heading of a page: what its list of contents needs."""

    depth: int
    name: str  # its id
    html: str
    language: str  # `en` or `zh` inside a block of one language, else empty


def code(text: str, language: str) -> str:
    """A block of highlighted code; text where the language is unknown."""
    try:
        lexer = get_lexer_by_name(language or "text", stripnl=False)
    except ClassNotFound:
        lexer = get_lexer_by_name("text")
    return f'<pre class="code"><code>{highlight(text, lexer, MARKED)}</code></pre>'


def words(node: Node) -> str:
    """What a node says, without markup."""
    return str(node.get("value", "")) + "".join(map(words, node.get("children", ())))


class Writer:
    """Writes one page. `headings` has the page's headings, and `said` its words by heading, once it was written."""

    def __init__(self, outputs: Outputs) -> None:
        self.outputs = outputs
        self.ids: set[str] = set()
        self.headings: list[Heading] = []
        self.language = ""  # that of the block which is being written, where it has one
        self.said: list[tuple[str, str, list[str]]] = [("", "", [])]  # id, heading, words

    def write(self, node: Node) -> str:
        """The HTML of a node."""
        kind = node["type"]
        if kind in BREAKS:
            self.said[-1][2].append(" ")
        if kind in WRAPPED:
            return f"<{WRAPPED[kind]}>{self.inside(node)}</{WRAPPED[kind]}>"
        return getattr(self, f"_{kind}", self.inside)(node)

    def inside(self, node: Node) -> str:
        """The HTML of what a node holds."""
        return "".join(map(self.write, node.get("children", ())))

    def own(self, name: str) -> str:
        """An attribute with an id that the page does not have yet, or nothing."""
        if not name or name in self.ids:
            return ""
        self.ids.add(name)
        return f' id="{escape(name)}"'

    def _text(self, node: Node) -> str:
        self.said[-1][2].append(node["value"])
        return escape(node["value"], quote=False)

    def _inlineCode(self, node: Node) -> str:
        self.said[-1][2].append(node["value"])
        return f"<code>{escape(node['value'], quote=False)}</code>"

    def _code(self, node: Node) -> str:
        if node.get("visibility") == "remove":
            return ""
        self.said[-1][2].append(f" {node['value']} " if not node.get("executable") else "")
        return code(node["value"], node.get("lang") or "")

    def _inlineMath(self, node: Node) -> str:
        self.said[-1][2].append(node["value"])
        found = _MATH.search(node.get("html", ""))
        return found[0] if found else f"<code>{escape(node['value'])}</code>"

    def _math(self, node: Node) -> str:
        return f'<div class="wide formula">{self._inlineMath(node)}</div>'

    def _heading(self, node: Node) -> str:
        name, depth, known = anchor(words(node).replace("’", "'")), min(max(node["depth"], 2), 6), len(self.said[-1][2])
        text = self.inside(node)
        del self.said[-1][2][known:]  # a heading's words are not those of the part before it
        own = self.own(name)
        self.headings.append(Heading(depth, name, text, self.language))
        self.said.append((name, words(node), []))
        link = f'<a class="anchor" href="#{escape(name)}" aria-label="{escape(words(node))}">#</a>'
        return f"<h{depth}{own}>{text}{link}</h{depth}>"

    def _list(self, node: Node) -> str:
        start = node.get("start") or 1
        tag = f'ol start="{start}"' if node.get("ordered") and start != 1 else "ol" if node.get("ordered") else "ul"
        return f"<{tag}>{self.inside(node)}</{tag[:2]}>"

    def _table(self, node: Node) -> str:
        head = [row for row in node["children"] if all(cell.get("header") for cell in row["children"])]
        body = [row for row in node["children"] if row not in head]
        parts = (
            (f"<{tag}>{''.join(map(self.write, rows))}</{tag}>") for tag, rows in (("thead", head), ("tbody", body))
        )
        return f'<div class="wide"><table>{"".join(parts)}</table></div>'

    def _tableCell(self, node: Node) -> str:
        text = self.inside(node)
        tag = 'th scope="col"' if node.get("header") and text else "td"
        align = f' class="{node["align"]}"' if node.get("align") in ("right", "center") else ""
        return f"<{tag}{align}>{text}</{tag[:2]}>"

    def _link(self, node: Node) -> str:
        return f'<a href="{escape(node["url"])}">{self.inside(node)}</a>'

    _crossReference = _link

    def _image(self, node: Node) -> str:
        return self.outputs.picture(node["url"], node.get("alt") or "")

    def _break(self, node: Node) -> str:
        return "<br>"

    def _thematicBreak(self, node: Node) -> str:
        return "<hr>"

    def _html(self, node: Node) -> str:
        return escape(node["value"])

    def _comment(self, node: Node) -> str:
        return ""

    def _div(self, node: Node) -> str:
        name = node.get("class", "")
        self.language, before = name if name in ("en", "zh") else self.language, self.language
        text = self.inside(node)
        self.language = before
        return f'<div class="{escape(name)}"{LANG if name == "zh" else ""}>{text}</div>'

    def _block(self, node: Node) -> str:
        tags = [tag for tag in (node.get("data") or {}).get("tags", ()) if not tag.startswith(_LISTED)]
        name = (node.get("html_id") or node.get("identifier") or "").rpartition(OF_PAGE)[2]
        marks = "".join(f"<span{own}></span>" for tag in tags if tag != name and (own := self.own(tag)))
        if node.get("kind") == "notebook-code":
            return f'<div class="cell"{self.own(name)}>{marks}{self.inside(node)}</div>'
        return f"<div{own}>{marks}{self.inside(node)}</div>" if (own := self.own(name)) else marks + self.inside(node)

    def _outputs(self, node: Node) -> str:
        shown = "".join(self.outputs.write(child["jupyter_data"]) for child in node.get("children", ()))
        if shown and node.get("visibility") == "hide":
            return f'<details class="folded"><summary>{both("guess")}</summary>{shown}</details>'
        return f'<div class="outputs">{shown}</div>' if shown else ""
