import pytest

from parallel_lab.network import Link
from parallel_lab.plan import Op, Plan, recv, send
from parallel_lab.trace import Sample, Span, Trace
from parallel_lab.view.layout import lay_out, pack, trace_of, unit_trace


def test_a_plan_is_placed_in_the_earliest_slots():
    ops = [Op(0, "F", 0, 0), Op(0, "F", 0, 1), Op(1, "F", 1, 0), Op(1, "F", 1, 1)]
    needs = {Op(1, "F", 1, mb): [Op(0, "F", 0, mb)] for mb in (0, 1)}
    starts = {s.op: s.start_s for s in unit_trace(Plan.of(ops, needs)).spans}
    assert [starts[op] for op in ops] == [0, 1, 1, 2]


def test_a_receive_follows_its_send_and_lanes_run_side_by_side():
    work, out, into = Op(1, "F", 0), send(0, 1, 5), recv(1, 0, 5)
    starts = {s.op: s.start_s for s in unit_trace(Plan.of([out, into, work])).spans}
    assert starts == {out: 0, into: 1, work: 0}


def test_a_plan_that_cannot_finish_names_who_waits_for_what():
    a, b = Op(0, "F", 0), Op(1, "B", 1)
    with pytest.raises(ValueError, match=r"rank 0 waits at 0F0 for rank 1's 1B0"):
        unit_trace(Plan.of([a, b], {a: [b], b: [a]}))
    with pytest.raises(ValueError, match=r"rank 1 waits at .* for rank 0's 0send0>1, which is in no row"):
        unit_trace(Plan.of([recv(1, 0, 0)]))


def test_a_source_is_a_run_a_trace_or_a_plan():
    class Run:
        trace = Trace(1, (Span(0, "F", 0, 1),))

    assert trace_of(Run()) == (Run.trace, False)
    assert trace_of(Run.trace) == (Run.trace, False)
    assert trace_of(Plan.of([Op(0, "F", 0)]))[1]
    with pytest.raises(TypeError, match="got int"):
        trace_of(3)


def test_spans_of_one_lane_that_overlap_get_rows_of_their_own():
    spans = [Span(0, "a", 0, 10), Span(0, "b", 1, 3), Span(0, "c", 2, 4), Span(0, "d", 3, 5)]
    assert pack(spans) == [0, 1, 2, 1]
    assert pack([Span(0, "a", i, i + 100) for i in range(9)]) == [0, 1, 2, 3, 4, 5, 5, 5, 5]
    assert max(pack([Span(0, "a", i, i + 100) for i in range(9)], most=None)) == 8


def test_what_a_last_row_takes_is_one_box_that_counts():
    many = tuple(Span(0, "recv", i, i + 20, lane="recv") for i in range(9))
    boxes = lay_out(Trace(1, (*many, Span(0, "recv", 30, 31, lane="recv"))), 1000).boxes
    assert [(box.start_s, box.end_s) for box in boxes if box.row < 5] == [*((i, i + 20) for i in range(5)), (30, 31)]
    assert [box[4:8] for box in boxes if box.row == 5] == [(5, 28, "4 spans", 4)]


def test_over_a_link_a_message_moves_in_the_last_part_of_its_span():
    spans = Span(0, "send", 0, 10, bytes=300, lane="send"), Span(0, "F", 0, 10), Span(0, "recv", 9, 10, lane="recv")
    boxes = {box.kind: box for box in lay_out(Trace(1, spans), 1000, Link(1.0, 100.0)).boxes}
    assert (boxes["send"].moves_s, boxes["F"].moves_s, boxes["recv"].moves_s) == (6, 0, 9)


def test_narrow_spans_merge_by_kind_and_wide_ones_never():
    narrow = [Span(0, "FB"[i % 2], i * 1e-3, (i + 1) * 1e-3) for i in range(1000)]
    layout = lay_out(Trace(1, (*narrow, Span(0, "W", 1.0, 10.0))), columns=100)
    assert {box.kind: box.spans for box in layout.boxes} == {"F": 500, "B": 500, "W": 1}
    assert sum(box.end_s - box.start_s for box in layout.boxes if box.kind == "F") == pytest.approx(0.999)


def test_merging_keeps_spans_that_lie_apart():
    spans = tuple(Span(0, "F", float(i), i + 1e-6) for i in range(10))
    assert len(lay_out(Trace(1, spans), columns=100).boxes) == 10


def test_labels_are_microbatches_or_ops_where_a_rank_has_several_parts():
    one = lay_out(Trace(1, (Span(0, "F", 0, 1, 2, 0), Span(0, "F", 1, 2, 2, 1))), 100)
    several = lay_out(Trace(1, (Span(0, "F", 0, 1, 0, 1), Span(0, "F", 1, 2, 4, 1))), 100)
    collective = lay_out(Trace(1, (Span(0, "F", 0, 1, 0, 1), Span(0, "all_reduce", 1, 2, lane="send"))), 100)
    assert [box.label for box in one.boxes] == ["0", "1"]
    assert [box.label for box in several.boxes] == ["0F1", "4F1"]
    assert [box.label for box in collective.boxes] == ["1", ""]


def test_held_bytes_carries_each_kind_forward():
    samples = (Sample(0, 0.0, 5, "a"), Sample(1, 0.0, 9, "a"), Sample(0, 1.0, 7, "b"), Sample(0, 2.0, 0, "a"))
    levels = list(Trace(2, (), samples).held_bytes(0))
    assert levels == [(0.0, {"a": 5}), (1.0, {"a": 5, "b": 7}), (2.0, {"a": 0, "b": 7})]
