"""A step on 2 x 2 x 2 ranks against the same layout by PyTorch's own, in the same ranks in turns.

    python benchmarks/hybrid.py

Theirs: `torch.distributed.pipelining.Schedule1F1B` over stages that DTensor cuts (`parallelize_module`, with the input
of attention and feed-forward reduced once, and the loss over a cut vocabulary) and FSDP2 shards (`fully_shard` around
the whole stage, which composes rightly with 1F1B). Ours: `hybrid.parallelize`, once with zero=3, which is what FSDP2
does, and once with zero=1. Both have the same stages, the same batch, AdamW and no clipping; ours computes the global
norm and gives the loss to all ranks beside that. The losses of the first steps are compared before a time is.

FSDP2 keeps the stage whole between the microbatches (`reshard_after_forward=False`, as is usual in a pipeline), and
ours with zero=3 drops each block after use: less memory, more messages.
"""

import statistics
import sys
import time
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.pipelining import PipelineStage, Schedule1F1B
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    loss_parallel,
    parallelize_module,
)

from parallel_lab import launch, progress
from parallel_lab.hybrid import Layout, parallelize, train_step
from parallel_lab.hybrid.stages import schedule_of, stages_of
from parallel_lab.model import GPTConfig, build
from parallel_lab.model.data import text_batches

LAYOUT, M, BATCH = Layout(pp=2, dp=2, tp=2), 4, 16
CONFIG = GPTConfig(vocab=256, seq=64, width=128, heads=4, layers=4, tied=False)
STEPS, SKIP, MOST = 16, 3, 1.0
ADAM: Any = {"lr": 1e-3, "weight_decay": 0.1}


class Theirs:
    """The same step by PyTorch: 1F1B over stages that are cut by DTensor and sharded by FSDP2."""

    def __init__(self, reshard: bool) -> None:
        mesh = LAYOUT.mesh()
        self.dp, self.pp = mesh.get_local_rank("dp"), mesh.get_local_rank("pp")
        ((number, part),) = stages_of(build(CONFIG), schedule_of("1f1b", LAYOUT.pp, M), self.pp).items()
        cut(part, mesh["tp"])
        fully_shard(part, mesh=mesh["dp"], reshard_after_forward=reshard)
        self.optimizer = torch.optim.AdamW(part.parameters(), foreach=False, **ADAM)
        stage = PipelineStage(part, number, LAYOUT.pp, torch.device("cpu"), group=mesh["pp"].get_group())
        count = BATCH * CONFIG.seq / LAYOUT.dp

        def loss(logits: Tensor, wanted: Tensor) -> Tensor:
            return F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="sum") / count

        self.schedule = Schedule1F1B(stage, M, loss_fn=loss, scale_grads=False)

    def step(self, tokens: Tensor, targets: Tensor) -> float:
        """The mean loss of this data rank's rows, where the last stage is."""
        rows, wanted = (each.tensor_split(LAYOUT.dp)[self.dp] for each in (tokens, targets))
        losses: list[Tensor] = []
        with loss_parallel():
            if self.pp == 0:
                self.schedule.step(rows)
            else:
                self.schedule.step(target=wanted, losses=losses)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(sum(each.detach() for each in losses))


def cut(part: Any, mesh: DeviceMesh) -> None:
    """The usual plan of tensor parallelism; each part's input is prepared once, for its gradient to be summed once."""
    once = lambda: PrepareModuleInput(input_layouts=(Replicate(),), desired_input_layouts=(Replicate(),))  # noqa: E731
    for block in part.blocks.values():
        plan = {f"attention.{name}": ColwiseParallel() for name in ("query", "key", "value")}
        plan |= {"attention.out": RowwiseParallel(), "feed_forward.up": ColwiseParallel()}
        plan |= {"feed_forward.down": RowwiseParallel(), "attention": once(), "feed_forward": once()}
        parallelize_module(block, mesh, plan)
    if part.embedding is not None:
        parallelize_module(part.embedding, mesh, {"tokens": RowwiseParallel(input_layouts=Replicate())})
    if part.head is not None:
        parallelize_module(part.head, mesh, {"linear": ColwiseParallel(use_local_output=False)})


class Ours:
    """`parallelize` and `train_step`."""

    def __init__(self, zero: int) -> None:
        self.made = parallelize(build(CONFIG), LAYOUT, zero=zero, microbatches=M, clip=None, **ADAM)

    def step(self, tokens: Tensor, targets: Tensor) -> float:
        """The mean loss of the global batch."""
        return float(train_step(self.made, tokens, targets).loss)


def turns() -> tuple[dict[str, float], dict[str, list[float]]]:
    """Median seconds per step of each, and the losses of their first steps."""
    kinds: dict[str, Any] = {
        "ours, zero=1": Ours(1),
        "ours, zero=3": Ours(3),
        "FSDP2, kept": Theirs(reshard=False),
        "FSDP2, resharded": Theirs(reshard=True),
    }
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    losses: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn, batch in enumerate(progress(list(text_batches(CONFIG.seq, BATCH, STEPS)), label="steps")):
        for kind in sorted(kinds, reverse=bool(turn % 2)):
            dist.barrier()
            began = time.perf_counter()
            losses[kind].append(kinds[kind].step(*batch))
            dist.barrier()
            times[kind].append(time.perf_counter() - began)
    return {kind: statistics.median(taken[SKIP:]) for kind, taken in times.items()}, losses


def main() -> None:
    """Measures and prints the table; exits with 1 where a limit is missed or a loss is another."""
    results = launch(turns, ranks=LAYOUT.world, timeout=600, record=False).results
    seconds, ours = results[0]
    last = [losses for rank, (_, losses) in enumerate(results) if LAYOUT.place(rank)["pp"] and rank % LAYOUT.tp == 0]
    good = True
    print("| 2 x 2 x 2 | ms a step | ours, zero=1 / it | ours, zero=3 / it | loss apart |\n|---|---|---|---|---|")
    for kind, taken in seconds.items():
        mean = [sum(each) / LAYOUT.dp for each in zip(*(losses[kind] for losses in last), strict=True)]
        apart = max(abs(a - b) for a, b in zip(mean, ours["ours, zero=1"], strict=True))
        ratios = [seconds[f"ours, zero={zero}"] / taken for zero in (1, 3)]
        print(f"| {kind} | {1000 * taken:.1f} | {ratios[0]:.3f} | {ratios[1]:.3f} | {apart:.1e} |", flush=True)
        good &= apart < 1e-3
        good &= not kind.startswith("FSDP2") or max(ratios) <= MOST
    sys.exit(not good)


if __name__ == "__main__":
    main()
