"""Ours over PyTorch's own with tensors on the GPU: DDP, Zero3 over FSDP2, the ring's all-reduce over the backend's.

    python benchmarks/gpu.py [ddp | ddp_bare | zero3 | all_reduce]

Both sides live in the same ranks and step in turn; who goes first changes each turn, and the first turns warm up. The
clock stops when the GPU is done (`torch.cuda.synchronize`) on all ranks. Without a GPU the same runs on the CPU.

Ranks that share one GPU take turns on it and talk through host memory: no time here says how fast a cluster is, and no
overlap of one rank's computing with another's can show. The ratio compares what both sides pay in the same ranks.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from parallel_lab import collectives, launch
from parallel_lab.data_parallel import DDP, Zero3
from parallel_lab.runtime import make_mesh, rank_device

TURNS, WARM_UP = 25, 5
WIDTH, LAYERS, BATCH = 1024, 10, 64
MESSAGE = 4 * 2**20  # float32 numbers: 16 MiB

Step = Callable[[], object]


def model() -> nn.Sequential:
    """10.5 M parameters on this rank's device."""
    torch.manual_seed(0)
    return nn.Sequential(*[nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)]).to(rank_device())


def stepper(net: nn.Module) -> Step:
    """Forward, backward and AdamW's step."""
    optimizer, x = torch.optim.AdamW(net.parameters(), lr=1e-3), torch.randn(BATCH, WIDTH, device=rank_device())

    def step() -> None:
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()

    return step


def ddp() -> tuple[Step, Step]:
    """A step of our DDP and one of PyTorch's."""
    return stepper(DDP(model())), stepper(DistributedDataParallel(model(), gradient_as_bucket_view=True))


def ddp_bare() -> tuple[Step, Step]:
    """A step of our DDP without guards, and one of PyTorch's: what the algorithm alone costs."""
    return stepper(DDP(model(), guards=[])), stepper(DistributedDataParallel(model(), gradient_as_bucket_view=True))


def zero3() -> tuple[Step, Step]:
    """A step of Zero3 and one of FSDP2, each layer a unit."""
    theirs, mesh = model(), make_mesh(dp=dist.get_world_size())
    for layer in theirs:
        fully_shard(layer, mesh=mesh)
    return stepper(Zero3(model())), stepper(fully_shard(theirs, mesh=mesh))


def all_reduce() -> tuple[Step, Step]:
    """Our ring and the backend's own all-reduce of 16 MiB."""
    x = torch.zeros(MESSAGE, device=rank_device())
    return lambda: collectives.all_reduce(x), lambda: dist.all_reduce(x)


PAIRS: dict[str, tuple[str, Callable[[], tuple[Step, Step]]]] = {
    "ddp": ("DDP / PyTorch's", ddp),
    "ddp_bare": ("DDP without guards / PyTorch's", ddp_bare),
    "zero3": ("Zero3 / FSDP2", zero3),
    "all_reduce": ("ring / the backend's all-reduce, 16 MiB", all_reduce),
}


def finish() -> None:
    """Waits for this rank's GPU, then for the other ranks."""
    if rank_device().type == "cuda":
        torch.cuda.synchronize()
    dist.barrier()


def in_turns(pair: Callable[[], tuple[Step, Step]]) -> tuple[list[float], list[float]]:
    """Seconds of each step of both sides, without those that warm up."""
    steps, times = pair(), ([], [])
    for turn in range(TURNS + WARM_UP):
        for side in (turn % 2, 1 - turn % 2):
            finish()
            began_s = time.perf_counter()
            steps[side]()
            finish()
            times[side].append(time.perf_counter() - began_s)
    return times[0][WARM_UP:], times[1][WARM_UP:]


def compare(name: str, ranks: int) -> str:
    """A sentence on one pair: the median ratio of a turn, its quartiles, and the median times."""
    what, pair = PAIRS[name]
    ours, theirs = launch(in_turns, pair, ranks=ranks, timeout=120)[0]
    low, ratio, high = statistics.quantiles([a / b for a, b in zip(ours, theirs, strict=True)], n=4)
    times = f"{1000 * statistics.median(ours):.1f} ms / {1000 * statistics.median(theirs):.1f} ms"
    return f"{what}, {ranks} ranks: {ratio:.2f} (quartiles {low:.2f} to {high:.2f}; {times})"


def main() -> None:
    """Prints a line for each comparison that was asked for."""
    parser = argparse.ArgumentParser(description="ours against PyTorch's own, tensors on the GPU")
    parser.add_argument("pairs", nargs="*", default=list(PAIRS), help=f"{', '.join(PAIRS)}; all by default")
    for name in parser.parse_args().pairs:
        print("; ".join(compare(name, ranks) for ranks in (2, 4)), flush=True)


if __name__ == "__main__":
    main()
