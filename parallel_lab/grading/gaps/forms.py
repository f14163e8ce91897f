"""What gaps are made of. Most are a function of a few plain values, compared with the right one call by call."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from parallel_lab.grading import drivers
from parallel_lab.grading.exercise import Exercise, on
from parallel_lab.grading.expect import grader
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.rank_side import Opaque, name, plain
from parallel_lab.grading.values import differ

NEVER_RETURNS = "Your function returns None: is there a `return`?"
NO_RETURN = "In this call your function returns None: does each of its branches end in a `return`?"
# Where None is the right answer of some calls:
ALWAYS_NONE = "Your function returns None in each call: is a `return` missing, or a condition never met?"
HERE_NONE = (
    "In this call your function returns None: is a condition not met here that should be, or is a `return` missing?"
)
Calls = Sequence[tuple] | Callable[[Random], Sequence[tuple]]  # the arguments of each call, or what draws them


@dataclass
class FunctionGap(Exercise):
    """A gap whose usual wrong answers are known, each with the advice for who has it."""

    mistakes: Sequence[tuple[str, Callable]] = ()


def function_gap(
    answer: Callable, tests: Mapping[str, Calls], mistakes: Mapping[str, Callable | Sequence[Callable]]
) -> FunctionGap:
    """The gap with name and parameters of `answer`, which is right. One rank makes the calls of all `tests`, by title.

    An answer that is one of the `mistakes` in all calls of a test gets the advice under which this stands, alone or
    with others; one that fits all tests goes first.
    """
    known = [
        (said, wrong)
        for said, those in mistakes.items()
        for wrong in (those if isinstance(those, Sequence) else [those])
    ]
    return FunctionGap(
        name=answer.__name__,
        gap=True,
        mistakes=known,
        device="cpu",
        given=drivers.calls,
        drive=drivers.call_each,
        settings={"calls": tuple(tests.values())},
        expected=lambda outcome: [[[answer(*call) for call in calls] for calls in outcome.inputs[0]]],
        tests={title: on(1, returns(place, answer, known)) for place, title in enumerate(tests)},
    )


@grader
def returns(outcome: Outcome, place: int, answer: Callable, mistakes: Sequence[tuple[str, Callable]]) -> None:
    """Each call of test number `place` returns what `answer` does."""
    calls, got, expected = outcome.inputs[0][place], outcome.results[0][place], outcome.expected[0][place]
    wrong = [i for i in range(len(calls)) if not alike(got[i], expected[i])]
    if not wrong:
        return
    first = wrong[0]
    named = zip(inspect.signature(answer).parameters, calls[first], strict=True)
    call = f"{answer.__name__}({', '.join(f'{parameter}={written(value)}' for parameter, value in named)})"
    others = f"; wrong in {len(wrong)} of {len(calls)} calls" if len(calls) > 1 else ""
    seen = f"{call} returned {_compared(got[first], plain(expected[first]))}{others}"  # got is plain as well
    of_none = any(one is None for of_test in outcome.expected[0] for one in of_test)
    if all(one is None for of_test in outcome.results[0] for one in of_test):
        raise Wrong(seen, ALWAYS_NONE if of_none else NEVER_RETURNS)
    if said := _known(outcome, place, mistakes):
        raise Wrong(seen, said)
    raise Wrong(seen, "" if got[first] is not None else HERE_NONE if of_none else NO_RETURN)


def _compared(got: Any, expected: Any) -> str:
    """What was returned and what was expected; of a list only where it first differs, for all of it is the answer."""
    if isinstance(expected, list) and len(expected) > 1:
        if not isinstance(got, list):
            return f"{written(got)}, expected a list of {len(expected)}"
        if len(got) != len(expected):
            return f"{written(got)}, which has {len(got)} item{'s' * (len(got) != 1)}; expected {len(expected)}"
        place = next(place for place, pair in enumerate(zip(got, expected, strict=True)) if not alike(*pair))
        return f"{written(got)}; item {place} is {_unlike(got[place], expected[place])}"
    return _unlike(got, expected)


def _unlike(got: Any, expected: Any) -> str:
    """Both values, in as many digits as tell them apart."""
    returned, right = written(got), written(expected)
    return f"{got!r}, expected {expected!r}" if returned == right else f"{returned}, expected {right}"


def _known(outcome: Outcome, place: int, mistakes: Sequence[tuple[str, Callable]]) -> str:
    """The advice of the mistake that explains test number `place`, best with the other tests; empty if none does."""

    def explains(other: Callable, test: int) -> bool:
        calls, got = outcome.inputs[0][test], outcome.results[0][test]
        return all(map(alike, got, [other(*call) for call in calls]))

    found = [(said, other) for said, other in mistakes if explains(other, place)]
    tests = range(len(outcome.inputs[0]))
    said, _ = max(found, key=lambda known: sum(explains(known[1], test) for test in tests), default=("", None))
    return said


@grader
def is_not(outcome: Outcome, mistake: str, made: Callable[[Outcome], Any], advice: str) -> None:
    """Wrong results are not what a usual mistake, `made` of the outcome, would be on every rank."""
    got = outcome.results
    if differ(got, outcome.expected) and not differ(got, [made(outcome)] * outcome.ranks):
        raise Wrong(f"{outcome.at}: every rank returned {mistake}", advice)


def alike(got: Any, expected: Any) -> bool:
    """Whether `got` is `expected`, numbers but for rounding, of whatever type."""
    if isinstance(expected, list | tuple):
        return isinstance(got, list | tuple) and len(got) == len(expected) and all(map(alike, got, expected))
    if type(got) in (int, float) and type(expected) in (int, float):
        return math.isclose(got, expected, rel_tol=1e-9, abs_tol=1e-12)
    return not differ(got, expected)


def written(value: Any) -> str:
    """`value` as a learner would type it, numbers in six digits, or in so many that a part of one is seen."""
    if isinstance(value, float) and value % 1 and 1e4 <= abs(value) < 1e12:
        return f"{value:.2f}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple) and not isinstance(value, Opaque):
        items = ", ".join(map(written, value))
        return f"[{items}]" if isinstance(value, list) else f"({items})"
    return name(value)
