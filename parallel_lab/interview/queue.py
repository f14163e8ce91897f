"""What is due today, and in which order.

First comes what was learned and fades: by its expected recall on the date of the interview, or now where there is no
date, the weakest first. Then come new atoms, so many a day; where the minutes are limited, only in what the due ones
leave of them. So the load of a day stays bounded, whatever was put off.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from parallel_lab.course import progress
from parallel_lab.course.chapters import TITLES
from parallel_lab.course.drills import listed
from parallel_lab.course.events import AGAIN, Entry, day, logged
from parallel_lab.course.quizzes import sheets
from parallel_lab.interview import vocabulary
from parallel_lab.interview.atoms import atoms
from parallel_lab.interview.feeds import log_of
from parallel_lab.interview.memory import Memory, replay
from parallel_lab.interview.words import say

NEW_A_DAY = 20
AHEAD = timedelta(minutes=20)  # what is being learned may come so much early, so that a session can end
# Who learns a chapter begins with what is asked first: tiers, each with its kinds.
TIERS = (("definition", "half-truth"), ("formula", "number", "term"), ("mechanism", "drill"), ("follow-up",))
SECONDS = {  # an estimate of one answer, thought or said, with a look at what is right
    "definition": 60,
    "mechanism": 45,
    "formula": 40,
    "number": 75,
    "half-truth": 30,
    "follow-up": 40,
    "drill": 150,
    "quiz": 45,
    "term": 15,
}
PREPARATION = "interview"


@dataclass(frozen=True)
class Item:
    """Something to recall: an atom, a drill, a question of a self-check, a term."""

    key: str
    kind: str
    chapter: str
    memory: Memory | None = None  # None where it is new

    @property
    def seconds(self) -> int:
        """How long one answer takes, about."""
        return SECONDS[self.kind]


@dataclass(frozen=True)
class Queue:
    """What a day asks for.

    Attributes:
        due: What was learned and is due, in order.
        new: What is begun today, in order.
        left_out: How many due ones do not fit into the minutes.
        later: When the next thing is due that is not in `due`; None where nothing is.
    """

    due: list[Item]
    new: list[Item]
    left_out: int = 0
    later: datetime | None = None

    @property
    def items(self) -> list[Item]:
        """The due ones, then the new ones."""
        return [*self.due, *self.new]

    @property
    def seconds(self) -> int:
        """How long all of it takes, about."""
        return sum(item.seconds for item in self.items)


def chapter_named(chapter: str | int | None, language: str = "en") -> str | None:
    """A chapter, given as `"09"` or 9, as its two digits; None stays None.

    Raises:
        ValueError: there is none; the message is in `language`.
    """
    number = None if chapter is None else str(chapter).zfill(2)
    if number is not None and number not in TITLES:
        raise ValueError(say("common.no-chapter", language, chapter=chapter, last=list(TITLES)[-1]))
    return number


def todays(chapter: str | None = None, minutes: float | None = None, *, terms: bool = False) -> Queue:
    """What is due by the end of today, from the learner's progress.

    Args:
        chapter: only what belongs to it, as `"09"`.
        minutes: what there is time for; without, all that is due and the new ones of a day. A plan for a date brings
            its own minutes.
        terms: also the terms of the glossary, for who needs them in both languages.

    Raises:
        ValueError: there is no such chapter, or no time at all.
    """
    chapter = chapter_named(chapter)
    if minutes is not None and not minutes > 0:  # also where it is no number
        raise ValueError(f"{minutes:g} minutes are no time to review in: give 1 or more")
    entries, now = progress.read(), progress.now()
    plan = entries["preparations"].get(PREPARATION, {})
    until = _date_of(plan, now)
    plan = plan if until else {}
    everything = items(entries["reviews"], chapter, until, terms=terms)
    due, later = in_order(everything, now, until)
    minutes = minutes or plan.get("minutes")
    kept = (within(due, 60 * minutes) or due[:1]) if minutes else due  # one at least, however short the time
    room = 60 * minutes - sum(item.seconds for item in kept) if minutes else None
    begun = sum(_begun_today(item, entries["reviews"], now) for item in everything)
    fresh = new_ones(everything, plan.get("take"), _begun_chapters(entries))
    fresh = fresh[: max(0, plan.get("new_a_day", NEW_A_DAY) - begun)] if len(kept) == len(due) else []
    if room is not None:
        fresh = within(fresh, room) or ([] if kept else fresh[:1])
    return Queue(kept, fresh, len(due) - len(kept), later)


def items(
    reviews: Mapping[str, Entry],
    chapter: str | None = None,
    until: datetime | None = None,
    *,
    terms: bool = False,
) -> list[Item]:
    """All that can be asked, with what is known of its memory; the terms of the glossary only if they are wanted."""
    rows = [(key, atom.kind, atom.chapter) for key, atom in atoms().items()]
    rows += [(f"drill/{name}", "drill", of) for name, of in listed().items()]
    questions = ((f"quiz/{of}-{n}", of) for of, sheet in sheets().items() for n in range(1, len(sheet.quiz) + 1))
    rows += [(key, "quiz", of) for key, of in questions if key in reviews]
    rows += [(one.key, one.kind, one.chapter) for one in vocabulary.terms()] if terms else []
    rows = [row for row in rows if chapter in (None, row[-1])]
    return [Item(key, kind, of, replay(log_of(key, reviews), until)) for key, kind, of in rows]


def in_order(
    everything: Iterable[Item], now: datetime, until: datetime | None = None
) -> tuple[list[Item], datetime | None]:
    """What is due by the end of the day of `now`, the weakest first; and when the next thing is due after that.

    Args:
        everything: the items; new ones are never due.
        now: the time.
        until: the date of the interview: expected recall is that on this date, without any further review.
    """
    known = [(item, item.memory) for item in everything if item.memory]
    evening = datetime.combine(now.astimezone().date(), time.max).astimezone()
    at = until if until and until > now else now
    due = [
        (m.due > now and m.in_steps, m.recall(at), i)
        for i, m in known
        if m.due <= (now + AHEAD if m.in_steps else evening)
    ]
    chosen = {item.key for *_, item in due}
    later = min((m.due for item, m in known if item.key not in chosen), default=None)
    return [item for *_, item in sorted(due, key=lambda row: row[:2])], later


def within(found: Sequence[Item], seconds: float) -> list[Item]:
    """As many of the first items as fit into the time."""
    kept, used = [], 0.0
    for item in found:
        used += item.seconds
        if used > seconds:
            break
        kept.append(item)
    return kept


def new_ones(
    everything: Iterable[Item], take: Mapping[str, int] | None = None, first: Sequence[str] = ()
) -> list[Item]:
    """What was never asked, by chapter and tier.

    Args:
        everything: the items.
        take: how many tiers of each chapter a plan has room for, the chapters in its order; all without a plan.
        first: chapters that come before the others, because they were begun.
    """
    order = list(take) if take is not None else [*first, *(number for number in TITLES if number not in first)]
    tiers = {kind: tier for tier, kinds in enumerate(TIERS) for kind in kinds}
    found = [
        (order.index(item.chapter), tiers[item.kind], item)
        for item in everything
        if item.memory is None and item.kind in tiers and (take is None or tiers[item.kind] < take.get(item.chapter, 0))
    ]
    return [item for *_, item in sorted(found, key=lambda row: row[:2])]


def mistakes() -> list[str]:
    """The exercises whose last check failed, by name."""
    reviews = progress.read()["reviews"]
    failed = (key for key, entry in reviews.items() if entry.get("log") and entry["log"][-1]["rating"] == AGAIN)
    return [key.removeprefix("exercise/") for key in failed if key.startswith("exercise/")]


def _date_of(plan: Entry, now: datetime) -> datetime | None:
    """The morning of the interview, if it is ahead."""
    if "date" not in plan:
        return None
    morning = datetime.combine(date.fromisoformat(plan["date"]), time(9)).astimezone(UTC)
    return morning if morning > now else None


def _begun_today(item: Item, reviews: Mapping[str, Entry], now: datetime) -> bool:
    log = logged(reviews, item.key)
    return bool(log) and min(day(event["at"]) for event in log) == day(now)


def _begun_chapters(entries: Mapping[str, Mapping[str, Entry]]) -> list[str]:
    """The chapters in which something was asked or solved, in the order of the course."""
    seen = {name[:2] for name in (*entries["quizzes"], *entries["predictions"])}
    seen |= {atoms()[key].chapter for key in entries["reviews"] if key in atoms()}
    seen |= {listed()[name] for name in entries["drills"] if name in listed()}
    return [number for number in TITLES if number in seen]
