"""From what `draw` is given to a trace. A plan has no times: each of its ops takes one slot, as early as it can."""

from parallel_lab.plan import Op, Plan
from parallel_lab.trace import Span, Trace


def trace_of(source) -> tuple[Trace, bool]:
    """The trace to draw, and whether its times are slots of a plan instead of seconds.

    `source` is a `Trace`, a `Plan`, or anything with a `.trace` (a run). TypeError for anything else.
    """
    source = getattr(source, "trace", source)
    if isinstance(source, Plan):
        return unit_trace(source), True
    if isinstance(source, Trace):
        return source, False
    raise TypeError(f"expected a run, a trace or a plan, got {type(source).__name__}")


def unit_trace(plan: Plan) -> Trace:
    """`plan` on a grid: an op starts once its lane is free and all it needs is over, and takes one slot.

    Raises ValueError when ops are left that wait for each other or for an op that is not in the plan.
    """
    spans: list[Span] = []
    ends: dict[Op, int] = {}
    queues = _lane_queues(plan)
    free = dict.fromkeys(range(len(queues)), 0)
    moved = True
    while moved:
        moved = False
        for lane, queue in enumerate(queues):
            while queue and all(op in ends for op in plan.needs.get(queue[-1], ())):
                op = queue.pop()
                start = max([free[lane], *(ends[before] for before in plan.needs.get(op, ()))])
                ends[op] = free[lane] = start + 1
                names = {"axis": op.axis, "phase": op.phase, "round": op.round}
                spans.append(Span(op.rank, op.kind, start, start + 1, op.part, op.mb, op.peer, op.lane, **names))
                moved = True
    _refuse_leftovers(plan, queues, ends)
    return Trace(plan.ranks, tuple(sorted(spans, key=lambda s: (s.rank, s.start_s))), simulated=True)


def _lane_queues(plan: Plan) -> list[list[Op]]:
    """The ops of each lane of each rank, the next one last."""
    lanes: dict[tuple[int, str], list[Op]] = {}
    for op in plan:
        lanes.setdefault((op.rank, op.lane), []).append(op)
    return [list(reversed(ops)) for ops in lanes.values()]


def _refuse_leftovers(plan: Plan, queues: list[list[Op]], ends: dict[Op, int]) -> None:
    stuck = [f"rank {queue[-1].rank} at {queue[-1]}, {_waits(plan, queue[-1], ends)}" for queue in queues if queue]
    if stuck:
        raise ValueError("this plan cannot finish: " + "; ".join(stuck))


def _waits(plan: Plan, op: Op, ends: dict[Op, int]) -> str:
    known = set(plan)
    return ", ".join(_blame(before, known) for before in plan.needs.get(op, ()) if before not in ends)


def _blame(op: Op, known: set[Op]) -> str:
    return f"which waits for {op} of rank {op.rank}" + ("" if op in known else " (not in the plan)")
