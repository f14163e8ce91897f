"""Inside a rank in chapters 04 and 05: workers whose gradients are watched, and held up. Ranks import this module.

A worker gets `gradient(weights, batch)`, which keeps a copy of the weights it was asked at. With these copies the
kernel computes every gradient again and knows which updates a worker had seen, whatever the order of events was.

The setting `held`, pairs (rank, batch), makes workers slow without a clock: that gradient does not return before the
others have finished what they may. Answers in which nobody waits for the slow worker lose no time; the others run into
a patience, which is so many looks without an event. Where the bound forbids the others to go on, a grace of so many
looks shows that they do not. Looks and not seconds: a busy machine stretches both sides alike.
"""

import gc
import time
from collections.abc import Callable
from math import inf
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.grading.rank_side import Case, name
from parallel_lab.runtime.rank.backend import LabGroup
from parallel_lab.trace import span
from parallel_lab.trace.memory import storages

SPAN = "gradient"  # the kind under which a gradient stands in the trace; its part is the batch
ROWS = 16  # samples of a batch
PATIENCE, GRACE, EVERY_S = 600, 200, 0.005


def make_weights(size: int) -> Tensor:
    """The initial weights, float64 (size,), the same on all ranks."""
    return torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def regression(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """This rank's own batches of a linear regression: inputs (counts[rank], ROWS, width), targets (counts[rank], ROWS).

    All ranks look for the same line, so the loss over all batches falls whoever takes a step. A row has length 1 about.
    """
    count, size = case["counts"][rank], case["width"]
    line = torch.randn(size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    inputs = torch.randn(count, ROWS, size, generator=generator, dtype=torch.float64) / size**0.5
    noise = torch.randn(count, ROWS, generator=generator, dtype=torch.float64)
    return inputs, inputs @ line + 0.1 * noise


def gradient_at(inputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The gradient of half the mean square of the errors: inputs (rows, size), targets (rows,), weights (size,)."""
    return inputs.T @ (inputs @ weights - targets) / len(targets)


def may_finish(case: Case, batch: int) -> dict[int, int]:
    """How many gradients each rank that is not held may finish while another is at its own gradient `batch`."""
    most, held = batch + case.get("bound", inf) + 1, dict(case["held"])
    return {rank: int(min(count, most)) for rank, count in enumerate(case["counts"]) if rank not in held}


class Gradient:
    """What a worker calls: `gradient(weights, batch)` on its own batch number `batch`."""

    def __init__(self, case: Case, inputs: Tensor, targets: Tensor) -> None:
        self.case, self.inputs, self.targets = case, inputs, targets
        self.batches: list[int] = []  # of each call
        self.weights: list[Tensor] = []  # copies of those of each call

    def __call__(self, weights: Tensor, batch: int) -> Tensor:
        """The gradient of this rank's loss on batch number `batch` at `weights`, (size,).

        Raises:
            TypeError: the weights are not a float64 tensor of the right shape.
            IndexError: this rank has no such batch.
        """
        rank, size = dist.get_rank(), self.inputs.shape[-1]
        if not isinstance(weights, Tensor) or weights.shape != (size,) or weights.dtype != torch.float64:
            raise TypeError(f"gradient wants weights as a float64 tensor of shape ({size},), got {name(weights)}")
        if not 0 <= batch < len(self.inputs):
            raise IndexError(f"rank {rank} has {len(self.inputs)} batches, and was asked for number {batch}")
        self.batches.append(batch)
        self.weights.append(weights.detach().clone())
        _counter(f"begun {rank}", 1)
        with span(SPAN, part=batch):
            if (rank, batch) in self.case.get("held", ()):
                _hold_up(self.case, batch)
            result = gradient_at(self.inputs[batch], self.targets[batch], weights.detach())
        _counter(f"finished {rank}", 1)
        return result


def _counter(event: str, more: int = 0) -> int:
    """Over the grader's own channel: what passes there is in no trace, as nobody's answer needs it."""
    return dist.distributed_c10d._get_default_store().add(f"grader/{event}", more)


def _hold_up(case: Case, batch: int) -> None:
    may, looks, events = may_finish(case, batch), 0, -1
    while looks < PATIENCE and any(_counter(f"finished {rank}") < most for rank, most in may.items()):
        before, events = events, sum(_counter(f"{event} {rank}") for event in ("begun", "finished") for rank in may)
        looks = looks + 1 if events == before else 0
        time.sleep(EVERY_S)
    kept = [rank for rank, most in may.items() if most < case["counts"][rank]]
    for _ in range(GRACE if kept and looks < PATIENCE else 0):
        if any(_counter(f"begun {rank}") > may[rank] for rank in kept):
            break
        time.sleep(EVERY_S)


def drive(fn: Callable, case: Case, inputs: Tensor, targets: Tensor) -> dict:
    """`fn(weights, gradient, *arguments)`, with the same weights on all ranks; `arguments` names settings."""
    gradient = Gradient(case, inputs, targets)
    result = fn(make_weights(case["width"]), gradient, *(case[name] for name in case["arguments"]))
    asked = {"its batches": gradient.batches, "the weights at its gradient": gradient.weights}
    return asked | {"the weights that it returned": result}


def drive_sharded(fn: Callable, case: Case, inputs: Tensor, targets: Tensor) -> dict:
    """`fn(initial, size, gradient, *arguments)`.

    `initial(start, stop)` gives a slice of the initial weights; `taken` says which were asked for. `held` is [bytes of
    the largest tensor, bytes of all tensors], the most seen when this rank sent something.
    """
    taken, held, send = [], [0, 0], LabGroup.send

    def initial(start: int, stop: int) -> Tensor:
        if (cut := [int(start), int(stop)]) not in taken:
            taken.append(cut)
        return make_weights(case["width"])[start:stop].clone()

    def watched(self: LabGroup, tensors: Any, dstRank: int, tag: int) -> dist.Work:
        # Not garbage-collected first: what counts is in use, and has been made since `freeze`.
        sizes = storages([each for each in gc.get_objects() if issubclass(type(each), Tensor)]).values()
        held[:] = max(held[0], *sizes, 0), max(held[1], sum(sizes))
        return send(self, tensors, dstRank, tag)

    def sharded(weights: Tensor, *arguments: Any) -> Any:
        gc.freeze()
        LabGroup.send = watched
        return fn(initial, case["width"], *arguments)

    return drive(sharded, case, inputs, targets) | {"taken": taken, "held": held}
