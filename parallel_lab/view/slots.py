"""From what `draw` is given to a trace. A plan has no times: each of its ops takes one slot, as early as it can."""

from parallel_lab.plan import Plan
from parallel_lab.plan.check import Waits
from parallel_lab.trace import Span, Trace


def trace_of(source) -> tuple[Trace, bool]:
    """The trace of a `Trace`, a `Plan` or a run, and whether its times are slots of a plan instead of seconds.

    Raises:
        TypeError: `source` is none of these.
    """
    source = getattr(source, "trace", source)
    if isinstance(source, Plan):
        return unit_trace(source), True
    if isinstance(source, Trace):
        return source, False
    raise TypeError(f"expected a run, a trace or a plan, got {type(source).__name__}")


def unit_trace(plan: Plan) -> Trace:
    """`plan` on a grid: an op starts once its lane is free and all it needs is over, and takes one slot.

    Raises:
        PlanError: ops wait for each other, or for an op that is not in the plan.
    """
    waits = Waits.of(plan)
    ends = [0] * (len(plan) + 1)  # the last is for ops with none ahead
    for i in waits.order():
        ends[i] = 1 + max([ends[waits.ahead[i]], *(ends[j] for j in waits.before[i])])
    steps = sorted(zip(plan, ends, strict=False), key=lambda step: (step[0].rank, step[1]))
    spans = tuple(Span(**op._asdict(), start_s=end - 1, end_s=end) for op, end in steps)
    return Trace(plan.ranks, spans, simulated=True)
