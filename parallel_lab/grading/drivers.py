"""Inputs for learner code, and the drivers that run it where a plain call is not enough.

A driver runs in a rank: it gives learner code a model and fresh data, trains, and observes. Each returns lists of
tensors and numbers by name; the kernel, which alone computes what is expected, judges them. Ranks import this module.
"""

import functools
import gc
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from parallel_lab.grading.case import Case
from parallel_lab.grading.models import Chain, ProbedLinear, load, mark, through
from parallel_lab.grading.rank_side import ARRIVING, REDUCING, change_first_arrival
from parallel_lab.trace.memory import SavedTensors, live_bytes

LR = 0.1
LOOKS = 200  # at what is held, before it counts


def normal(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """One float64 tensor of `shape`, its own on each rank."""
    return (torch.randn(case["shape"], generator=generator, dtype=torch.float64),)


def blocks(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """A list of float64 tensors of `shape`: item i is what this rank has for rank i."""
    return ([torch.randn(case["shape"], generator=generator, dtype=torch.float64) for _ in range(case.ranks)],)


def batches(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """(inputs, targets, weights): a batch a step, `rows[rank]` rows each (cyclic), and the weights of a `Chain`.

    Everything is this rank's own.
    """
    widths, rows = case["widths"], case["rows"][rank % len(case["rows"])]
    xs = [torch.randn(rows, widths[0], generator=generator, dtype=torch.float64) for _ in range(case["batches"])]
    ys = [torch.randn(rows, widths[-1], generator=generator, dtype=torch.float64) for _ in range(case["batches"])]
    shapes = [p.shape for p in Chain(widths, case.get("tied", False)).parameters()]
    weights = [torch.randn(s, generator=generator, dtype=torch.float64) / s[-1] ** 0.5 for s in shapes]
    return xs, ys, weights


def values_and_gradients(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """(values, gradients of each of three steps): lists of float64 tensors of `shapes`."""
    shapes = case["shapes"]
    drawn = [[torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes] for _ in range(4)]
    return drawn[0], drawn[1:]


def in_place(fn: Callable, case: Case, tensor: Tensor) -> Tensor:
    """`fn(tensor, root)`; returns what is in `tensor` then."""
    _change_if(case, ARRIVING)
    fn(tensor, case["root"])
    return tensor


def train_ddp(fn: Callable, case: Case, xs, ys, weights) -> dict:
    """`fn(model, bucket_bytes)` and one step of SGD a batch."""
    model = load(Chain(case["widths"], case["tied"]), weights)
    ddp = fn(model, case["bucket_bytes"])
    _change_if(case, ARRIVING)
    seen = {"after bucketed_ddp(): parameter": copies(model.parameters())}
    for step, (x, y) in enumerate(zip(xs, ys, strict=True)):
        model.zero_grad()
        mark("step")
        F.mse_loss(ddp(x), y).backward()
        mark("step_over")
        seen[f"step {step}: the gradient of parameter"] = copies(p.grad for p in model.parameters())
        torch.optim.SGD(model.parameters(), LR).step()
    return seen | {"at the end: parameter": copies(model.parameters())}


def train_framework(fn: Callable, case: Case, xs, ys, weights) -> dict:
    """`fn(model, inputs, targets, **options)`, with rank 0's data on every rank.

    Where `resumed_at` is set, a run of so many steps comes before; the other finds its checkpoint on its rank's disk.
    """
    inputs, targets = from_rank_0([xs[0], ys[0].argmax(1)])
    run = functools.partial(fn, inputs=inputs, targets=targets, lr=LR)
    model, options, seen = load(Chain(case["widths"]), weights), dict(case["options"]), {}
    _change_if(case, REDUCING)
    with tempfile.TemporaryDirectory(prefix="parallel-lab-") as disk:
        if first := case.get("resumed_at"):
            options["checkpoint"] = os.path.join(disk, "checkpoint.pt")
            seen["before the checkpoint: the loss of step"] = run(model, **options | {"steps": first})
            seen["the files on its disk"] = sorted(os.listdir(disk))
            model = load(Chain(case["widths"]), [-weight for weight in weights])
        mark("run")
        seen["the loss of step"] = run(model, **options)
        mark("run_over")
    return seen | {"after the last step: parameter": copies(model.parameters())}


def step_optimizer(fn: Callable, case: Case, values, gradients) -> dict:
    """`fn(parameters, optimizer_class, **options)` and a step for each list of gradients, rank 0's on all ranks."""
    gc.freeze()  # what lives now is not counted
    optimizer_class, options = case["optimizer"]
    parameters = [nn.Parameter(value) for value in from_rank_0(values)]
    given = [from_rank_0(step) for step in gradients]
    held = Held()
    before_bytes = held.look()
    optimizer = fn(iter(parameters), optimizer_class, **dict(options))
    _change_if(case, ARRIVING)
    seen = {}
    for number, step in enumerate(given):
        optimizer.zero_grad()
        left = any(p.grad is not None and bool(p.grad.any()) for p in parameters)
        seen[f"step {number}: whether zero_grad() left a gradient"] = left
        for p, gradient in zip(parameters, step, strict=True):
            p.grad = gradient
        mark("step")
        optimizer.step()
        mark("step_over")
        seen[f"after step {number}: parameter"] = held.copies(parameters)
    most_bytes = before_bytes + dict(case["limits"])["end"]
    return seen | {"held": [["end", -1, held.look(most_bytes) - before_bytes]]}


def train_layers(fn: Callable, case: Case, xs, ys, weights) -> dict:
    """`fn(layer)` for each layer of a chain, same weights on all ranks, and a step of SGD a batch.

    The result's `held` has [where, layer, bytes] of each look at what is held.
    """
    gc.freeze()  # what lives now is not counted
    held, limits, samples = Held(), dict(case["limits"]), []

    def note(kind: str, part: int = -1) -> None:
        mark(kind, part)
        if kind in limits:
            samples.append([kind, part, held.look(limits[kind])])

    layers = _sharded(fn, case["widths"], from_rank_0(weights), note)
    shards = [p for layer in layers for p in layer.parameters()]
    seen = {"parameters(): the shard of layer": held.copies(shards)}
    _change_if(case, ARRIVING)
    for step, (x, y) in enumerate(zip(xs, ys, strict=True)):
        x.requires_grad_()
        note("step")
        with SavedTensors():
            output = through(layers, x)
            note("between")
            F.mse_loss(output, y).backward()
        note("step_over")
        seen[f"step {step}: output"] = held.copies([output])
        seen[f"step {step}: the gradient of the input"] = held.copies([x.grad])
        seen[f"step {step}: the gradient of the shard of layer"] = held.copies(p.grad for p in shards)
        torch.optim.SGD(shards, LR).step()
        for p in shards:
            p.grad = None
        seen[f"step {step}: the updated shard of layer"] = held.copies(shards)
        output = x.grad = None
    return seen | {"held": samples}


def _sharded(fn: Callable, widths: Sequence[int], values: list[Tensor], note: Callable) -> list[nn.Module]:
    """`fn` of each layer; nobody but what it returned holds the layer afterwards."""
    layers = []
    for part, pair in enumerate(pairwise(widths)):
        layer = load(ProbedLinear(*pair, part, note), values[2 * part : 2 * part + 2])
        layers.append(fn(layer))
        del layer
    return layers


def _change_if(case: Case, kinds: Sequence[str]) -> None:
    if case.changed:
        change_first_arrival(kinds)


def copies(values: Iterable[Tensor | None]) -> list[Tensor | None]:
    """Each tensor as it is now."""
    return [None if value is None else value.detach().clone() for value in values]


class Held:
    """Measures the bytes of all tensors made since `gc.freeze()`, whoever holds them, but for its own copies."""

    def __init__(self) -> None:
        self.own_bytes = 0
        self.looks = LOOKS

    def copies(self, values: Iterable[Tensor | None]) -> list[Tensor | None]:
        """Each tensor as it is now."""
        kept = copies(values)
        self.own_bytes += sum(value.nbytes for value in kept if value is not None)
        return kept

    def look(self, most: float = math.inf) -> int:
        """Bytes held now.

        A thread of gloo's lets a finished collective's tensors go a moment after `wait` has returned. So with more than
        `most` it looks again and again, less often after each time that it was in vain. Looks and not seconds: a busy
        machine stretches both sides alike.
        """
        held_bytes = 0
        for _ in range(self.looks):
            if (held_bytes := live_bytes() - self.own_bytes) <= most:
                return held_bytes
            time.sleep(0.002)
        self.looks = max(self.looks // 2, 10)
        return held_bytes


def from_rank_0(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Rank 0's `tensors`, on every rank, for input that all must share; goes past the recorder."""
    inner, shared = dist.group.WORLD.inner, copies(tensors)  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
    for copy in shared:
        inner.broadcast([copy], dist.BroadcastOptions()).wait()
    return cast(list[Tensor], shared)
