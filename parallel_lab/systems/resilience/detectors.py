"""Who is dead? A process that is silent may have died, or may be slow: a detector can only suspect.

Chandra and Toueg 1996 call a detector that sometimes suspects a live process unreliable, and show what can be done
with one. Chen, Toueg and Aguilera 2002 say how to compare two: by the time until a crash is detected, and by how often
a live process is suspected. A detector trades one for the other with a single setting.

`Heartbeat` suspects whoever has been silent for a fixed time. `PhiAccrual` (Hayashibara, Défago, Yared and Katayama
2004) learns the intervals between beats, as a normal distribution over a window, and gives no verdict but a level:
phi = -log10 Pr[the next beat comes later still]. Who acts at level phi is wrong about once in 10^phi beats, if
intervals are normal; those of processes that are stopped or starved of a processor are not, and then it is wrong more
often. Both are pure: they hear moments and know no clock. `beats.py` feeds them with those of real processes.

The detection time here is that of a process that dies just after a beat, the worst moment: from this beat to suspicion.
"""

import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean
from typing import Protocol

WARM_BEATS = 10  # beats that a detector has heard before it is judged


class Detector(Protocol):
    """What hears beats and says when silence has lasted too long."""

    def beat(self, now_s: float) -> None:
        """A beat has arrived."""
        ...

    @property
    def deadline_s(self) -> float:
        """The moment from which the process is suspected, if it stays silent until then; infinity where unknown."""
        ...


class Heartbeat:
    """Suspects a process that has been silent for `timeout_s`."""

    def __init__(self, timeout_s: float) -> None:
        if not timeout_s > 0:
            raise ValueError(f"timeout_s={timeout_s!r}: expected seconds above 0")
        self.timeout_s = timeout_s
        self._last_s = math.inf  # a process that has never been heard is not suspected

    def beat(self, now_s: float) -> None:
        """A beat has arrived."""
        self._last_s = now_s

    @property
    def deadline_s(self) -> float:
        """The last beat and the timeout."""
        return self._last_s + self.timeout_s

    def suspects(self, now_s: float) -> bool:
        """Whether the process has been silent for too long."""
        return now_s >= self.deadline_s


class PhiAccrual:
    """How sure it is that the process has died, from the intervals that it has seen.

    Args:
        threshold: the level phi at which the process is suspected.
        window: how many of the last intervals count.
        least_std_s: the least standard deviation that is believed; a process that beats like a clock would otherwise be
            suspected for the first hiccup.
    """

    def __init__(self, threshold: float = 8.0, *, window: int = 1000, least_std_s: float = 1e-3) -> None:
        if not threshold > 0 or window < 2 or not least_std_s > 0:
            raise ValueError(
                f"threshold={threshold}, window={window}, least_std_s={least_std_s}: expected > 0, >= 2, > 0"
            )
        self.threshold, self.least_std_s = threshold, least_std_s
        self._intervals: deque[float] = deque(maxlen=window)
        self._last_s = math.inf
        self._origin_s = self._sum = self._squares = 0.0  # of the intervals, counted from the first: no digits are lost
        self._silence_s = self._silence(threshold)

    def beat(self, now_s: float) -> None:
        """A beat has arrived; the interval before it joins the window."""
        if self._last_s < math.inf:
            self._add(now_s - self._last_s)
        self._last_s = now_s

    def _add(self, interval_s: float) -> None:
        if not self._intervals:
            self._origin_s = interval_s
        gone_s = self._intervals[0] if len(self._intervals) == self._intervals.maxlen else self._origin_s
        new, old = interval_s - self._origin_s, gone_s - self._origin_s
        self._intervals.append(interval_s)
        self._sum += new - old
        self._squares += new**2 - old**2

    @property
    def distribution(self) -> NormalDist | None:
        """The normal distribution of the intervals in the window; None before the second of them."""
        if (count := len(self._intervals)) < 2:
            return None
        mean = self._sum / count
        variance = max(0.0, self._squares / count - mean**2)
        return NormalDist(self._origin_s + mean, max(self.least_std_s, math.sqrt(variance)))

    def phi(self, now_s: float) -> float:
        """The level of suspicion: minus the decimal logarithm of the chance that the next beat is still to come."""
        if (normal := self.distribution) is None or now_s <= self._last_s:
            return 0.0
        z = (now_s - self._last_s - normal.mean) / normal.stdev
        if z < 30:
            return -math.log10(math.erfc(z / math.sqrt(2)) / 2)
        return (z**2 / 2 + math.log(z * math.sqrt(2 * math.pi))) / math.log(10)  # the tail, where erfc is 0

    @property
    def deadline_s(self) -> float:
        """When phi reaches the threshold: mean and so many standard deviations after the last beat."""
        normal = self.distribution
        return math.inf if normal is None else self._last_s + normal.mean + self._silence_s * normal.stdev

    @staticmethod
    def _silence(threshold: float) -> float:
        """By how many standard deviations a beat is late when phi reaches `threshold`."""
        return -NormalDist().inv_cdf(10.0**-threshold)

    def suspects(self, now_s: float) -> bool:
        """Whether the level has reached the threshold."""
        return now_s >= self.deadline_s


@dataclass(frozen=True)
class Quality:
    """How good a detector was on the beats of one live process."""

    false_alarms: int  # how often a beat came after it had been given up
    watched_s: float
    detection_s: float  # from the last beat of a process that dies just after it to suspicion, mean over all beats
    worst_s: float

    @property
    def per_hour(self) -> float:
        """False alarms in an hour."""
        return self.false_alarms / self.watched_s * 3600


def judge(detector: Detector, arrivals: Sequence[float], warm: int = WARM_BEATS) -> Quality:
    """Lets a fresh detector hear the beats of a process that lived, and counts what it got wrong.

    Raises:
        ValueError: there are too few beats.
    """
    if len(arrivals) < warm + 2:
        raise ValueError(f"{len(arrivals)} beats are too few to judge a detector that {warm} of them warm up")
    alarms, waits = 0, []
    for number, now_s in enumerate(arrivals):
        if number > warm:
            alarms += now_s > detector.deadline_s
        detector.beat(now_s)
        if number >= warm:
            waits.append(detector.deadline_s - now_s)
    return Quality(alarms, arrivals[-1] - arrivals[warm], fmean(waits), max(waits))


def curve(
    make: Callable[[float], Detector], settings: Iterable[float], arrivals: Sequence[float]
) -> list[tuple[float, Quality]]:
    """False alarms against detection time: the quality of `make(setting)` for each of the settings."""
    return [(setting, judge(make(setting), arrivals)) for setting in settings]


def simulated_arrivals(
    beats: int,
    *,
    interval_s: float = 1.0,
    jitter_s: float = 0.05,
    pauses: float = 0.01,
    pause_s: float = 2.0,
    seed: int = 0,
) -> list[float]:
    """Simulated beats: normal jitter, and with the chance `pauses` a pause of `pause_s` on average, exponential."""
    dice, now_s, moments = random.Random(seed), 0.0, []
    for _ in range(beats):
        now_s += max(0.0, dice.gauss(interval_s, jitter_s))
        if dice.random() < pauses:
            now_s += dice.expovariate(1 / pause_s)
        moments.append(now_s)
    return moments
