"""Graders for batches of unequal sequences, judged by what the slowest rank has to do, without running a model.

An answer is a function of the lengths of a batch's sequences, of the ranks, the model's width and the ranks' speeds; it
returns the sequences of each rank. A driver calls it for several batches (`drivers.call_each`), and the kernel looks at
what it returned. `on_one_rank` is the first grader of each test: the others read groups that are a cut of the batch.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from numbers import Number
from typing import Any, NamedTuple

from parallel_lab.grading.expect import grader
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.rank_side import name
from parallel_lab.systems.balance import sequences
from parallel_lab.trace.units import format_share

Groups = list[list[int]]
Mistake = Callable[["Problem", Groups], bool]  # whether this cut is a usual wrong one
NEAR = 0.05
LOST = "A gradient without a sequence is another gradient, and one that counts twice as well."
NUMBERS = "A rank gets the places of its sequences in the list, counted from 0, and not their lengths."


class Problem(NamedTuple):
    """What one call is given."""

    lengths: list[int]
    n: int
    width: int | None
    speeds: list[float] | None

    def costs(self, width: int | None) -> list[float]:
        """What each sequence costs a model of this width; its tokens without one."""
        return [sequences.work(length, width) if width else length for length in self.lengths]

    def times(self, groups: Groups, width: int | None = None, speeds: list[float] | None = None) -> list[float]:
        """How long each rank takes, for this cost and these speeds."""
        loads = sequences.loads(groups, self.costs(width))
        return [load / speed for load, speed in zip(loads, speeds or [1.0] * self.n, strict=True)]

    def above(self, groups: Groups, width: int | None = None, speeds: list[float] | None = None) -> float:
        """By what share the slowest rank takes longer than the lower bound, for this cost and these speeds."""
        costs, most = self.costs(width), max(self.times(groups, width, speeds))
        speeds = speeds or [1.0] * self.n
        return most / max(sum(costs) / sum(speeds), max(costs) / max(speeds)) - 1

    def __str__(self) -> str:
        work = f", work for a width of {self.width}" if self.width else ""
        fast = f", speeds {', '.join(f'{speed:g}' for speed in self.speeds)}" if self.speeds else ""
        ranks = f"{self.n} rank{'s' * (self.n > 1)}"
        return f"{len(self.lengths)} sequences of {sum(self.lengths):,} tokens on {ranks}{work}{fast}"


@grader
def on_one_rank(outcome: Outcome) -> None:
    """Each sequence is on one rank, and there is a list a rank."""
    for problem, groups in _answers(outcome):
        if type(groups) is not list or len(groups) != problem.n or not all(map(_is_numbers, groups)):
            inside = f", {name(groups[0])} first" if type(groups) is list and groups else ""
            got = f"{name(groups)}{inside}"
            raise Wrong(f"{problem}: expected a list of {problem.n} lists of numbers, and got {got}")
        found = Counter(item for group in groups for item in group)
        if strangers := [item for item in found if item not in range(len(problem.lengths))]:
            raise Wrong(f"{problem}: there is no sequence {name(strangers[0])}", NUMBERS)
        for item in range(len(problem.lengths)):
            if found[item] != 1:
                raise Wrong(f"{problem}: sequence {item} is on {found[item]} ranks, expected one", LOST)


@grader
def is_even(outcome: Outcome, most: float, mistakes: Mapping[str, Mistake], advice: str) -> None:
    """The slowest rank takes at most `most` longer than the bound; `mistakes` tell usual cuts, by their advice."""
    for problem, groups in _answers(outcome):
        above = problem.above(groups, problem.width, problem.speeds)
        if above > most:
            known = [said for said, has in mistakes.items() if has(problem, groups)]
            costs = problem.costs(problem.width)
            loads = [round(load) for load in sequences.loads(groups, costs)]
            seen = f"{problem}: the ranks have {', '.join(f'{load:,}' for load in loads)}"
            late = f"the slowest takes {format_share(above)} longer than the lower bound, at most {format_share(most)}"
            raise Wrong(f"{seen}; {late}", known[0] if known else advice)


def equal_numbers(problem: Problem, groups: Groups) -> bool:
    """As many sequences a rank, whatever their length."""
    counts = list(map(len, groups))
    return max(counts) - min(counts) <= 1 and not dealt(problem, groups)


def dealt(problem: Problem, groups: Groups) -> bool:
    """Sorted, and dealt round: at each turn the first rank gets the longest."""
    order = sorted(range(len(problem.lengths)), key=lambda item: -problem.lengths[item])
    lengths = [sorted(problem.lengths[item] for item in group) for group in groups]
    dealt = [sorted(problem.lengths[item] for item in order[rank :: problem.n]) for rank in range(problem.n)]
    return sorted(lengths) == sorted(dealt)


def of_tokens(problem: Problem, groups: Groups) -> bool:
    """Even in tokens, where the work counts."""
    return problem.width is not None and _even(problem.times(groups, None, problem.speeds))


def of_equal_ranks(problem: Problem, groups: Groups) -> bool:
    """Even in work, whatever the speeds."""
    return problem.speeds is not None and _even(problem.times(groups, problem.width))


def _even(times: list[float]) -> bool:
    return max(times) < (1 + NEAR) * min(times)


def _is_numbers(group: Any) -> bool:
    return type(group) is list and all(isinstance(item, Number) for item in group)


def _answers(outcome: Outcome) -> Iterator[tuple[Problem, Groups]]:
    """For each call: what it was given, and what was returned."""
    for call, groups in zip(outcome.inputs[0][0], outcome.results[0][0], strict=True):
        yield Problem(*call), groups
