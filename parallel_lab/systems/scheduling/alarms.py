"""Rules that turn numbers into alarms: when one holds, for how long before it fires, and who is told.

A rule is an expression over samples; each rank for which it holds is *pending*, and *firing* when it has held at every
look for `for_s`. A single look at which it does not hold begins the count again. So `for_s` trades how soon an alarm
comes against how often it comes for nothing.

    StandsStill   the heartbeat is old, and the rank is at its own work: it stands still, and the others wait for it
    Slow          the rank's own work takes `times` the median of all ranks'; the time of whole steps would name nobody
    Starved       its loader has no batch ready
    Down          it does not answer

A rank that is dead exports nothing, so a rule about its heartbeat does not fire: `Down` has to stand beside it.

Each rule says itself twice: in PromQL for a real Prometheus (`prometheus`), and in Python for `Evaluator`, which looks
at the same samples where there is no Prometheus. `promtool test rules` holds the two against each other in the tests.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from parallel_lab.systems.scheduling.exporter import COMPUTE, COMPUTING, HEARTBEAT, QUEUE, UP, Samples


@dataclass(frozen=True)
class Rule:
    """An alarm.

    Attributes:
        name: of the alarm.
        expr: when it holds, in PromQL, for each rank.
        holds: the same for `Evaluator`: the ranks for which it holds, of samples and the time of the look.
        for_s: for how long it must have held until it fires.
    """

    name: str
    expr: str
    holds: Callable[[Samples, float], Iterable[str]]
    for_s: float = 0.0

    @property
    def yaml(self) -> str:
        """The rule as Prometheus reads it."""
        return f"  - alert: {self.name}\n    expr: {self.expr}\n    for: {round(1000 * self.for_s)}ms\n"


def rules_file(rules: Sequence[Rule], every_s: float = 1.0) -> str:
    """A file of rules for Prometheus, which looks every `every_s` seconds."""
    head = f"groups:\n- name: training\n  interval: {round(1000 * every_s)}ms\n  rules:\n"
    return head + "".join(rule.yaml for rule in rules)


def stands_still(after_s: float, for_s: float = 0.0) -> Rule:
    """A rank has been at its own work for longer than `after_s`."""

    def holds(samples: Samples, now_s: float) -> list[str]:
        beats, computing = samples.get(HEARTBEAT, {}), samples.get(COMPUTING, {})
        return [rank for rank, at_s in beats.items() if now_s - at_s > after_s and computing.get(rank) == 1]

    return Rule("StandsStill", f"time() - {HEARTBEAT} > {after_s} and {COMPUTING} == 1", holds, for_s)


def slow(times: float, for_s: float = 0.0) -> Rule:
    """A rank's own work takes more than `times` the median of all ranks' own work.

    The slow rank is in the median: of two ranks none takes more than twice their median, so 2 and more never fires.
    """

    def holds(samples: Samples, now_s: float) -> list[str]:
        took_s = samples.get(COMPUTE, {})
        return [rank for rank, each in took_s.items() if each > times * median(took_s.values())]

    return Rule("Slow", f"{COMPUTE} > {times} * scalar(quantile(0.5, {COMPUTE}))", holds, for_s)


def starved(for_s: float = 0.0) -> Rule:
    """A rank's loader has no batch ready."""
    return Rule("Starved", f"{QUEUE} < 1", lambda samples, now_s: _where(samples, QUEUE, lambda n: n < 1), for_s)


def down(for_s: float = 0.0) -> Rule:
    """A rank does not answer."""
    return Rule("Down", f"{UP} == 0", lambda samples, now_s: _where(samples, UP, lambda n: n == 0), for_s)


def _where(samples: Samples, metric: str, condition: Callable[[float], bool]) -> list[str]:
    return [rank for rank, value in samples.get(metric, {}).items() if condition(value)]


@dataclass(frozen=True)
class Alert:
    """A rule that holds for a rank."""

    name: str
    rank: str
    state: Literal["pending", "firing"]

    def __str__(self) -> str:
        return f"{self.name}: rank {self.rank} ({self.state})"


class Evaluator:
    """The rules, looked at by own code: the states that Prometheus keeps."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = rules
        self.since_s: dict[tuple[str, str], float] = {}  # when a rule began to hold for a rank, and has held since

    def look(self, samples: Samples, now_s: float) -> list[Alert]:
        """The alerts after this look, in the order of rules and ranks."""
        held, self.since_s = self.since_s, {}
        alerts = []
        for rule in self.rules:
            for rank in sorted(rule.holds(samples, now_s)):
                since_s = self.since_s[rule.name, rank] = held.get((rule.name, rank), now_s)
                alerts.append(Alert(rule.name, rank, "firing" if now_s - since_s >= rule.for_s else "pending"))
        return alerts
