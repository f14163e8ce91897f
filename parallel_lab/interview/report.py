"""The report of a mock interview: by topic what was strong and what was missing, what to do next, and the way so far.

It is computed from what the progress file holds of the interviews (`mock.Mock.record`), so it can be read again later,
in either language.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any

from parallel_lab.course import chapters, page, progress
from parallel_lab.course.anchors import anchor, heading_above
from parallel_lab.course.events import day
from parallel_lab.course.spoken import title_in
from parallel_lab.course.tasks import tasks
from parallel_lab.course.typed import named
from parallel_lab.interview.atoms import atom, atoms
from parallel_lab.interview.brier import Stated, score
from parallel_lab.interview.noted import STRONG
from parallel_lab.interview.record import mocks
from parallel_lab.interview.roles import designs, roles
from parallel_lab.interview.rounds import sentences
from parallel_lab.interview.words import lang, language_of, say

MOST_TASKS = 2  # of one chapter that are proposed
Record = Mapping[str, Any]
Turns = Sequence[Mapping[str, Any]]


def mean(turns: Turns) -> float:
    """The mean result of turns, from 0 to 1."""
    return sum(turn["result"] for turn in turns) / len(turns) if turns else 0.0


@dataclass(frozen=True, repr=False)
class Report(page.Shown):
    """A report that shows itself; see `report`.

    Attributes:
        key: When the interview began.
        record: What is kept of it.
        earlier: What is kept of those before.
        language: Of the words.
    """

    key: str
    record: Record
    earlier: Sequence[Record]
    language: str

    @property
    def turns(self) -> Turns:
        """What was asked, in order."""
        return self.record.get("turns", ())

    @property
    def score(self) -> float:
        """The share of what was asked that was answered."""
        return mean(self.turns)

    @cached_property
    def topics(self) -> dict[str, tuple[int, float, float | None]]:
        """By chapter: how much was asked, the score, and the score of earlier interviews, None where there is none."""
        now, before = by_chapter(self.turns), by_chapter([t for one in self.earlier for t in one.get("turns", ())])
        return {
            chapter: (len(own), mean(own), mean(before[chapter]) if chapter in before else None)
            for chapter, own in sorted(now.items())
        }

    @property
    def missing(self) -> Turns:
        """What was not strong."""
        return [turn for turn in self.turns if turn["result"] < STRONG]

    def as_page(self) -> page.Page:
        """The report."""
        parts = [*self._head(), self._table(), *self._lists(), *self._next(), *self._way()]
        return page.Page(self.say("title"), [*parts, self._small("what-it-is")], "note")

    def say(self, key: str, **values: Any) -> str:
        """A text of the report in its language."""
        return say(f"report.{key}", self.language, **values)

    def _text(self, key: str, kind: str = "", **values: Any) -> page.Part:
        return page.paragraph(self.say(key, **values), kind, lang(self.language))

    def _small(self, key: str, **values: Any) -> page.Part:
        return self._text(key, "small", **values)

    def _head(self) -> Iterator[page.Part]:
        one = self.record
        role = roles()[one["role"]].title[self.language] if one["role"] in roles() else one["role"]
        date = day(self.key)
        yield self._text("title", "head")
        yield self._text("head", role=role, minutes=one["minutes"], date=date, score=self.score)
        yield self._small("used", used=one["used_s"] / 60, minutes=one["minutes"], seed=one["seed"])
        if one.get("unreached"):
            yield self._small("unfinished", count=one["unreached"])

    def _table(self) -> page.Part:
        head = tuple(self.say(key) for key in ("topic", "asked", "score", "before"))
        rows = [
            (f"{chapter} {say(f'chapter.{chapter}', self.language)}", str(count), f"{score:.0%}", _share(before))
            for chapter, (count, score, before) in self.topics.items()
        ]
        return page.table(head, rows)

    def _lists(self) -> Iterator[page.Part]:
        strong = [f"- {turn['ask']}" for turn in self.turns if turn["result"] >= STRONG]
        yield self._text("strong", "head")
        yield page.markdown("\n".join(strong)) if strong else self._text("nothing-strong")
        yield self._text("missing", "head")
        rows = [line for turn in self.missing for line in self._lacks(turn)]
        yield page.markdown("\n".join(rows)) if rows else self._text("nothing-missing")

    def _lacks(self, turn: Mapping[str, Any]) -> Iterator[str]:
        """What was asked, and below it what was not said."""
        yield f"- {turn['ask']}"
        for key, ticked in turn["points"].items():
            if not ticked and (text := point_text(key, self.language)):
                yield f"    - {text}"

    def _next(self) -> Iterator[page.Part]:
        if not self.missing:
            return
        yield self._text("next", "head")
        yield from self._evidence()
        for turn in self.missing:
            if words := self._practice(turn["key"]):
                yield page.paragraph(words, lang=lang(self.language))
        for chapter in by_chapter(self.missing):
            yield from self._tasks(chapter)

    def _evidence(self) -> Iterator[page.Part]:
        """The cells that measure what was missing, each once."""
        cells = {atoms()[turn["key"]].evidence: None for turn in self.missing if turn["key"] in atoms()}
        for cell in filter(None, cells):
            if found := heading_above(*cell.partition("#")[::2]):
                file, heading = found
                words = self.say("next-cell", heading=heading, file=file)
                link = f'<a href="{escape(f"{file}#{anchor(heading)}")}">{escape(words)}</a>'
                yield page.Part(f"<p>{link}</p>", words)

    def _practice(self, key: str) -> str:
        """What to do about a drill, a case or a design; empty for what is of a card or an exercise."""
        kind, _, name = key.partition("/")
        if kind == "drill":
            return self.say("next-drill", name=name)
        if kind == "clinic":
            return self.say("next-clinic", number=name)
        if found := next((one for one in designs() if one.key == key), None):
            return self.say("next-plan", model=found.model, cluster=found.cluster, gpus=found.gpus)
        return ""

    def _tasks(self, chapter: str) -> Iterator[page.Part]:
        """Gaps and exercises of a chapter that are not solved."""
        entries = progress.read()["exercises"]
        todo = [one for one in tasks().values() if one.chapter == chapter]
        todo = [one for one in todo if not progress.solved(entries.get(one.name, {}))]
        for one in todo[:MOST_TASKS]:
            words = self.say(
                "next-exercise", name=one.name, title=title_in(one.name, one.title, self.language), minutes=one.minutes
            )
            link = page.markdown(f"[{words}]({chapters.link_to(one)})").html
            yield page.Part(link, words)

    def _way(self) -> Iterator[page.Part]:
        """How the score and the confidence stand against what came of it."""
        if self.earlier:
            then = mean([turn for one in self.earlier for turn in one.get("turns", ())])
            yield self._text("progress", count=len(self.earlier), then=then, now=self.score)
        else:
            yield self._text("first")
        if answers := self.calibration:
            of = score(answers)
            yield self._text("calibration", said=of.confidence, right=of.right, count=of.count, brier=of.brier)

    @property
    def calibration(self) -> list[Stated]:
        """The answers with a stated confidence; one was right where it was strong."""
        sure = (turn for turn in self.turns if "confidence" in turn)
        return [Stated(turn["chapter"], turn["confidence"], turn["result"] >= STRONG) for turn in sure]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def by_chapter(turns: Turns) -> dict[str, list[Mapping[str, Any]]]:
    """Turns by chapter, in the order in which the chapters came up."""
    found = defaultdict(list)
    for turn in turns:
        found[turn["chapter"]].append(turn)
    return dict(found)


def point_text(key: str, language: str) -> str:
    """What a point of a rubric says; empty where the course no longer has it."""
    name, _, number = key.partition("#")
    if name not in atoms():
        return ""
    if not number:
        return atom(name).answered(language)
    pieces = sentences(atom(name), language)
    return pieces[int(number) - 1].text if int(number) <= len(pieces) else ""


def interviews() -> dict[str, Record]:
    """All interviews in which something was asked, by their beginning, the first one first."""
    return dict(mocks(progress.read()))


def report(key: str | None = None, language: str | None = None) -> Report:
    """The report of an interview.

    Args:
        key: when it began, as the list of interviews has it; by default that of the last one.
        language: `en` or `zh`; by default that of the environment.

    Raises:
        UnknownName: there is no such interview; this KeyError names the nearest ones.
        ValueError: there is none at all.
    """
    known, words = interviews(), language_of(language)
    if not known:
        raise ValueError(say("report.none", words))
    chosen = key or max(known)
    record = named("interview", chosen, known)
    earlier = [one for when, one in known.items() if when < chosen]
    return Report(chosen, record, earlier, words)


def listed(language: str | None = None) -> page.Page:
    """The interviews so far, a row each."""
    words = language_of(language)
    head = tuple(say(key, words) for key in ("report.when", "mock.role", "mock.minutes", "report.score"))
    names = {name: one.title[words] for name, one in roles().items()}
    rows = [
        (key, names.get(one["role"]) or one["role"], str(one["minutes"]), f"{mean(one['turns']):.0%}")
        for key, one in interviews().items()
    ]
    if not rows:
        return page.Page(say("report.title", words), [page.paragraph(say("report.none", words), lang=lang(words))])
    return page.Page(say("report.title", words), [page.table(head, rows)])
