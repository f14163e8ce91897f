"""The way out of a wait: told from hand-made reports and traces."""

import pytest

from parallel_lab.grading import stuck
from parallel_lab.grading.stuck import why_stuck, wrong_source
from parallel_lab.trace import Span, Trace

CIRCLE = "What is wrong: a circle: rank 0 waits for rank 1 in send(to rank 1), rank 1 waits for rank 0 in send(to 0)."


def ring(ranks, to, source):
    """Each rank has issued a send and, where `source` is not None, a receive: by how many ranks to the right."""
    way = [("send", to), *([("recv", source)] if source is not None else [])]
    spans = [
        Span(r, kind, 0, 0, peer=(r + by) % ranks, lane=kind, ended=False) for r in range(ranks) for kind, by in way
    ]
    return Trace(ranks, tuple(spans))


@pytest.mark.parametrize(("to", "source", "said"), [(1, 1, "rank 1, which sends to rank 2"), (-1, -1, "rank 2, which")])
def test_who_receives_from_where_he_sends_is_told_who_sends_to_him(to, source, said):
    told = why_stuck(CIRCLE, ring(3, to, source))
    assert told.startswith(f"Rank 0 receives from {said}") and told.endswith(stuck.WRONG_SOURCE)
    assert f"what is sent to rank 0 comes from rank {-to % 3}." in told


@pytest.mark.parametrize("trace", [ring(3, 1, -1), ring(2, 1, 1), ring(3, 1, None), Trace(3, ()), None])
def test_a_ring_in_its_order_is_not_told_so(trace):
    assert wrong_source(trace) == ""
    assert why_stuck(CIRCLE, trace) == stuck.ALL_SEND


def test_who_waits_for_a_rank_that_sends_nothing_is_told_so():
    spans = (Span(1, "recv", 0, 0, peer=2, lane="recv"), Span(0, "send", 0, 0, peer=1, lane="send"))
    assert wrong_source(Trace(3, spans)).startswith("Rank 1 receives from rank 2, which sends nothing; what is sent to")
