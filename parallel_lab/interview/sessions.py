"""A review from the first question to the last, free of widgets and terminals; see `Session`."""

from dataclasses import dataclass, field
from random import Random

from parallel_lab.course import events, page
from parallel_lab.interview.asking import Asking
from parallel_lab.interview.queue import Item, Queue, chapter_named, mistakes, todays
from parallel_lab.interview.words import lang, language_of, say


@dataclass
class Session:
    """What is due today, one after the other; what is being learned comes back before the session ends.

    Attributes:
        language: Of what is asked and said.
        answer_language: Of the answers.
        chapter: Two digits; None for all.
        minutes: What there is time for; None for all that is due.
        dice: Draws the numbers of drills.
        rated: What was asked, with its rating.
    """

    language: str = "en"
    answer_language: str = "en"
    chapter: str | None = None
    minutes: float | None = None
    dice: Random = field(default_factory=Random)
    rated: list[tuple[Item, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.queue: Queue = self._todays(self.minutes)
        self.left: list[Item] = self.queue.items
        self.current: Asking | None = None
        self._used_s = 0.0

    def next(self) -> Asking | None:
        """The next thing to ask; None at the end."""
        if self.current and self.current.rating is not None:
            self.rated.append((self.current.item, self.current.rating))
            self._used_s += self.current.item.seconds
        if not self.left:
            self.left = self._back()
        self.current = None
        if self.left:
            self.current = Asking(self.left.pop(0), self.language, self.answer_language, self.dice)
        return self.current

    @property
    def open(self) -> Asking | None:
        """What was asked and has no rating yet."""
        return self.current if self.current and self.current.rating is None else None

    def _todays(self, minutes: float | None = None) -> Queue:
        return todays(self.chapter, minutes, terms="zh" in (self.language, self.answer_language))

    def _back(self) -> list[Item]:
        """What was asked in this session and is due in it again, if there is time."""
        if self.minutes and self._used_s >= 60 * self.minutes:
            return []
        asked = {item.key for item, _ in self.rated}
        again = [item for item in self._todays().due if item.key in asked and item.memory and item.memory.in_steps]
        return again[:1]

    @property
    def count(self) -> str:
        """How far one is: `3 of 20`."""
        done = len(self.rated) + 1
        return say("review.count", self.language, done=done, total=done + len(self.left))

    def beginning(self) -> list[page.Part]:
        """What today asks for, before the first question."""
        due, new = len(self.queue.due), len(self.queue.new)
        minutes = max(1, round(self.queue.seconds / 60))
        words = [say("review.today", self.language, due=due, new=new, minutes=minutes)]
        if self.queue.left_out:
            words.append(say("review.left-out", self.language, count=self.queue.left_out))
        return [page.paragraph(" ".join(words), lang=lang(self.language))]

    def end(self) -> page.Page:
        """What came of it, and what is next."""
        language, name = self.language, lang(self.language)
        good = sum(rating >= events.GOOD for _, rating in self.rated)
        key = "review.end" if self.rated else "review.nothing"
        words = [say(key, language, count=len(self.rated), good=good)]
        later = self._todays().later
        if later:
            words.append(say("review.later", language, day=events.day(later)))
        parts = [
            page.paragraph(say("review.title", language), "head", name),
            page.paragraph(" ".join(words), lang=name),
        ]
        if failed := mistakes():
            calls = say("schedule.list", language).join(failed[:5])
            parts.append(page.paragraph(say("review.mistakes", language, names=calls), lang=name))
        return page.Page(say("review.title", language), parts, "note")


def session(
    language: str | None = None,
    answer_in: str | None = None,
    chapter: str | None = None,
    minutes: float | None = None,
    seed: int | None = None,
) -> Session:
    """What is due today.

    Args:
        language: `en` or `zh`; without, that of PARALLEL_LAB_LANGUAGE, else English.
        answer_in: the language of the answers, if it is to be another one.
        chapter: only what belongs to it, `"09"` or `"9"`.
        minutes: what there is time for.
        seed: the same numbers in drills for the same seed.

    Raises:
        ValueError: there is no such language, no such chapter, or no time at all.
    """
    asked = language_of(language)
    of = chapter_named(chapter, asked)
    return Session(asked, language_of(answer_in or asked), of, minutes, Random(seed))


def saved(asking: Asking) -> str:
    """The warning of the progress file, if there is one."""
    return say("common.not-saved", asking.language, why=asking.warning) if asking.warning else ""
