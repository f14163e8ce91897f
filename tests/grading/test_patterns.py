"""Usual mistakes with collectives, on hand-made outcomes: which are named, and which are not."""

import pytest
import torch

from parallel_lab.grading import expect
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.patterns import pattern
from parallel_lab.grading.rank_side import Case
from parallel_lab.trace import Span, Trace

A, B = torch.tensor([1.0, 5.0]), torch.tensor([3.0, 2.0])
SUM = A + B


def outcome(results, *kinds, given=None, right=(SUM, SUM), driven=False, root=-1):
    """Two ranks that had A and B, and called these `kinds` of operations."""
    spans = tuple(Span(rank, kind, 0, 1, peer=root, lane="send") for rank in (0, 1) for kind in kinds)
    inputs = [(A,), (B,)]
    after = [list(one) for one in inputs] if given is None else [[one] for one in given]
    return Outcome(Case(2), inputs, list(results), after, Trace(2, spans), lambda _: list(right), driven)


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (outcome([None, None], "all_reduce"), "You return None. all_reduce works in place and returns None"),
        (outcome([None, None], "send", "recv"), "You return None: return the tensor"),
        (outcome([A, B], "all_reduce"), "your own input. The result of all_reduce stands in what you passed to it: "),
        (outcome([A, B], "recv"), "The result of recv stands in"),
        (outcome([A, B], "all_reduce", given=[SUM, SUM]), "That was your argument, which is changed now"),
        (outcome([A, B]), "nothing came from another rank"),
        (outcome([A, B], "send"), "nothing came from another rank"),
        (outcome([SUM / 2] * 2, "all_reduce"), "That is the mean of what the ranks gave"),
        (outcome([torch.maximum(A, B)] * 2, "all_reduce"), "That is the largest"),
        (outcome([torch.minimum(A, B)] * 2, "all_reduce"), "That is the smallest"),
        (outcome([A] * 2, "broadcast", root=0), "A broadcast hands out what one rank has, here rank 0"),
        (outcome([A * B] * 2, "all_reduce"), "That is the product"),
        (outcome([SUM, B], "reduce", root=0), "On which ranks does reduce leave its result?"),
    ],
)
def test_usual_mistake_is_named(seen, said):
    assert said in pattern(seen, 1)


@pytest.mark.parametrize(
    "seen",
    [
        outcome([B, A], "recv"),  # the other's
        outcome([A, SUM + 1], "all_reduce"),  # rank 0 alone returns its own: something else is wrong
        outcome([SUM / 2] * 2, "all_reduce", right=(A, B)),  # no sum is asked for
        outcome([A, B], driven=True),
        outcome([None, None], right=(None, None)),
    ],
)
def test_other_mistake_is_not_called_by_a_wrong_name(seen):
    assert pattern(seen, 1) == ""


ALL = torch.stack([A, B, SUM])  # what three ranks had


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([A, SUM, B], "Row 1 is the tensor of rank 2."),
        ([A, SUM, SUM], "More than one row is the tensor of rank 2: pass on what came in"),
        ([A, B, B], "More than one row is the tensor of rank 1: was each received into memory of its own?"),
        ([A, B, 0 * A], "Row 2 is no rank's tensor"),
        ([A, A, SUM], "Row 1 is the tensor of rank 0."),
    ],
)
def test_row_that_is_the_tensor_of_another_rank_is_named(rows, said):
    results = [torch.stack(rows), ALL, ALL]
    seen = Outcome(Case(3), [(A,), (B,), (SUM,)], results, [], Trace(3, ()), lambda _: [ALL] * 3)
    assert pattern(seen, 0).startswith(said)


def test_one_rank_is_not_told_that_nothing_came():
    seen = Outcome(Case(1), [(A,)], [A], [[A]], Trace(1, ()), lambda _: [torch.stack([A])])
    assert pattern(seen, 0) == ""


def broadcast(results, root, **settings):
    """An outcome of ranks that had A and B, and filled their tensors in place."""
    case = Case(2, tuple({"root": root, **settings}.items()))
    return Outcome(case, [(A,), (B,)], results, [], Trace(2, ()), lambda _: [(A, B)[root]] * 2, driven=True)


def test_the_tensor_of_another_rank_than_the_root_is_named():
    said = "What came is the tensor of rank {}, and not that of the root, rank {}: does your code use `root`?"
    assert pattern(broadcast([A, A], 1), 0) == said.format(0, 1)
    assert pattern(broadcast([B, A], 0), 0) == said.format(1, 0)  # the root alone holds what it should not
    assert pattern(broadcast([SUM, A], 1), 0) == "", "rank 0 holds another thing than rank 1"
    assert pattern(broadcast([B, B], 1), 0) == ""


def test_the_mistake_stands_before_the_advice_of_the_exercise():
    with pytest.raises(Wrong, match="at 2 ranks: rank 0: got None") as caught:
        expect.equals("Sum up.")(outcome([None, None], "all_reduce"))
    filled = "You return None. all_reduce works in place and returns None: return the tensor that it has filled."
    assert caught.value.advice == filled, "nothing was returned, so nothing is said of values"
    with pytest.raises(Wrong) as caught:
        expect.equals("Sum up.")(outcome([(A + B) / 2] * 2, "all_reduce"))
    assert caught.value.advice.startswith("That is the mean ") and caught.value.advice.endswith(" Sum up.")
    with pytest.raises(Wrong) as caught:
        expect.equals("Sum up.")(outcome([B, A], "recv"))
    assert caught.value.advice == "Sum up."
