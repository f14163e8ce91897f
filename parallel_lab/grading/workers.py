"""What the exercises of chapters 04 and 05 share inside a rank: workers whose gradients are watched, and held up.

A worker gets `gradient(weights, batch)`, which keeps a copy of the weights it was asked at. With these copies the
kernel computes every gradient again and knows which updates a worker had seen, whatever the order of events was.

A *hold* makes one worker slow without a clock: its gradient does not return before other workers have finished theirs.
Answers in which nobody waits for the slow worker lose no time; the others run into the patience of the hold.

Ranks import this module.
"""

import gc
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.grading.case import Case
from parallel_lab.grading.rank_side import watch_sends
from parallel_lab.trace import span
from parallel_lab.trace.memory import storages

SPAN = "gradient"  # the kind under which a gradient stands in the trace; its part is the batch
ROWS = 16  # samples of a batch
# A hold looks so many times, 5 ms apart. Looks and not seconds: a busy machine stretches both sides alike.
PATIENCE, GRACE, EVERY_S = 600, 200, 0.005


class Hold(NamedTuple):
    """Worker `rank` is slow at its gradient number `batch`, until others are through.

    Attributes:
        until: pairs (rank, count): the gradient does not return before each rank has finished `count` gradients, or
            after `PATIENCE` looks in which no worker began or finished one.
        never: pairs (rank, count): then not before one of these ranks has begun `count` gradients, or after `GRACE`
            looks. In a right answer none begins so many: the grace is what it takes to see that.
    """

    rank: int
    batch: int
    until: tuple[tuple[int, int], ...]
    never: tuple[tuple[int, int], ...] = ()


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


class Gradient:
    """What a worker calls: `gradient(weights, batch)` on its own batch number `batch`.

    Attributes:
        log: [batch, copy of the weights] of each call.
    """

    def __init__(self, case: Case, inputs: Tensor, targets: Tensor) -> None:
        self.inputs, self.targets = inputs, targets
        self.holds: Sequence[Hold] = case.get("holds", ())
        self.log: list[list] = []

    def __call__(self, weights: Tensor, batch: int) -> Tensor:
        """The gradient of this rank's loss on batch number `batch` at `weights`, (size,).

        Raises:
            TypeError: the weights are not a float64 tensor of the right shape.
            IndexError: this rank has no such batch.
        """
        rank, size = dist.get_rank(), self.inputs.shape[-1]
        if not isinstance(weights, Tensor) or weights.shape != (size,) or weights.dtype != torch.float64:
            what = f"{weights.dtype} {tuple(weights.shape)}" if isinstance(weights, Tensor) else type(weights).__name__
            raise TypeError(f"gradient wants weights as a float64 tensor of shape ({size},), got {what}")
        if not 0 <= batch < len(self.inputs):
            raise IndexError(f"rank {rank} has {len(self.inputs)} batches, and was asked for number {batch}")
        self.log.append([batch, weights.detach().clone()])
        self._announce("begun")
        with span(SPAN, part=batch):
            for hold in self.holds:
                if (hold.rank, hold.batch) == (rank, batch):
                    _hold_up(hold)
            result = gradient_at(self.inputs[batch], self.targets[batch], weights.detach())
        self._announce("finished")
        return result

    def _announce(self, what: str) -> None:
        if self.holds:
            _store().set(_key(what, dist.get_rank(), len(self.log)), b"1")
            _store().add("grader/events", 1)


def _store() -> Any:
    # The grader's own channel: what passes here is in no trace, as nobody's answer needs it.
    return dist.distributed_c10d._get_default_store()


def _key(what: str, rank: int, count: int) -> str:
    return f"grader/{what}/{rank}/{count}"


def _hold_up(hold: Hold) -> None:
    """FileStore's own wait would take its seconds from the clock."""
    until, looks, events = [_key("finished", *one) for one in hold.until], 0, 0
    while not _store().check(until) and looks < PATIENCE:
        before, events = events, _store().add("grader/events", 0)
        looks = looks + 1 if events == before else 0
        time.sleep(EVERY_S)
    for _ in range(GRACE if hold.never and looks < PATIENCE else 0):
        if any(_store().check([_key("begun", *one)]) for one in hold.never):
            break
        time.sleep(EVERY_S)


def drive_local(fn: Callable, case: Case, inputs: Tensor, targets: Tensor) -> dict:
    """`fn(weights, gradient, counts, every, lr)`, with the same weights on all ranks."""
    gradient = Gradient(case, inputs, targets)
    result = fn(make_weights(case["width"]), gradient, case["counts"], case["every"], case["lr"])
    return {
        "the batches of its gradients": [batch for batch, _ in gradient.log],
        "the weights at its gradient": [weights for _, weights in gradient.log],
        "the weights that it returned": result,
    }


def drive_asynchronous(fn: Callable, case: Case, inputs: Tensor, targets: Tensor) -> dict:
    """`fn(weights, gradient, counts, lr)`, with the same weights on all ranks."""
    gradient = Gradient(case, inputs, targets)
    result = fn(make_weights(case["width"]), gradient, case["counts"], case["lr"])
    return {"result": result, "log": gradient.log}


def drive_server(fn: Callable, case: Case, inputs: Tensor, targets: Tensor) -> dict:
    """`fn(initial, size, gradient, servers, counts, bound, lr, momentum)`.

    `initial(start, stop)` gives a slice of the initial weights; `taken` says which were asked for. `held` is [bytes of
    the largest tensor, bytes of all tensors], the most seen when this rank sent something.
    """
    taken, gradient = [], Gradient(case, inputs, targets)
    size, held = inputs.shape[-1], [0, 0]

    def initial(start: int, stop: int) -> Tensor:
        taken.append([int(start), int(stop)])
        return make_weights(size)[start:stop].clone()

    def look() -> None:
        # Not garbage-collected first: what counts is in use, and has been made since `freeze`.
        sizes = storages([each for each in gc.get_objects() if issubclass(type(each), Tensor)]).values()
        held[:] = max(held[0], *sizes, 0), max(held[1], sum(sizes))

    gc.freeze()
    watch_sends(look)
    options = [case[name] for name in ("servers", "counts", "bound", "lr", "momentum")]
    result = fn(initial, size, gradient, *options)
    return {"result": result, "log": gradient.log, "taken": taken, "held": held}
