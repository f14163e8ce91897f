"""What training exercises share inside a rank: models that say when they are called, bytes held, no ready-made answers.

A grader's driver runs in the rank and calls learner code: it builds the model from the rank's fresh input, hands it to
the learner's function, trains, and notes what happens between. Notes go into the trace as spans on the lane `mark`, in
one order with the collectives, so that "was this all-reduce issued before that layer's backward?" needs no clock.

A rank imports this module: it loads neither widgets nor a reference.
"""

import functools
import gc
import math
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.course import rank_side
from parallel_lab.course.hidden import Watch
from parallel_lab.runtime.rank.backend import LabGroup
from parallel_lab.trace import recorder
from parallel_lab.trace.memory import live_bytes

PATIENCE_S = 1.0
MARK = "mark"  # the lane of what a driver notes
# note(kind, part): called by layer `part` at its forward (`layer_forward`) and backward (`layer_backward`), and by a
# `Chain` with the number of rows that it is given (`rows`)
Note = Callable[[str, int], None]
# Classes that are the answer, by name and by the module that they come from.
_READY_MADE = (
    "DistributedDataParallel", "DataParallel", "ZeroRedundancyOptimizer", "FullyShardedDataParallel", "FSDPModule",
    "DTensor",
)  # fmt: skip


def mark(kind: str, part: int = -1) -> None:
    """Notes in this rank's trace that `kind` happens now, at layer `part`, or with so many rows."""
    log = recorder()
    log.complete(log.issue(kind, part=part, lane=MARK))


def silent(kind: str, part: int) -> None:
    """Notes nothing: for the kernel's own model."""


class _Probe(torch.autograd.Function):
    """The identity; tells `note` when it is passed forward and when its gradient comes back."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, part: int, note: Note) -> Tensor:
        ctx.part, ctx.note = part, note
        note("layer_forward", part)
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        ctx.note("layer_backward", ctx.part)
        return *gradients, None, None


class ProbedLinear(nn.Linear):
    """A float64 linear layer, (rows, inputs) to (rows, outputs), that calls `note` at its forward and its backward.

    A copy of it notes the same way, and so do its weights put in other tensors (`torch.func.functional_call`).
    """

    def __init__(self, inputs: int, outputs: int, part: int = 0, note: Note = mark) -> None:
        super().__init__(inputs, outputs, dtype=torch.float64)
        self.part, self.note = part, note

    def forward(self, input: Tensor) -> Tensor:
        """X W^T + b, noted."""
        return cast(Tensor, _Probe.apply(super().forward(input), self.part, self.note))


class Chain(nn.Module):
    """`ProbedLinear` layers with tanh between each two; `widths` as of `model.mlp.MLP`.

    With `tied` the layers 1 and 2 share one weight (equal widths needed); with `frozen` the bias of layer 0 does not
    learn.
    """

    def __init__(self, widths: Sequence[int], tied: bool = False, frozen: bool = False, note: Note = mark) -> None:
        super().__init__()
        self.note = note
        self.layers = nn.ModuleList(ProbedLinear(*pair, part, note) for part, pair in enumerate(pairwise(widths)))
        if tied:
            self.layers[2].weight = self.layers[1].weight
        if frozen:
            cast(Tensor, self.layers[0].bias).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, widths[0]) to (rows, widths[-1])."""
        self.note("rows", len(x))
        for part, layer in enumerate(self.layers):
            x = layer(torch.tanh(x) if part else x)
        return x


def load(module: nn.Module, weights: Sequence[Tensor]) -> nn.Module:
    """`module` with `weights`, in the order of its `parameters()`, copied in; returns it."""
    with torch.no_grad():
        for parameter, weight in zip(module.to(weights[0].device).parameters(), weights, strict=True):
            parameter.copy_(weight)
    return module


def start() -> None:
    """To be called first in a driver: what lives now is left out of `Notes.held` and `found_ready_made`.

    From now on a module or optimizer that is the answer itself is noted when it is made, however short it lives.
    """
    gc.freeze()  # and no collection: that walks all of torch, 0.2 s a rank
    for base in (nn.Module, torch.optim.Optimizer):
        base.__init__ = _noting(base.__init__)


