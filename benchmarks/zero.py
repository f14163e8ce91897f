"""What a step costs: ours over PyTorch's own, for stage 1 (ZeroRedundancyOptimizer) and stage 3 (FSDP2).

    python benchmarks/zero.py

Both models live in the same ranks and step in turn, so that whatever else the machine does meets both; who goes first
changes each turn. The model has 10.5 M parameters in ten equal layers, each a unit of its own, freed after the forward
pass. For stage 1 the optimizer's step alone is timed, since both take gradients that are averaged already.
"""

import statistics
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer

from parallel_lab import launch, progress
from parallel_lab.data_parallel import Zero1, Zero3
from parallel_lab.runtime import make_mesh

STEPS = 40
WIDTH, LAYERS, BATCH = 1024, 10, 32


def model() -> nn.Sequential:
    """10.5 M parameters."""
    torch.manual_seed(0)
    return nn.Sequential(*[nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)])


def in_turns(first: Callable[[], None], second: Callable[[], None]) -> tuple[float, float, float]:
    """Median seconds of each, and the median of their ratio in one turn; the first five turns warm up."""
    times: list[list[float]] = [[], []]
    for turn in progress(range(STEPS), label="steps"):
        for which in (turn % 2, 1 - turn % 2):
            dist.barrier()
            began = time.perf_counter()
            (first, second)[which]()
            dist.barrier()  # a step is over when it is over on all ranks
            times[which].append(time.perf_counter() - began)
    ours, theirs = (each[5:] for each in times)
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    return statistics.median(ours), statistics.median(theirs), ratio


def stage1() -> tuple[float, float, float]:
    """`step()` of Zero1 and of ZeroRedundancyOptimizer, both with AdamW."""
    nets = model(), model()
    for parameter in (p for net in nets for p in net.parameters()):
        parameter.grad = torch.full_like(parameter, 1e-3)
    ours = Zero1(nets[0].parameters(), torch.optim.AdamW, lr=1e-3)
    theirs = ZeroRedundancyOptimizer(nets[1].parameters(), torch.optim.AdamW, lr=1e-3)
    return in_turns(lambda: ours.step(), lambda: theirs.step())


def stage3() -> tuple[float, float, float]:
    """Forward, backward and AdamW step of Zero3 and of FSDP2."""
    ours, theirs = Zero3(model()), model()
    mesh = make_mesh(dp=dist.get_world_size())
    for layer in theirs:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    fully_shard(theirs, mesh=mesh, reshard_after_forward=True)
    x = torch.randn(BATCH, WIDTH)

    def stepper(net: nn.Module) -> Callable[[], None]:
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)

        def step() -> None:
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()

        return step

    return in_turns(stepper(ours), stepper(theirs))


def main() -> None:
    """Measures and prints the table."""
    print("| what | ranks | PyTorch, ms | ours, ms | ours / PyTorch, median of the turns |")
    print("|---|---|---|---|---|")
    for name, work in (("Zero1 / ZeroRedundancyOptimizer", stage1), ("Zero3 / FSDP2", stage3)):
        for ranks in (2, 4):
            ours, theirs, ratio = launch(work, ranks=ranks, timeout=300)[0]
            print(f"| {name} | {ranks} | {1000 * theirs:.1f} | {1000 * ours:.1f} | {ratio:.3f} |")


if __name__ == "__main__":
    main()
