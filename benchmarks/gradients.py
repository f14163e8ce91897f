"""What each gradient hook sends against its formula, and PowerSGD against PyTorch's hook, in the same ranks in turns.

    python benchmarks/gradients.py [--ranks 2 4] [--turns 30]

Bytes: one step of a DDP around a GPT of 1.2 M parameters in buckets of 1 MiB, all that leaves a rank, the flags of
DDP's guards too. The limit is 1.05 times the formula. Beside it stands what dense DDP sends.

Time: PyTorch's `powerSGD_hook` and ours, both with warm start and error feedback, on random gradients of a GPT of
10.8 million parameters as one bucket, from the call to the mean; no model runs. Who goes first changes each turn. The
ratio is the median of the turns' ratios, each of the slowest rank's times. The limit is 1.1.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook

from parallel_lab import launch
from parallel_lab.compress.gradients import QSGD, Cast, OneBit, PowerSGD, RandomK, Sign, TopK
from parallel_lab.data_parallel import DDP
from parallel_lab.data_parallel.ddp import Bucket
from parallel_lab.model import GPT, GPTConfig, loss
from parallel_lab.model.data import text_batches
from parallel_lab.runtime import rank_device
from parallel_lab.trace import recorder

SMALL = GPTConfig(seq=32, width=128, heads=4, layers=6)
LARGE = GPTConfig(seq=32, width=384, heads=6, layers=6)
BUCKET_BYTES = 2**20
MOST_BYTES, MOST_TIME = 1.05, 1.1
WARM_UP = 5
DENSE = "no hook"
HOOKS: dict[str, Callable] = {
    "TopK(0.01)": lambda: TopK(0.01),
    "RandomK(0.01)": lambda: RandomK(0.01),
    "Sign()": Sign,
    "OneBit()": OneBit,
    "QSGD(1)": lambda: QSGD(1),
    "QSGD(7)": lambda: QSGD(7),
    "PowerSGD(1)": lambda: PowerSGD(1),
    "PowerSGD(4)": lambda: PowerSGD(4),
    "Cast(bfloat16)": Cast,
}


def sent() -> dict[str, tuple[float, float]]:
    """For each hook the bytes of a step that were counted, and those of the formula."""
    found = {}
    for name, make in {DENSE: lambda: None, **HOOKS}.items():
        hook: Any = make()
        ddp = DDP(GPT(SMALL).to(rank_device()), hook=hook, bucket_bytes=BUCKET_BYTES)
        counted = 0
        for tokens, targets in text_batches(SMALL.seq, 4, 2):  # after the first, buckets are cut anew
            before = recorder().sent_bytes
            loss(ddp(tokens.to(rank_device())), targets.to(rank_device())).backward()
            counted = recorder().sent_bytes - before
            ddp.zero_grad()
        n, shapes = dist.get_world_size(), [[p.shape for p in bucket.parameters] for bucket in ddp.buckets]
        of_bucket = (Cast(torch.float32) if name == DENSE else hook).sent_bytes
        found[name] = counted, sum(of_bucket(each, n) for each in shapes)
    return found


class Theirs:
    """The bucket as PyTorch's hook sees one."""

    def __init__(self, bucket: Bucket) -> None:
        self.buffer, self.gradients = (lambda: bucket.flat), (lambda: bucket.views)
        self.index, self.is_last = (lambda: 0), (lambda: True)


def times(rank: int, turns: int) -> list[tuple[float, float]]:
    """Seconds of ours and of theirs, turn by turn."""
    model = GPT(LARGE).to(rank_device())
    buckets = [Bucket(0, [*model.named_parameters()][::-1]) for _ in range(2)]
    gradient = torch.randn_like(buckets[0].flat)
    hook, state = PowerSGD(rank, start=1), PowerSGDState(None, rank, start_powerSGD_iter=2)
    group: Any = dist.group.WORLD
    theirs: Any = Theirs(buckets[1])
    ways = [
        lambda: hook(group, buckets[0]).wait(),
        lambda: powerSGD_hook(state, theirs).wait(),
    ]
    found = []
    for turn in range(WARM_UP + turns):
        took = [0.0, 0.0]
        for which in (0, 1) if turn % 2 else (1, 0):
            buckets[which].flat.copy_(gradient)
            dist.barrier()
            began_s = time.perf_counter()
            ways[which]()
            if rank_device().type == "cuda":
                torch.cuda.synchronize()
            took[which] = time.perf_counter() - began_s
        found.append(tuple(took))
    return found[WARM_UP:]


def main() -> int:
    """Prints both tables; 1 where a limit is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--turns", type=int, default=30)
    options, missed = parser.parse_args(), False
    print("| ranks | hook | bytes a step | of the formula | of dense |\n|---|---|---|---|---|")
    for n in options.ranks:
        found = launch(sent, ranks=n, timeout=300).results[0]
        for name, (counted, formula) in found.items():
            missed |= counted > MOST_BYTES * formula
            print(f"| {n} | {name} | {counted:,.0f} | {counted / formula:.3f} | {counted / found[DENSE][0]:.4f} |")
    print("\n| ranks | rank of PowerSGD | ours, ms | PyTorch's, ms | ours / PyTorch's |\n|---|---|---|---|---|")
    for n in options.ranks:
        for rank in (1, 4):
            results = launch(times, rank, options.turns, ranks=n, timeout=300).results
            slowest = [tuple(map(max, zip(*turn, strict=True))) for turn in zip(*results, strict=True)]
            ours, theirs = (statistics.median(each) * 1e3 for each in zip(*slowest, strict=True))
            ratio = statistics.median(mine / other for mine, other in slowest)
            missed |= ratio > MOST_TIME
            print(f"| {n} | {rank} | {ours:.1f} | {theirs:.1f} | {ratio:.3f} |")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
