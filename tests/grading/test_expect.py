"""The vocabulary of graders: on hand-made outcomes, so that every word is seen to fail and to pass."""

import pytest
import torch

from parallel_lab.grading import expect
from parallel_lab.grading.expect import rounds
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.rank_side import Case
from parallel_lab.grading.values import same
from parallel_lab.trace import Span, Trace


def outcome(spans, ranks=3, results=(), inputs=(), given=(), right=()):
    case, nothing = Case(ranks), [()] * ranks
    data = list(inputs or nothing), list(results), list(given or nothing)
    return Outcome(case, *data, Trace(ranks, tuple(spans)), expect=lambda _: right)


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


def test_words_say_expected_and_seen():
    star = outcome(STAR, 4)
    expect.sends("a tree sends", lambda n: 24, least=lambda n: 6)(star)
    with pytest.raises(Wrong, match=r"^at 4 ranks: rank 0 sent 24 B, a tree sends 16 B$"):
        expect.sends("a tree sends", lambda n: 16)(star)
    with pytest.raises(Wrong, match=r"^at 4 ranks: the ranks sent 24 B together; a ring sends 96 B and cannot do with"):
        expect.sends("a ring sends", lambda n: 24)(star)
    expect.messages("x", lambda n: 3)(star)
    with pytest.raises(Wrong, match=r"^at 4 ranks: rank 0 sent 3 messages, a tree sends 2$"):
        expect.messages("a tree sends", lambda n: 2)(star)
    with pytest.raises(Wrong, match=r"^at 4 ranks: rank 1 sent 0 messages, a ring sends 3$") as caught:
        expect.messages("a ring sends", lambda n: 3, "Less.", few="More.")(star)
    assert caught.value.advice == "More."
    expect.takes_rounds("x", lambda n: 3)(star)
    with pytest.raises(Wrong, match=r"^at 4 ranks: the messages took 3 rounds, a tree takes 2$"):
        expect.takes_rounds("a tree takes", lambda n: 2)(star)
    expect.peers(lambda n: 1)(outcome(RING))
    with pytest.raises(Wrong, match=r"^at 4 ranks: rank 0 sent to ranks 1, 2, 3; expected 1$"):
        expect.peers(lambda n: 1)(star)


def test_forbidden_kind_names_the_line():
    spans = [Span(1, "all_reduce", 0, 1, lane="send", line="cell:3")]
    expect.forbids("barrier")(outcome(spans))
    with pytest.raises(Wrong, match=r"rank 1 called all_reduce \(cell:3\)"):
        expect.forbids()(outcome(spans))


def test_result_that_survives_a_changed_message_is_caught():
    right = [torch.ones(2)] * 2
    expect.heard()(outcome([], 2, results=[torch.ones(2), torch.zeros(2)], right=right))
    with pytest.raises(Wrong, match="was changed on the way, and every rank was still right"):
        expect.heard()(outcome([], 2, results=right, right=right))


def test_usual_mistake_is_called_by_its_name():
    def summed(outcome):
        return [{"sum": outcome.case.get("factor", 1)}]

    doubled = expect.unlike("sum", {"it was doubled": {"factor": 2}}, "")
    doubled(Outcome(Case(1), [], [{"sum": 3}], [], Trace(1, ()), expect=summed))
    with pytest.raises(Wrong, match=r"^at 1 rank: it was doubled$"):
        doubled(Outcome(Case(1), [], [{"sum": 2}], [], Trace(1, ()), expect=summed))


WANTED = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("got", "said"),
    [
        (WANTED * 3, "element 2 is 12, expected 4; every element is 3 times what it should be"),
        (WANTED.float(), "got a torch.float32 tensor of shape (3,), expected a torch.float64 tensor"),
        (WANTED[:2], "of shape (2,)"),
        (WANTED + torch.tensor([0, 1e-9, 0]), "element 1 is 2, expected 2"),
        (WANTED * float("nan"), "element 0 is nan"),
        (None, "got None"),
        ([WANTED], "got a list of 1"),
    ],
)
def test_differences_are_named(got, said):
    with pytest.raises(Wrong) as caught:
        same(got, WANTED, "at 2 ranks: rank 0")
    assert said in caught.value.seen


