"""The pipeline of a step, simulated fast: when each pass of a schedule would run, for any seconds of its passes.

`simulate` answers the same from a plan with messages, with spans for every op; a search asks thousands of times, so
here a schedule is compiled once to numbers. A pass starts when the one ahead of it in its row is over and what it needs
from another rank has arrived, a message later. (What it needs of its own rank stands ahead of it in the row.)

A schedule repeats itself: after a few rounds of p microbatches, each round more costs the same. So of a very long step
two short ones are simulated and a straight line is drawn. That is exact where all stages but the ends are alike, as
those of equal layers are; where every stage takes another time, it can take more rounds until the slowest loop of waits
has won, and the line is a few percent short. Tests hold both against `simulate`.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from parallel_lab.pipeline import (
    dualpipe_v,
    gpipe,
    interleaved,
    one_f_one_b,
    placement,
    zb_h1,
    zb_h2,
    zb_v,
)
from parallel_lab.plan import Plan
from parallel_lab.plan.check import Waits

_PLANS: dict[str, Callable[[int, int, int], Plan]] = {
    "gpipe": lambda p, m, v: gpipe(p, m),
    "1f1b": lambda p, m, v: one_f_one_b(p, m),
    "interleaved": interleaved,
    "zb_h1": lambda p, m, v: zb_h1(p, m),
    "zb_h2": lambda p, m, v: zb_h2(p, m),
    "zb_v": lambda p, m, v: zb_v(p, m),
    "dualpipe_v": lambda p, m, v: dualpipe_v(p, m),
}
_STEADY = 3  # rounds of p microbatches after which a schedule repeats itself
_WHOLE = 4096  # passes up to which a step is not folded


def schedule_plan(schedule: str, p: int, m: int, v: int = 1) -> Plan:
    """The passes of a step: `m` microbatches through `p` ranks with `v` chunks each."""
    return _PLANS[schedule](p, m, v)


class Compiled(NamedTuple):
    """A plan as numbers: for each pass in a possible order its place, the pass ahead, the one waited for, its kind."""

    passes: tuple[tuple[int, int, int, int], ...]
    kinds: tuple[tuple[str, int], ...]  # kind and stage of each number of a kind
    first: tuple[tuple[int, int], ...]  # of each rank the first pass and its kind
    last: tuple[int, ...]  # of each rank the last pass
    ranks: tuple[int, ...]  # the rank of each stage


class Seconds(NamedTuple):
    """Of the passes of each stage, and of a message between two ranks."""

    forward_s: Sequence[float]
    input_s: Sequence[float]
    weight_s: Sequence[float]
    message_s: float

    def of(self, kind: str, stage: int) -> float:
        """A pass."""
        if kind == "F":
            return self.forward_s[stage]
        whole = self.input_s[stage] + self.weight_s[stage]
        return {"B": whole, "I": self.input_s[stage], "W": self.weight_s[stage]}[kind]


def finish_s(schedule: str, p: int, m: int, v: int, seconds: Seconds, own: bool = False) -> list[float]:
    """When each rank is through with its passes, or how long after its own first one, which counts without barrier."""
    short = _STEADY * p + m % p
    if m <= short + p or 2 * p * m * v <= _WHOLE:
        return _ends(compiled(schedule, p, m, v), seconds, own)
    one, two = (_ends(compiled(schedule, p, count, v), seconds, own) for count in (short, short + p))
    rounds = (m - short) // p
    return [first + rounds * (second - first) for first, second in zip(one, two, strict=True)]


def _ends(plan: Compiled, seconds: Seconds, own: bool) -> list[float]:
    takes = [seconds.of(*kind) for kind in plan.kinds]
    message_s = seconds.message_s
    ends = [0.0] * (len(plan.passes) + 1)  # the last stays 0, for what waits for nothing
    for i, ahead, needed, kind in plan.passes:
        start_s, arrival_s = ends[ahead], ends[needed] + message_s if needed >= 0 else 0.0
        ends[i] = (arrival_s if arrival_s > start_s else start_s) + takes[kind]
    if own:
        return [ends[i] - (ends[one] - takes[kind]) for i, (one, kind) in zip(plan.last, plan.first, strict=True)]
    return [ends[i] for i in plan.last]


@lru_cache(maxsize=512)
def compiled(schedule: str, p: int, m: int, v: int) -> Compiled:
    """The plan of a schedule as numbers."""
    plan = schedule_plan(schedule, p, m, v)
    waits = Waits.of(plan)
    ops = waits.ops
    kinds = {kind: i for i, kind in enumerate(sorted({(op.kind, op.part) for op in ops}))}
    needed = [
        next((n for n in before if ops[n].rank != op.rank), -1) for op, before in zip(ops, waits.before, strict=True)
    ]
    passes = tuple((i, waits.ahead[i], needed[i], kinds[ops[i].kind, ops[i].part]) for i in waits.order())
    last = {op.rank: i for i, op in enumerate(ops)}
    ends = tuple(last[rank] for rank in range(p))
    starts = tuple((i, kinds[ops[i].kind, ops[i].part]) for i in (0, *(end + 1 for end in ends[:-1])))
    return Compiled(passes, tuple(kinds), starts, ends, tuple(placement(plan)))
