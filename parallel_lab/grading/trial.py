"""One case of an exercise with its inputs: what a check runs, and what a learner can run again and look into."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from parallel_lab.grading.rank_side import Case, drawn, graded
from parallel_lab.runtime import Run, launch
from parallel_lab.trace import Trace

SHOWN_INPUTS = 4  # tensors of a rank that a description names


@dataclass
class Outcome:
    """One run of the learner's function on all ranks."""

    case: Case  # what was run
    inputs: list[tuple]  # the arguments of each rank, made again in the kernel
    results: list[Any]  # what each rank returned, in plain tensors, numbers, lists and dicts
    given: list[Any]  # each rank's arguments as they were after the call
    trace: Trace  # what was recorded
    expect: Callable[["Outcome"], list] = lambda outcome: outcome.results  # computes what each rank should return
    driven: bool = False  # whether a driver called the function, and `results` are what it looked at

    @cached_property
    def expected(self) -> list:
        """What each rank should return."""
        return self.expect(self)

    @property
    def ranks(self) -> int:
        """How many there were."""
        return self.case.ranks

    @property
    def at(self) -> str:
        """`at 3 ranks`, to begin a message with."""
        return self.case.at


@dataclass(frozen=True)
class Trial:
    """One case of an exercise, and the seed that its inputs are drawn from."""

    exercise: Any
    case: Case
    seed: int

    @cached_property
    def inputs(self) -> list[tuple]:
        """The arguments of each rank's call; a driver may wrap them in more."""
        return [drawn(self.exercise.given, self.case, rank, self.seed) for rank in range(self.case.ranks)]

    @cached_property
    def expected(self) -> list:
        """What each rank should return, or what its driver should see; None where more than one result is right."""
        return self._outcome([None] * self.case.ranks).expected

    def run(self, fn: Callable, **options: Any) -> Run:
        """Runs `fn` on these inputs as the check does, shows what its ranks print, and hands back what it returned.

        `options` are those of `launch`. What it raises is what `launch` raises.
        """
        run = self.launch(fn, **options)
        return replace(run, results=[result for result, *_ in run.results])

    def launch(self, fn: Callable, **options: Any) -> Run:
        """As `run`; each result is that of `graded`."""
        task = self.exercise
        settings = {"ranks": self.case.ranks, "link": self.case.get("link"), "device": task.device, **options}
        return launch(graded, fn, self.case, task.given, task.drive, self.seed, **settings)

    def outcome(self, run: Run) -> Outcome:
        """What graders look at."""
        results, given, *_ = map(list, zip(*run.results, strict=True))
        return replace(self._outcome(results), given=given, trace=run.trace)

    def _outcome(self, results: list) -> Outcome:
        ranks, task = self.case.ranks, self.exercise
        nothing = [()] * ranks, Trace(ranks, ())
        return Outcome(self.case, self.inputs, results, *nothing, task.expected, task.drive is not None)

    @property
    def call(self) -> str:
        """What a learner pastes to have this trial: it names the settings without which it would be another case."""
        named = [(name, value) for name, value in self.case.settings if repr(value) == _typed(value)]
        start = f'case("{self.exercise.name}", ranks={self.case.ranks}, seed={self.seed}'
        for count in range(len(named) + 1):
            if case_of(self.exercise, self.case.ranks, dict(named[:count])) == self.case:
                return start + "".join(f", {name}={value!r}" for name, value in named[:count]) + ")"
        return f"{start}, number={_cases(self.exercise).index(self.case)})"

    @property
    def words(self) -> str:
        """World, shapes, dtypes and seed: `3 ranks, each with a float64 tensor of shape (7,); seed 4711`."""
        ranks = f"{self.case.ranks} rank" + "s" * (self.case.ranks > 1)
        each = [_named(inputs) for inputs in self.inputs]
        if not any(each):
            return f"{ranks}; seed {self.seed}"
        if len(set(each)) == 1:
            return f"{ranks}{', each' * (len(each) > 1)} with {each[0]}; seed {self.seed}"
        told = "; ".join(f"rank {rank} with {words or 'nothing'}" for rank, words in enumerate(each))
        return f"{ranks}: {told}; seed {self.seed}"

    def __repr__(self) -> str:
        return f"<{self.exercise.name}: {self.words}. Look at .inputs and .expected, and try .run(fn).>"


def case_of(exercise: Any, ranks: int, settings: dict[str, Any], number: int | None = None) -> Case:
    """The first case of the exercise's tests with so many ranks and these settings, or the one with this number.

    If there is none, it is a new one.
    """
    if number is not None:
        return _cases(exercise)[number]
    fits = (c for c in _cases(exercise) if c.ranks == ranks and all(c.get(k) == value for k, value in settings.items()))
    return next(fits, Case(ranks, tuple(settings.items()), tuple(exercise.settings.items())))


def _cases(exercise: Any) -> list[Case]:
    defaults = tuple(exercise.settings.items())
    return [replace(case, defaults=defaults) for checks in exercise.tests.values() for case, _ in checks]


def _typed(value: Any) -> str:
    """How a learner would type a plain value; empty for anything else."""
    plain = isinstance(value, bool | int | float | str) or (
        isinstance(value, tuple) and all(_typed(item) for item in value)
    )
    return repr(value) if plain else ""


def _named(inputs: Any) -> str:
    """The tensors among the arguments of a rank, equal ones counted together."""
    counted: dict[str, int] = {}
    for tensor in leaves(inputs):
        word = f"{str(tensor.dtype).removeprefix('torch.')} tensor{{}} of shape {tuple(tensor.shape)}"
        counted[word] = counted.get(word, 0) + 1
    words = [f"a {word.format('')}" if n == 1 else f"{n} {word.format('s')}" for word, n in counted.items()]
    more = f" and {len(words) - SHOWN_INPUTS} more kinds" if len(words) > SHOWN_INPUTS else ""
    return ", ".join(words[:SHOWN_INPUTS]) + more


def leaves(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in lists, tuples and dicts of them."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item)
