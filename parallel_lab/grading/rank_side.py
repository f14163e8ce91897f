"""A case, which is one run of an answer as data, and what runs around the answer inside a rank.

Each rank draws its own input, and a message alone brings it to others. The kernel, which alone computes the expected
answer, makes all inputs again from the one seed of a check. Every graded rank imports this module: it loads neither
widgets nor a technique.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partialmethod
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from parallel_lab.grading import references
from parallel_lab.runtime.device import rank_device
from parallel_lab.runtime.rank.backend import LabGroup
from parallel_lab.runtime.rank.misused import watch_collectives, watch_messages
from parallel_lab.runtime.rank.processor_time import limit_processor_time
from parallel_lab.runtime.rank.stage import flatten

REDUCING = ("all_reduce", "reduce_scatter", "reduce", "all_gather", "all_to_all", "gather")
TO_ROOT = ("gather", "reduce")  # nothing arrives at the other ranks
ARRIVING = ("recv", *REDUCING, "broadcast", "scatter")
MOST_RANKS = 64  # of a launch
PROCESSOR_S = 20  # of one rank in one case; right answers take 1 s and less
SHOWN = (
    "shape",
    "root",
    "servers",
    "counts",
    "every",
    "bound",
    "per_node",
    "cut",
    "reduce_each",
    "vocab",
    "layout",
    "structured",
    "f",
    "lie",
)  # settings that messages name


@dataclass(frozen=True)
class Case:
    """One run: on how many ranks, with which settings. Equal cases are one run."""

    ranks: int
    settings: tuple[tuple[str, Any], ...] = ()  # for the inputs, the driver and the expectation alike
    defaults: tuple[tuple[str, Any], ...] = ()  # the settings of the exercise, where the case says nothing else

    def __getitem__(self, name: str) -> Any:
        return dict(self.defaults + self.settings)[name]

    def get(self, name: str, default: Any = None) -> Any:
        """What `name` is set to, or `default`."""
        return dict(self.defaults + self.settings).get(name, default)

    @property
    def at(self) -> str:
        """`at 3 ranks, shape (7,)`, to begin a message with."""
        named = [f", {name} {value}" for name, value in self.settings if name in SHOWN]
        return f"at {self.ranks} rank" + "s" * (self.ranks > 1) + "".join(named)


class Opaque(NamedTuple):
    """Stands for a returned value that is neither a plain tensor nor a number, list or dict of them."""

    type_name: str


def name(value: Any) -> str:
    """What a returned value is, in a few words."""
    if isinstance(value, torch.Tensor):
        return f"a {value.dtype} tensor of shape {tuple(value.shape)}"
    if isinstance(value, Opaque):
        return f"an object of class {value.type_name}"
    if isinstance(value, list | tuple) and not are_words(value):
        return f"a {type(value).__name__} of {len(value)}"
    return repr(value)


def are_words(items: list | tuple) -> bool:
    """Whether a message can show them."""
    return all(type(item) in (int, str) for item in items)


def drawn(given: Callable, case: Case, rank: int, seed: int) -> tuple:
    """The arguments of one rank's call, from the seed of a check."""
    return given(case, rank, torch.Generator().manual_seed(MOST_RANKS * seed + rank))


def graded(fn: Callable, case: Case, given: Callable, drive: Callable | None, seed: int) -> tuple:
    """Calls `fn` once on this rank with its own input.

    When `fn` has returned, its arguments are overwritten: a send that nobody waited for then sends the wrong bytes.
    Returned are the result, the arguments as they were after the call, the techniques that it loaded, the messages that
    shared memory (see `watch_messages`), and the collectives that nobody waited for.
    """
    limit_processor_time(PROCESSOR_S)
    shared, never_waited_for = watch_messages(), watch_collectives()
    arguments = _to_device(drawn(given, case, dist.get_rank(), seed))
    if drive is None:
        change_first_arrival(case)
    result = plain(drive(fn, case, *arguments) if drive else fn(*arguments))
    after, left = plain(arguments), never_waited_for()
    for tensor in flatten(arguments):
        tensor.detach().fill_(float("nan") if tensor.is_floating_point() else -1)
    return result, after, references.loaded(), shared, left


def _to_device(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(rank_device())
    return type(value)(_to_device(item) for item in value) if isinstance(value, list | tuple) else value


def plain(value: Any) -> Any:
    """A copy of `value` in plain tensors on the CPU, numbers, lists and dicts; anything else becomes `Opaque`.

    A number of numpy is a number, and so is a fraction; any kind of dict is a dict.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Fraction):
        value = float(value)
    if type(value) in (torch.Tensor, torch.nn.Parameter):
        return value.detach().cpu().clone()
    if type(value) in (list, tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return value if value is None or type(value) in (bool, int, float, str) else Opaque(type(value).__name__)


def change_first_arrival(case: Case, kinds: Sequence[str] = ARRIVING) -> None:
    """With `changed`, the first message or result of these `kinds` that the last rank gets arrives changed by one.

    What arrived and changed nothing was for show (see `expect.heard`).
    """
    if not case.get("changed") or dist.get_rank() < dist.get_world_size() - 1:
        return
    own_ways = {name: getattr(LabGroup, name) for name in ("recv", "_collective")}

    def changing(group: LabGroup, own_way: Callable, *arguments: Any) -> Any:
        work = own_way(group, *arguments)
        kind, root = work.call.kind, work.call.peer
        if kind in kinds and (kind not in TO_ROOT or root == dist.get_rank()):
            for name, way in own_ways.items():
                setattr(LabGroup, name, way)
            _after(work, lambda: flatten(arguments)[0].add_(1))
        return work

    for name, way in own_ways.items():
        setattr(LabGroup, name, partialmethod(changing, way))


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
