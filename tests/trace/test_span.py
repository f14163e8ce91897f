"""Trace: what it reads out of spans and samples, on cases small enough to check by eye."""

import pytest

from parallel_lab.pipeline import one_f_one_b
from parallel_lab.pipeline.needs import with_needs
from parallel_lab.plan import RECV, SEND, Op, Plan, recv, send
from parallel_lab.simulate import CostModel, simulate
from parallel_lab.trace import Sample, Span, Trace
from parallel_lab.trace.span import MARK


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


def test_a_note_is_no_communication():
    note = Span(0, "layer_backward", 0, 4, lane=MARK)
    assert Trace(1, (work(0, 0, 4), note, sent(0, 3, 5, 8))).overlap_s(0) == 1


def test_bubble_is_time_without_computing():
    trace = Trace(2, (work(0, 0, 4), work(1, 2, 4), sent(1, 0, 2, 8, peer=0)))
    assert trace.bubble() == pytest.approx(1 / 4)  # 2 of 8 rank-seconds
    assert trace.duration_s == 4


def test_a_rank_s_own_window_begins_and_ends_with_its_own_work():
    trace = Trace(2, (work(0, 0, 4), work(1, 2, 4), work(1, 5, 6), sent(1, 0, 9, 8, peer=0)))
    assert [trace.window_s(rank) for rank in (0, 1)] == [4, 4]
    assert [trace.idle_s(rank) for rank in (0, 1)] == [0, 1]
    assert (trace.window_s(1, SEND), trace.idle_s(1, SEND)) == (9, 0)
    assert trace.bubble(own=True) == 0 and Trace(1, (work(0, 1, 2), work(0, 4, 5))).bubble(own=True) == 1 / 2


class Unit(CostModel):
    """A forward and each half of a backward take one second."""

    def seconds(self, op):
        return 2.0 if op.kind == "B" else 1.0


def steps(rows, count, microbatches):
    """The rows again and again, with no barrier between the steps."""
    return with_needs([[op._replace(mb=op.mb + k * microbatches) for k in range(count) for op in row] for row in rows])


ZERO_BUBBLE = ("F0 F1 F2 I0 F3 I1 W0 I2 W1 W2 I3 W3", "F0 I0 F1 I1 F2 I2 W0 F3 I3 W1 W2 W3")  # ZB-H2, p = 2


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_own_windows_of_several_steps_show_what_a_zero_bubble_schedule_gains(count):
    p, m = 4, 8
    trace = simulate(steps(one_f_one_b(p, m).rows, count, m), Unit())
    for rank in range(p):  # each step costs every rank (p - 1) forwards and backwards; the first begins late
        assert trace.idle_s(rank) == 3 * (count * (p - 1) - rank)
    assert trace.bubble(own=True) == pytest.approx((p - 1) / (m + p - 1))
    rows = [[Op(r, word[0], r, int(word[1:])) for word in text.split()] for r, text in enumerate(ZERO_BUBBLE)]
    trace = simulate(steps(rows, count, 4), Unit())
    assert [trace.idle_s(rank) for rank in (0, 1)] == [0, 0]
    assert trace.duration_s == count * 12 + 1, "the start of the last rank, once and not in every step"
    assert trace.bubble(own=True) == 0 < trace.bubble()


def test_bytes_and_messages_of_an_axis():
    trace = Trace(2, (sent(0, 0, 1, 8)._replace(axis="tp"), sent(0, 1, 2, 3)._replace(axis="dp"), sent(0, 2, 3, 1)))
    assert [trace.bytes_sent(0, axis=axis) for axis in ("tp", "dp", "", "pp", None)] == [8, 3, 1, 0, 12]
    assert [trace.messages(0, axis=axis) for axis in ("tp", "pp", None)] == [1, 0, 3]


def test_duration_and_bubble_do_not_depend_on_when_the_trace_begins():
    trace = Trace(2, (work(0, 10, 14), work(1, 12, 14)))
    assert (trace.duration_s, trace.bubble()) == (4, pytest.approx(1 / 4))


def test_of_a_run_cut_short_what_had_not_ended_lasts_a_little_longer_than_all_else_and_sent_nothing():
    done, waits, never_waited = work(0, 1.0, 5.0), sent(1, 4.0, 4.0, 8)._replace(ended=False), sent(0, 2.0, 2.0, 8)
    trace = Trace(2, (done, waits, never_waited)).cut_short()
    assert trace.spans[0] == done and trace.spans[2] == never_waited
    assert (trace.spans[1].start_s, trace.spans[1].end_s, trace.spans[1].cut) == (4.0, 6.0, True)
    assert [trace.bytes_sent(rank) for rank in range(2)] == [8, 0]
    assert not any(s.cut for s in Trace(2, (done, waits)).spans)


def test_a_run_cut_short_in_its_first_call_shows_it_and_an_empty_one_stays_empty():
    only = Trace(1, (work(0, 3.0, 3.0)._replace(ended=False),)).cut_short()
    assert only.spans[0].cut and 0 < only.duration_s < 0.01
    assert Trace(2, ()).cut_short() == Trace(2, ())


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
