"""What the door and its recorder cost: a DDP step of a 10 M-parameter model through gloo, the door, and with a trace.

    python benchmarks/tracing.py

All steps are made by the same ranks in turn, so that whatever else the machine does meets all. A ratio is the median
over the turns of one step over another of the same turn. Fails where recording costs more than 5 % of a step.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from parallel_lab import launch, progress
from parallel_lab.trace import recorder

TURNS = 40
LIMIT = 1.05


def model() -> nn.Module:
    """10.5 M parameters."""
    return nn.Sequential(*[nn.Linear(1024, 1024) for _ in range(10)])


def step(net: nn.Module, x: torch.Tensor, record: bool) -> float:
    """Seconds of one forward and backward pass."""
    net.zero_grad()
    recorder().enabled = record
    dist.barrier()
    began = time.perf_counter()
    net(x).square().mean().backward()
    return time.perf_counter() - began


def work() -> list[dict[str, float]]:
    """The seconds of each kind of step, turn by turn."""
    gloo = DistributedDataParallel(model(), process_group=dist.new_group(backend="gloo"))
    lab, x = DistributedDataParallel(model()), torch.randn(32, 1024)
    steps: dict[str, Callable[[], float]] = {
        "gloo": lambda: step(gloo, x, False),
        "door": lambda: step(lab, x, False),
        "trace": lambda: step(lab, x, True),
    }
    names, turns = list(steps), []
    for turn in progress(range(TURNS), label="steps"):
        order = names[turn % 3 :] + names[: turn % 3]  # who goes first has colder caches, so they take turns
        turns.append({name: steps[name]() for name in order})
    return turns[2:]


def main() -> None:
    """Measures and prints the table."""
    print("| ranks | gloo, ms a step | door / gloo | recording / not recording |")
    print("|---|---|---|---|")
    worst = 0.0
    for ranks in (2, 4):
        turns = launch(work, ranks=ranks, timeout=300)[0]
        gloo_s = statistics.median(turn["gloo"] for turn in turns)
        door = statistics.median(turn["door"] / turn["gloo"] for turn in turns)
        trace = statistics.median(turn["trace"] / turn["door"] for turn in turns)
        print(f"| {ranks} | {1000 * gloo_s:.1f} | {door:.3f} | {trace:.3f} |", flush=True)
        worst = max(worst, trace)
    sys.exit(worst > LIMIT)


if __name__ == "__main__":
    main()
