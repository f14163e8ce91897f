"""What the exercises of chapters 04 and 05 share inside a rank: workers whose gradients are watched, and held up.

A worker gets `gradient(weights, batch)`, which keeps a copy of the weights it was asked at. With these copies the
kernel computes every gradient again and knows which updates a worker had seen, whatever the order of events was.

A *hold* makes one worker slow without a clock: its gradient does not return before other workers have finished theirs.
Answers in which nobody waits for the slow worker lose no time; the others run into the patience of the hold.

A rank imports this module: it loads neither widgets nor a reference.
"""

import gc
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.course.training import start
from parallel_lab.runtime.rank.backend import LabGroup
from parallel_lab.trace import span
from parallel_lab.trace.memory import storages

SPAN = "gradient"  # the kind under which a gradient stands in the trace; its part is the batch
ROWS = 16  # samples of a batch


class Hold(NamedTuple):
    """Worker `rank` is slow at its gradient number `batch`, until others are through.

    Attributes:
        until: pairs (rank, count): the gradient does not return before each rank has finished `count` gradients, or
            `patience_s` are over.
        never: pairs (rank, count): then not before one of these ranks has begun `count` gradients, or `grace_s` are
            over. In a right answer none begins so many: the grace is what it takes to see that.
    """

    rank: int
    batch: int
    until: tuple[tuple[int, int], ...]
    never: tuple[tuple[int, int], ...] = ()
    patience_s: float = 3.0
    grace_s: float = 1.5  # another process may stand still for a second on a busy machine


def make_weights(size: int) -> Tensor:
    """The initial weights, float64 (size,), the same on all ranks."""
    return torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def regression(rank: int, ranks: int, generator: torch.Generator, *, counts: Sequence[int], size: int) -> tuple:
    """This rank's own batches of a linear regression: inputs (counts[rank], ROWS, size), targets (counts[rank], ROWS).

    All ranks look for the same line, so the loss over all batches falls whoever takes a step. A row has length 1 about.
    """
    line = torch.randn(size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    inputs = torch.randn(counts[rank], ROWS, size, generator=generator, dtype=torch.float64) / size**0.5
    noise = torch.randn(counts[rank], ROWS, generator=generator, dtype=torch.float64)
    return inputs, inputs @ line + 0.1 * noise


def squared_loss(inputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Half the mean square of the errors: inputs (rows, size), targets (rows,), weights (size,) to a scalar."""
    return (inputs @ weights - targets).square().mean() / 2


def gradient_at(inputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The gradient of `squared_loss`, (size,)."""
    return inputs.T @ (inputs @ weights - targets) / len(targets)


class Gradient:
    """What a worker calls: `gradient(weights, batch)` on its own batch number `batch`.

    Attributes:
        log: [batch, copy of the weights] of each call.

    Raises:
        TypeError: the weights are not a float64 tensor of the right shape.
        IndexError: this rank has no such batch.
    """

    def __init__(self, inputs: Tensor, targets: Tensor, holds: Sequence[Hold] = ()) -> None:
        self.inputs, self.targets = inputs, targets
        self.holds = holds
        self.log: list[list] = []

    def __call__(self, weights: Tensor, batch: int) -> Tensor:
        """The gradient of this rank's loss on batch number `batch` at `weights`, (size,)."""
        rank, size = dist.get_rank(), self.inputs.shape[-1]
        if not isinstance(weights, Tensor) or weights.shape != (size,) or weights.dtype != torch.float64:
            what = f"{weights.dtype} {tuple(weights.shape)}" if isinstance(weights, Tensor) else type(weights).__name__
            raise TypeError(f"gradient wants weights as a float64 tensor of shape ({size},), got {what}")
        if not 0 <= batch < len(self.inputs):
            raise IndexError(f"rank {rank} has {len(self.inputs)} batches, and was asked for number {batch}")
        self.log.append([batch, weights.detach().clone()])
        self._announce("begun")
        with span(SPAN, part=batch):
            _hold_up(self.holds, rank, batch)
            result = gradient_at(self.inputs[batch], self.targets[batch], weights.detach())
        self._announce("finished")
        return result

    def _announce(self, what: str) -> None:
        if self.holds:
            _store().set(_key(what, dist.get_rank(), len(self.log)), b"1")


def _store() -> Any:
    # The grader's own channel: what passes here is in no trace, as nobody's answer needs it.
    return dist.distributed_c10d._get_default_store()


def _key(what: str, rank: int, count: int) -> str:
    return f"grader/{what}/{rank}/{count}"


def _hold_up(holds: Sequence[Hold], rank: int, batch: int) -> None:
    for hold in holds:
        if (
            (hold.rank, hold.batch) == (rank, batch)
            and _await(all, [_key("finished", *one) for one in hold.until], hold.patience_s)
            and hold.never
        ):
            _await(any, [_key("begun", *one) for one in hold.never], hold.grace_s)


def _await(how_many: Callable, keys: list[str], patience_s: float) -> bool:
    """Waits until `all` or `any` keys are set; False after `patience_s`. FileStore's own wait takes twice that."""
    deadline_s = time.monotonic() + patience_s
    while not (there := how_many(_store().check([key]) for key in keys)) and time.monotonic() < deadline_s:
        time.sleep(0.005)
    return there


def drive(fn: Callable, inputs: Tensor, targets: Tensor, *, arguments: tuple, holds: Sequence[Hold] = ()) -> list:
    """`fn(weights, gradient, *arguments)`, with the same weights on all ranks.

    Returns [what fn returned, the log of this rank's gradients].
    """
    gradient = Gradient(inputs, targets, holds)
    result = fn(make_weights(inputs.shape[-1]), gradient, *arguments)
    return [result, gradient.log]


def drive_server(
    fn: Callable, inputs: Tensor, targets: Tensor, *, arguments: tuple, holds: Sequence[Hold] = ()
) -> list:
    """`fn(initial, size, gradient, *arguments)`; `initial(start, stop)` gives a slice of the initial weights.

    Returns [what fn returned, the log of this rank's gradients, the slices that it took, and [bytes of the largest
    tensor, bytes of all tensors] that it held, the most seen when it sent something].
    """
    taken, gradient = [], Gradient(inputs, targets, holds)
    size, held = inputs.shape[-1], [0, 0]

    def initial(start: int, stop: int) -> Tensor:
        taken.append([int(start), int(stop)])
        return make_weights(size)[start:stop].clone()

    start()
    _sample_when_sending(held)
    result = fn(initial, size, gradient, *arguments)
    return [result, gradient.log, taken, held]


def _sample_when_sending(held: list[int]) -> None:
    plain = LabGroup.send

    def send(self, tensors, dstRank: int, tag: int) -> dist.Work:
        # Not garbage-collected first: what counts is in use, and has been made since `start`.
        alive = [each for each in gc.get_objects() if issubclass(type(each), Tensor)]
        sizes = storages(alive).values()
        held[:] = max(held[0], *sizes, 0), max(held[1], sum(sizes))
        return plain(self, tensors, dstRank, tag)

    LabGroup.send = send
