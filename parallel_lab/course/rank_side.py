"""What runs around learner code inside a rank: fresh input, a guard on side doors, and plain results.

Each rank draws its own input from a seed of the operating system, so that no other rank can know it before a message
brings it; the seed goes back with the result, and the kernel, which alone computes the expected answer, makes the input
again from it.

This module is imported in every graded rank, and so is the one that `make` comes from (`course.inputs`): they must load
neither widgets nor the reference collectives.
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
import torch.distributed as dist

from parallel_lab.course import side_doors
from parallel_lab.runtime.device import rank_device
from parallel_lab.runtime.rank.backend import LabGroup
from parallel_lab.runtime.rank.work import MessageWork

# make(rank, ranks, generator) -> the arguments of that rank's call
Make = Callable[[int, int, torch.Generator], tuple]
# The rooms that hold the answers; whoever stands on others comes first, so that a message names what was used.
TECHNIQUES = ("data_parallel", "synchronization", "parameter_server", "pipeline", "collectives")
REFERENCES = tuple(f"parallel_lab.{room}" for room in TECHNIQUES)
# What a driver found in use that is the answer itself (see `training.found_ready_made`).
used: list[str] = []


class Opaque(NamedTuple):
    """Stands for a returned value that is neither a plain tensor nor a number, list or tuple of them."""

    type_name: str


@dataclass
class Returned:
    """What one rank sends back to the kernel.

    Attributes:
        seed: what its input was made from.
        result: what the learner's function returned, in plain tensors and lists.
        given: its arguments as they were after the call.
        loaded: the reference packages that the call loaded, and the ready-made classes that it used.
    """

    seed: int
    result: Any
    given: Any
    loaded: list[str]


def graded(fn: Callable, make: Make, seeds: Sequence[int] = (), garble: bool = False) -> Returned:
    """Calls `fn` once on this rank with input made from its own seed (`seeds` repeats an earlier run).

    With `garble`, the first message that the last rank receives arrives changed by one.

    When `fn` has returned, its arguments are overwritten: a send that nobody waited for then sends the wrong bytes.
    """
    rank, ranks = dist.get_rank(), dist.get_world_size()
    seed = seeds[rank % len(seeds)] if seeds else int.from_bytes(os.urandom(2), "big")
    given = to_device(inputs_of(make, rank, ranks, seed))
    if garble and rank == ranks - 1:
        _garble_first_message()
    before = set(sys.modules)
    inside = side_doors.close()
    try:
        result = plain(fn(*given))
    finally:
        inside.clear()
    after = plain(given)
    poison(given)
    return Returned(seed, result, after, used + [name for name in REFERENCES if name in sys.modules.keys() - before])


def inputs_of(make: Make, rank: int, ranks: int, seed: int) -> tuple:
    """The arguments that `make` gives rank `rank` of `ranks` for `seed`; the same in the rank and in the kernel."""
    return make(rank, ranks, torch.Generator().manual_seed(seed))


def to_device(value: Any) -> Any:
    """`value` with its tensors on this rank's device."""
    if isinstance(value, torch.Tensor):
        return value.to(rank_device())
    return type(value)(to_device(item) for item in value) if isinstance(value, list | tuple) else value


def plain(value: Any) -> Any:
    """A copy of `value` in plain tensors on the CPU, numbers and lists; anything else becomes `Opaque`.

    A subclass of Tensor or a class of the learner's could claim to equal everything, so its type decides.
    """
    if type(value) in (torch.Tensor, torch.nn.Parameter):
        return value.detach().cpu().clone()
    if type(value) in (list, tuple):
        return [plain(item) for item in value]
    if value is None or type(value) in (bool, int, float, str):
        return value
    return Opaque(type(value).__name__)


def poison(value: Any) -> None:
    """Overwrites every tensor in `value` with NaN (integers: with -1)."""
    if isinstance(value, torch.Tensor):
        with torch.no_grad():
            value.fill_(float("nan") if value.is_floating_point() else -1)
    elif isinstance(value, list | tuple):
        for item in value:
            poison(item)


def _garble_first_message() -> None:
    plain_recv = LabGroup.recv

    def recv(self, tensors, srcRank: int, tag: int) -> dist.Work:
        LabGroup.recv = plain_recv
        work = plain_recv(self, tensors, srcRank, tag)
        arrived = cast(MessageWork, work).after

        def after() -> None:
            arrived()
            tensors[0].add_(1)

        cast(MessageWork, work).after = after
        return work

    LabGroup.recv = recv
