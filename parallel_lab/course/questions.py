"""Question cards: `ask("E5")` shows an interview question; one answers, looks, and grades the own answer.

`questions/index.yaml` lists every question; `questions/<id>.md` holds its card, written after `_TEMPLATE.md`: front
matter (id, evidence, status) and one section per heading.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from parallel_lab.course import forms, page, progress
from parallel_lab.course.anchors import proof
from parallel_lab.course.typed import named

FOLDER = files("parallel_lab.course").joinpath("questions")
# heading in the card -> (what the reader sees, language)
SECTIONS = {
    "30 seconds": ("30-second answer", ""),
    "30 秒": ("30 秒回答", "zh"),
    "Two minutes": ("2-minute answer", ""),
    "两分钟": ("两分钟回答", "zh"),
    "Follow-ups": ("What an interviewer asks next", ""),
    "追问": ("面试官接着会问", "zh"),
    "Common mistake": ("The common mistake", ""),
    "常见错误": ("常见错误", "zh"),
    "Weak answer": ("A weak answer", ""),
    "较弱的回答": ("较弱的回答", "zh"),
    "Strong answer": ("A strong answer", ""),
    "较强的回答": ("较强的回答", "zh"),
}
RUBRIC = ("30 seconds", "Weak answer", "Strong answer")  # what stands open when one grades oneself
GRADES = {"knew": "Knew it", "partly": "Partly", "missed": "Missed it"}
KINDS = {"ask": "Interview question", "code": "Coding problem", "topic": "Topic"}


@dataclass(frozen=True)
class Question:
    """One entry of the index."""

    id: str  # `E5`
    kind: str  # `ask`, `code` or `topic`
    chapter: str  # two digits, the notebook that answers it
    ask: str  # the question in English
    zh: str  # the question in Chinese
    test: str = ""  # the circulating claim that the notebook puts to a measured test; empty where there is none

    @property
    def alone(self) -> str:
        """The question as one asks it without those before it: those from E2 on say `it` of model parallelism."""
        if not self.id.startswith("E"):
            return self.ask
        return re.sub(r"\bit(s?)\b", lambda it: f"model parallelism{chr(39) * bool(it[1])}{it[1]}", self.ask, count=1)


@dataclass(frozen=True, repr=False)
class Card(page.Shown):
    """A question and, where its card is written, the answer, which a cell shows folded."""

    question: Question  # the entry of the index
    evidence: str = ""  # `notebook#cell-tag`, the cell that proves the answer; the notebook may be only its number
    status: str = ""  # `draft` or `ready`; empty where no card is written yet
    sections: Mapping[str, str] = field(default_factory=dict)  # Markdown by heading, in the order of the file

    def as_page(self) -> page.Page:
        """The question in both languages, the claim that is put to the test, the sections, the proof."""
        return page.Page(self._label, [*self._question(), *self._sections(), page.Part("", ""), self._foot()])

    def question_page(self) -> page.Page:
        """The question without an answer."""
        return page.Page(self._label, [*self._question(), self._foot()])

    @property
    def _label(self) -> str:
        return f"{KINDS[self.question.kind]} {self.question.id}"

    def _question(self) -> list[page.Part]:
        q = self.question
        parts = [page.paragraph(f"{q.id} · {q.ask}", "head"), page.paragraph(q.zh, lang="zh")]
        if q.test:
            claim = f"Often heard, and put to the test in chapter {q.chapter}: “{q.test}”"
            parts.append(page.paragraph(claim, "small"))
        return parts

    def _sections(self, unfolded: Sequence[str] = ()) -> list[page.Part]:
        titles = {heading: SECTIONS.get(heading, (heading, "")) for heading in self.sections}
        return [
            page.folded(titles[heading][0], page.markdown(text), titles[heading][1], heading in unfolded)
            for heading, text in self.sections.items()
        ]

    def _foot(self) -> page.Part:
        kind, chapter = KINDS[self.question.kind], self.question.chapter
        if self.sections:
            return proof(f"{kind}. Chapter {chapter}; shown", self.evidence)
        return page.paragraph(f"{kind}. Its answer is not written yet: chapter {chapter} will give it.", "small")

    def form(self) -> Any:
        """The question alone; a button brings the answer, and then three in which one grades the own answer."""
        asked = forms.html(self.question_page()._repr_html_())
        below, said = forms.box(), forms.html()

        def grade(word: str) -> None:
            noted = f"Noted: {GRADES[word].lower()}. {record(self.question.id, word)}"
            said.value = forms.status(page.Page("Noted", [page.paragraph(noted)], "note"))

        def reveal() -> None:
            answer = page.Page(f"Answer to {self.question.id}", self._sections(RUBRIC))
            words = "Judge what you said by the weak and the strong answer:"
            grades = [forms.button(text, f"{text}: keep it", partial(grade, word)) for word, text in GRADES.items()]
            row = forms.box(*grades, side_by_side=True)
            below.children = [forms.html(answer.section), forms.html(page.paragraph(words).html), row, said]

        show = forms.button("Show the answer", "Answer aloud first, then look", reveal)
        return forms.box(asked, *([show, below] if self.sections else []))

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        return forms.bundle(self.form(), self.as_page())


def record(name: str, word: str) -> str:
    """Keeps how well the question `name` was answered, `knew`, `partly` or `missed`; returns a warning, or nothing.

    Raises:
        ValueError: `word` is none of the three.
    """
    if word not in GRADES:
        raise ValueError(f"{word!r} is none of {', '.join(GRADES)}")
    return progress.record_card(name, word)


@cache
def index() -> dict[str, Question]:
    """All questions by id, in the order of the index."""
    rows = yaml.safe_load(FOLDER.joinpath("index.yaml").read_text(encoding="utf-8"))
    return {name: Question(id=name, **row) for name, row in rows.items()}


def ask(name: str) -> Card:
    """The card of question `name` (`"E5"`, in any case).

    A question whose card is not written yet shows the question and the chapter that will answer it.

    Raises:
        UnknownName: there is no such question; this KeyError names the nearest ids.
    """
    return card(named("question", str(name).strip().upper(), index()))


def card(question: Question, folder: Traversable | Path = FOLDER) -> Card:
    """The card of `question` from `folder`, without sections where there is no file.

    Raises:
        ValueError: the file cannot be read as a card.
    """
    file = folder.joinpath(f"{question.id}.md")
    if not file.is_file():
        return Card(question)
    front, sections = parse(file.read_text(encoding="utf-8"), file.name)
    return Card(question, str(front.get("evidence", "")), str(front.get("status", "")), sections)


def parse(text: str, name: str) -> tuple[dict, dict[str, str]]:
    """Front matter and sections of a card.

    Raises:
        ValueError: the front matter cannot be read; the message names the file.
    """
    match = re.match(r"---\n(.*?)\n---\n(.*)", text, re.DOTALL)
    if match is None:
        raise ValueError(f"{name}: no front matter between two lines of ---")
    try:
        front = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        raise ValueError(f"{name}: the front matter is not YAML: {error}") from None
    if not isinstance(front, dict):
        raise ValueError(f"{name}: the front matter is not a list of `key: value`")
    _, *pieces = re.split(r"^## +(.+?) *$", match[2], flags=re.MULTILINE)
    return front, {heading: body.strip() for heading, body in zip(pieces[::2], pieces[1::2], strict=True)}
