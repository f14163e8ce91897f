"""Inputs for learner code, the model that it trains, and the drivers that run it where a plain call is not enough.

A driver runs in a rank: it gives learner code a model and fresh data, trains, and observes. It returns lists of tensors
and numbers by name, which the kernel judges. The model notes in the trace when each layer is called, and when its
gradient comes back: marks in one order with the collectives, so that "was this all-reduce issued before that layer's
backward?" needs no clock. Ranks import this module.
"""

import functools
import gc
import math
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from parallel_lab.grading.rank_side import REDUCING, Case, change_first_arrival
from parallel_lab.model.mlp import MLP
from parallel_lab.runtime.rank.stage import flatten
from parallel_lab.trace import recorder
from parallel_lab.trace.memory import SavedTensors, live_bytes
from parallel_lab.trace.span import MARK

LR = 0.1
LOOKS = 200  # at what is held, before it counts


def _drawn(shapes: Iterable[Sequence[int]], generator: torch.Generator) -> list[Tensor]:
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def normal(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """One float64 tensor of `shape`, its own on each rank."""
    return tuple(_drawn([case["shape"]], generator))


def calls(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """For each test of a gap its calls, which are tuples of arguments; a function of a `random.Random` draws them."""
    dice = random.Random(generator.initial_seed())
    tests: tuple[Any, ...] = case["calls"]
    return tuple(made(dice) if callable(made) else made for made in tests)


def call_each(fn: Callable, case: Case, *tests: list[tuple]) -> list[list]:
    """What `fn` returns for each call of each test."""
    return [[_called(fn, call) for call in of_test] for of_test in tests]


def _called(fn: Callable, call: tuple) -> Any:
    try:
        return fn(*deepcopy(call))
    except Exception as error:
        error.add_note(f"It was called with {', '.join(map(repr, call))}.")
        raise


def blocks(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """A list of float64 tensors of `shape`: item i is what this rank has for rank i."""
    return (_drawn([case["shape"]] * case.ranks, generator),)


def batches(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """This rank's own inputs and targets, `rows[rank]` rows (cyclic) a batch, and weights of the model."""
    widths, rows = case["widths"], case["rows"][rank % len(case["rows"])]
    xs, ys = (_drawn([(rows, width)] * case["batches"], generator) for width in (widths[0], widths[-1]))
    weights = _drawn([p.shape for p in model_of(case).parameters()], generator)
    return xs, ys, [weight / weight.shape[-1] ** 0.5 for weight in weights]


def values_and_gradients(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """(values, gradients of each of three steps): lists of float64 tensors of `shapes`."""
    values, *gradients = [_drawn(case["shapes"], generator) for _ in range(4)]
    return values, gradients


def model_of(case: Case, weights: Iterable[Tensor] = ()) -> MLP:
    """A float64 MLP with copies of `weights` in the order of `parameters()`, on their device.

    With `tied` the layers 1 and 2 share one weight, and the bias of layer 0 does not learn.
    """
    model = MLP(case["widths"]).double()
    if case.get("tied"):
        model[4].weight = model[2].weight
        cast(Tensor, model[0].bias).requires_grad_(False)
    for parameter, weight in zip(model.parameters(), weights, strict=False):
        parameter.data = weight.clone()
    return model


def mark(kind: str, part: int = -1) -> None:
    """Notes in this rank's trace that `kind` happens now, at layer `part`, or with so many rows."""
    log = recorder()
    log.complete(log.issue(kind, part=part, lane=MARK))


def watched(model: MLP, note: Callable = mark) -> MLP:
    """`model`, whose layers `note` their forward and backward, also as copies and with other weights; and its rows."""
    for part, layer in enumerate(each for each in model if isinstance(each, nn.Linear)):
        layer.register_forward_hook(functools.partial(_note_layer, note, part))
    return model


def _note_layer(note: Callable, part: int, layer: nn.Module, inputs: Any, output: Tensor) -> None:
    if part == 0:
        mark("rows", len(output))
    note("layer_forward", part)
    if output.requires_grad:
        output.register_hook(lambda _: note("layer_backward", part))


def in_place(fn: Callable, case: Case, tensor: Tensor) -> Tensor:
    """`fn(tensor, root)`; returns what is in `tensor` then."""
    change_first_arrival(case)
    fn(tensor, case["root"])
    return tensor


def train_ddp(fn: Callable, case: Case, xs, ys, weights) -> dict:
    """`fn(model, bucket_bytes)` and one step of SGD a batch."""
    model = watched(model_of(case, weights))
    ddp = fn(model, case["bucket_bytes"])
    change_first_arrival(case)
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
    model, options, seen = watched(model_of(case, weights)), dict(case["options"]), {}
    change_first_arrival(case, REDUCING)
    with tempfile.TemporaryDirectory(prefix="parallel-lab-") as disk:
        if first := case.get("resumed_at"):
            options["checkpoint"] = os.path.join(disk, "checkpoint.pt")
            seen["before the checkpoint: the loss of step"] = run(model, **options | {"steps": first})
            seen["the files on its disk"] = sorted(os.listdir(disk))
            model = model_of(case, [-weight for weight in weights])
        mark("run")
        seen["the loss of step"] = run(model, **options)
        mark("run_over")
    return seen | {"after the last step: parameter": copies(model.parameters())}


def step_optimizer(fn: Callable, case: Case, values, gradients) -> dict:
    """`fn(parameters, optimizer_class, **options)` and a step for each list of gradients, rank 0's on all ranks."""
    held = Held(seen := {})
    optimizer_class, options = case["optimizer"]
    parameters = [nn.Parameter(value) for value in from_rank_0(values)]
    given = [from_rank_0(step) for step in gradients]
    before_bytes = held.look()
    optimizer = fn(iter(parameters), optimizer_class, **dict(options))
    change_first_arrival(case)
    seen |= stepped(optimizer, parameters, given, mark)
    ((moment, limit_bytes, *_),) = case["limits"]
    return seen | {"held": [[moment, -1, held.look(before_bytes + limit_bytes) - before_bytes]]}


def stepped(optimizer: Any, parameters: list, gradients: list[list[Tensor]], note: Callable[[str], None]) -> dict:
    """What a step of `optimizer` for each list of gradients leaves."""
    seen = {}
    for number, step in enumerate(gradients):
        optimizer.zero_grad()
        left = any(p.grad is not None and bool(p.grad.any()) for p in parameters)
        seen[f"step {number}: whether zero_grad() left a gradient"] = left
        for p, gradient in zip(parameters, step, strict=True):
            p.grad = gradient
        note("step")
        optimizer.step()
        note("step_over")
        seen[f"after step {number}: parameter"] = copies(parameters)
    return seen


def train_layers(fn: Callable, case: Case, xs, ys, weights) -> dict:
    """`fn(layer)` for each layer of the model, same weights on all ranks, and a step of SGD a batch.

    The result's `held` has [moment, layer, bytes] of each look at what is held.
    """
    note = Moments(case, seen := {})
    model = watched(model_of(case, from_rank_0(weights)), note)
    for place in range(0, len(model), 2):  # nobody but what `fn` returned holds the layer afterwards
        model[place] = fn(model[place])
    shards = list(model.parameters())
    seen["parameters(): the shard of layer"] = copies(shards)
    change_first_arrival(case)
    for step, (x, y) in enumerate(zip(xs, ys, strict=True)):
        x.requires_grad_()
        note("step")
        with SavedTensors():
            output = model(x)
            note("between")
            F.mse_loss(output, y).backward()
        note("step_over")
        seen[f"step {step}: output"] = copies([output])
        seen[f"step {step}: the gradient of the input"] = copies([x.grad])
        seen[f"step {step}: the gradient of the shard of layer"] = copies(p.grad for p in shards)
        torch.optim.SGD(shards, LR).step()
        for p in shards:
            p.grad = None
        seen[f"step {step}: the updated shard of layer"] = copies(shards)
        output = x.grad = None
    return seen | {"held": note.samples}


def copies(values: Iterable[Tensor | None]) -> list[Tensor | None]:
    """Each tensor as it is now."""
    return [None if value is None else value.detach().clone() for value in values]


class Held:
    """Measures the bytes of all tensors made from now on, whoever holds them, but for the copies in `seen`."""

    def __init__(self, seen: dict, looks: int = LOOKS) -> None:
        gc.freeze()  # what lives now is not counted
        self.seen, self.looks = seen, looks

    def look(self, most: float = math.inf) -> int:
        """Bytes held now.

        A thread of gloo's lets a finished collective's tensors go a moment after `wait` has returned. So with more than
        `most` it looks again and again, less often after each time that it was in vain. Looks and not seconds: a busy
        machine stretches both sides alike.
        """
        own_bytes, held_bytes = sum(copy.nbytes for copy in flatten(list(self.seen.values()))), 0
        for _ in range(self.looks):
            if (held_bytes := live_bytes() - own_bytes) <= most:
                return held_bytes
            time.sleep(0.002)
        self.looks = max(self.looks // 2, 10)
        return held_bytes


class Moments:
    """Marks the moments of a driver, and looks at what is held in those that the case has `limits` for.

    `samples` has [moment, layer, bytes] of each look; what is held at `begin` does not count.
    """

    def __init__(self, case: Case, seen: dict, looks: int = LOOKS) -> None:
        self.held, self.samples, self.given_bytes = Held(seen, looks), [], 0
        self.limits = {moment: limit_bytes for moment, limit_bytes, *_ in case["limits"]}

    def begin(self) -> None:
        """What is held now was given."""
        self.given_bytes = self.held.look()

    def __call__(self, kind: str, part: int = -1) -> None:
        """Marks a moment, of a layer where it has one."""
        mark(kind, part)
        if kind in self.limits:
            held_bytes = self.held.look(self.limits[kind] + self.given_bytes)
            self.samples.append([kind, part, held_bytes - self.given_bytes])


def from_rank_0(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Rank 0's `tensors`, on every rank, for input that all must share; goes past the recorder."""
    inner, shared = dist.group.WORLD.inner, copies(tensors)  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
    for copy in shared:
        inner.broadcast([copy], dist.BroadcastOptions()).wait()
    return cast(list[Tensor], shared)
