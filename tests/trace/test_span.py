"""Trace: what it reads out of spans and samples, on cases small enough to check by eye."""

import pytest

from parallel_lab.plan import RECV, SEND, Op, Plan, recv, send
from parallel_lab.trace import Sample, Span, Trace


def work(rank, start_s, end_s, kind="F", part=0, mb=0):
    return Span(rank, kind, start_s, end_s, part, mb)


def sent(rank, start_s, end_s, size, peer=1, mb=0):
    return Span(rank, "send", start_s, end_s, 0, mb, peer, SEND, size, size, 1)


def got(rank, start_s, end_s, size, peer=0, mb=0):
    return Span(rank, "recv", start_s, end_s, 0, mb, peer, RECV, size)


def test_bytes_and_messages_count_where_they_leave():
    trace = Trace(2, (sent(0, 0, 1, 10), got(1, 0, 1, 10), sent(0, 1, 2, 5, mb=1), got(1, 1, 2, 5, mb=1)))
    assert [trace.bytes_sent(r) for r in (0, 1)] == [15, 0]
    assert [trace.messages(r) for r in (0, 1)] == [2, 0]


@pytest.mark.parametrize(
    ("stretches", "busy_s"),
    [
        ([], 0),
        ([(1, 3)], 2),
        ([(0, 1), (2, 3)], 2),  # apart
        ([(0, 1), (1, 3)], 3),  # touching
        ([(0, 2), (1, 3)], 3),  # overlapping
        ([(0, 9), (1, 3)], 9),  # one inside the other
        ([(4, 5), (0, 1), (0, 1)], 2),  # out of order, doubled
        ([(2, 2)], 0),
    ],
)
def test_busy_counts_covered_time_once(stretches, busy_s):
    trace = Trace(1, tuple(work(0, *stretch) for stretch in stretches))
    assert trace.busy_s(0) == busy_s


def test_busy_of_a_lane():
    trace = Trace(1, (work(0, 0, 4), sent(0, 1, 2, 8), got(0, 5, 8, 8)))
    assert [trace.busy_s(0), trace.busy_s(0, SEND), trace.busy_s(0, RECV)] == [4, 1, 3]


@pytest.mark.parametrize(
    ("communication", "overlap_s"),
    [
        ((0, 2), 0),  # before
        ((0, 3), 0),  # touching
        ((2, 4), 1),  # across the start
        ((4, 5), 1),  # inside
        ((0, 9), 3),  # around
        ((6, 7), 0),  # touching the end
    ],
)
def test_overlap(communication, overlap_s):
    trace = Trace(2, (work(0, 3, 6), sent(0, *communication, 8), work(1, 0, 9)))
    assert trace.overlap_s(0) == overlap_s
    assert trace.overlap_s(1) == 0


def test_overlap_counts_a_full_duplex_link_once():
    assert Trace(1, (work(0, 0, 4), sent(0, 1, 3, 8), got(0, 1, 3, 8))).overlap_s(0) == 2


def test_bubble_is_time_without_computing():
    trace = Trace(2, (work(0, 0, 4), work(1, 2, 4), sent(1, 0, 2, 8, peer=0)))
    assert trace.bubble() == pytest.approx(1 / 4)  # 2 of 8 rank-seconds
    assert trace.duration_s == 4


def test_duration_and_bubble_do_not_depend_on_when_the_trace_begins():
    trace = Trace(2, (work(0, 10, 14), work(1, 12, 14)))
    assert (trace.duration_s, trace.bubble()) == (4, pytest.approx(1 / 4))


def test_empty_trace():
    trace = Trace(2, ())
    assert (trace.duration_s, trace.bubble(), trace.busy_s(0), trace.peak_bytes(1)) == (0, 0, 0, 0)
    assert trace.plan() == Plan(((), ()))


def test_peak_is_of_all_kinds_together_at_one_moment():
    samples = (
        Sample(0, 0, 100, "parameters"),
        Sample(0, 1, 50, "activations"),
        Sample(1, 1, 999, "activations"),
        Sample(0, 2, 0, "activations"),
        Sample(0, 3, 130, "parameters"),
    )
    trace = Trace(3, (), samples)
    assert [trace.peak_bytes(r) for r in range(3)] == [150, 999, 0]


def test_plan_keeps_the_order_of_issue_and_pairs_messages():
    spans = (got(1, 0, 5, 8), work(1, 5, 6), work(0, 3, 4, "B", 2, 1), sent(0, 0, 5, 8))
    plan = Trace(3, spans).plan()
    assert plan.rows == ((Op(0, "B", 2, 1), send(0, 1, 0)), (recv(1, 0, 0), Op(1, "F", 0)), ())
    assert plan.needs == {recv(1, 0, 0): (send(0, 1, 0),)}


def test_of_gives_the_spans_of_one_rank():
    spans = (work(1, 0, 1), work(0, 0, 1), work(1, 1, 2))
    assert Trace(2, spans).of(1) == [spans[0], spans[2]]


@pytest.mark.parametrize("rank", [-1, 2, 7])
@pytest.mark.parametrize("read", ["of", "bytes_sent", "messages", "busy_s", "overlap_s"])
def test_a_rank_that_is_not_there_raises(read, rank):
    with pytest.raises(ValueError, match=f"rank {rank}: this trace has ranks 0 to 1"):
        getattr(Trace(2, (work(0, 0, 1),)), read)(rank)


def test_peak_bytes_of_a_rank_that_is_not_there_raises():
    with pytest.raises(ValueError, match="rank 2"):
        Trace(2, ()).peak_bytes(2)


def test_span_in_words():
    assert [work(0, 0, 1, kind).name for kind in ("F", "B", "I", "W", "all_reduce")] == [
        "forward",
        "backward",
        "backward_input",
        "backward_weight",
        "all_reduce",
    ]
