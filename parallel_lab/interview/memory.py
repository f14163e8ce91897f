"""What is still in memory: the state of a key, replayed from its log of reviews by FSRS 6 (the package `fsrs`).

FSRS holds two numbers for a key: its stability, the days after which nine in ten are still recalled, and its
difficulty. After some days the chance of recall is `(1 + (0.9^(-1/decay) - 1) days/stability)^(-decay)`, with decay =
0.1542 by default. A key is due when it falls to the retention aimed at. Nothing of this is stored: the log alone is,
and there is no fuzz, so two machines with the same log agree on every date.

Where an interview has a date, no interval is longer than the days that were left to it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

import fsrs

from parallel_lab.course.events import Event

RETENTION = 0.9
FOREVER = 36_500  # days
_STEPPED = ("self",)  # judged within a session, and asked again after minutes; what else there is comes back after days
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Memory:
    """What a log comes to.

    Attributes:
        card: FSRS's own state.
        reviews: How many events there are.
        last: The time of the last one.
    """

    card: fsrs.Card
    reviews: int
    last: datetime

    @property
    def stability_days(self) -> float:
        """After so many days the chance of recall is 0.9."""
        return self.card.stability or 0.0

    @property
    def due(self) -> datetime:
        """When it is asked again."""
        return self.card.due

    @property
    def in_steps(self) -> bool:
        """Whether it is being learned, and comes back after minutes."""
        return self.card.state != fsrs.State.Review

    def recall(self, at: datetime) -> float:
        """The chance of recall at a time, from 0 to 1."""
        return recall(self.stability_days, max(0.0, (at - self.last) / _DAY))


@cache
def scheduler(longest_days: int = FOREVER, stepped: bool = True) -> fsrs.Scheduler:
    """FSRS with its own parameters and no fuzz; without steps, the first interval is in days already."""
    steps = {} if stepped else {"learning_steps": (), "relearning_steps": ()}
    return fsrs.Scheduler(desired_retention=RETENTION, maximum_interval=longest_days, enable_fuzzing=False, **steps)


def recall(stability_days: float, elapsed_days: float) -> float:
    """The chance of recall, `elapsed_days` after a review that left a stability of `stability_days`."""
    decay = scheduler().parameters[20]
    return (1 + (0.9 ** (-1 / decay) - 1) * elapsed_days / stability_days) ** -decay


def reviewed(
    before: Memory | None, at: datetime, rating: int, source: str = "self", until: datetime | None = None
) -> Memory:
    """The state after one more review.

    Args:
        before: the state before; None where there is none.
        at: the time of the review, in UTC.
        rating: 1 to 4.
        source: who said so.
        until: the date of an interview; no interval is longer than the days that are left.
    """
    card = before.card if before else fsrs.Card(card_id=1, due=at)
    longest = max(1, (until - at).days) if until and until > at else FOREVER
    card, _ = scheduler(longest, source in _STEPPED).review_card(card, fsrs.Rating(rating), at)
    return Memory(card, before.reviews + 1 if before else 1, at)


def replay(log: Iterable[Event], until: datetime | None = None) -> Memory | None:
    """The state that follows from a log, of the key itself and of what feeds it, in any order; None if it is empty.

    Args:
        log: the events.
        until: as in `reviewed`.
    """
    times = ((datetime.fromisoformat(one["at"]).astimezone(UTC), one) for one in log)
    state = None
    for at, one in sorted(times, key=lambda pair: pair[0]):
        state = reviewed(state, at, one["rating"], one["from"], until)
    return state


@cache
def good_path(days: int) -> tuple[int, ...]:
    """The days after its first one on which an item is asked again, if it is always known, up to `days`."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    state, found = reviewed(None, at, 3), []
    while (state.due - at).days <= days:
        found.append((state.due - at).days)
        state = reviewed(state, state.due, 3)
    return tuple(found)
