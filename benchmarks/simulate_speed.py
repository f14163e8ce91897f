"""How long the simulator takes for a plan of 262,144 passes: at most 2 s of one core; with its messages at most 4 s.

Run: python benchmarks/simulate_speed.py
The plan is interleaved 1F1B with p = 64, m = 1024 and v = 2. With messages it has 782,336 ops, and the 4 s hold both:
lowering the plan, and simulating it. Times are processor seconds, the best of three: other programs count little, but
they do, by the caches that they share. Besides, the ratio to the least that a simulator in Python could do is printed:
price each op and make its span.
"""

import sys
import time

from parallel_lab.pipeline import interleaved, with_messages
from parallel_lab.plan import Plan, collector_paused
from parallel_lab.simulate import PassCost, simulate
from parallel_lab.trace import Span, Trace

RUNS = 3
COST = PassCost(activation_bytes=1, message_s=0.1, message_bytes=1)


def seconds(work) -> float:
    """Processor seconds that `work()` takes, the best of several times."""
    took_s = []
    for _ in range(RUNS):
        began_s = time.process_time()
        made = work()
        took_s.append(time.process_time() - began_s)
        del made
    return min(took_s)


def spans(plan: Plan) -> list[Span]:
    """A span for each op of `plan`, and nothing else."""
    with collector_paused():
        return [Span(op.rank, op.kind, 0.0, COST.seconds(op)) for op in plan]


def both(plan: Plan) -> tuple[Plan, Trace]:
    """`plan` with its messages, and what comes of it."""
    lowered = with_messages(plan)
    return lowered, simulate(lowered, COST)


def main() -> int:
    """Prints a table; 1 if one of the best runs is over its limit."""
    plan = interleaved(64, 1024, 2)
    lowered = with_messages(plan)
    rows = [
        ("simulated", plan, 2.0, lambda: simulate(plan, COST)),
        ("lowered with messages, simulated", lowered, 4.0, lambda: both(plan)),
    ]
    print(f"{'':<34}{'ops':>8}  {'seconds':>8}  {'limit':>6}  {'per op':>8}  {'spans only':>10}  {'ratio':>5}")
    missed = 0
    for name, made, limit_s, work in rows:
        took_s, least_s, ops = seconds(work), seconds(lambda made=made: spans(made)), len(made)
        print(f"{name:<34}{ops:>8}  {took_s:>6.2f} s  {limit_s:>4.0f} s  {took_s / ops * 1e6:>5.1f} µs", end="")
        print(f"  {least_s:>8.2f} s  {took_s / least_s:>5.1f}")
        missed |= took_s > limit_s
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
