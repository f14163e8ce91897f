"""Is one as right as one is sure? The Brier score and the curve of calibration, by topic, from the log of progress.

An event of the log counts that has a `confidence`, stated before the answer. It was *right* where the rating is Good or
Easy; one that needed hints or a second try was not.

    Brier (1950)    mean of (confidence - right)^2, from 0 to 1; who always says one half has 0.25
    base            share (1 - share), what one has who always says the share of what was right
    bias            mean confidence less share of right answers; above 0 one is too sure

Few answers say little: the curve joins at least `LEAST` of them in a point, and each point has its interval (Wilson
1927, 95 %).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import NamedTuple

from parallel_lab import clinic
from parallel_lab.course import page, progress
from parallel_lab.course.drills import listed
from parallel_lab.course.events import GOOD, Entry
from parallel_lab.course.tasks import tasks
from parallel_lab.interview.atoms import atoms
from parallel_lab.interview.board import picture
from parallel_lab.interview.queue import chapter_named
from parallel_lab.interview.vocabulary import terms
from parallel_lab.interview.words import lang, language_of, say
from parallel_lab.trace.units import format_share
from parallel_lab.view import Drawing, lines

LEAST = 5  # answers that a point of the curve stands for
TOPICS = 4  # that a picture has room for
FEW = 20  # below so many a score is little but chance
_Z = 1.96
EDGES = (0.0, 0.3, 0.5, 0.7, 0.85, 1.0)  # of the bins of confidence


class Stated(NamedTuple):
    """One answer with a confidence."""

    chapter: str
    confidence: float
    right: bool


class Point(NamedTuple):
    """Answers of about one confidence."""

    confidence: float  # their mean
    right: float  # the share that was right
    answers: int
    low: float  # of the interval of that share
    high: float


@dataclass(frozen=True)
class Score:
    """What a number of answers comes to."""

    count: int
    confidence: float
    right: float
    brier: float

    @property
    def base(self) -> float:
        """The Brier score of who always says the share of right answers."""
        return self.right * (1 - self.right)

    @property
    def bias(self) -> float:
        """Above 0 one is too sure."""
        return self.confidence - self.right


def stated(reviews: Mapping[str, Entry] | None = None) -> list[Stated]:
    """The answers with a confidence, in the order of the log; from the learner's progress by default."""
    reviews = progress.read()["reviews"] if reviews is None else reviews
    found = [
        Stated(chapter_of(key), event["confidence"], event["rating"] >= GOOD)
        for key, entry in reviews.items()
        for event in entry.get("log", ())
        if "confidence" in event
    ]
    return [one for one in found if one.chapter]


def chapter_of(key: str) -> str:
    """The chapter of what a log is of: an atom, a drill, an exercise, a self-check, a case; empty for what is gone."""
    kind, _, name = key.partition("/")
    if key in atoms():
        return atoms()[key].chapter
    if kind == "term":
        return next((one.chapter for one in terms() if one.key == key), "")
    if kind == "drill":
        return listed().get(name, "")
    if kind == "exercise":
        return tasks()[name].chapter if name in tasks() else ""
    if kind == "clinic":
        number = int(name) if name.isdecimal() else 0
        return clinic.CAUSES[clinic.CASES[number].cause].chapter if number in clinic.CASES else ""
    return name[:2] if kind == "quiz" else ""


def score(answers: Sequence[Stated]) -> Score:
    """Their Brier score, mean confidence and share of right ones.

    Raises:
        ValueError: there are none.
    """
    if not answers:
        raise ValueError("no answer with a confidence: there is nothing to score")
    n = len(answers)
    return Score(
        n,
        sum(one.confidence for one in answers) / n,
        sum(one.right for one in answers) / n,
        sum((one.confidence - one.right) ** 2 for one in answers) / n,
    )


def curve(answers: Sequence[Stated], least: int = LEAST) -> list[Point]:
    """The share of right answers over confidence; a bin with fewer than `least` is joined with its neighbor."""
    bins, waiting = [], []
    for low, high in pairwise(EDGES):
        waiting += [one for one in answers if low <= one.confidence < high or high == one.confidence == 1]
        if len(waiting) >= least:
            bins.append(waiting)
            waiting = []
    if waiting:
        bins[-1:] = [[*(bins[-1] if bins else ()), *waiting]]
    return [_point(one) for one in bins]


