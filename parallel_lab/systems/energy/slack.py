"""A pipeline whose quick passes run slower: what is not on the critical path hurries for nothing.

Perseus (Chung et al., SOSP 2024): with stages of unequal time, most passes of a pipeline can take longer without the
step ending later. Each such pass may run at a lower clock, which costs less energy by the model of `caps`. The first
and the last passes of every stage are on the critical path when stages are equal, so the clock is chosen pass by pass
and not stage by stage.

    float of a pass   the latest end that delays nothing, less the earliest: how much longer it alone may take

Floats of passes on one path are shared, so a pass gets a little at a time, round after round, and all are computed
anew. The paper finds the whole front of time and energy with a cut of the graph; this is a greedy stand-in for one
point of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from parallel_lab.plan import Op, Plan
from parallel_lab.simulate import PassCost, simulate
from parallel_lab.systems.energy.caps import Chip


@dataclass(frozen=True)
class Slowed:
    """A step before and after.

    Attributes:
        clocks: of each pass, relative.
        before_s, after_s: the simulated time of a step.
        before_j, after_j: its modeled energy, idling in the bubble included.
    """

    clocks: dict[Op, float]
    before_s: float
    after_s: float
    before_j: float
    after_j: float

    @property
    def less(self) -> float:
        """The share of energy saved."""
        return 1 - self.after_j / self.before_j


def slow_down(
    plan: Plan, stage_s: Sequence[float], chip: Chip, idle_w: float, *, longer: float = 0.0, notch: float = 0.05
) -> Slowed:
    """Lowers the clocks of all passes as far as the step ends in time, a notch at a time.

    Args:
        plan: a schedule without messages, one stage on each rank.
        stage_s: seconds of each stage's forward pass at full clock; a backward pass takes twice as long.
        chip: power over the clock. No clock goes below that of least energy above idle.
        idle_w: what a stage draws in the bubble.
        longer: by which share the step may take longer.
        notch: by which share a clock sinks at a time.
    """
    full = {op: stage_s[op.part] * (2 if op.kind == "B" else 1) for op in plan}
    clocks = dict.fromkeys(full, 1.0)
    spans = simulate(plan, _cost(full)).spans
    order = [span.op for span in sorted(spans, key=lambda span: span.start_s)]
    before = _before(plan)
    until_s = max(span.end_s for span in spans) * (1 + longer)
    # An idle chip draws idle_w anyway, so a longer pass pays only what is above it.
    least = Chip(max(0.0, chip.static_w - idle_w), chip.dynamic_w, chip.least, chip.exponent).best(1.0)
    lowered = True
    while lowered:
        lowered = False
        for op in order:
            clock = max(least, clocks[op] * (1 - notch))
            seconds = {each: full[each] / clocks[each] for each in order}
            if clock < clocks[op] and full[op] / clock - seconds[op] <= _float(op, order, before, seconds, until_s):
                clocks[op], lowered = clock, True
    made = [_step(plan, full, each, chip, idle_w) for each in (dict.fromkeys(full, 1.0), clocks)]
    (before_s, before_j), (after_s, after_j) = made
    return Slowed(clocks, before_s, after_s, before_j, after_j)


def _cost(seconds: dict[Op, float]) -> PassCost:
    return PassCost(forward_s=seconds.__getitem__, backward_s=seconds.__getitem__)


def _before(plan: Plan) -> dict[Op, list[Op]]:
    """What each pass waits for: the one ahead of it on its rank, and its needs."""
    found = {op: list(plan.needs.get(op, ())) for op in plan}
    for row in plan.rows:
        for ahead, op in pairwise(row):
            found[op].append(ahead)
    return found


def _float(op: Op, order: list[Op], before: dict[Op, list[Op]], seconds: dict[Op, float], until_s: float) -> float:
    """How much longer `op` may take: earliest ends forwards, latest ends backwards."""
    end: dict[Op, float] = {}
    for each in order:
        end[each] = max((end[need] for need in before[each]), default=0.0) + seconds[each]
    latest = dict.fromkeys(order, until_s)
    for each in reversed(order):
        for need in before[each]:
            latest[need] = min(latest[need], latest[each] - seconds[each])
    return latest[op] - end[op]


def _step(plan: Plan, full: dict[Op, float], clocks: dict[Op, float], chip: Chip, idle_w: float) -> tuple[float, float]:
    """Simulated seconds and modeled joules."""
    seconds = {op: full[op] / clocks[op] for op in full}
    step_s = simulate(plan, _cost(seconds)).duration_s
    joules = sum(chip.power_w(clocks[op]) * seconds[op] for op in full)
    return step_s, joules + idle_w * (plan.ranks * step_s - sum(seconds.values()))