def _noting(plain: Callable) -> Callable:
    @functools.wraps(plain)
    def init(self, *arguments, **options):
        _note_ready_made(type(self))
        plain(self, *arguments, **options)

    return init


def _note_ready_made(kind: type) -> None:
    """Notes `kind` if it or one of its bases is the answer; the check then fails and names the class."""
    for each in kind.__mro__:
        home = str(each.__module__)
        if (home.startswith("torch.") and each.__name__ in _READY_MADE) or home.startswith(rank_side.REFERENCES):
            rank_side.used.append(f"{home}.{each.__name__}")


def from_rank_0(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Rank 0's `tensors`, on every rank, for input that all must share; goes past the recorder."""
    inner, copies = cast(LabGroup, dist.group.WORLD).inner, [tensor.clone() for tensor in tensors]
    for copy in copies:
        inner.broadcast([copy], dist.BroadcastOptions()).wait()
    return copies


class Notes:
    """What a driver keeps of what it saw; `held` leaves these copies out. `fn` is the learner's function."""

    def __init__(self, fn: Callable) -> None:
        self.own_bytes = 0
        self.patience_s = PATIENCE_S
        self.watch = Watch(fn)

    def copies(self, values: Iterable[Tensor | None]) -> list[Tensor | None]:
        """Each tensor as it is now."""
        kept = [None if value is None else value.detach().clone() for value in values]
        self.own_bytes += sum(value.nbytes for value in kept if value is not None)
        return kept

    def held(self, most: float = math.inf) -> tuple[int, int, str]:
        """(bytes of all tensors and other numbers made since `start`, the share of the others, their class).

        It does not matter who holds them. What autograd saves is seen inside `trace.memory.SavedTensors`.

        A thread of gloo's lets a finished collective's tensors go a moment after `wait` has returned. So with more than
        `most` it looks again, until there is less or, once in a run, for `PATIENCE_S`.
        """
        until_s = time.monotonic() + self.patience_s
        while True:
            late = time.monotonic() > until_s  # before the look: it is the last one only if it began late
            hidden = self.watch.look()
            held_bytes = live_bytes() + hidden.bytes - self.own_bytes
            if held_bytes <= most:
                break
            if late:
                self.patience_s = 0.0
                break
            time.sleep(0.001)
        return held_bytes, hidden.bytes, hidden.kind


def found_ready_made() -> bool:
    """Whether something was made since `start` that is the answer itself: then the check fails and names its class.

    To be called while what the learner built is alive: `fully_shard` changes a module's class and puts DTensors in it.
    """
    kinds = {type(each) for each in gc.get_objects()}
    for kind in sorted(kinds, key=lambda kind: f"{kind.__module__}.{kind.__qualname__}"):  # the same name each time
        _note_ready_made(kind)
    return bool(rank_side.used)


def change_first_result(kinds: Sequence[str]) -> None:
    """On the last rank, the result of the first collective of one of these `kinds` arrives changed by one.

    What a collective brought and nobody used was for show (see `mechanism.expect_heard`).
    """
    if dist.get_rank() < dist.get_world_size() - 1:
        return
    plain = LabGroup._collective

    def changed(self, method: str, arguments: tuple, options: dict, own_way: Callable | None = None) -> Any:
        work = cast(Any, plain(self, method, arguments, options, own_way))
        if work.call.kind in kinds:
            LabGroup._collective = plain
            _after(work, lambda: _first_tensor(arguments).add_(1))
        return work

    LabGroup._collective = changed


def _after(work: Any, do: Callable[[], Any]) -> None:
    """Runs `do` when the result of `work` has arrived; it may have by now."""
    with work._once:
        if work._finished:
            do()
            return
        arrived = work.after

        def after() -> None:
            arrived()
            do()

        work.after = after


def _first_tensor(argument: Any) -> Tensor:
    while isinstance(argument, list | tuple):
        argument = argument[0]
    return argument
