"""A step on 2 x 2 x 2 ranks against the same layout by PyTorch's own, in the same ranks in turns.

    python benchmarks/hybrid.py

Theirs: `torch.distributed.pipelining.Schedule1F1B` over stages that DTensor cuts (`parallelize_module`, with the input
of attention and feed-forward prepared once, and the loss over a cut vocabulary) and FSDP2 shards (`fully_shard` around
the whole stage, which composes rightly with 1F1B). Ours: `hybrid.parallelize`. Both have the same stages, the same
batch, AdamW and no clipping; beside that, ours computes the global norm and gives the loss to all ranks. The losses of
all steps are compared before a time counts.

Like is held against like. Ours with zero=1 has a stage's parameters whole all the time, as FSDP2 has them through a
step's microbatches with `reshard_after_forward=False`, which is usual in a pipeline. Ours with zero=3 drops each block
after use, as FSDP2 drops the stage by default. The two other ratios stand beside these, and have no limit.
"""

import statistics
import sys
import time
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
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
STEPS = {128: 16, 512: 8}  # by the width of the model
SKIP, MOST = 2, 1.0
ALIKE = {("zero=1", "FSDP2, kept"), ("zero=3", "FSDP2, resharded")}
ADAM: Any = {"lr": 1e-3, "weight_decay": 0.1}


class Theirs:
    """The same step by PyTorch: 1F1B over stages that are cut by DTensor and sharded by FSDP2."""

    def __init__(self, config: GPTConfig, reshard: bool) -> None:
        mesh = LAYOUT.mesh()
        self.dp, self.pp = mesh.get_local_rank("dp"), mesh.get_local_rank("pp")
        ((number, part),) = stages_of(build(config), schedule_of("1f1b", LAYOUT.pp, M), self.pp).items()
        cut(part, mesh["tp"])
        fully_shard(part, mesh=mesh["dp"], reshard_after_forward=reshard)
        self.optimizer = torch.optim.AdamW(by_mesh(part), foreach=True, **ADAM)
        stage = PipelineStage(part, number, LAYOUT.pp, torch.device("cpu"), group=mesh["pp"].get_group())
        count = BATCH * config.seq / LAYOUT.dp

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


def by_mesh(part: nn.Module) -> list[dict[str, Any]]:
    """A group of parameters for each mesh: kernels over many DTensors take those of one mesh alone."""
    groups: dict[int, list[nn.Parameter]] = {}
    for p in part.parameters():
        groups.setdefault(p.device_mesh.ndim, []).append(p)  # pyright: ignore[reportAttributeAccessIssue]
    return [{"params": params} for params in groups.values()]


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

    def __init__(self, config: GPTConfig, zero: int) -> None:
        self.made = parallelize(build(config), LAYOUT, zero=zero, microbatches=M, clip=None, **ADAM)

    def step(self, tokens: Tensor, targets: Tensor) -> float:
        """The mean loss of the global batch."""
        return float(train_step(self.made, tokens, targets).loss)


def turns(width: int) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Median seconds per step of each, and the losses of their steps."""
    config = GPTConfig(vocab=256, seq=64, width=width, heads=8, layers=4, tied=False)
    kinds: dict[str, Any] = {
        "zero=1": Ours(config, 1),
        "zero=3": Ours(config, 3),
        "FSDP2, kept": Theirs(config, reshard=False),
        "FSDP2, resharded": Theirs(config, reshard=True),
    }
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    losses: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn, batch in enumerate(progress(list(text_batches(config.seq, BATCH, STEPS[width])), label=f"width {width}")):
        for kind in sorted(kinds, reverse=bool(turn % 2)):
            dist.barrier()
            began = time.perf_counter()
            losses[kind].append(kinds[kind].step(*batch))
            dist.barrier()
            times[kind].append(time.perf_counter() - began)
    return {kind: statistics.median(taken[SKIP:]) for kind, taken in times.items()}, losses


def compare(width: int) -> bool:
    """Prints the rows of one model; whether they are within the limit, and all losses the same."""
    results = launch(turns, width, ranks=LAYOUT.world, timeout=600, record=False).results
    seconds, ours = results[0]
    last = [losses for rank, (_, losses) in enumerate(results) if LAYOUT.place(rank)["pp"] and rank % LAYOUT.tp == 0]
    good = True
    for theirs in ("FSDP2, kept", "FSDP2, resharded"):
        mean = [sum(each) / LAYOUT.dp for each in zip(*(losses[theirs] for losses in last), strict=True)]
        apart = max(abs(a - b) for zero in ("zero=1", "zero=3") for a, b in zip(mean, ours[zero], strict=True))
        good &= apart < 1e-3
        for zero in ("zero=1", "zero=3"):
            ratio, limit = seconds[zero] / seconds[theirs], MOST if (zero, theirs) in ALIKE else None
            times = f"{1000 * seconds[zero]:.0f} | {1000 * seconds[theirs]:.0f} | {ratio:.3f}"
            print(f"| {width} | {zero} | {theirs} | {times} | {limit or '-'} | {apart:.0e} |", flush=True)
            good &= limit is None or ratio <= limit
    return good


def main() -> None:
    """Measures and prints the table; exits with 1 where a limit is missed or a loss is another."""
    print("| width | ours | PyTorch | ours, ms a step | PyTorch, ms | ratio | limit | losses apart |")
    print("|---|---|---|---|---|---|---|---|")
    good = [compare(width) for width in STEPS]
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
