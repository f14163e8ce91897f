"""A step of our tensor parallelism over one of PyTorch's DTensor with its best plan, in the same ranks in turns.

    python benchmarks/tensor_parallel.py [--ranks 2 4]

A step is zero_grad, forward, the vocabulary-parallel loss, backward and AdamW's step of a GPT of 14 M parameters, all
through the lab process group; without and with sequence parallelism. PyTorch's plan enters attention and feed-forward
part through `PrepareModuleInput`, so that query, key and value share one all-reduce of the input's gradient: without
that a block sends 12 (n-1)/n S, and not the 8 (n-1)/n S of both here. Its AdamW steps tensor by tensor
(`foreach=False`), as it must where plain tensors and DTensors meet; ours does what torch does by default. Tensors are
on the GPU, if there is one. Who goes first changes each turn. The limit is 1.0.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    loss_parallel,
    parallelize_module,
)

from parallel_lab import launch, model
from parallel_lab.runtime import make_mesh, rank_device
from parallel_lab.tensor_parallel import sum_replicated_gradients, tensor_parallel, vocab_cross_entropy

CONFIG = model.GPTConfig(vocab=4096, seq=256, layers=3, heads=8, width=512, tied=False, positions="rotary")
BATCH, TURNS, WARM_UP = 2, 15, 3
MOST = 1.0

Step = Callable[[], float]


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and targets (BATCH, seq), the same on every rank."""
    tokens = torch.randint(CONFIG.vocab, (2, BATCH, CONFIG.seq), generator=torch.Generator().manual_seed(0))
    inputs, targets = tokens.to(rank_device())
    return inputs, targets


def ours(sequence: bool) -> Step:
    """A step of ours; it returns the loss."""
    net = tensor_parallel(model.build(CONFIG).to(rank_device()), sequence=sequence)
    optimizer, (inputs, targets) = torch.optim.AdamW(net.parameters(), lr=1e-3), batch()

    def step() -> float:
        optimizer.zero_grad()
        loss = vocab_cross_entropy(net(inputs), targets, vocab=CONFIG.vocab)
        loss.backward()
        sum_replicated_gradients(net)
        optimizer.step()
        return loss.item()

    return step


def best_plan(sequence: bool, layers: int = CONFIG.layers) -> dict:
    """PyTorch's styles of a GPT: two collectives a block and direction."""
    between = Shard(1) if sequence else Replicate()
    plan = {
        "embedding.tokens": RowwiseParallel(input_layouts=Replicate(), output_layouts=between),
        "head.linear": ColwiseParallel(input_layouts=between, output_layouts=Shard(-1), use_local_output=False),
    }
    for i in range(layers):
        attention, feed_forward = f"blocks.{i}.attention", f"blocks.{i}.feed_forward"
        for part in (attention, feed_forward):
            plan[part] = PrepareModuleInput(input_layouts=between, desired_input_layouts=Replicate())
        plan |= {f"{attention}.{name}": ColwiseParallel() for name in ("query", "key", "value")}
        plan[f"{feed_forward}.up"] = ColwiseParallel()
        plan |= {name: RowwiseParallel(output_layouts=between) for name in (f"{attention}.out", f"{feed_forward}.down")}
        if sequence:
            plan |= {f"blocks.{i}.{name}": SequenceParallel() for name in ("attention_norm", "feed_forward_norm")}
    return plan | ({"head.norm": SequenceParallel()} if sequence else {})


def theirs(sequence: bool) -> Step:
    """A step of PyTorch's; it returns the loss."""
    net, mesh = model.build(CONFIG).to(rank_device()), make_mesh(tp=dist.get_world_size())
    parallelize_module(net, mesh, best_plan(sequence))
    optimizer, (inputs, targets) = torch.optim.AdamW(net.parameters(), lr=1e-3, foreach=False), batch()

    def step() -> float:
        optimizer.zero_grad()
        with loss_parallel():
            loss = model.loss(net(inputs), targets)
            loss.backward()
        optimizer.step()
        return loss.item()

    return step


def finish() -> None:
    """Waits for this rank's GPU, then for the other ranks."""
    if rank_device().type == "cuda":
        torch.cuda.synchronize()
    dist.barrier()


def in_turns(sequence: bool) -> tuple[list[float], list[float], float]:
    """Seconds of each step of both sides, without those that warm up; and how far the losses were apart."""
    steps, times, losses = (ours(sequence), theirs(sequence)), ([], []), [0.0, 0.0]
    for turn in range(TURNS + WARM_UP):
        for side in (turn % 2, 1 - turn % 2):
            finish()
            began_s = time.perf_counter()
            losses[side] = steps[side]()
            finish()
            times[side].append(time.perf_counter() - began_s)
    return times[0][WARM_UP:], times[1][WARM_UP:], abs(losses[0] - losses[1])


def compare(ranks: int, sequence: bool) -> bool:
    """Prints a row of the table; whether it is within the limit, and the losses agree."""
    mine, others, apart = launch(in_turns, sequence, ranks=ranks, timeout=300)[0]
    low, ratio, high = statistics.quantiles([a / b for a, b in zip(mine, others, strict=True)], n=4)
    times = f"{1000 * statistics.median(mine):.1f} | {1000 * statistics.median(others):.1f}"
    print(f"| {ranks} | {'yes' if sequence else 'no'} | {times} | {ratio:.3f} ({low:.3f}-{high:.3f}) |", flush=True)
    return ratio <= MOST and apart < 1e-3


def main() -> None:
    """Prints a row for each comparison; exits with 1 where the limit is missed."""
    parser = argparse.ArgumentParser(description="our tensor-parallel step against DTensor's")
    parser.add_argument("--ranks", nargs="*", type=int, default=[2, 4])
    print("| ranks | sequence parallel | ours, ms a step | DTensor, ms | ours / DTensor (quartiles) |")
    print("|---|---|---|---|---|")
    good = [compare(n, sequence) for n in parser.parse_args().ranks for sequence in (False, True)]
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
