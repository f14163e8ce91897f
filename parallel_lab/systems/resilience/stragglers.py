"""Why a step is slow: one rank that comes late to every collective, or a link that carries all of them slowly.

A collective begins to move bytes when its last rank has called it. So the time of a call falls in two parts: until the
last one came (the others wait for that rank), and after it (all wait for the network alike). Over many collectives:

    a slow rank   one and the same rank comes last, and waits least: its lateness is the others' waiting
    a slow link   nobody comes late, and what is after the last arrival takes the time; no rank can be named

Both are read from a recorded or simulated `Trace`. A slow link of one pair makes a ring slow for all its ranks, so a
collective cannot tell which link it is; messages between pairs can.
"""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from statistics import median

from parallel_lab.network import COLLECTIVES
from parallel_lab.runtime import Run
from parallel_lab.trace import Span, Trace
from parallel_lab.trace.units import format_seconds, table

OFTEN = 0.5  # a rank that comes last in more than this share of the collectives is the slow one


@dataclass(frozen=True)
class Meeting:
    """One collective of several ranks.

    Attributes:
        kind: its name.
        called_s: when each rank called it.
        over_s: when it was over on each rank.
    """

    kind: str
    called_s: dict[int, float]
    over_s: dict[int, float]

    @property
    def last(self) -> int:
        """The rank that called it last."""
        return max(self.called_s, key=self.called_s.__getitem__)

    @property
    def late_s(self) -> float:
        """How much sooner it could have begun, had the last rank come when the one before it came."""
        *_, before, last = sorted(self.called_s.values())
        return last - before

    @property
    def carried_s(self) -> float:
        """From the last call to the first end: what the network took."""
        return max(0.0, min(self.over_s.values()) - max(self.called_s.values()))

    def wait_s(self, rank: int) -> float:
        """How long `rank` waited for the last one to come."""
        return self.called_s[self.last] - self.called_s[rank]


@dataclass(frozen=True)
class Slowness:
    """What makes the collectives of a trace slow. Its text is a table and the finding.

    Attributes:
        meetings: the collectives, in the order of their beginning.
        ranks: how many ranks there are.
        cause: `rank`, `link`, or `nothing` where neither takes most of the time.
        rank: the slow one; -1 where the cause is another.
        cost_s: seconds that the cause costs in each collective, the median.
    """

    meetings: tuple[Meeting, ...]
    ranks: int
    cause: str
    rank: int
    cost_s: float

    def waits(self, rank: int) -> float:
        """Seconds that `rank` waited in all for others to come."""
        return sum(each.wait_s(rank) for each in self.meetings if rank in each.called_s)

    def waits_for(self, rank: int) -> float:
        """Seconds that the other ranks together waited for `rank`, where it came last."""
        return sum(each.wait_s(other) for each in self.meetings if each.last == rank for other in each.called_s)

    def times_last(self, rank: int) -> int:
        """In how many collectives `rank` came last."""
        return sum(each.last == rank for each in self.meetings)

    def __str__(self) -> str:
        ranks = range(self.ranks)
        rows = {
            "rank": list(map(str, ranks)),
            "came last in": [f"{self.times_last(r)} of {len(self.meetings)}" for r in ranks],
            "waited for others": [format_seconds(self.waits(r)) for r in ranks],
            "others waited for it": [format_seconds(self.waits_for(r)) for r in ranks],
        }
        return f"{table(rows)}\n{self.finding}"

    @property
    def finding(self) -> str:
        """One sentence."""
        cost = f"which costs {format_seconds(self.cost_s)} a collective"
        if self.cause == "rank":
            return f"rank {self.rank} is slow: the others wait for it and it waits for nobody, {cost}."
        if self.cause == "link":
            return f"the link is slow: all ranks come together and wait alike, {cost}."
        return "neither a rank nor the link takes most of the time: it is computing."


def slowness(source: Run | Trace) -> Slowness:
    """Says whether a rank or the link makes the collectives of `source` slow.

    Medians over the collectives are compared, so that a single hiccup of the machine decides nothing: how late the last
    rank came, what the network took, and what lies between two collectives, which is computing.

    Raises:
        ValueError: no collective of two ranks or more was recorded.
    """
    trace = source.trace if isinstance(source, Run) else source
    meetings = meetings_of(trace)
    if not meetings:
        raise ValueError("this trace has no collective of two ranks: it cannot say who waits for whom")
    rank, times = Counter(each.last for each in meetings).most_common(1)[0]
    late_s = median(each.late_s if each.last == rank else 0.0 for each in meetings)
    carried_s = median(each.carried_s for each in meetings)
    if times > OFTEN * len(meetings) and late_s > carried_s:
        return Slowness(meetings, trace.ranks, "rank", rank, late_s)
    computing_s = trace.duration_s / len(meetings) - carried_s
    cause = "link" if carried_s > computing_s else "nothing"
    return Slowness(meetings, trace.ranks, cause, -1, carried_s if cause == "link" else 0.0)


def meetings_of(trace: Trace) -> tuple[Meeting, ...]:
    """The collectives of a trace: the i-th call of a rank in a group meets the i-th call of each other rank."""
    rows: dict[str, dict[int, list[Span]]] = defaultdict(lambda: defaultdict(list))
    for span in trace.spans:
        if span.kind in COLLECTIVES:
            rows[span.group][span.rank].append(span)
    found = []
    for by_rank in rows.values():
        for spans in zip(*by_rank.values(), strict=False) if len(by_rank) > 1 else ():
            called = {s.rank: s.start_s for s in spans}
            found.append(Meeting(spans[0].kind, called, {s.rank: s.end_s for s in spans}))
    return tuple(sorted(found, key=lambda each: min(each.called_s.values())))


def any_slow(share: float, n: int) -> float:
    """The chance that at least one of `n` ranks is slow in a step, each with chance `share`: 1 - (1 - share)^n.

    The ranks are taken to be slow independently of each other. A shared switch or a shared file server makes them slow
    together: then the chance is lower and the ranks' own numbers do not show it.

    Raises:
        ValueError: `share` is no probability, or `n` is below 1.
    """
    if not 0 <= share <= 1 or n < 1:
        raise ValueError(f"any_slow({share}, {n}): expected a probability from 0 to 1 and at least one rank")
    return 1.0 if share == 1 else -math.expm1(n * math.log1p(-share))


def expected_step_s(quick_s: float, slow_s: float, share: float, n: int) -> float:
    """The mean time of a step that waits for its slowest rank, where a rank takes `slow_s` with chance `share`."""
    chance = any_slow(share, n)
    return (1 - chance) * quick_s + chance * slow_s