def test_rounding_is_not_an_error():
    same(WANTED * (1 + 1e-15), WANTED, "x")


def test_items_of_a_dict_are_compared_by_name_with_advice_by_its_end():
    right = {"step 0: the weights of layer": [WANTED], "its files": ["a"]}
    same(right | {"held": 3}, right, "rank 0")
    with pytest.raises(Wrong, match=r"^rank 0, step 0: the weights of layer 0: element 0 is") as caught:
        same(right | {"step 0: the weights of layer": [WANTED + 1]}, right, "rank 0", {"of layer": "Look."})
    assert caught.value.advice == "Look."
    with pytest.raises(Wrong, match=r"^rank 0, its files: got \[\], expected \['a'\]$"):
        same(right | {"its files": []}, right, "rank 0")


def test_changed_input_is_named():
    expect.keeps_input()(outcome([], 1, inputs=[(WANTED,)], given=[[WANTED.clone()]]))
    with pytest.raises(Wrong, match="at 1 rank: rank 0 changed its input"):
        expect.keeps_input()(outcome([], 1, inputs=[(WANTED,)], given=[[WANTED + 1]]))


def test_wrong_rank_is_named():
    with pytest.raises(Wrong, match="at 2 ranks: rank 1: element 0"):
        expect.equals()(outcome([], 2, results=[WANTED, WANTED + 1], right=[WANTED, WANTED]))


A, B, C = (torch.arange(6.0) ** power + power for power in (2, 3, 4))
SUM = A + B + C


def joined(*chunks):
    return torch.cat(chunks)


@pytest.mark.parametrize(
    ("got", "said"),
    [
        (joined(SUM[:3], B[3:]), "elements 0 to 2 are right; 3 to 5 are its own input"),
        (joined(SUM[:2], (A + B)[2:]), "elements 0 to 1 are right; 2 to 5 are the sum of ranks 0 and 1 without rank 2"),
        (joined(C[:2], SUM[2:]), "elements 0 to 1 are rank 2's input; 2 to 5 are right"),
        (joined(SUM[:4], (SUM + A)[4:]), "4 to 5 are the sum of ranks 0, 1 and 2, rank 0 twice"),
        (joined(SUM[:4], 0.5 * SUM[4:]), "4 to 5 are 0.5 times what they should be"),
        (joined(SUM[:4], SUM[2:4]), "4 to 5 are what belongs in elements 2 to 3"),
        (joined(SUM[:4], 0 * A[4:]), "4 to 5 are zero"),
        (A, "every element is rank 0's input"),
    ],
)
def test_blocks_of_a_wrong_result_are_located(got, said):
    one = outcome([], 3, results=[SUM, got, SUM], inputs=[(A,), (B,), (C,)], right=[SUM] * 3)
    with pytest.raises(Wrong) as caught:
        expect.equals()(one)
    assert said in caught.value.seen


def test_too_few_bytes_are_no_suspicion():
    few = [Span(rank, "send", 0, 1, lane="send", sent_bytes=8) for rank in range(2)]
    for spans, said in ((few, "half of the bytes"), ([], "No bytes were sent")):
        with pytest.raises(Wrong) as caught:
            expect.sends("it sends", lambda n: 16)(outcome(spans, 2))
        assert said in caught.value.advice


def test_barrier_left_in_is_not_what_an_exercise_builds():
    with pytest.raises(Wrong) as caught:
        expect.forbids()(outcome([Span(1, "barrier", 0, 1, lane="send", line="/nowhere/cell.py:3")]))
    assert "rank 1 called barrier (cell.py, line 3)" in caught.value.seen
    assert caught.value.advice.startswith("A barrier carries no data.")


@pytest.mark.parametrize("got", [None, [], {"flops": 1}])
def test_a_result_that_lacks_an_item_is_wrong_and_no_crash(got):
    with pytest.raises(Wrong, match=r"at 1 rank: got .*, expected a dict with 'flops', 'bytes'"):
        same(got, {"flops": 1, "bytes": 2}, "at 1 rank")
