"""Earliest-start simulation: when would each op of a plan run, if every op started as soon as it could?

An op starts when its lane is free and all its needs are over, and takes `cost.seconds(op)`. Nothing is decided on the
way, so the times are longest paths in the graph of waits, and one pass in topological order finds them all.

A message is the one thing that holds two lanes. It takes `cost.seconds(send) = latency + bytes / bandwidth` on the
sender's send lane, and meanwhile it comes in on the receiver's recv lane: a receive starts no earlier than its send
starts, and ends no earlier than its send ends. A lone message therefore costs its time once, not twice, and a rank to
which many send at once takes in one message after another: that is the bottleneck of a server.
"""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from parallel_lab.plan import Op, Plan, PlanError
from parallel_lab.plan.check import Waits, check_rows, say, show, tell_circle
from parallel_lab.simulate.cost import Cost
from parallel_lab.trace import Sample, Span, Trace

_MARKED = 4  # steps that the grid of a StuckPlan marks


class StuckPlan(PlanError):
    """A plan that cannot finish: the message names, for each stuck rank, where it waits and for what."""


def simulate(plan: Plan, cost: Cost) -> Trace:
    """The trace of `plan` on machines as fast as `cost` says, with spans in the order of `plan.rows`.

    `cost.seconds(op)` are seconds and `cost.bytes(op)` the bytes of a message. If `cost` has `held(op)`, the trace has
    samples of the bytes that each rank holds: a positive number is taken when the op starts, a negative one is given
    back when it ends, and what is given back at a moment is free for what starts at that moment.

    Raises StuckPlan if the plan cannot finish, PlanError for a doubled op or one in the wrong row, and ValueError for
    a negative time.
    """
    check_rows(plan)
    with _collector_paused():
        waits, ops = Waits.of(plan), list(plan)
        order = waits.order()
        if len(order) < len(ops):
            raise StuckPlan(_tell_stuck(plan, waits, order))
        start_s, end_s = _times(waits, order, _seconds(ops, cost))
        spans = tuple(map(_span, ops, start_s, end_s, map(cost.bytes, ops)))
        return Trace(plan.ranks, spans, _memory(ops, start_s, end_s, cost), simulated=True)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Puts off the search for reference cycles: a trace has none, and the search doubles the time of a large one."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _seconds(ops: Sequence[Op], cost: Cost) -> list[float]:
    seconds = [cost.seconds(op) for op in ops]
    for op, took_s in zip(ops, seconds, strict=True):
        if not took_s >= 0:  # so that not-a-number is caught too
            raise ValueError(f"the cost model gives {say(op)} {took_s} seconds")
    return seconds


def _times(waits: Waits, order: list[int], seconds: list[float]) -> tuple[list[float], list[float]]:
    """The start and the end of each op, in seconds."""
    start_s, end_s = [0.0] * len(order), [0.0] * len(order)
    free_s = [0.0] * len(waits.lanes)
    before, sender, lane = waits.before, waits.sender, waits.lane
    for i in order:
        start, sent = free_s[lane[i]], sender[i]
        for j in before[i]:
            over_s = end_s[j] if j != sent else start_s[j]  # a message comes in while it goes out
            if over_s > start:
                start = over_s
        end = start + seconds[i]
        if sent >= 0 and end_s[sent] > end:
            end = end_s[sent]
        start_s[i], end_s[i] = start, end
        free_s[lane[i]] = end
    return start_s, end_s


def _span(op: Op, start_s: float, end_s: float, size: int) -> Span:
    rank, kind, part, mb, peer, lane, axis, phase, round_ = op
    sends = kind == "send"  # bytes and messages are counted where they leave
    return Span(
        rank,
        kind,
        start_s,
        end_s,
        part,
        mb,
        peer,
        lane,
        size,
        size if sends else 0,
        int(sends),
        axis=axis,
        phase=phase,
        round=round_,
    )


def _memory(ops: Sequence[Op], start_s: list[float], end_s: list[float], cost: Cost) -> tuple[Sample, ...]:
    """Samples of the bytes held, rank after rank in time order; none if the cost model knows no memory."""
    held = getattr(cost, "held", None)
    changes = [held(op) for op in ops] if held else []
    events = []
    for i, change in enumerate(changes):
        if change > 0:
            events.append((ops[i].rank, start_s[i], True, i, change))
        elif change < 0:
            # Bytes are given back before others are taken at that moment; an op that takes no time keeps its turn.
            events.append((ops[i].rank, end_s[i], end_s[i] == start_s[i], i, change))
    samples, total = [], {}
    for rank, time_s, _, _, change in sorted(events):
        total[rank] = total.get(rank, 0) + change
        samples.append(Sample(rank, time_s, total[rank]))
    return tuple(samples)


def _tell_stuck(plan: Plan, waits: Waits, order: list[int]) -> str:
    """Names the first op that each lane of each stuck rank cannot do, and what it waits for."""
    done = set(order)
    stuck: dict[int, int] = {}  # by lane
    for i in range(len(plan)):
        if i not in done:
            stuck.setdefault(waits.lane[i], i)
    lines = [_tell_wait(waits, i, done) for i in stuck.values()]
    circle = waits.circle()
    if circle:
        lines.append(f"in short, {tell_circle(waits, circle)}")
    # The grid shows the cause, not the many that wait for it: the circle, or those that wait for what is in no row.
    cause = circle or [i for i in stuck.values() if max(waits.before[i], default=0) >= len(waits.before)]
    lines.append(show(plan, [waits.ops[i] for i in (cause or list(stuck.values()))[:_MARKED]]))
    return "\n".join(["this plan cannot finish", *lines])


def _tell_wait(waits: Waits, i: int, done: set[int]) -> str:
    op = waits.ops[i]
    where = ["", ", which is in no row"]
    awaited = [say(waits.ops[j]) + where[j >= len(waits.before)] for j in waits.blockers(i) if j not in done]
    return f"rank {op.rank} waits at {op} for {' and '.join(awaited)}"