def _point(answers: Sequence[Stated]) -> Point:
    of = score(answers)
    n, p = of.count, of.right
    middle, half = p + _Z**2 / (2 * n), _Z * sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
    whole = 1 + _Z**2 / n
    return Point(of.confidence, p, n, (middle - half) / whole, (middle + half) / whole)


def by_topic(answers: Sequence[Stated]) -> dict[str, Score]:
    """The score of each chapter that has answers, in the order of the course."""
    return {
        chapter: score([one for one in answers if one.chapter == chapter])
        for chapter in sorted({one.chapter for one in answers})
    }


def drawing(answers: Sequence[Stated]) -> Drawing:
    """The curve of all answers and the points of the topics with most of them, beside what it should be.

    Raises:
        ValueError: there are no answers.
    """
    curves = {"all answers": curve(answers)}
    most = sorted(by_topic(answers).items(), key=lambda row: -row[1].count)[:TOPICS]
    for chapter in sorted(chapter for chapter, of in most if of.count >= 2 * LEAST):
        curves[f"chapter {chapter}"] = curve([one for one in answers if one.chapter == chapter])
    points = {name: ([p.confidence for p in own], [p.right for p in own]) for name, own in curves.items()}
    ideal = {"as sure as right": ([0.0, 1.0], [0.0, 1.0]), "all answers": points["all answers"]}
    title = f"Calibration: {len(answers)} answers with a confidence"
    return lines(ideal, "confidence", "share right", points=points, points_are="points", title=title)


@dataclass(frozen=True, repr=False)
class Calibration(page.Shown):
    """The score, the curve and the topics; see `calibration`."""

    answers: Sequence[Stated]
    language: str = "en"

    @property
    def score(self) -> Score:
        """Of all answers."""
        return score(self.answers)

    @property
    def curve(self) -> list[Point]:
        """Of all answers."""
        return curve(self.answers)

    @property
    def topics(self) -> dict[str, Score]:
        """The score of each chapter."""
        return by_topic(self.answers)

    def as_page(self) -> page.Page:
        """What it comes to in words, the picture, the points, the topics."""
        own, title = self.language, say("calibration.title", self.language)
        parts = [page.paragraph(title, "head", lang(own))]
        if not self.answers:
            return page.Page(title, [*parts, page.paragraph(say("calibration.none", own), lang=lang(own))], "note")
        texts = [self._verdict()] + [say("calibration.few", own, few=FEW)] * (len(self.answers) < FEW)
        parts += [page.paragraph(text, lang=lang(own)) for text in texts]
        parts += [picture(drawing(self.answers), ""), self._points(), self._topics()]
        return page.Page(title, [*parts, page.paragraph(say("calibration.rule", own), "small", lang(own))])

    def _verdict(self) -> str:
        of = self.score
        way = "even" if abs(of.bias) < 0.05 else "over" if of.bias > 0 else "under"
        values = {
            "count": of.count,
            "brier": f"{of.brier:.3f}",
            "base": f"{of.base:.3f}",
        }
        shares = {"confidence": format_share(of.confidence), "right": format_share(of.right)}
        return (
            f"{say('calibration.score', self.language, **values, **shares)} {say(f'calibration.{way}', self.language)}"
        )

    def _points(self) -> page.Part:
        head = self._head("confidence", "right", "interval", "answers")
        shown = (
            (f"{p.confidence:.2f}", f"{p.right:.2f}", f"{p.low:.2f} – {p.high:.2f}", str(p.answers)) for p in self.curve
        )
        return page.table(head, list(shown))

    def _topics(self) -> page.Part:
        head = self._head("topic", "answers", "confidence", "right", "bias", "brier")
        rows = [
            (
                f"{chapter} {say(f'chapter.{chapter}', self.language)}",
                str(of.count),
                f"{of.confidence:.2f}",
                f"{of.right:.2f}",
                f"{of.bias:+.2f}",
                f"{of.brier:.3f}",
            )
            for chapter, of in self.topics.items()
        ]
        return page.table(head, rows)

    def _head(self, *names: str) -> list[str]:
        return [say(f"calibration.{name}-column", self.language) for name in names]


def calibration(*, chapter: str | None = None, language: str | None = None) -> Calibration:
    """Whether one is as right as one is sure: the Brier score, the curve of calibration, and both by topic.

    Args:
        chapter: only of this one, as `"09"`.
        language: `en` or `zh`; that of the environment by default.

    Raises:
        ValueError: there is no such chapter or language.
    """
    own = language_of(language)
    of = chapter_named(chapter, own)
    return Calibration([one for one in stated() if of in (None, one.chapter)], own)
