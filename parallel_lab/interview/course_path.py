"""The path through the course: of each chapter what is done, what is due today, and where the way goes on."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from parallel_lab.course import page, progress
from parallel_lab.course.chapters import TITLES, next_exercise, quizzes
from parallel_lab.course.drills import listed
from parallel_lab.course.events import GOOD, Entry, logged
from parallel_lab.course.questions import index
from parallel_lab.course.spoken import title_in
from parallel_lab.course.tasks import Task, tasks
from parallel_lab.interview.queue import in_order, items, mistakes
from parallel_lab.interview.words import lang, language_of, say
from parallel_lab.view.drawing import Drawing
from parallel_lab.view.trail import Stop, trail

KINDS = ("exercises", "quizzes", "drills", "cards")


@dataclass(frozen=True)
class Chapter:
    """How far a chapter is.

    Attributes:
        number: Its two digits.
        done: How many of its exercises and gaps, self-checks, drills and cards are done, by kind.
        there: How many there are.
        due: How many atoms, drills and questions of it are due today.
    """

    number: str
    done: Mapping[str, int]
    there: Mapping[str, int]
    due: int

    @property
    def state(self) -> str:
        """`done`, `begun` or `open`."""
        if all(self.done[kind] == self.there[kind] for kind in KINDS):
            return "done"
        return "begun" if any(self.done.values()) else "open"


def way() -> list[Chapter]:
    """All chapters in their order, as the learner's progress has them."""
    entries, all_names = progress.read(), _names()
    there = {kind: Counter(names.values()) for kind, names in all_names.items()}
    done = {
        kind: Counter(chapter for name, chapter in names.items() if _is_done(kind, name, entries))
        for kind, names in all_names.items()
    }
    due = Counter(item.chapter for item in in_order(items(entries["reviews"]), progress.now())[0])
    return [
        Chapter(one, {kind: done[kind][one] for kind in KINDS}, {kind: there[kind][one] for kind in KINDS}, due[one])
        for one in TITLES
    ]


def path() -> Drawing:
    """The map of the course as a picture: done, due, next. Its text is the table that `plab path` prints."""
    chapters, comes = way(), next_exercise()
    stops = [
        Stop(
            f"{one.number} {TITLES[one.number]}",
            sum(one.done.values()),
            sum(one.there.values()),
            one.due,
            comes is not None and comes.chapter == one.number,
        )
        for one in chapters
    ]
    return trail(stops, title="The path: done, due, next", text=repr(path_page("en")))


def path_page(language: str | None = None) -> page.Page:
    """The same as a table, with what to do next.

    Raises:
        ValueError: there is no such language.
    """
    chosen = language_of(language)
    head = [say(f"path.{word}", chosen) for word in ("chapter", *KINDS, "due", "state")]
    chapters = way()
    rows = [
        [
            f"{one.number} {say(f'chapter.{one.number}', chosen)}",
            *(f"{one.done[kind]}/{one.there[kind]}" if one.there[kind] else "" for kind in KINDS),
            str(one.due or ""),
            say(f"path.state-{one.state}", chosen),
        ]
        for one in chapters
    ]
    said = [page.paragraph(line, lang=lang(chosen)) for line in _next(chapters, chosen)]
    return page.Page(say("path.title", chosen), [page.table(head, rows), *said])


def _next(chapters: list[Chapter], language: str) -> list[str]:
    """What to do next: what is due, what failed, the next exercise."""
    comes: Task | None = next_exercise()
    due = sum(one.due for one in chapters)
    said = [say("path.review", language, count=due)] if due else []
    failed = [name for name in mistakes() if name in tasks()]
    said += [say("path.mistakes", language, names=say("schedule.list", language).join(failed))] if failed else []
    if comes is None:
        return [*said, say("path.all-solved", language)]
    about = {"name": comes.name, "title": title_in(comes.name, comes.title, language), "minutes": comes.minutes}
    kind = say(f"path.{'gap' if comes.gap else 'exercise'}", language)
    level = say(f"path.level-{comes.level}", language)
    return [*said, say("path.next", language, kind=kind, level=level, **about)]


def _names() -> dict[str, dict[str, str]]:
    """The chapter of everything there is, by kind and name."""
    return {
        "exercises": {name: task.chapter for name, task in tasks().items()},
        "quizzes": {name: name[:2] for name in quizzes()},
        "drills": dict(listed()),
        "cards": {name: question.chapter for name, question in index().items()},
    }


def _is_done(kind: str, name: str, entries: Mapping[str, Mapping[str, Entry]]) -> bool:
    """Whether something is solved; a card is if the last time one knew it."""
    if kind != "cards":
        return progress.solved(entries[kind].get(name, {}))
    log = logged(entries["reviews"], f"{name}/definition")
    return log[-1]["rating"] >= GOOD if log else entries["cards"].get(name, {}).get("known") == "knew"
