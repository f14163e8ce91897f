"""The drivers of chapters 03 and 06: inside a rank, they give learner code a model and fresh data, train, and observe.

Each returns plain lists of tensors and numbers; the kernel, which alone computes what is expected, judges them. The
arguments before `*` are the rank's input (made in `make`), those after it are the same for all ranks.
"""

import math
import os
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from parallel_lab.course import side_doors
from parallel_lab.course.training import (
    Chain,
    Notes,
    ProbedLinear,
    change_first_result,
    found_ready_made,
    from_rank_0,
    load,
    mark,
    start,
)
from parallel_lab.trace.memory import SavedTensors

LR = 0.1
REDUCING = ("all_reduce", "reduce_scatter", "reduce", "all_gather", "all_to_all", "gather")
COLLECTIVES = (*REDUCING, "broadcast", "scatter")


def network(rank: int, ranks: int, generator: torch.Generator, *, widths, rows, tied=False, steps=1, again=False):
    """(inputs, targets, weights): a batch a step, `rows[rank]` rows each (cyclic), and the weights of a `Chain`.

    Everything is this rank's own. With `again`, the same batches and other weights.
    """
    count = rows[rank % len(rows)]
    xs = [torch.randn(count, widths[0], generator=generator, dtype=torch.float64) for _ in range(steps)]
    ys = [torch.randn(count, widths[-1], generator=generator, dtype=torch.float64) for _ in range(steps)]
    shapes = [p.shape for p in Chain(widths, tied).parameters()]
    if again:  # what another run would start from
        _ = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    weights = [torch.randn(s, generator=generator, dtype=torch.float64) / s[-1] ** 0.5 for s in shapes]
    return xs, ys, weights


def tensors(rank: int, ranks: int, generator: torch.Generator, *, shapes, steps: int):
    """(values, gradients of each step): lists of float64 tensors of `shapes`."""
    drawn = [[torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes] for _ in range(1 + steps)]
    return drawn[0], drawn[1:]


def train_ddp(fn: Callable, xs, ys, weights, *, widths, tied: bool, bucket_bytes: int, garbled: bool = False):
    """`fn(model, bucket_bytes)` and one step of SGD a batch.

    Returns [parameters after the build, gradients of each step, parameters at the end].
    """
    start()
    notes, model = Notes(fn), load(Chain(widths, tied, frozen=tied), weights)
    mark("build")
    ddp = fn(model, bucket_bytes)
    mark("build_over")
    if found_ready_made():
        return None
    if garbled:
        change_first_result(COLLECTIVES)
    built, seen = notes.copies(model.parameters()), []
    for x, y in zip(xs, ys, strict=True):
        model.zero_grad()
        mark("step")
        F.mse_loss(ddp(x), y).backward()
        mark("step_over")
        seen.append(notes.copies(p.grad for p in model.parameters()))
        torch.optim.SGD(model.parameters(), LR).step()
    return [built, seen, notes.copies(model.parameters())]


def run_framework(fn: Callable, xs, ys, weights, *, widths, folders=(), garbled: bool = False, **options):
    """`fn(model, inputs, targets, **options)`, with rank 0's data on every rank and a checkpoint in `folders[rank]`.

    Returns [what fn returned, parameters at the end].
    """
    start()
    model = load(Chain(widths), weights)
    inputs, targets = from_rank_0([xs[0], ys[0].argmax(1)])
    if folders:
        folder = folders[dist.get_rank()]
        side_doors.allow_files(folder)
        options["checkpoint"] = os.path.join(folder, "checkpoint.pt")
    if garbled:
        change_first_result(REDUCING)
    mark("run")
    losses = fn(model, inputs, targets, lr=LR, **options)
    mark("run_over")
    found_ready_made()
    return [losses, Notes(fn).copies(model.parameters())]


def step_optimizer(
    fn: Callable, values, gradients, *, optimizer_class, options: dict, most_bytes: float, garbled: bool = False
):
    """`fn(parameters, optimizer_class, **options)` and a step for each list of gradients, rank 0's on all ranks.

    `most_bytes` is what the optimizer may keep. Returns [parameters after each step, whether each zero_grad cleared,
    what the optimizer keeps, as of `Notes.held`].
    """
    start()
    notes, parameters = Notes(fn), [nn.Parameter(value) for value in from_rank_0(values)]
    given = [from_rank_0(step) for step in gradients]
    before_bytes, *_ = notes.held()
    optimizer = fn(iter(parameters), optimizer_class, **options)
    if found_ready_made():
        return None
    if garbled:
        change_first_result(COLLECTIVES)
    seen, cleared = [], []
    for step in given:
        optimizer.zero_grad()
        cleared.append(all(p.grad is None or not p.grad.any() for p in parameters))
        for p, gradient in zip(parameters, step, strict=True):
            p.grad = gradient
        mark("step")
        optimizer.step()
        mark("step_over")
        seen.append(notes.copies(parameters))
    held_bytes, *hidden = notes.held(before_bytes + most_bytes)
    return [seen, cleared, [held_bytes - before_bytes, *hidden]]


def train_layers(fn: Callable, xs, ys, weights, *, widths, limits: dict[str, float], garbled: bool = False):
    """`fn(layer)` for each layer of a chain, same weights on all ranks, and a step of SGD a batch.

    `limits` says for each place of a sample what may be held there. Returns [shards after the build,
    [[output, gradient of the input, gradients of the shards, shards after the step] for each step], samples]. A sample
    is [where, layer, what is held, as of `Notes.held`].
    """
    start()
    notes, samples = Notes(fn), []

    def note(kind: str, part: int = -1) -> None:
        mark(kind, part)
        samples.append([kind, part, notes.held(limits.get(kind, math.inf))])

    layers = _sharded(fn, weights, widths, note)
    if found_ready_made():
        return None
    shards = [p for layer in layers for p in layer.parameters()]
    built, seen = notes.copies(shards), []
    if garbled:
        change_first_result(COLLECTIVES)
    for x, y in zip(xs, ys, strict=True):
        x.requires_grad_()
        note("step")
        with SavedTensors():
            output = _through(layers, x)
            note("between")
            F.mse_loss(output, y).backward()
        note("step_over")
        seen.append([notes.copies(ts) for ts in ([output], [x.grad], [p.grad for p in shards])])
        torch.optim.SGD(shards, LR).step()
        for p in shards:
            p.grad = None
        seen[-1].append(notes.copies(shards))
        output = x.grad = None
    return [built, seen, samples]


def _sharded(fn: Callable, weights, widths, note) -> list[nn.Module]:
    """`fn` of each layer; nobody but what it returned holds the layer afterwards."""
    values, layers = from_rank_0(weights), []
    for part, pair in enumerate(pairwise(widths)):
        layer = load(ProbedLinear(*pair, part, note), values[2 * part : 2 * part + 2])
        layers.append(fn(layer))
        del layer
    return layers


def _through(layers: list[nn.Module], x: Tensor) -> Tensor:
    for part, layer in enumerate(layers):
        x = layer(torch.tanh(x) if part else x)
    return x
