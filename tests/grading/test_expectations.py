"""What a trace must show: counted on hand-made traces, so that every expectation is seen to fail and to pass."""

import pytest
import torch

from parallel_lab.course.lab import Outcome, Wrong
from parallel_lab.course.mechanism import (
    expect_bytes,
    expect_heard,
    expect_messages,
    expect_rounds,
    expect_travel,
    forbid,
    peers,
    rounds,
)
from parallel_lab.course.values import right_everywhere, same, unchanged
from parallel_lab.trace import Span, Trace


def outcome(spans, ranks=3, results=(), inputs=(), given=()):
    return Outcome(ranks, list(inputs), list(results), list(given), Trace(ranks, tuple(spans)), ())


def message(sender, receiver, start, end, count=8, issued=None):
    """A send issued at `start` and its receive, posted at `issued` (default `start`) and over at `end`."""
    return [
        Span(sender, "send", start, end, peer=receiver, lane="send", bytes=count, sent_bytes=count, sent_messages=1),
        Span(receiver, "recv", start if issued is None else issued, end, peer=sender, lane="recv", bytes=count),
    ]


STAR = message(0, 1, 0, 1) + message(0, 2, 2, 3) + message(0, 3, 4, 5)
CHAIN = message(0, 1, 0, 1) + message(1, 2, 2, 3) + message(2, 3, 4, 5)
TREE = message(0, 2, 0, 1) + message(0, 1, 2, 3) + message(2, 3, 2, 3)
RING = [s for k in (0, 2, 4) for r in range(3) for s in message(r, (r + 1) % 3, k, k + 1)]
# Rank 1 got its message early but sent without looking at it: posted, sent, and only then waited.
NOT_DEPENDENT = [*message(0, 1, 0, 9), *message(1, 2, 5, 6)]


@pytest.mark.parametrize(
    ("spans", "count"),
    [(STAR, 3), (CHAIN, 3), (TREE, 2), (RING, 3), (NOT_DEPENDENT, 1), ([], 0)],
    ids=["star", "chain", "tree", "ring", "not dependent", "nothing"],
)
def test_rounds_is_the_longest_dependent_chain(spans, count):
    assert rounds(Trace(4, tuple(spans))) == count


def test_rounds_pairs_messages_in_order():
    spans = message(0, 1, 0, 1) + message(0, 1, 2, 3) + message(1, 0, 4, 5)
    assert rounds(Trace(2, tuple(spans))) == 3


def test_each_expectation_says_expected_and_seen():
    star = outcome(STAR, 4)
    assert peers(star.trace, 0) == {1, 2, 3}
    expect_bytes(star, lambda rank: 24, "a tree sends")
    with pytest.raises(Wrong, match=r"^at 4 ranks: rank 0 sent 24 B, a tree sends 16 B$"):
        expect_bytes(star, lambda rank: 16, "a tree sends")
    expect_messages(star, lambda rank: 3, "x")
    with pytest.raises(Wrong, match=r"^at 4 ranks: rank 0 sent 3 messages, a tree sends 2$"):
        expect_messages(star, lambda rank: 2, "a tree sends")
    expect_rounds(star, 3, "x")
    with pytest.raises(Wrong, match=r"^at 4 ranks: the messages took 3 rounds, a tree takes 2$"):
        expect_rounds(star, 2, "a tree takes")


def test_forbidden_kind_names_the_line():
    spans = [Span(1, "all_reduce", 0, 1, lane="send", line="cell:3")]
    forbid(outcome(spans), ["barrier"])
    with pytest.raises(Wrong, match=r"rank 1 called all_reduce \(cell:3\)"):
        forbid(outcome(spans))


def test_data_must_have_traveled():
    expect_travel(outcome(RING), lambda rank: 24, "a ring")
    with pytest.raises(Wrong, match="rank 0 sent 24 B by messages; a ring must send 25 B"):
        expect_travel(outcome(RING), lambda rank: 25, "a ring")


@pytest.mark.parametrize("lost", [0, 1])
def test_message_recorded_on_one_side_only_is_caught(lost):
    spans = [s for place, s in enumerate(RING) if place != lost]
    with pytest.raises(Wrong):
        expect_travel(outcome(spans), lambda rank: 8, "a ring")


def test_result_that_survives_a_changed_message_is_caught():
    right = [torch.ones(2)] * 2
    expect_heard(outcome([], 2, results=[torch.ones(2), torch.zeros(2)]), right)
    with pytest.raises(Wrong, match="one message was changed on the way"):
        expect_heard(outcome([], 2, results=right), right)


WANTED = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("got", "said"),
    [
        (WANTED * 3, "element 2 is 12, expected 4; every element is 3 times what it should be"),
        (WANTED.float(), "returned a torch.float32 tensor of shape (3,), expected a torch.float64 tensor"),
        (WANTED[:2], "of shape (2,)"),
        (WANTED + torch.tensor([0, 1e-9, 0]), "element 1 is 2, expected 2"),
        (WANTED * float("nan"), "element 0 is nan"),
        (None, "returned None"),
        ([WANTED], "returned a list of 1"),
    ],
)
def test_differences_are_named(got, said):
    with pytest.raises(Wrong) as caught:
        same(got, WANTED, "at 2 ranks: rank 0")
    assert said in caught.value.seen


def test_rounding_is_not_an_error():
    same(WANTED * (1 + 1e-15), WANTED, "x")


def test_changed_input_is_named():
    unchanged(outcome([], 1, inputs=[(WANTED,)], given=[[WANTED.clone()]]))
    with pytest.raises(Wrong, match="at 1 rank: rank 0 changed its input"):
        unchanged(outcome([], 1, inputs=[(WANTED,)], given=[[WANTED + 1]]))


def test_wrong_rank_is_named():
    with pytest.raises(Wrong, match="at 2 ranks: rank 1: element 0"):
        right_everywhere(outcome([], 2, results=[WANTED, WANTED + 1]), [WANTED, WANTED], "")
