"""The pages as files: each page's text in the frame of book/theme, with its list of contents and its neighbors."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

from parallel_lab.course.page import STYLE
from tools.book.listing import listing
from tools.book.mdast import Heading
from tools.book.pages import BOOK, ROOT, Page
from tools.book.words import both, spans, word, words

THEME = ROOT / "book" / "theme"
ASSETS = ("book.css", "book.js", "search.js")
SHOWN_DEPTH = 3  # headings of this depth and above stand in a page's own list of contents
_GROUPS = ("first", "card", "exercise", "reference")


@dataclass
class Frame:
    """Puts pages into the frame.

    Attributes:
        book: the folder of the book.
        pages: all pages, in their order.
    """

    book: Path
    pages: Sequence[Page]

    def __post_init__(self) -> None:
        self.template = Template((THEME / "page.html").read_text(encoding="utf-8"))
        self.cards: dict[str, list[Page]] = {}
        for page in self.pages:
            if page.kind == "card" and page.chapter:
                self.cards.setdefault(page.chapter, []).append(page)

    def write(self, page: Page, body: str, headings: Sequence[Heading] = ()) -> None:
        """Writes the file of one page."""
        target, up = self.book / page.address, "../" * page.path.count("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        filled = self.template.substitute(
            {key.replace("-", "_"): both(key) for key in words()},
            up=up,
            page_title=escape(page.title),
            heading=spans(escape(page.title), escape(page.zh)),
            hint_en=word("search-hint", "en"),
            hint_zh=word("search-hint", "zh"),
            navigation=self._navigation(page, up),
            contents=contents(headings, page),
            body=body,
            cards=self._cards(page, up),
            neighbors=self._neighbors(page, up),
            kind=page.kind,
            note=_note(page),
        )
        target.write_text(relative(filled, up), encoding="utf-8")

    def _navigation(self, page: Page, up: str) -> str:
        """The list of the book's parts, with all chapters; the part that the page belongs to is marked."""
        lines = [_line(one, page, up) for one in self.pages if one.kind == "start"]
        lines.append(f'<li><span class="part">{both("chapter")}</span><ul>')
        lines += [_line(one, page, up) for one in self.pages if one.kind == "chapter"] + ["</ul></li>"]
        for kind in _GROUPS:
            first = next((one for one in self.pages if one.kind == kind), None)
            if first:
                here = ' aria-current="true"' if page.kind == kind else ""
                lines.append(f'<li><a href="{up}{first.address}"{here}>{both(kind)}</a></li>')
        lines += [_line(one, page, up) for one in self.pages if one.kind == "more"]
        return f"<ul>{''.join(lines)}</ul>"

    def _cards(self, page: Page, up: str) -> str:
        """The cards of a chapter, under the chapter."""
        if page.kind not in ("chapter", "first") or not (cards := self.cards.get(page.chapter)):
            return ""
        lines = "".join(_line(card, page, up) for card in cards)
        return f'<section class="cards-here"><h2 id="cards-here">{both("cards-here")}</h2><ul>{lines}</ul></section>'

    def _neighbors(self, page: Page, up: str) -> str:
        """Links to the page before and the page after of the same kind."""
        alike = [one for one in self.pages if one.kind == page.kind]
        place = next((at for at, one in enumerate(alike) if one.path == page.path), None)
        if place is None:
            return ""
        sides = (("before", place - 1), ("after", place + 1))
        found = [(key, alike[at]) for key, at in sides if 0 <= at < len(alike)]
        return "".join(
            f'<a rel="{"prev" if key == "before" else "next"}" href="{up}{one.address}">{both(key)}: {_title(one)}</a>'
            for key, one in found
        )


def contents(headings: Sequence[Heading], page: Page) -> str:
    """A page's own list of contents; nothing for a page of one part. That of a room of the package has its modules."""
    room = page.kind == "reference"
    shown = [one for one in headings if one.depth <= (2 if room else SHOWN_DEPTH)]
    if len(shown) < 2:
        return ""
    lines = []
    for one in shown:
        text = one.html.replace(f"{page.title}.", "") if room else one.html
        language = f' class="{one.language}"' + (' lang="zh"' if one.language == "zh" else "") if one.language else ""
        lines.append(f'<li class="depth-{one.depth}"><a href="#{escape(one.name)}"{language}>{text}</a></li>')
    head = f'<p class="part">{both("here")}</p>'
    return f'<nav class="here" aria-label="On this page">{head}<ul>{"".join(lines)}</ul></nav>'


def relative(html: str, up: str) -> str:
    """HTML in which links of the book are seen from the page."""
    return html.replace(f'"{BOOK}', f'"{up}')


def write_assets(book: Path) -> None:
    """Style and scripts; the style of cells' own HTML is the course's."""
    book.mkdir(parents=True, exist_ok=True)
    for name in ASSETS:
        shutil.copy(THEME / name, book / name)
    own = STYLE.removeprefix("<style>").removesuffix("</style>")
    (book / "course.css").write_text(own, encoding="utf-8")


def search_page() -> tuple[Page, str]:
    """The page of the search, with what it says in both languages."""
    said = ("searching", "found", "nothing", "type")
    spoken = " ".join(f'data-{lang}-{key}="{escape(word(key, lang))}"' for key in said for lang in ("en", "zh"))
    text = Template((THEME / "search.html").read_text(encoding="utf-8")).substitute(words=spoken)
    return Page("search", "search", word("search", "en"), word("search", "zh")), text


def source_page(path: str) -> tuple[Page, str]:
    """The page of a file of the repository, with an anchor a line."""
    lines = listing(ROOT / path)
    return Page(f"source/{path}", "source", path), lines


def _note(page: Page) -> str:
    """What a reader of Chinese is told where the text is English."""
    if page.kind not in ("chapter", "exercise", "reference"):
        return ""
    key = "english-with-first" if page.kind == "chapter" else "english-only"
    first = f'<a href="{BOOK}first/{Path(page.path).name}.html">{word("first", "zh")}</a>'
    return f'<p class="zh note" lang="zh">{word(key, "zh").format(first=first)}</p>'


def _title(page: Page) -> str:
    return spans(escape(page.title), escape(page.zh))


def _line(page: Page, here: Page, up: str) -> str:
    current = ' aria-current="page"' if page.path == here.path else ""
    return f'<li><a href="{up}{page.address}"{current}>{_title(page)}</a></li>'
