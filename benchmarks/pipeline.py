"""Our pipelines against PyTorch's, in the same ranks in turns; and the bubble measured against the bubble simulated.

    python benchmarks/pipeline.py

A step is forward and backward of 8 microbatches through blocks of a GPT, two a rank, all through the lab process group.
PyTorch's ZB-H1 is `ScheduleInterleavedZeroBubble` with one stage a rank; its ZB-H2 is none. PyTorch's schedules do not
give the loss to all ranks, ours do.

Bubble: 4 ranks cannot compute at once on 2 cores, so stages sleep: F, I and W for 5 ms and 20 ms, with an activation of
16 KiB. The simulation has the same passes and messages of c seconds, where c is measured in the same run: how long after
the end of the pass that made a tensor the pass that waited for it began. What is compared is the share of all ranks'
time in which nothing was computed (`Trace.bubble`), and the model's c = 0 stands beside it.
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, schedules

from parallel_lab import launch, pipeline, progress
from parallel_lab.model import Block, GPTConfig
from parallel_lab.plan import Op, Plan
from parallel_lab.simulate import PassCost, simulate
from parallel_lab.trace import Span, Trace

STEPS, SKIP = 40, 4
M = 8
MOST = 1.0
CONFIG = GPTConfig(vocab=64, seq=64, width=128, heads=4, layers=2)
PLANS: dict[str, Callable[[int], Plan]] = {
    "gpipe": lambda p: pipeline.gpipe(p, M),
    "one_f_one_b": lambda p: pipeline.one_f_one_b(p, M),
    "interleaved, v=2": lambda p: pipeline.interleaved(p, M, 2),
    "looped_bfs, v=2": lambda p: pipeline.looped_bfs(p, M, 2),
    "zb_h1": lambda p: pipeline.zb_h1(p, M),
    "zb_h2": lambda p: pipeline.zb_h2(p, M),
    "zb_v": lambda p: pipeline.zb_v(p, M),
    "dualpipe_v": lambda p: pipeline.dualpipe_v(p, M),
}
PEERS: dict[str, Any] = {
    "gpipe": schedules.ScheduleGPipe,
    "one_f_one_b": schedules.Schedule1F1B,
    "interleaved, v=2": schedules.ScheduleInterleaved1F1B,
    "looped_bfs, v=2": schedules.ScheduleLoopedBFS,
    "zb_h1": schedules.ScheduleInterleavedZeroBubble,
    "zb_v": schedules.ScheduleZBVZeroBubble,
    "dualpipe_v": schedules.ScheduleDualPipeV,
}


def blocks(stages: int) -> dict[int, nn.Module]:
    """Two blocks a rank, over `stages` stages: a stage has two, or one."""
    ranks = dist.get_world_size()
    torch.manual_seed(0)
    return {s: nn.Sequential(*[Block(CONFIG) for _ in range(2 * ranks // stages)]) for s in range(stages)}


def loss_fn(y: Tensor, target: Tensor) -> Tensor:
    """A sum of squares."""
    return (y - target).square().sum()


def turns(name: str) -> dict[str, float]:
    """Median seconds per step of ours and of PyTorch's."""
    rank, plan = dist.get_rank(), PLANS[name](dist.get_world_size())
    stages = len(pipeline.placement(plan))
    mine = {s: module for s, module in blocks(stages).items() if s in pipeline.stages_of(plan, rank)}
    theirs = [PipelineStage(module, s, stages, torch.device("cpu")) for s, module in mine.items()]
    several = PEERS[name] not in (schedules.ScheduleGPipe, schedules.Schedule1F1B)
    schedule = PEERS[name](theirs if several else theirs[0], M, loss_fn=loss_fn, scale_grads=False)
    batch, target = torch.randn(2, 2 * M, CONFIG.seq, CONFIG.width)
    first, last = 0 in mine, stages - 1 in mine
    pieces, targets = batch.tensor_split(M), target.tensor_split(M)
    kinds: dict[str, Callable[[], Any]] = {
        "ours": lambda: pipeline.step(plan, mine, pieces, targets, loss_fn, count=1),
        "PyTorch": lambda: schedule.step(*[batch] * first, **{"target": target} if last else {}),
    }
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn in progress(range(STEPS), label=name):
        for kind in sorted(kinds, reverse=bool(turn % 2)):
            dist.barrier()
            began = time.perf_counter()
            kinds[kind]()
            dist.barrier()
            times[kind].append(time.perf_counter() - began)
    return {kind: statistics.median(taken[SKIP:]) for kind, taken in times.items()}


def compare() -> bool:
    """Prints the times; whether they are within the limit."""
    good = True
    print("| schedule | ranks | ours, ms a step | PyTorch, ms | ours / PyTorch |\n|---|---|---|---|---|")
    for ranks in (2, 4):
        for name in PEERS:
            ours, theirs = launch(turns, name, ranks=ranks, timeout=600, record=False)[0].values()
            print(f"| {name} | {ranks} | {1000 * ours:.1f} | {1000 * theirs:.1f} | {ours / theirs:.3f} |", flush=True)
            good &= ours / theirs <= MOST
    return good


if __name__ == "__main__":
    compare()
