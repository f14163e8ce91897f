"""Usual mistakes with collectives, told from what a rank returned, what it was given and what it called.

They are those of a function that returns what it is asked for; what a driver looks at says less of the line to mend.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from parallel_lab.grading.added import mistake_in_sum
from parallel_lab.grading.rank_side import ARRIVING, TO_ROOT
from parallel_lab.grading.trial import Outcome, leaves
from parallel_lab.grading.values import differ
from parallel_lab.plan import COMPUTE
from parallel_lab.trace import Span

MESSAGES = ("send", "recv")
SUMMING = ("all_reduce", "reduce_scatter", "reduce")  # with any other `op` they do something else
OTHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "the mean of what the ranks gave: their sum, divided by the number of ranks": lambda given: given.mean(0),
    "the largest that a rank gave": lambda given: given.amax(0),
    "the smallest that a rank gave": lambda given: given.amin(0),
    "the product of what the ranks gave": lambda given: given.prod(0),
}


def pattern(outcome: Outcome, rank: int) -> str:
    """What is wrong with what `rank` returned, if it is a usual mistake; empty if it is none of these."""
    if other := _of_another_root(outcome):
        return other
    if outcome.driven or outcome.expected[rank] is None:
        return ""
    called = [s for s in outcome.trace.of(rank) if s.lane != COMPUTE]
    brought = [s for s in called if s.kind in ARRIVING]
    if outcome.results[rank] is None:
        return _nothing(called)
    if brought and brought[-1].kind == "broadcast" and _given_to_sum(outcome) is not None:
        return f"A broadcast hands out what one rank has, here rank {brought[-1].peer}: nothing was added up."
    if other := _other(outcome):
        by = next((f" {s.kind} sums unless its `op` says otherwise." for s in brought if s.kind in SUMMING), "")
        return f"That is {other}.{by}"
    if brought and brought[-1].kind in TO_ROOT and brought[-1].peer != rank:
        return f"On which ranks does {brought[-1].kind} leave its result?"
    if _all_return_their_own(outcome):
        return _own(outcome, rank, brought) if outcome.ranks > 1 else ""
    if rows := _rows(outcome, rank):
        return _mistake_in_rows(rows, rank)
    return mistake_in_sum(outcome, rank) if _given_to_sum(outcome) is not None else ""


def _of_another_root(outcome: Outcome) -> str:
    """Of an operation with a `root`: whose tensor came in place of the root's, if it was the same one's everywhere."""
    root, given = outcome.case.get("root"), [next(leaves(one), None) for one in outcome.inputs]
    if root is None:
        return ""
    wrong = [got for got, right in zip(outcome.results, outcome.expected, strict=True) if differ(got, right)]
    for other, tensor in enumerate(given):
        if other != root and tensor is not None and wrong and not any(differ(got, tensor) for got in wrong):
            came = f"What came is the tensor of rank {other}, and not that of the root, rank {root}"
            return f"{came}: does your code use `root`?"
    return ""


def _nothing(called: list[Span]) -> str:
    """Of a rank that returned None, as what works in place does."""
    if not called or called[-1].kind in MESSAGES:
        return "You return None: return the tensor that holds the result."
    return f"You return None. {called[-1].kind} works in place and returns None: return the tensor that it has filled."


def _given_to_sum(outcome: Outcome) -> Tensor | None:
    """The one tensor that each rank was given, stacked, where the sum of them is what is asked; None elsewhere."""
    of_one = [one[0] for one in outcome.inputs if len(one) == 1 and isinstance(one[0], Tensor)]
    if len(of_one) < outcome.ranks or len({one.shape for one in of_one}) > 1:
        return None
    given = torch.stack(of_one)
    asked = given.is_floating_point() and not differ(outcome.expected, [given.sum(0)] * outcome.ranks)
    return given if asked else None


def _other(outcome: Outcome) -> str:
    """What the ranks made of their one tensor each in place of the sum, if they all made the same."""
    given = _given_to_sum(outcome)
    if given is None or outcome.ranks < 2:
        return ""
    same = (word for word, make in OTHERS.items() if not differ(outcome.results, [make(given)] * outcome.ranks))
    return next(same, "")


def _rows(outcome: Outcome, rank: int) -> list[int | None]:
    """Whose tensor each row of the result is, None for nobody's; empty where not the tensors of all are asked for."""
    given, got = [one for inputs in outcome.inputs for one in leaves(inputs)], outcome.results[rank]
    if len(given) != outcome.ranks or len({one.shape for one in given}) > 1 or not isinstance(got, Tensor):
        return []
    stacked = torch.stack(given)
    if got.shape != stacked.shape or differ(outcome.expected, [stacked] * outcome.ranks):
        return []
    of = ((source for source, one in enumerate(given) if not differ(row, one)) for row in got)
    return [next(sources, None) for sources in of]


def _mistake_in_rows(rows: list[int | None], rank: int) -> str:
    """What is wrong with the rows of `rank`, which should be the tensors of all ranks in their order."""
    twice = [source for source in rows if source is not None and rows.count(source) > 1]
    if twice and twice[0] == (rank - 1) % len(rows):
        return f"More than one row is the tensor of rank {twice[0]}: pass on what came in, and not your own each time."
    if twice and twice[0] != rank:
        return f"More than one row is the tensor of rank {twice[0]}: was each received into memory of its own?"
    if None in rows:
        return f"Row {rows.index(None)} is no rank's tensor: how many come in, and where is each put?"
    row = next((row for row, source in enumerate(rows) if source != row), 0)
    return f"Row {row} is the tensor of rank {rows[row]}."


def _all_return_their_own(outcome: Outcome) -> bool:
    """Whether each rank whose result is wrong returned an argument as it was before the call."""
    ranks = zip(outcome.results, outcome.expected, outcome.inputs, strict=True)
    return all(_is_own(got, given) for got, expected, given in ranks if differ(got, expected))


def _is_own(got: Any, given: tuple) -> bool:
    return any(isinstance(one, Tensor | list) and not differ(got, one) for one in given)


def _own(outcome: Outcome, rank: int, brought: list[Span]) -> str:
    """Of a rank that returned its own input: where the result stands, and whether the argument was changed."""
    if not brought:
        return "You return your own input, and nothing came from another rank."
    where = f"What you return is your own input. The result of {brought[-1].kind} stands in what you passed to it"
    if brought[-1].kind == "recv":
        return f"{where}, once it was waited for: is it used, and only then?"
    if differ(outcome.given[rank], outcome.inputs[rank]):
        return f"{where}. That was your argument, which is changed now: pass a copy, and return the copy."
    return f"{where}: return that."
