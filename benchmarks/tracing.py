"""What the door costs: a DDP step of a 10 M-parameter model through the lab process group, and through gloo alone.

    python benchmarks/tracing.py

Both models live in the same ranks and step in turn, so that whatever else the machine does meets both.
"""

import statistics
import time

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from parallel_lab import launch, progress

STEPS = 60


def model() -> nn.Module:
    """10.5 M parameters."""
    return nn.Sequential(*[nn.Linear(1024, 1024) for _ in range(10)])


def step(net: nn.Module, x: torch.Tensor) -> float:
    """Seconds of one forward and backward pass."""
    net.zero_grad()
    dist.barrier()
    began = time.perf_counter()
    net(x).square().mean().backward()
    return time.perf_counter() - began


def work() -> tuple[float, float]:
    """Median seconds a step: through the lab group, and through gloo."""
    plain = dist.new_group(backend="gloo")
    nets = DistributedDataParallel(model()), DistributedDataParallel(model(), process_group=plain)
    x = torch.randn(32, 1024)
    times: dict[int, list[float]] = {0: [], 1: []}
    for turn in progress(range(STEPS), label="steps"):
        for which in (turn % 2, 1 - turn % 2):  # who goes first has colder caches, so they take turns
            times[which].append(step(nets[which], x))
    return statistics.median(times[0][2:]), statistics.median(times[1][2:])


def main() -> None:
    """Measures and prints the table."""
    print("| ranks | gloo, ms a step | through the door, ms | ratio |")
    print("|---|---|---|---|")
    for ranks in (2, 4):
        lab, gloo = launch(work, ranks=ranks, timeout=300)[0]
        print(f"| {ranks} | {1000 * gloo:.1f} | {1000 * lab:.1f} | {lab / gloo:.3f} |")


if __name__ == "__main__":
    main()
