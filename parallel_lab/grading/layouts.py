"""The tasks of chapter 11 about who belongs together: the groups of a layout, and the norm over all of its axes.

As in `drivers`, a driver gives learner code what it works on, and observes. Ranks import this module, and the kernel
has what is expected from it.
"""

from collections.abc import Callable, Iterator
from itertools import product, zip_longest
from math import prod
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.grading.drivers import from_rank_0
from parallel_lab.grading.expect import grader
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.rank_side import Case, change_first_arrival
from parallel_lab.grading.rank_side import name as words

AXES = ("pp", "dp", "cp", "tp")  # outermost first
CUT_AGAIN = ("dp_cp", "ep", "edp")
Sizes = dict[str, int]


def sizes_of(numbers: tuple[int, ...]) -> Sizes:
    """A layout as learner code takes it."""
    return dict(zip((*AXES, "ep"), numbers, strict=True))


def place(rank: int, sizes: Sizes) -> Sizes:
    """Where `rank` stands along each axis, also along those that cut the data ranks once more."""
    at, left = {}, rank
    for axis in reversed(AXES):
        left, at[axis] = divmod(left, sizes[axis])
    at["dp_cp"] = at["dp"] * sizes["cp"] + at["cp"]
    at["edp"], at["ep"] = divmod(at["dp_cp"], sizes["ep"])
    return at


def group_of(axis: str, rank: int, sizes: Sizes) -> list[int]:
    """The ranks that differ from `rank` along `axis` alone."""
    fixed = {"dp_cp": ("pp", "tp"), "ep": ("pp", "edp", "tp"), "edp": ("pp", "ep", "tp")}
    same = fixed.get(axis, tuple(other for other in AXES if other != axis))
    here = place(rank, sizes)
    others = range(prod(sizes[each] for each in AXES))
    return [other for other in others if all(place(other, sizes)[each] == here[each] for each in same)]


# The first task.


class Made(NamedTuple):
    """What an answer did on one rank of a layout."""

    groups: dict[str, list[int]]  # by axis, the ranks of the group that it returned
    made: list[list[int]]  # those of all groups that it made, in order


