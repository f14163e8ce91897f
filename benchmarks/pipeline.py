"""Our pipelines against PyTorch's, in the same ranks in turns; and the bubble measured against the bubble simulated.

    python benchmarks/pipeline.py

A step is forward and backward of 8 microbatches through blocks of a GPT, two a rank, all through the lab process group.
PyTorch's ZB-H1 is `ScheduleInterleavedZeroBubble` with one stage a rank; its ZB-H2 is none. PyTorch's schedules do not
give the loss to all ranks, ours do.

Bubble: 4 ranks cannot compute at once on 2 cores, so stages sleep: F, I and W for 5 ms and for 20 ms, with an
activation of 16 KiB. The simulation has the passes of the plan, each as long as it was in that run, and messages of c
seconds, where c is measured in the same run: how long after the end of the pass that made a tensor the pass that waited
for it began. Compared is the share of all ranks' time in which nothing was computed (`Trace.bubble`); what the plan
says for equal passes and c = 0 stands beside it. Between two passes of a rank that wait for nobody some time goes by as
well, in the executor's Python and the scheduler of the machine: g, measured in the same run. A second simulation has it
after each pass, which says whether that is what the first one lacks.
"""

import itertools
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

STEPS, SKIP = 20, 2
RUNS = 5
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


class Pause(torch.autograd.Function):
    """What it gets, and a pause of some seconds where a gradient passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, seconds: float) -> Tensor:
        """`x`."""
        ctx.seconds = seconds
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The gradient, later."""
        time.sleep(ctx.seconds)
        return gradient, None


class Sleeper(nn.Module):
    """A matrix that is never used: F, I and W each take `seconds`, and no processor."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.weight, self.seconds = nn.Parameter(torch.zeros(1, 1)), seconds

    def forward(self, x: Tensor) -> Tensor:
        """`x`, after a pause."""
        time.sleep(self.seconds)
        return Pause.apply(x, self.seconds) + Pause.apply(self.weight, self.seconds)


class Entry(nn.Module):
    """Gives the first stage an input that wants a gradient, so that its I takes as long as that of the others."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """`x`."""
        return x + self.shift


def sleep(name: str, seconds: float, steps: int) -> None:
    """Steps of stages that sleep, one barrier before each."""
    rank, plan = dist.get_rank(), PLANS[name](dist.get_world_size())
    stages = len(pipeline.placement(plan))
    of_a_pass = seconds * dist.get_world_size() / stages
    mine = {s: nn.Sequential(*[Entry()] * (s == 0), Sleeper(of_a_pass)) for s in pipeline.stages_of(plan, rank)}
    inputs = list(torch.zeros(M, 4, 1024))
    for _ in range(steps):
        dist.barrier()
        pipeline.step(plan, mine, inputs, inputs, lambda y, _: y.sum(), count=1)


def passes_of(trace: Trace, number: int) -> Trace:
    """The passes of step `number` alone."""
    inside = range(number * M, (number + 1) * M)
    return Trace(trace.ranks, tuple(s for s in trace.spans if s.kind in "FBIW" and s.mb in inside))


def message_s(trace: Trace, plan: Plan, number: int) -> float:
    """Seconds from the end of a pass to the begin of one on another rank that waited for it and for nothing else."""
    spans: dict[Op, Span] = {s.op._replace(mb=s.mb - number * M): s for s in trace.spans}
    found = []
    for row in plan.rows:
        for ahead, op in zip((None, *row[:-1]), row, strict=True):
            made_s = [spans[need].end_s for need in plan.needs.get(op, ()) if need.rank != op.rank]
            if made_s and (ahead is None or spans[ahead].end_s < made_s[0]):
                found.append(spans[op].start_s - made_s[0])
    return statistics.median(found)


def gap_s(trace: Trace, plan: Plan, number: int, message_s: float) -> float:
    """Seconds between two passes of a rank of which the second waited for no message."""
    spans: dict[Op, Span] = {s.op._replace(mb=s.mb - number * M): s for s in trace.spans}
    found = []
    for row in plan.rows:
        for ahead, op in itertools.pairwise(row):
            made_s = [spans[need].end_s for need in plan.needs.get(op, ()) if need.rank != op.rank]
            if max(made_s, default=0.0) + 2 * message_s < spans[ahead].end_s:
                found.append(spans[op].start_s - spans[ahead].end_s)
    return statistics.median(found)


def bubbles() -> bool:
    """Prints the bubbles; whether they are within the limit."""
    good = True
    print("\n| schedule | F, ms | c, ms | g, ms | bubble at c = 0 | simulated | measured | ratio | with g | ratio |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in PLANS:
        for seconds in (5e-3, 20e-3):
            run = launch(sleep, name, seconds, RUNS + 1, ranks=4, timeout=600)
            plan = PLANS[name](4)
            unit_s = seconds * 4 / len(pipeline.placement(plan))
            steps = [passes_of(run.trace, number) for number in range(1, RUNS + 1)]
            c = statistics.median(message_s(trace, plan, 1 + k) for k, trace in enumerate(steps))
            g = statistics.median(gap_s(trace, plan, 1 + k, c) for k, trace in enumerate(steps))
            measured = statistics.median(trace.bubble() for trace in steps)
            ideal = _bubble(plan, PassCost(unit_s, 2 * unit_s, unit_s, unit_s))
            simulated, with_gaps = (
                statistics.median(_bubble(plan, *measured_cost(trace, 1 + k, c, gap)) for k, trace in enumerate(steps))
                for gap in (0.0, g)
            )
            ratio = measured / simulated
            shares = f"{ideal:.3f} | {simulated:.3f} | {measured:.3f} | {ratio:.2f}"
            shares += f" | {with_gaps:.3f} | {measured / with_gaps:.2f}"
            print(f"| {name} | {1000 * seconds:.0f} | {1000 * c:.2f} | {1000 * g:.2f} | {shares} |", flush=True)
            good &= abs(ratio - 1) <= 0.1 or abs(measured - simulated) <= 0.02
    return good


def measured_cost(trace: Trace, number: int, message_s: float, gap_s: float) -> tuple[PassCost, float]:
    """Each pass as long as it was in step `number` and a gap after it, messages of so many seconds; and all gaps."""
    taken_s = {s.op._replace(mb=s.mb - number * M): s.end_s - s.start_s + gap_s for s in trace.spans}
    return PassCost(*[taken_s.__getitem__] * 4, message_s=max(message_s - gap_s, 0.0)), gap_s * len(taken_s)


def _bubble(plan: Plan, cost: PassCost, gaps_s: float = 0.0) -> float:
    """The share in which no pass runs; `gaps_s` of the passes' time are no computing."""
    trace = simulate(pipeline.with_messages(plan), cost)
    passes = Trace(trace.ranks, tuple(s for s in trace.spans if s.kind in "FBIW"))
    return passes.bubble() + gaps_s / (passes.ranks * passes.duration_s)


def main() -> None:
    """Measures and prints both tables; exits with 1 where a limit is missed."""
    results = [compare(), bubbles()]
    sys.exit(not all(results))


if __name__ == "__main__":
    main()
