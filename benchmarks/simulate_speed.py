"""How long the simulator takes for a plan of 250,000 ops: at most 2 s on one core.

Run: python benchmarks/simulate_speed.py
Besides the time it prints the ratio to the least a simulator in Python could do: price each op and make its span.
"""

import sys
import time

from parallel_lab.pipeline import one_f_one_b
from parallel_lab.simulate import PassCost, simulate
from parallel_lab.trace import Span

LIMIT_S = 2.0
RUNS = 3


def seconds(work) -> float:
    """Processor seconds that `work()` takes."""
    began_s = time.process_time()
    work()
    return time.process_time() - began_s


def main() -> int:
    """Prints a table; 1 if the best run is over the limit."""
    plan = one_f_one_b(64, 1954)
    cost = PassCost(activation_bytes=1)
    full_s = min(seconds(lambda: simulate(plan, cost)) for _ in range(RUNS))
    least_s = min(seconds(lambda: [Span(op.rank, op.kind, 0.0, cost.seconds(op)) for op in plan]) for _ in range(RUNS))
    print(f"{'ops':>8}  {'simulate':>10}  {'per op':>8}  {'spans only':>10}  {'ratio':>5}  (best of {RUNS})")
    per_op_us = full_s / len(plan) * 1e6
    print(f"{len(plan):>8}  {full_s:>8.2f} s  {per_op_us:>5.1f} µs  {least_s:>8.2f} s  {full_s / least_s:>5.1f}")
    return int(full_s > LIMIT_S)


if __name__ == "__main__":
    sys.exit(main())
