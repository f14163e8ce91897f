"""Bytes of expert parallelism against their closed form, and a step of it over one written with PyTorch's all-to-all.

    python benchmarks/expert_parallel.py [--ranks 2 4]

A layer of 16 experts, of which a token takes two: forward and backward of 512 tokens a rank in float32, through the lab
process group. The load is what a random router gives, or half of all choices on expert 0; dropless and with capacity.
*Bytes* are those of dispatch and combine, both ways: what the trace counted must be the closed form, exactly, on every
rank. PyTorch has no expert parallelism of its own, so *PyTorch* is the same layer as one writes it with
`torch.distributed.nn.functional.all_to_all_single`, in the same ranks in turns; who goes first changes each turn.
Tensors are on the GPU, if there is one. The limit of the ratio is 1.05: both do the same, and
noise decides. PyTorch's layer has no capacity to compare.
"""

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn import functional as of_torch

from parallel_lab import launch
from parallel_lab.expert_parallel import expert_parallel, formulas, mixtures
from parallel_lab.model import GPTConfig, MixtureOfExperts, build
from parallel_lab.runtime import rank_device
from parallel_lab.trace import recorder

CONFIG = GPTConfig(width=256, hidden=512, heads=4, layers=1, seq=256, experts=16, active_experts=2)
BATCH, TURNS, WARM_UP = 2, 31, 3
TOKENS, ROW_BYTES = BATCH * CONFIG.seq, 4 * CONFIG.width
MOST = 1.05
LOADS = {"a random router's": 0.0, "half of all on expert 0": 1.0}  # by expert 0's bias

Layer = Callable[[Tensor], Tensor]


def whole(bias: float) -> MixtureOfExperts:
    """The layer in one process, the same on every rank."""
    (mixture,) = mixtures(build(CONFIG).to(rank_device()))
    mixture.bias[0] = bias
    return mixture


def ours(bias: float, factor: float | None = None) -> Layer:
    """The layer cut over all ranks."""
    return expert_parallel(whole(bias), capacity_factor=factor)


def with_torch(bias: float) -> Layer:
    """The same layer, dropless, as one writes it with PyTorch's all-to-all."""
    mixture, n, rank = whole(bias), dist.get_world_size(), dist.get_rank()
    own = CONFIG.experts // n
    experts = list(mixture.experts.children())[rank * own : (rank + 1) * own]

    def exchange(rows: Tensor, given: list[int], taken: list[int]) -> Tensor:
        return of_torch.all_to_all_single(rows.new_empty(sum(taken), rows.shape[1]), rows, taken, given)

    def mix(tokens: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        order = chosen.flatten().argsort(stable=True)
        counts = torch.bincount(chosen.flatten(), minlength=CONFIG.experts)
        theirs = torch.empty_like(counts)
        dist.all_to_all_single(theirs, counts)
        given, taken = counts.view(n, own).sum(1).tolist(), theirs.view(n, own).sum(1).tolist()
        rows = exchange(tokens[order // chosen.shape[1]], given, taken)
        by_expert = torch.arange(own, device=rows.device).repeat(n).repeat_interleave(theirs).argsort(stable=True)
        parts = rows[by_expert].split(theirs.view(n, own).sum(0).tolist())
        outputs = torch.cat([expert(part) for expert, part in zip(experts, parts, strict=True)])
        returned = exchange(outputs[by_expert.argsort()], taken, given)[order.argsort()]
        return (weights.unsqueeze(-1) * returned.view(*chosen.shape, -1)).sum(1)

    mixture.mix = mix
    return mixture


def batch() -> Tensor:
    """This rank's tokens (BATCH, seq, width)."""
    generator = torch.Generator().manual_seed(dist.get_rank())
    return torch.randn(BATCH, CONFIG.seq, CONFIG.width, generator=generator).to(rank_device()).requires_grad_()


def finish() -> None:
    """Waits for this rank's GPU, then for the other ranks."""
    if rank_device().type == "cuda":
        torch.cuda.synchronize()
    dist.barrier()


def sent(bias: float, factor: float | None) -> tuple[tuple[int, int], list[int]]:
    """The bytes of dispatch and combine that this rank sent forward and backward; and the choices of its tokens."""
    layer, before = ours(bias, factor), len(recorder().spans)
    layer(batch()).sum().backward()
    rows = [s for s in recorder().spans[before:] if s.kind in ("dispatch", "combine")]
    both = [sum(s.sent_bytes for s in rows if s.phase == phase) for phase in ("forward", "backward")]
    (mixture,) = mixtures(layer)  # pyright: ignore[reportArgumentType] (a module that is called)
    return (both[0], both[1]), mixture.counts.tolist()


def in_turns(bias: float) -> tuple[list[float], list[float], float]:
    """Seconds of each step of both sides, without those that warm up; and how far the outputs are apart."""
    layers, times, x = (ours(bias), with_torch(bias)), ([], []), batch()
    outputs = [torch.empty(0)] * 2
    warnings.filterwarnings("ignore", "torch.distributed.nn.functional", FutureWarning)  # the other has no gradient
    for turn in range(TURNS + WARM_UP):
        for side in (turn % 2, 1 - turn % 2):
            finish()
            began_s = time.perf_counter()
            outputs[side] = layers[side](x)
            outputs[side].sum().backward()
            finish()
            times[side].append(time.perf_counter() - began_s)
    return times[0][WARM_UP:], times[1][WARM_UP:], (outputs[0] - outputs[1]).abs().max().item()


def compare(ranks: int, name: str, factor: float | None) -> bool:
    """Prints a row of the table; whether bytes are exact, the ratio is within the limit, and the outputs agree."""
    results = launch(sent, LOADS[name], factor, ranks=ranks, timeout=300).results
    load, largest = [counts for _, counts in results], max(forward for (forward, _), _ in results)
    if factor is None:
        expected = [formulas.layer_bytes(load, ROW_BYTES, rank).backward for rank in range(ranks)]
    else:
        of_each = formulas.capacity_layer_bytes(TOKENS, 2, CONFIG.experts, ROW_BYTES, ranks, factor)
        expected = [of_each.backward] * ranks
    exact = all(both == (right, right) for (both, _), right in zip(results, expected, strict=True))
    row = f"| {ranks} | {name} | {factor or 'none'} | {largest:,} | {max(expected):,.0f} | {'yes' if exact else 'NO'} |"
    if factor is not None:
        print(f"{row} | |", flush=True)
        return exact
    mine, others, apart = launch(in_turns, LOADS[name], ranks=ranks, timeout=300)[0]
    low, ratio, high = statistics.quantiles([a / b for a, b in zip(mine, others, strict=True)], n=4)
    times = f"{1000 * statistics.median(mine):.1f} / {1000 * statistics.median(others):.1f}"
    print(f"{row} {times} | {ratio:.3f} ({low:.3f}-{high:.3f}) |", flush=True)
    return exact and ratio <= MOST and apart < 1e-4


def main() -> None:
    """Prints a row for each comparison; exits with 1 where bytes are not exact or a limit is missed."""
    parser = argparse.ArgumentParser(description="bytes of expert parallelism, and a step of it over PyTorch's")
    parser.add_argument("--ranks", nargs="*", type=int, default=[2, 4])
    print(
        "| ranks | load | capacity factor | bytes sent each way, at most | closed form | exact on all ranks "
        "| ours / PyTorch, ms a step | ratio (quartiles) |"
    )
    print("|---|---|---|---|---|---|---|---|")
    cases = [(n, name, factor) for n in parser.parse_args().ranks for name in LOADS for factor in (None, 1.25)]
    good = [compare(*case) for case in cases]
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
