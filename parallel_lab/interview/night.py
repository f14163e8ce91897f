"""The night before: the first pages of all chapters on one page to read and on one to print.

The page needs no network and no script: formulas are MathML, pictures stand inside it. Where a browser of the Chromium
family is on the machine, it prints the page as a PDF.
"""

import base64
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape, unescape
from importlib.resources import files
from pathlib import Path

from latex2mathml.converter import convert

from parallel_lab.course import page
from parallel_lab.course.progress import replace
from parallel_lab.course.questions import Card, ask, index
from parallel_lab.course.typed import named
from parallel_lab.interview import stored
from parallel_lab.interview.formulas import SPAN, tex
from parallel_lab.interview.notes import SHORT
from parallel_lab.interview.printing import print_pdf
from parallel_lab.interview.stored import FIRST_PAGE, Picture, chapters
from parallel_lab.interview.words import language_of, say
from parallel_lab.view.math_font import FAMILY, math_font

# Code stays as it is; what stands between dollars is TeX.
_MATH = re.compile(r"(?P<code>```.*?```|`[^`\n]*`)|\$\$(?P<block>.+?)\$\$|(?<!\\)\$(?P<line>[^$]+?)\$", re.DOTALL)
_LINK = re.compile(r'<a href="([^"]*)">(.*?)</a>', re.DOTALL)
_HEADING = re.compile(f"^#+ (?:{FIRST_PAGE}|一页纸)\n", re.MULTILINE)
_WIDE = re.compile(r'<p>(?=(?:(?!</p>).)*<math[^>]*display="block")', re.DOTALL)
_TALL = {1.2: "page", 0.7: "tall"}  # high against wide


@dataclass(frozen=True, repr=False)
class FirstPage(page.Shown):
    """The first page of a chapter, ready to be shown in a cell; see `first_page`."""

    chapter: str
    language: str

    def as_page(self) -> page.Page:
        """The page."""
        title, parts = stored.first_page(self.chapter, self.language)
        texts = (one for one in parts if isinstance(one, str))
        return page.Page(title, [page.Part(_chapter(self.chapter, self.language, cards=False), "\n\n".join(texts))])


def first_page(chapter: str, language: str | None = None) -> FirstPage:
    """What one reads of a chapter the night before an interview: decision table, formulas, numbers, picture.

    Args:
        chapter: its two digits, or its name.
        language: `en` or `zh`; by default that of the environment.

    Raises:
        UnknownName: there is no such chapter; this KeyError names the nearest ones.
        ValueError: there is no such language.
    """
    return FirstPage(named("chapter", str(chapter)[:2], {one: one for one in chapters()}), language_of(language))


def night_page(*, cards: bool = False, language: str | None = None) -> str:
    """The first pages of all chapters as one page of HTML, with a list of contents.

    Args:
        cards: the 30-second answers of each chapter's questions as well.
        language: `en` or `zh`.

    Raises:
        ValueError: there is no such language.
        FileNotFoundError: the chapters are not at hand.
    """
    chosen = language_of(language)
    if not chapters():
        raise FileNotFoundError("the chapters are not at hand: there are no notebooks to take first pages from")
    named = {chapter: _title(chapter, chosen) for chapter in chapters()}
    head = f"<h1>{escape(say('night.title', chosen))}</h1><p>{escape(say('night.what', chosen, count=len(named)))}</p>"
    rows = "".join(f'<li><a href="#chapter-{chapter}">{escape(name)}</a></li>' for chapter, name in named.items())
    body = "\n".join(_chapter(chapter, chosen, cards) for chapter in named)
    style = files("parallel_lab.interview").joinpath("paper.css").read_text(encoding="utf-8") + _font(body)
    contents = f'<nav aria-label="{escape(say("night.contents", chosen))}"><ol>{rows}</ol></nav>'
    title = f"<title>{escape(say('night.title', chosen))} · Parallel Lab</title>"
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    main = f"<main>{head}{contents}{body}</main>"
    page_head = f"<head>{meta}{title}<style>{style}</style></head>"
    return f'<!DOCTYPE html>\n<html lang="{chosen}">{page_head}<body>{main}</body></html>\n'


