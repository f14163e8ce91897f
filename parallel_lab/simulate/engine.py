"""Earliest-start simulation: when would each op of a plan run, if every op started as soon as it could?

An op starts when its port is free and all its needs are over, and takes `cost.seconds(op)`. Nothing is decided on the
way, so the times are longest paths in the graph of waits, and one pass in topological order finds them all.

A port is a lane of a rank, or what `cost.port(op)` says: with a port for each kind of link, messages on the fast link
and on the slow one run side by side. An op holds its port until it ends, or for `cost.occupancy_s(op)`.

A message holds two ports. It takes `cost.seconds(send) = latency + bytes / bandwidth`, and meanwhile it comes in on the
receiver's port: a receive starts no earlier than its send starts, and ends no earlier than its send ends. A lone
message therefore costs its time once, not twice, and a rank to which many send at once takes in one message after
another: that is the bottleneck of a server.

A collective is an op on each of its ranks. Where the cost model tells which ops are one (`cost.meeting`), they start
together, when the last of them is ready, and end together.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import partial
from operator import attrgetter

from parallel_lab.network import COLLECTIVES, CostModel
from parallel_lab.network.cost import COMMUNICATION
from parallel_lab.plan import RECEIVING, Op, Plan, collector_paused
from parallel_lab.plan.check import Waits, say
from parallel_lab.trace import Sample, Span, Trace

Meetings = Mapping[int, Sequence[int]]  # for the first op of a collective, those of the other ranks


def simulate(plan: Plan, cost: CostModel) -> Trace:
    """The trace of `plan` on machines as fast as `cost` says, with spans in the order of `plan.rows`.

    `cost` is `AlphaBeta`, `Topology`, `PassCost`, `Roofline`, or another `CostModel`. If it knows what ops hold, the
    trace has samples of the bytes that each rank holds: a positive number is taken when the op starts, a negative one
    is given back when it ends, and what is given back at a moment is free for what starts at that moment.

    Raises:
        PlanError: The plan cannot finish, or an op stands twice, or in the wrong row.
        ValueError: The cost model gives a negative time, or has no price for an op.
    """
    with collector_paused():
        cost = cost.of_plan(plan)
        waits = Waits.of(plan, attrgetter("lane") if type(cost).port is CostModel.port else cost.port)
        ops, (meetings, needs) = waits.ops, _meetings(waits, cost)
        start_s, end_s = _times(waits, needs, meetings, *_seconds(ops, meetings, cost))
        spans = tuple(_spans(ops, start_s, end_s, cost))
        return Trace(plan.ranks, spans, _memory(ops, start_s, end_s, cost), simulated=True)


def _meetings(waits: Waits, cost: CostModel) -> tuple[Meetings, Sequence[tuple[int, ...]]]:
    """The ops that are one collective, by the first of them, and what each op needs: the first, what any of them needs.

    In `waits` the first waits also for those ahead of the others, each on its port. This settles the order only: in
    `_times` it waits until the ports are free, which is earlier where an op holds its port for less than its time.
    """
    members: dict[Hashable, list[int]] = {}
    for i, op in enumerate(waits.ops):
        if op.kind in COLLECTIVES:
            members.setdefault(cost.meeting(op), []).append(i)
    needs = list(waits.before)
    for first, *others in members.values():
        needs[first] = tuple({need for i in (first, *others) for need in waits.before[i]})
        waits.before[first] = (*needs[first], *(waits.ahead[i] for i in others if waits.ahead[i] >= 0))
        for i in others:
            needs[i] = waits.before[i] = (first,)
            waits.sender[i] = first  # as a receive goes with its send
    return {first: others for first, *others in members.values() if others}, needs


def _seconds(ops: Sequence[Op], meetings: Meetings, cost: CostModel) -> tuple[list[float], list[float]]:
    """How long each op takes once it may start, and how long it holds its port."""
    seconds = _priced(ops, meetings, cost.seconds)
    if type(cost).occupancy_s is CostModel.occupancy_s:
        return seconds, seconds
    occupied = _priced(ops, meetings, cost.occupancy_s)
    for i, op in enumerate(ops):
        if op.kind in RECEIVING:
            seconds[i] = occupied[i]  # it is on its way since its send; here it only comes in
    return seconds, occupied


def _priced(ops: Sequence[Op], meetings: Meetings, of_op: Callable[[Op], float]) -> list[float]:
    """Seconds of each op; those of a collective are those of its slowest rank."""
    seconds = list(map(of_op, ops))
    for op, took_s in zip(ops, seconds, strict=True):
        if not took_s >= 0:  # so that not-a-number is caught too
            raise ValueError(f"the cost model gives {say(op)} {took_s} seconds")
    for first, others in meetings.items():
        slowest_s = max(seconds[i] for i in (first, *others))
        for i in (first, *others):
            seconds[i] = slowest_s
    return seconds


def _times(
    waits: Waits,
    needs: Sequence[tuple[int, ...]],
    meetings: Meetings,
    seconds: Sequence[float],
    occupied: Sequence[float],
) -> tuple[list[float], list[float]]:
    """The start and the end of each op, in seconds."""
    start_s, end_s = [0.0] * len(needs), [0.0] * len(needs)
    free_s = [0.0] * (len(needs) + 1)  # when each gives back its port; the last is for those with none ahead
    sender, ahead = waits.sender, waits.ahead
    for i in waits.order():
        start, sent = free_s[ahead[i]], sender[i]
        if i in meetings:
            start = max(start, *(free_s[ahead[k]] for k in meetings[i]))
        for j in needs[i]:
            over_s = end_s[j] if j != sent else start_s[j]  # a message comes in while it goes out
            if over_s > start:
                start = over_s
        end = start + seconds[i]
        if sent >= 0 and end_s[sent] > end:
            end = end_s[sent]
        start_s[i], end_s[i] = start, end
        free_s[i] = end - (seconds[i] - occupied[i])
    return start_s, end_s


def _spans(ops: Sequence[Op], start_s: list[float], end_s: list[float], cost: CostModel) -> Iterator[Span]:
    """What each op did; bytes and messages are counted where they leave."""
    new = partial(tuple.__new__, Span)  # half the time of Span(...)
    for op, start, end in zip(ops, start_s, end_s, strict=True):
        rank, kind, part, mb, peer, lane, axis, phase, round_ = op
        size = sent = count = 0
        if kind in COMMUNICATION:
            size = cost.bytes(op)
            if kind == "send":
                sent, count = size, 1
            elif kind in COLLECTIVES:
                sent, count, *_ = cost.price(op)
        names = (axis, phase, round_, True)
        yield new((rank, kind, start, end, part, mb, peer, lane, size, sent, count, 0.0, "", "", *names))


def _memory(ops: Sequence[Op], start_s: list[float], end_s: list[float], cost: CostModel) -> tuple[Sample, ...]:
    """Samples of the bytes held, rank after rank in time order; none if the cost model knows no memory."""
    events = []
    for i, change in enumerate(map(cost.held, ops)):
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
