"""Our ring attention over PyTorch's templated one, forward and backward, in the same ranks in turns.

    python benchmarks/ring_attention.py [--ranks 2 4]

Causal attention of 4,096 tokens, 8 heads 64 wide, in zig-zag order on both sides, so that both compute the same blocks
with the same kernel of the device: float32 on the CPU, bfloat16 on a GPU. PyTorch's ring is that behind its public
`context_parallel`, which has no rule for the CPU's kernel; forward and backward are called as its autograd would. It
runs as it does by default, where one all-gather brings all keys and values, and with keys and values passed on by an
all-to-all, which is a ring. Both sides keep sums in float32. Who goes first changes each turn. The limit is 1.0.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch.distributed.tensor.experimental._context_parallel import _attention as torch_s

from parallel_lab import launch
from parallel_lab.context_parallel import kernels, ring_attention, shard_sequence
from parallel_lab.runtime import rank_device

SEQ, HEADS, WIDTH, BATCH = 4096, 8, 64, 1
TURNS, WARM_UP = 15, 3
MOST = 1.0
ROTATIONS = ("alltoall", "allgather")

Step = Callable[[], list[torch.Tensor]]  # output, and the gradients of query, key and value


def parts() -> list[torch.Tensor]:
    """This rank's query, key, value and gradient of the output."""
    cuda = rank_device().type == "cuda"
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(4, BATCH, SEQ, HEADS, WIDTH, generator=generator)
    mine = [shard_sequence(each).transpose(1, 2).contiguous() for each in whole]
    return [each.to(rank_device(), torch.bfloat16 if cuda else torch.float32) for each in mine]


def ours() -> Step:
    """A pass of ours."""
    *leaves, grad = parts()
    for leaf in leaves:
        leaf.requires_grad_()

    def step() -> list[torch.Tensor]:
        out = ring_attention(*leaves)
        return [out, *torch.autograd.grad(out, leaves, grad)]

    return step


class Templated(torch.autograd.Function):
    """PyTorch's passes, as those of one function."""

    @staticmethod
    def forward(ctx, query, key, value):  # noqa: D102
        name, how = kernels.ON_CPU if query.is_cpu else kernels.ON_CUDA, {"is_causal": True, "dropout_p": 0.0}
        op = kernels.operator(name).default
        out, lse, *rest = torch_s._templated_ring_attention(dist.group.WORLD, 2, op, query, key, value, **how)
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.op, ctx.rest = kernels.operator(f"{name}_backward").default, rest
        return out

    @staticmethod
    def backward(ctx, grad):  # noqa: D102
        query, key, value, out, lse = ctx.saved_tensors
        names = ("cum_seq_q", "cum_seq_k", "max_q", "max_k", "philox_seed", "philox_offset")
        more = dict(zip(names, ctx.rest, strict=False)) if query.is_cuda else {}
        passed = {"query": query, "key": key, "value": value, "out": out, "logsumexp": lse, **more}
        return torch_s._templated_ring_attention_backward(
            dist.group.WORLD,
            2,
            ctx.op,
            grad_out=grad,
            grad_out_name="grad_out",
            is_causal=True,
            dropout_p=0.0,
            **passed,
        )[:3]


def theirs() -> Step:
    """A pass of PyTorch's."""
    *leaves, grad = parts()
    for leaf in leaves:
        leaf.requires_grad_()

    def step() -> list[torch.Tensor]:
        out = Templated.apply(*leaves)
        return [out, *torch.autograd.grad(out, leaves, grad)]

    return step


def finish() -> None:
    """Waits for this rank's GPU, then for the other ranks."""
    if rank_device().type == "cuda":
        torch.cuda.synchronize()
    dist.barrier()


def in_turns(rotation: str) -> tuple[list[float], list[float], float]:
    """Seconds of each pass of both sides, without those that warm up; and how far the results were apart."""
    torch_s._cp_options.enable_load_balance = True
    torch_s.set_rotate_method(rotation)
    steps, times, made = (ours(), theirs()), ([], []), [[], []]
    for turn in range(TURNS + WARM_UP):
        for side in (turn % 2, 1 - turn % 2):
            finish()
            began_s = time.perf_counter()
            made[side] = steps[side]()
            finish()
            times[side].append(time.perf_counter() - began_s)
    apart = max((a - b).abs().max().item() / b.abs().max().item() for a, b in zip(*made, strict=True))
    return times[0][WARM_UP:], times[1][WARM_UP:], apart


def compare(ranks: int, rotation: str) -> bool:
    """Prints a row of the table; whether it is within the limit, and the results agree."""
    mine, others, apart = launch(in_turns, rotation, ranks=ranks, timeout=300)[0]
    low, ratio, high = statistics.quantiles([a / b for a, b in zip(mine, others, strict=True)], n=4)
    times = f"{1000 * statistics.median(mine):.1f} | {1000 * statistics.median(others):.1f}"
    how = "ring" if rotation == "alltoall" else "all-gather"
    print(f"| {ranks} | {how} | {times} | {ratio:.3f} ({low:.3f}-{high:.3f}) |", flush=True)
    return ratio <= MOST and apart < 2e-2


def main() -> None:
    """Prints a row for each comparison; exits with 1 where the limit is missed."""
    parser = argparse.ArgumentParser(description="our ring attention against PyTorch's")
    parser.add_argument("--ranks", nargs="*", type=int, default=[2, 4])
    print("| ranks | PyTorch's | ours, ms a pass | PyTorch's, ms | ours / PyTorch's (quartiles) |")
    print("|---|---|---|---|---|")
    good = [compare(n, rotation) for n in parser.parse_args().ranks for rotation in ROTATIONS]
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
