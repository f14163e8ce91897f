"""What is still in memory: the state of a key, replayed from its log of reviews by FSRS 6 (the package `fsrs`).

FSRS holds two numbers for a key: its stability S, the days after which nine in ten are still recalled, and its
difficulty. After t days the chance of recall is `R = (1 + (0.9^(-1/w) - 1) t/S)^(-w)`, w = 0.1542 by default. A key is
due when R falls to the retention aimed at. Nothing of this is stored: the log alone is, and there is no fuzz, so
two machines with the same log agree on every date.

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
        reviews: How many events there are.
        first: The time of the first one.
        last: The time of the last one.
        stability_days: After so many days R is 0.9.
        difficulty: From 1 to 10.
        due: When it is asked again.
        in_steps: Whether it is being learned, and comes back after minutes.
    """

    reviews: int
    first: datetime
    last: datetime
    stability_days: float
    difficulty: float
    due: datetime
    in_steps: bool = False

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
    w = scheduler().parameters[20]
    return (1 + (0.9 ** (-1 / w) - 1) * elapsed_days / stability_days) ** -w


def replay(log: Iterable[Event], until: datetime | None = None) -> Memory | None:
    """The state that follows from a log; None if it is empty.

    Args:
        log: the events, of the key itself and of what feeds it, in any order.
        until: the date of an interview; no interval is longer than the days that were left.
    """
    found = sorted(((datetime.fromisoformat(one["at"]).astimezone(UTC), one) for one in log), key=lambda pair: pair[0])
    if not found:
        return None
    card = fsrs.Card(card_id=1, due=found[0][0])
    for at, one in found:
        ahead = max(1, (until - at).days) if until and until > at else FOREVER
        card, _ = scheduler(ahead, one["from"] in _STEPPED).review_card(card, fsrs.Rating(one["rating"]), at)
    in_steps = card.state != fsrs.State.Review
    return Memory(len(found), found[0][0], found[-1][0], card.stability, card.difficulty, card.due, in_steps)  # type: ignore[arg-type]
