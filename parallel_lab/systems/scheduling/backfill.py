"""Backfilling: a later job may go first if nobody who has been promised a start is delayed by it.

A promise needs to know when running jobs end, and the cluster knows only their limits. A job is backfilled where it
fits now and, by its limit, is over before the promise is due, or takes only GPUs that the promise leaves free.

`Easy` (Lifka 1995, for the IBM SP at Argonne) makes one promise, to the head of the line. `Conservative` makes one to
every job: each gets the earliest start that fits between all promises before it (Mu'alem and Feitelson 2001 compare the
two). Both make their promises anew at each event. The head's promise only ever gets earlier. Where limits are exact, so
do all promises of `Conservative`, and nobody starts later than under FIFO: when all before a job have started no later,
they have ended no later, so the job fits where FIFO starts it. Where jobs end before their limits, who stands before a
job may move into its gap, and its promise gets later.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate, groupby
from operator import itemgetter

from parallel_lab.systems.scheduling.cluster import Progress
from parallel_lab.systems.scheduling.simulator import Decision


class Easy:
    """FIFO, and behind a head that does not fit whoever does not delay it."""

    name = "EASY backfill"

    def choose(self, now_s: float, waiting: Sequence[Progress], running: Sequence[Progress], free: int) -> Decision:
        """Starts the line up to its head, promises the head a start, and fills up behind it."""
        starts: dict[Progress, int] = {}
        line = iter(waiting)
        head = None
        for one in line:
            if one.job.gpus > free:
                head = one
                break
            starts[one] = one.job.gpus
            free -= one.job.gpus
        if head is None or not free:
            return Decision(starts)
        ends = [(one.latest_end_s, one.gpus) for one in running]
        ends += [(now_s + one.limit_left_s, one.job.gpus) for one in starts]
        promised_s, spare = promise(head.job.gpus, free, ends)
        for one in line:
            over = now_s + one.limit_left_s <= promised_s
            if one.job.gpus <= (free if over else min(free, spare)):
                starts[one] = one.job.gpus
                free -= one.job.gpus
                spare -= 0 if over else one.job.gpus
        return Decision(starts)


def promise(gpus: int, free: int, ends: Iterable[tuple[float, int]]) -> tuple[float, int]:
    """When so many GPUs are free at the latest, and how many more than these are free then.

    Args:
        gpus: how many are needed, more than are free.
        free: GPUs that nobody holds.
        ends: for each job that holds GPUs its latest end and their number.
    """
    for end_s, together in groupby(sorted(ends), key=itemgetter(0)):
        free += sum(held for _, held in together)
        if free >= gpus:
            return end_s, free - gpus
    return float("inf"), 0


class Conservative:
    """Every job that waits has a promise, and a later one must fit between those before it."""

    name = "conservative backfill"

    def choose(self, now_s: float, waiting: Sequence[Progress], running: Sequence[Progress], free: int) -> Decision:
        """Promises starts in the order of arrival; whose start is now begins."""
        profile, starts = Profile(now_s, free, [(one.latest_end_s, one.gpus) for one in running]), {}
        smallest = list(accumulate((one.job.gpus for one in reversed(waiting)), min))  # of the last so many
        for one in waiting:
            if free < smallest.pop():  # nobody from here on can start now
                break
            if now_s == profile.promised(one.job.gpus, one.limit_left_s):
                starts[one] = one.job.gpus
                free -= one.job.gpus
        return Decision(starts)


class Profile:
    """How many GPUs are free from each moment on, as far as limits and promises tell.

    Args:
        now_s: the first moment.
        free: how many are free now.
        ends: for each job that holds GPUs its latest end and their number.
    """

    def __init__(self, now_s: float, free: int, ends: Iterable[tuple[float, int]]):
        self.times_s, self.free = [now_s], [free]
        for end_s, gpus in sorted(ends):
            if end_s > self.times_s[-1]:
                self.times_s.append(end_s)
                self.free.append(self.free[-1])
            self.free[-1] += gpus

    def promised(self, gpus: int, lasts_s: float) -> float:
        """The earliest moment from which so many are free for so long; they are taken."""
        start = place = 0
        while place < len(self.free) and self.times_s[place] < self.times_s[start] + lasts_s:
            if self.free[place] < gpus:
                start = place + 1
            place += 1
        end_s = self.times_s[start] + lasts_s
        if place == len(self.free) or self.times_s[place] > end_s:
            self.times_s.insert(place, end_s)
            self.free.insert(place, self.free[place - 1])
        for taken in range(start, place):
            self.free[taken] -= gpus
        return self.times_s[start]
