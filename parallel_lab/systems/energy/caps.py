"""Which power cap takes least energy: by a model of frequency and power, and from a table, under a deadline.

Model. A chip draws P(ν) = P_0 + P_1 ν^3 at the relative clock ν (1 is the highest): the static part flows whenever it
is on, the dynamic part is capacitance times voltage squared times frequency, and the voltage goes about with the
frequency. The cube holds only as far as the voltage can still be lowered. A step takes T(ν) = T_C / ν + T_M: computing
follows the clock of the cores, memory and network do not (what of them is not overlapped).

    energy(ν) = (P_0 + P_1 ν^3) (T_C / ν + T_M)

With T_M = 0 this is P_0 T_C / ν + P_1 T_C ν^2, least at ν = (P_0 / 2 P_1)^(1/3). So without static power slower is
always cheaper, and from P_0 = 2 P_1 on full speed is. A part T_M that the clock does not shorten moves the best clock
down; it is found below by bisection.

Deadline. A cap is a row of time and power per step. If the machine stays on until the deadline and idles at P_idle,
then its energy is P_idle times the deadline and (P - P_idle) T: what counts is the power *above idle*, and the best cap
may be another one than if the machine is given back at the end. Time and energy of a mixture of two caps are linear, so
a deadline that lies between two rows is met exactly with a share of the steps at each (Ishihara and Yasuura 1998).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations


@dataclass(frozen=True)
class Chip:
    """Power over the relative clock, from the least one to 1.

    Attributes:
        static_w: P_0, drawn whenever it is on and at work.
        dynamic_w: P_1, the dynamic power at the highest clock.
        least: the lowest clock.
        exponent: of the dynamic power; 3 as long as the voltage follows the clock, 1 where it can sink no further.
    """

    static_w: float
    dynamic_w: float
    least: float = 0.3
    exponent: float = 3.0

    def power_w(self, clock: float) -> float:
        """P(ν)."""
        return self.static_w + self.dynamic_w * clock**self.exponent

    def energy_j(self, clock: float, compute_s: float, other_s: float = 0.0) -> float:
        """Energy of work that computes for `compute_s` at full clock, and takes `other_s` more at any clock."""
        return self.power_w(clock) * time_s(clock, compute_s, other_s)

    def clock_at(self, cap_w: float) -> float:
        """The highest clock under a power cap; the lowest one where even that draws more."""
        above = max(0.0, cap_w - self.static_w) / self.dynamic_w
        return min(1.0, max(self.least, above ** (1 / self.exponent)))

    def best(self, compute_s: float, other_s: float = 0.0) -> float:
        """The clock of least energy, by bisection on the slope of the energy."""
        low, high = self.least, 1.0
        if self._slope(high, compute_s, other_s) <= 0:
            return high
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self._slope(middle, compute_s, other_s) < 0 else (low, middle)
        return low

    def _slope(self, clock: float, compute_s: float, other_s: float) -> float:
        """Of the energy: P'(ν) T(ν) + P(ν) T'(ν). Times ν² it grows for exponents from 1 on: it is 0 at most once."""
        rising = self.exponent * self.dynamic_w * clock ** (self.exponent - 1) * time_s(clock, compute_s, other_s)
        return rising - self.power_w(clock) * compute_s / clock**2


def time_s(clock: float, compute_s: float, other_s: float = 0.0) -> float:
    """T(ν) = T_C / ν + T_M."""
    return compute_s / clock + other_s


@dataclass(frozen=True)
class Setting:
    """A row of a table: what a step takes under a cap.

    Attributes:
        limit_w: the cap.
        step_s: seconds of a step.
        power_w: the mean power meanwhile; it may lie far below the cap.
    """

    limit_w: float
    step_s: float
    power_w: float

    @property
    def step_j(self) -> float:
        """Energy of a step."""
        return self.step_s * self.power_w


@dataclass(frozen=True)
class Choice:
    """How many steps run under which cap.

    Attributes:
        steps: (row, steps), one row or two.
        seconds: until the last step is over.
        joules: all of it, idling until the deadline included where the machine stays on.
    """

    steps: tuple[tuple[Setting, float], ...]
    seconds: float
    joules: float


def energy_j(plan: Sequence[tuple[Setting, float]], deadline_s: float, idle_w: float = 0.0) -> tuple[float, float]:
    """(seconds, joules) of steps under caps, and of idling at `idle_w` until the deadline.

    `idle_w` is 0 for a machine that is given back when the work is done.
    """
    seconds = sum(row.step_s * steps for row, steps in plan)
    return seconds, sum(row.step_j * steps for row, steps in plan) + idle_w * max(0.0, deadline_s - seconds)


def least_energy(
    rows: Sequence[Setting], steps: float, *, deadline_s: float, idle_w: float = 0.0, caps: int = 1
) -> Choice:
    """The cap, or the mixture of two caps, with the least energy that ends by the deadline.

    Args:
        rows: the table.
        steps: how many steps there are to do.
        deadline_s: when they must be over.
        idle_w: what the machine draws from the end of the work to the deadline; 0 if it is given back.
        caps: how many caps may be used, 1 or 2. More than two never help: there are two constraints.

    Raises:
        ValueError: no row is fast enough.
    """
    plans: list[tuple[tuple[Setting, float], ...]] = [((row, float(steps)),) for row in rows]
    for one, other in combinations(rows, 2) if caps > 1 else ():
        slow, fast = sorted((one, other), key=lambda row: -row.step_s)
        if fast.step_s < deadline_s / steps < slow.step_s:  # the deadline lies between them and is met exactly
            share = (deadline_s - steps * fast.step_s) / (slow.step_s - fast.step_s)
            plans.append(((slow, share), (fast, steps - share)))
    made = [Choice(plan, *energy_j(plan, deadline_s, idle_w)) for plan in plans]
    in_time = [each for each in made if each.seconds <= deadline_s * (1 + 1e-12)]
    if not in_time:
        fastest = min(row.step_s for row in rows) * steps
        raise ValueError(f"no cap ends by {deadline_s:g} s: the fastest needs {fastest:g} s")
    return min(in_time, key=lambda each: each.joules)


def race_to_idle_j(busy_w: float, idle_w: float, busy_s: float, until_s: float) -> float:
    """What a machine takes that works for `busy_s` and idles until `until_s`: idle watts, and what is above them."""
    return idle_w * until_s + (busy_w - idle_w) * busy_s