def write_night(
    html: str | Path | None = None,
    pdf: str | Path | None = None,
    *,
    cards: bool = False,
    language: str | None = None,
) -> list[Path]:
    """Writes the page as HTML and prints it as PDF, each where a file is named.

    Returns:
        The files.

    Raises:
        NoBrowser: no browser that prints is on this machine; the HTML is written all the same.
        ValueError: there is no such language.
        OSError: a file cannot be written.
    """
    text = night_page(cards=cards, language=language)
    if html:
        replace(Path(html), text)
    if pdf:
        replace(Path(pdf), print_pdf(text))
    return [Path(file) for file in (html, pdf) if file]


def _title(chapter: str, language: str) -> str:
    """The number and the title of a chapter; in Chinese with the English one behind it, as its text is English."""
    english = stored.first_page(chapter)[0]
    if language == "en":
        return english
    return f"{chapter} · {say(f'chapter.{chapter}', language)}（{english.partition(' · ')[2]}）"


def _chapter(chapter: str, language: str, cards: bool) -> str:
    title, parts = _title(chapter, language), stored.first_page(chapter, language)[1]
    inside = [_figure(one) if isinstance(one, Picture) else markdown(_without_heading(one)) for one in parts]
    inside += [f'<section class="answers" lang="{language}">{"".join(_answers(chapter, language))}</section>'] * cards
    return f'<article id="chapter-{chapter}" lang="{language}"><h2>{escape(title)}</h2>\n{"".join(inside)}</article>'


def _without_heading(text: str) -> str:
    return _HEADING.sub("", text)


def _font(html: str) -> str:
    """The style that brings the font of the formulas in `html` with it: many machines have none."""
    letters = unescape("".join(re.findall(r"<math.*?</math>", html, re.DOTALL)))
    data = base64.b64encode(math_font(letters)).decode()
    face = f'@font-face {{ font-family: "{FAMILY}"; src: url(data:font/woff;base64,{data}); }}'
    return f'{face} math {{ font-family: "{FAMILY}", math; }}'


def markdown(text: str) -> str:
    """Markdown with TeX between dollars as HTML; links into a notebook, which paper cannot follow, are words."""
    made: list[str] = []

    def keep(found: re.Match) -> str:
        if found["code"]:
            return found[0]
        made.append(convert(found["block"] or found["line"], display="block" if found["block"] else "inline"))
        return f"xMATHx{len(made) - 1}x"

    html = page.markdown(_MATH.sub(keep, text)).html
    html = re.sub(r"xMATHx(\d+)x", lambda found: made[int(found[1])], html)
    html = _WIDE.sub('<p tabindex="0">', html)  # scrolls where the window is narrow, so the keyboard must reach it
    return _LINK.sub(_link, SPAN.sub(_formula, html)).replace(r"\$", "$")


def _link(found: re.Match) -> str:
    """A link to a chapter leads to its place here, one to a section is its words, with a sign before its number."""
    target, words = found[1], found[2]
    if chapter := re.match(r"(?:\.\./notebooks/)?(\d\d)_\w+\.ipynb", target):
        return f'<a href="#chapter-{chapter[1]}">{words}</a>'
    if target.startswith("http"):
        return found[0]
    return f"§{words}" if words.isdigit() else words


def _formula(found: re.Match) -> str:
    set_as = tex(unescape(found[1]))
    return found[0] if set_as is None or len(set_as) == 1 else convert(set_as)


def _figure(picture: Picture) -> str:
    wide, high = struct.unpack(">II", picture.png[16:24])  # of a PNG, in its first chunk
    look = next((f' class="{name}"' for share, name in _TALL.items() if high > share * wide), "")
    data = base64.b64encode(picture.png).decode()
    image = f'<img src="data:image/png;base64,{data}" alt="{escape(picture.alt)}" width="{picture.width}">'
    return f"<figure{look}>{image}</figure>"


def _answers(chapter: str, language: str) -> Iterator[str]:
    """The 30-second answers of the chapter's questions."""
    cards: list[Card] = [ask(name) for name, question in index().items() if question.chapter == chapter]
    if cards:
        yield f"<h3>{escape(say('night.answers', language))}</h3>"
    for card in cards:
        question = card.question.zh if language == "zh" else card.question.alone
        yield f"<h4>{card.question.id} · {escape(question)}</h4>{markdown(card.sections[SHORT[language]])}"
