"""What runs around learner code inside a rank: fresh input, a limit, a changed message, and plain results.

Each rank draws its own input from a seed of the operating system, so that no other rank can know it before a message
brings it; the seed goes back with the result, and the kernel, which alone computes the expected answer, makes the input
again from it. Every graded rank imports this module: it loads neither widgets nor a technique.
"""

import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import torch
import torch.distributed as dist

from parallel_lab.grading import references
from parallel_lab.grading.case import Case
from parallel_lab.runtime.device import rank_device
from parallel_lab.runtime.rank.backend import LabGroup

REDUCING = ("all_reduce", "reduce_scatter", "reduce", "all_gather", "all_to_all", "gather")
ARRIVING = ("recv", *REDUCING, "broadcast", "scatter")
door: Any = LabGroup  # where a change or a look is put in the way of messages
PROCESSOR_S = 20  # of one rank in one case; right answers take 1 s and less


class Opaque(NamedTuple):
    """Stands for a returned value that is neither a plain tensor nor a number, list or dict of them."""

    type_name: str


@dataclass
class Returned:
    """What one rank sends back to the kernel."""

    seed: int  # what its input was made from
    result: Any  # what the learner's function, or the driver, returned, in plain tensors, lists and dicts
    given: Any  # its arguments as they were after the call
    loaded: list[str]  # the techniques that the call loaded


def graded(fn: Callable, case: Case, given: Callable, drive: Callable | None, seeds: Sequence[int]) -> Returned:
    """Calls `fn` once on this rank with input made from its own seed (`seeds` repeats an earlier run).

    When `fn` has returned, its arguments are overwritten: a send that nobody waited for then sends the wrong bytes.
    """
    _limit_processor_time()
    rank = dist.get_rank()
    seed = seeds[rank % len(seeds)] if seeds else int.from_bytes(os.urandom(2), "big")
    arguments = to_device(given(case, rank, torch.Generator().manual_seed(seed)))
    if case.changed and drive is None:
        change_first_arrival()
    result = plain(drive(fn, case, *arguments) if drive else fn(*arguments))
    after = plain(arguments)
    _poison(arguments)
    return Returned(seed, result, after, references.loaded())


def _limit_processor_time() -> None:
    """Ends an endless loop. It counts what this rank computes, so a busy machine changes nothing."""

    def over(*_: Any) -> NoReturn:
        raise RuntimeError(f"this rank has computed for {PROCESSOR_S} s of processor time: does a loop never end?")

    signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, PROCESSOR_S)


def to_device(value: Any) -> Any:
    """`value` with its tensors on this rank's device."""
    if isinstance(value, torch.Tensor):
        return value.to(rank_device())
    return type(value)(to_device(item) for item in value) if isinstance(value, list | tuple) else value


def plain(value: Any) -> Any:
    """A copy of `value` in plain tensors on the CPU, numbers, lists and dicts; anything else becomes `Opaque`."""
    if type(value) in (torch.Tensor, torch.nn.Parameter):
        return value.detach().cpu().clone()
    if type(value) in (list, tuple):
        return [plain(item) for item in value]
    if type(value) is dict:
        return {name: plain(item) for name, item in value.items()}
    return value if value is None or type(value) in (bool, int, float, str) else Opaque(type(value).__name__)


def _poison(value: Any) -> None:
    """Overwrites every tensor in `value` with NaN (integers: with -1)."""
    if isinstance(value, torch.Tensor):
        with torch.no_grad():
            value.fill_(float("nan") if value.is_floating_point() else -1)
    elif isinstance(value, list | tuple):
        for item in value:
            _poison(item)


def change_first_arrival(kinds: Sequence[str] = ARRIVING) -> None:
    """On the last rank, the first message, or result of a collective of these `kinds`, arrives changed by one.

    What arrived and changed nothing was for show (see `expectations.heard`).
    """
    if dist.get_rank() < dist.get_world_size() - 1:
        return
    recv, collective = door.recv, door._collective

    def change(work: Any, arguments: Any) -> Any:
        if work.call.kind in kinds:
            door.recv, door._collective = recv, collective
            _after(work, lambda: _first_tensor(arguments).add_(1))
        return work

    door.recv = lambda self, tensors, *rest: change(recv(self, tensors, *rest), tensors)
    door._collective = lambda self, name, tensors, *rest: change(collective(self, name, tensors, *rest), tensors)


def _after(work: Any, do: Callable[[], Any]) -> None:
    """Runs `do` when what `work` brings has arrived; a collective's may have, in a thread of the backend."""
    with getattr(work, "_once", contextlib.nullcontext()):
        if work._finished:
            do()
            return
        arrived = work.after

        def after() -> None:
            arrived()
            do()

        work.after = after


def _first_tensor(argument: Any) -> torch.Tensor:
    while isinstance(argument, list | tuple):
        argument = argument[0]
    return argument


def watch_sends(look: Callable[[], None]) -> None:
    """Calls `look` before each message of this rank."""
    send = door.send

    def looked(self: Any, *arguments: Any) -> dist.Work:
        look()
        return send(self, *arguments)

    door.send = looked
