"""The pages in two languages: question cards, their list, the glossary, the letters."""

from collections.abc import Iterator
from itertools import groupby

from parallel_lab.course.questions import KINDS, SECTIONS, Card, Question, card, index
from parallel_lab.course.terms import read
from parallel_lab.interview.words import LANGUAGES, say
from tools.book.pages import Page, escaped
from tools.book.words import word


def place(name: str) -> str:
    """The path of a card's page."""
    return f"cards/{name}"


def fence(name: str, text: str) -> str:
    """A block of one language."""
    return f"::::{{div}}\n:class: {name}\n\n{text}\n\n::::"


def card_pages(chapters: dict[str, str]) -> Iterator[Page]:
    """A page for each card.

    Args:
        chapters: the path of each chapter's page by its two digits.
    """
    for question in index().values():
        shown = card(question)
        text = "\n\n".join([*_claim(question), *map(_section, shown.sections.items()), _foot(shown, chapters)])
        titles = f"{question.id} · {question.ask}", f"{question.id} · {question.zh}"
        origin = f"parallel_lab/course/questions/{question.id}.md"
        yield Page(place(question.id), "card", *titles, origin=origin, text=text, chapter=question.chapter)


def _claim(question: Question) -> list[str]:
    if not question.test:
        return []
    heard = f"“{escaped(question.test)}”*"
    return [
        fence("en", f"*Often heard, and put to the test in chapter {question.chapter}: {heard}"),
        fence("zh", f"*常听到、在第 {question.chapter} 章检验的说法：{heard}"),
    ]


def _section(item: tuple[str, str]) -> str:
    heading, body = item
    title, language = SECTIONS.get(heading, (heading, ""))
    return fence(language or "en", f"## {title}\n\n{escaped(body)}")


def _foot(shown: Card, chapters: dict[str, str]) -> str:
    """What kind of question it is, and the cell that measures the answer."""
    notebook, _, cell = shown.evidence.partition("#")
    chapter = chapters.get((notebook or shown.question.chapter)[:2], "")
    if not chapter:
        return ""
    link = f"book:{chapter}.html{'#' if cell else ''}{cell}"
    kind, number = KINDS[shown.question.kind], shown.question.chapter
    return "\n\n".join(
        [
            fence("en", f"## {word('evidence', 'en')}\n\n{kind}. Chapter {number}. [The cell that shows it]({link})."),
            fence("zh", f"## {word('evidence', 'zh')}\n\n第 {number} 章。[给出证据的单元格]({link})。"),
        ]
    )


def card_list() -> Page:
    """All cards by chapter, each line in both languages."""
    lines = []
    questions = sorted(index().values(), key=lambda question: question.chapter)
    for number, group in groupby(questions, key=lambda question: question.chapter):
        heads = ((lang, say(f"chapter.{number}", lang)) for lang in LANGUAGES)
        lines += [part for lang, head in heads for part in (fence(lang, f"## {number} · {head}"), "")]
        for one in group:
            shown = (("en", one.ask), ("zh", one.zh))
            inside = (f"[{one.id} · {escaped(text)}](book:{place(one.id)}.html)" for _, text in shown)
            english, chinese = inside
            lines += [fence("en", f"- {english}"), "", fence("zh", f"- {chinese}"), ""]
    return Page("cards/index", "card", "Question cards", "问题卡", text="\n".join(lines))


def terms() -> Iterator[Page]:
    """The glossary and the letters of the course, in both languages."""
    lines = [
        "| English | 中文 |",
        "|:--|:--|",
        *(f"| {escaped(row['en'])} | {escaped(row['zh'])} |" for row in read("glossary")),
    ]
    yield Page("glossary", "more", "Glossary", "术语表", text="\n".join(lines))
    lines = ["| letter | what it is | unit | 中文 | chapters |", "|:--|:--|:--|:--|:--|"]
    for letter, (english, unit, chinese, where) in read("symbols").items():
        cells = (f"`{letter}`", english, unit, chinese, str(where))
        lines.append(f"| {' | '.join(escaped(str(cell)).replace('|', chr(92) + '|') for cell in cells)} |")
    yield Page("symbols", "more", "Letters", "符号表", text="\n".join(lines))