def layouts(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """Nothing: the layouts stand in the case."""
    return ()


def make_groups(fn: Callable, case: Case) -> Any:
    """`fn(rank, sizes, new_group)`: of each rank of the `layouts`, where `new_group` only notes what is asked of it.

    With a `layout` it is called on real ranks, with `dist.new_group`, and what counts is whom a rank hears then. It is
    not where the ranks would wait for ever in it.
    """
    if layout := case.get("layout"):
        _require_alike(_on_rank(fn, dist.get_rank(), sizes_of(layout)).made)
        groups = fn(dist.get_rank(), sizes_of(layout), dist.new_group)
        return {f"whom it hears in its group of {axis}": _heard(groups[axis]) for axis in (*AXES, *CUT_AGAIN)}
    return [_recorded(fn, sizes_of(layout)) for layout in case["layouts"]]


def _recorded(fn: Callable, sizes: Sizes) -> list[list]:
    return [list(_on_rank(fn, rank, sizes)) for rank in range(prod(sizes[axis] for axis in AXES))]


def _on_rank(fn: Callable, rank: int, sizes: Sizes) -> Made:
    made: list[list[int]] = []
    handles: dict[int, tuple[object, list[int]]] = {}

    def new_group(ranks: Any) -> object:
        made.append([int(each) for each in ranks])
        handle = object()
        handles[id(handle)] = handle, made[-1]
        return handle

    returned = fn(rank, dict(sizes), new_group)
    if type(returned) is not dict:
        raise TypeError(f"expected a dict of what new_group returned, by axis, and got {words(returned)}")
    return Made({axis: handles.get(id(one), (None, [-1]))[1] for axis, one in returned.items()}, made)


def _require_alike(made: list[list[int]]) -> None:
    all_made: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(all_made, made)
    for rank, other in enumerate(all_made):
        if other != all_made[0]:
            raise RuntimeError(
                f"with dist.new_group the ranks would wait for each other for ever: rank {rank} does not make the same"
                " groups in the same order as rank 0"
            )


def _heard(group: Any) -> list[int]:
    ranks = [torch.zeros(1, dtype=torch.int64) for _ in range(dist.get_world_size(group))]
    dist.all_gather(ranks, torch.tensor([dist.get_rank()]), group=group)
    return [int(each) for each in ranks]


def heard(outcome: Outcome) -> list:
    """Of `make_groups` on real ranks."""
    if not outcome.case.get("layout"):
        return outcome.results
    sizes = sizes_of(outcome.case["layout"])
    return [
        {f"whom it hears in its group of {axis}": group_of(axis, rank, sizes) for axis in (*AXES, *CUT_AGAIN)}
        for rank in range(outcome.ranks)
    ]


def _answers(outcome: Outcome) -> Iterator[tuple[str, Sizes, list[Made]]]:
    """For each layout its name, its sizes, and what was done on each rank."""
    for layout, of_ranks in zip(outcome.case["layouts"], outcome.results[0], strict=True):
        sizes = sizes_of(layout)
        yield " ".join(f"{axis}={size}" for axis, size in sizes.items()), sizes, [Made(*each) for each in of_ranks]


@grader
def groups_are_right(outcome: Outcome, axes: tuple[str, ...], advice: dict[str, str]) -> None:
    """On each rank the group of each axis has the ranks that it should, in their order; `advice` is by axis."""
    for layout, sizes, of_ranks in _answers(outcome):
        for rank, axis in product(range(len(of_ranks)), axes):
            got, right = of_ranks[rank].groups.get(axis), group_of(axis, rank, sizes)
            if got == right:
                continue
            seen = f"is {got}" if got and got != [-1] else "is missing" if got is None else "came from no new_group"
            about = "Ranks stand in a group in rising order." if sorted(got or []) == right else advice[axis]
            raise Wrong(f"{layout}: the group of {axis} of rank {rank} {seen}; expected {right}", about)


@grader
def made_alike(outcome: Outcome, advice: str) -> None:
    """Every rank makes the same groups, in the same order, also those that it is not in."""
    for layout, _, of_ranks in _answers(outcome):
        for rank, mine in enumerate(of_ranks):
            for number, (one, other) in enumerate(zip_longest(of_ranks[0].made, mine.made)):
                if one != other:
                    seen = f"{layout}: as its group number {number} rank {rank} makes {other or 'none'}"
                    raise Wrong(f"{seen}, and rank 0 makes {one or 'none'}", advice)


# The last task.


class Weight(NamedTuple):
    """A parameter of the whole model."""

    name: str
    shape: tuple[int, ...]
    stage: int
    cut: int | None = None  # the dimension along which the ranks of tp share it
    expert: int | None = None
    copy: int | None = None  # the other stage that has it


WIDTH, HIDDEN, VOCAB = 4, 8, 12


def model_of(sizes: Sizes) -> list[Weight]:
    """A tied embedding, and for each stage a norm, two cut matrices, and two experts per rank of ep."""
    last = sizes["pp"] - 1
    weights = [Weight("embedding.weight", (VOCAB, WIDTH), 0, copy=last if last else None)]
    for stage in range(sizes["pp"]):
        of = f"blocks.{stage}."
        weights += [Weight(f"{of}norm.weight", (WIDTH,), stage), Weight(f"{of}up.weight", (HIDDEN, WIDTH), stage, 0)]
        weights += [Weight(f"{of}up.bias", (HIDDEN,), stage, 0), Weight(f"{of}down.weight", (WIDTH, HIDDEN), stage, 1)]
        if sizes["ep"] > 1:
            experts = range(2 * sizes["ep"])
            weights += [Weight(f"{of}experts.{e}.weight", (WIDTH, 3), stage, expert=e) for e in experts]
    return weights


def whole_gradients(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """The gradients of the whole model; those of rank 0 are meant. With `ones` all are 1."""
    weights = model_of(sizes_of(case["layout"]))
    drawn = [torch.randn(weight.shape, generator=generator, dtype=torch.float64) for weight in weights]
    return ([torch.ones_like(each) for each in drawn] if case.get("ones") else drawn,)


def norm_of_all(fn: Callable, case: Case, gradients: list[Tensor]) -> dict:
    """`fn(held, at)` with this rank's parts of rank 0's gradients, and a frozen parameter that has none."""
    sizes = sizes_of(case["layout"])
    at, weights = place(dist.get_rank(), sizes), model_of(sizes)
    held = {"frozen.weight": {"gradient": None, "cut": False, "tied": False, "expert": False}}
    for weight, whole in zip(weights, from_rank_0(gradients), strict=True):
        if at["pp"] in (weight.stage, weight.copy) and (weight.expert is None or weight.expert // 2 == at["ep"]):
            part = whole if weight.cut is None else whole.chunk(sizes["tp"], weight.cut)[at["tp"]]
            kind = {"cut": weight.cut is not None, "tied": weight.copy is not None, "expert": weight.expert is not None}
            held[weight.name] = {"gradient": part.clone(), **kind}
    change_first_arrival(case)
    norm = fn(held, at)
    return {"the norm": float(norm) if isinstance(norm, Tensor) and norm.numel() == 1 else norm}


def whole_norm(outcome: Outcome) -> list[dict]:
    """Of `norm_of_all`. With a `mistake`, what it comes to."""
    sizes, (gradients,) = sizes_of(outcome.case["layout"]), outcome.inputs[0]
    weights, mistake = model_of(sizes), outcome.case.get("mistake", "")
    squares = [float(gradient.square().sum()) for gradient in gradients]

    def norm(stage: int) -> float:
        times = (_times(mistake, weight, sizes, stage) for weight in weights)
        return sum(n * square for n, square in zip(times, squares, strict=True)) ** 0.5

    return [{"the norm": norm(place(rank, sizes)["pp"])} for rank in range(outcome.ranks)]


def _times(mistake: str, weight: Weight, sizes: Sizes, stage: int) -> int:
    """How often a weight counts, on ranks of `stage`."""
    if mistake == "tp" and weight.cut is None:
        return sizes["tp"]
    if mistake == "dp" and weight.expert is None:
        return sizes["dp"] * sizes["cp"]
    if mistake == "tied" and weight.copy is not None:
        return 2
    if mistake == "stage":
        return stage in (weight.stage, weight.copy)
    return mistake != "experts" or (weight.expert or 0) < 2
