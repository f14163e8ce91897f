"""Question cards: `ask("E5")` shows an interview question with its answer folded away.

`questions/index.yaml` lists every question; `questions/<id>.md` holds its card, written after `_TEMPLATE.md`: front
matter (id, evidence, status) and one section a heading.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import yaml

from parallel_lab.course import page
from parallel_lab.course.typed import named

FOLDER = files("parallel_lab.course").joinpath("questions")
# heading in the card -> (what the reader sees, language)
SECTIONS = {
    "30 seconds": ("30-second answer", ""),
    "30 秒": ("30 秒回答", "zh"),
    "Two minutes": ("2-minute answer, with numbers", ""),
    "Follow-ups": ("What an interviewer asks next", ""),
    "Common mistake": ("The common mistake", ""),
    "Weak answer": ("A weak answer", ""),
    "Strong answer": ("A strong answer", ""),
}
KINDS = {"ask": "Interview question", "code": "Coding problem", "topic": "Topic"}
_CHINESE_BREAK = re.compile(r"(?<=[\u3000-\u9fff\uff00-\uffef])\n(?=[^\n])")  # a browser would set a blank for it


@dataclass(frozen=True)
class Question:
    """One entry of the index."""

    id: str  # `E5`
    kind: str  # `ask`, `code` or `topic`
    chapter: str  # two digits, the notebook that answers it
    ask: str  # the question in English
    zh: str  # the question in Chinese
    test: str = ""  # the circulating claim that the notebook puts to a measured test; empty where there is none


@dataclass(frozen=True)
class Card:
    """A question and, where its card is written, the answer; `_repr_html_` is static HTML with the answer folded."""

    question: Question  # the entry of the index
    evidence: str = ""  # `notebook#cell-tag`, the cell that proves the answer; the notebook may be only its number
    status: str = ""  # `draft` or `ready`; empty where no card is written yet
    sections: Mapping[str, str] = field(default_factory=dict)  # Markdown by heading, in the order of the file

    def _repr_html_(self) -> str:
        q = self.question
        parts = [page.paragraph(f"{q.id} · {q.ask}", "head"), page.paragraph(q.zh, lang="zh")]
        if q.test:
            parts.append(page.paragraph(self._claim(), "small"))
        for heading, text in self.sections.items():
            title, lang = SECTIONS.get(heading, (heading, ""))
            if lang == "zh":
                text = _CHINESE_BREAK.sub("", text)
            parts.append(page.folded(title, page.markdown(text), lang))
        parts.append(page.paragraph(self._foot(), "small"))
        return page.box(parts, f"{KINDS[q.kind]} {q.id}")

    def _claim(self) -> str:
        return f"Often heard, and put to the test in chapter {self.question.chapter}: “{self.question.test}”"

    def _foot(self) -> str:
        kind, chapter = KINDS[self.question.kind], self.question.chapter
        if not self.sections:
            return f"{kind}. Its answer is not written yet: chapter {chapter} will give it."
        return f"{kind}. Chapter {chapter}; shown by the cell {self.evidence}."

    def __repr__(self) -> str:
        q = self.question
        parts = [f"{q.id} · {q.ask}", q.zh, *([self._claim()] if q.test else [])]
        parts += [f"\n{SECTIONS.get(name, (name, ''))[0]}\n{text}" for name, text in self.sections.items()]
        return "\n".join([*parts, "", self._foot()])


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
    front, sections = parse(file.read_text(encoding="utf-8"), f"{question.id}.md")
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
    pieces = re.split(r"^## +(.+?) *$", match[2], flags=re.MULTILINE)
    return front, {heading: body.strip() for heading, body in zip(pieces[1::2], pieces[2::2], strict=True)}
