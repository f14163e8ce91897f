"""Chapter 00, the warm-up: every rank gives a number, every rank gets the sum, in one collective.

A reduce leaves the sum on one rank; an all-reduce leaves it on all. Data-parallel training needs the second, because
every rank then takes the optimizer's step for itself.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.distributed as dist

from parallel_lab.course import inputs
from parallel_lab.course.exercise import Exercise
from parallel_lab.course.lab import WORLDS, Lab, Outcome, Wrong
from parallel_lab.course.values import right_everywhere, unchanged
from parallel_lab.plan import COMPUTE
from parallel_lab.runtime.rank.backend import LabGroup

NUMBER: tuple[int, ...] = ()  # the shape of one number


def _sums(outcome: Outcome, more: float = 0.0) -> list:
    total = torch.stack([given[0] for given in outcome.inputs]).sum()
    return [total + more] * outcome.ranks


def _run(fn: Callable, lab: Lab, ranks: int) -> Outcome:
    return lab.run(fn, ranks, partial(inputs.normal, shape=NUMBER), key="sum")


def numbers(fn: Callable, lab: Lab) -> None:
    """Every rank returns the sum of all ranks' numbers, and keeps its own, at 1 to 4 ranks."""
    for ranks in WORLDS:
        outcome = _run(fn, lab, ranks)
        advice = "Each rank must get the sum of the numbers of all ranks. Which ranks does your operation leave it on?"
        right_everywhere(outcome, _sums(outcome), advice)
        unchanged(outcome)


def one_collective(fn: Callable, lab: Lab) -> None:
    """Each rank calls one collective that leaves the sum on every rank, and nothing else."""
    for ranks in WORLDS[1:]:
        outcome = _run(fn, lab, ranks)
        for rank in range(ranks):
            called = [span.kind for span in outcome.trace.of(rank) if span.lane != COMPUTE]
            if called != ["all_reduce"]:
                raise Wrong(
                    f"{outcome.at}: rank {rank} called {', '.join(called) or 'nothing'}; one all_reduce is enough",
                    "Every message costs a latency. Is there one operation that sums and leaves the sum everywhere?",
                )


def really_summed(fn: Callable, lab: Lab) -> None:
    """The sum is what that collective brought."""
    make = partial(inputs.normal, shape=NUMBER)
    outcome = lab.run(partial(_with_one_more, fn), 3, make)
    advice = "The last rank's number was made larger by one as it entered the collective. The sum must show it."
    right_everywhere(outcome, _sums(outcome, more=1.0), advice)


def _with_one_more(fn: Callable, number: torch.Tensor):
    """Calls `fn` with a process group that adds one to what the last rank gives to an all-reduce."""
    allreduce = LabGroup.allreduce  # pyright: ignore[reportAttributeAccessIssue] (added by name)

    def changed(self, tensors, *options):
        tensors[0].add_(1)
        return allreduce(self, tensors, *options)

    if dist.get_rank() == dist.get_world_size() - 1:
        LabGroup.allreduce = changed  # pyright: ignore[reportAttributeAccessIssue]
    return fn(number)


EXERCISE = Exercise(
    name="sum_of_ranks",
    title="Warm-up: the sum of all ranks' numbers, on every rank",
    level="easy",
    minutes=5,
    tests=(numbers, one_collective, really_summed),
    notebook="00_start_here",
)
