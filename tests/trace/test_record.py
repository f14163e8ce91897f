"""Recorder, span, tag and progress."""

import threading
import tracemalloc

import pytest

from parallel_lab.plan import RECV, SEND, Op, Plan, recv, send
from parallel_lab.runtime.rank.calls import DONE, CallLog
from parallel_lab.trace import Recorder, Trace, install, progress, recorder, span, tag


@pytest.fixture
def keeper():
    old = install(Recorder(rank=2))
    yield recorder()
    install(old)


def test_install_returns_the_old_recorder():
    new = Recorder()
    old = install(new)
    assert recorder() is new
    assert install(old) is new
    assert recorder() is old


def test_span_notes_rank_letter_part_and_microbatch(keeper):
    with span("forward", part=1, mb=3):
        pass
    with span("optimizer"):
        pass
    assert [s.op for s in keeper.spans] == [Op(2, "F", 1, 3), Op(2, "optimizer", 0, 0)]
    assert all(s.end_s >= s.start_s for s in keeper.spans)


@pytest.mark.parametrize(
    ("name", "letter"), [("forward", "F"), ("backward", "B"), ("backward_input", "I"), ("backward_weight", "W")]
)
def test_passes_are_kept_by_letter(keeper, name, letter):
    with span(name):
        pass
    assert keeper.spans[0].kind == letter and keeper.spans[0].name == name


def test_nested_spans_stand_in_the_order_of_issue(keeper):
    with span("outer"), span("inner"):
        pass
    assert [s.kind for s in keeper.spans] == ["outer", "inner"]
    outer, inner = keeper.spans
    assert outer.start_s <= inner.start_s <= inner.end_s <= outer.end_s


def test_no_span_ends_before_it_begins(keeper):
    """On an emulated link a message may have been due before its receive was asked for."""
    index = keeper.issue("recv", start_s=2.0, peer=1)
    keeper.complete(index, wait_s=0.5, end_s=keeper.began_s + 1.25)
    assert (keeper.spans[index].start_s, keeper.spans[index].end_s, keeper.spans[index].wait_s) == (2.0, 2.0, 0.0)


def test_no_wait_is_longer_than_its_span(keeper):
    """A busy machine wakes the thread late, up to 13 ms after what it waited for was there."""
    index = keeper.issue("all_reduce", start_s=1.0, group="")
    keeper.complete(index, wait_s=0.5, end_s=keeper.began_s + 1.25)
    assert keeper.spans[index].wait_s == 0.25
    for waited_s in (0.125, 0.5):
        keeper.waited(index, waited_s)
        assert keeper.spans[index].wait_s == min(waited_s, 0.25)


def test_work_complete_out_of_order_keeps_the_order_of_issue(keeper):
    first = keeper.issue("send", peer=0, lane=SEND, bytes=8)
    second = keeper.issue("send", peer=1, lane=SEND, bytes=9)
    keeper.complete(second)
    keeper.complete(first, wait_s=1e-9)
    assert [(s.bytes, s.wait_s) for s in keeper.spans] == [(8, 1e-9), (9, 0.0)]
    assert keeper.spans[0].end_s >= keeper.spans[1].end_s


def test_a_span_that_raises_is_closed_all_the_same(keeper):
    with pytest.raises(RuntimeError), span("forward"):
        raise RuntimeError
    assert len(keeper.spans) == 1
    assert keeper.spans[0].end_s >= keeper.spans[0].start_s > 0


def test_nothing_is_kept_while_disabled(keeper):
    keeper.enabled = False
    with span("forward"):
        pass
    assert keeper.spans == []


def test_tag_names_the_messages_inside(keeper):
    with tag(part=4, mb=7):
        keeper.issue("send", peer=0, lane=SEND)
        with tag(part=5, mb=8, kind="recv_reduce"):
            keeper.issue("recv", peer=1, lane=RECV)
    assert [s.op for s in keeper.spans] == [send(2, 0, 4, 7), recv(2, 1, 5, 8, reduce=True)]
    assert keeper.tags == []


def test_tag_leaves_what_is_no_message_alone(keeper):
    with tag(part=4, mb=7), span("forward", part=1):
        pass
    assert keeper.spans[0].op == Op(2, "F", 1)


def test_tag_ends_when_its_block_raises(keeper):
    with pytest.raises(RuntimeError), tag(part=1):
        raise RuntimeError
    assert keeper.tags == []


def test_untagged_messages_of_two_ranks_pair_up():
    a, b = Recorder(0), Recorder(1)
    for _ in range(3):
        a.issue("send", peer=1, lane=SEND)
        b.issue("recv", peer=0, lane=RECV)
    b.issue("send", peer=0, lane=SEND)
    a.issue("recv", peer=1, lane=RECV)
    plan = Trace(2, (*a.spans, *b.spans)).plan()
    assert [op.part for op in plan.rows[1]] == [0, 1, 2, 0]
    held = set(plan)
    assert len(held) == 8
    assert all(set(needs) <= held for needs in plan.needs.values()) and len(plan.needs) == 4


def test_what_no_tag_gives_a_part_is_counted_by_kind_peer_axis_and_other_names(keeper):
    for peer, axis in [(0, ""), (1, ""), (0, "tp"), (0, "")]:
        keeper.issue("send", peer=peer, axis=axis, lane=SEND)
    for kind in ("all_reduce", "all_reduce", "barrier"):
        keeper.issue(kind, group="", lane=SEND)
    with tag(mb=1, phase="backward"):
        keeper.issue("all_reduce", group="")
    assert [s.part for s in keeper.spans] == [0, 0, 0, 1, 0, 1, 0, 0]
    assert {s.mb for s in keeper.spans[:-1]} == {0}


def test_an_axis_that_a_tag_leaves_open_is_the_group_s(keeper):
    for fields in ({}, {"axis": ""}, {"axis": "pp"}):
        with tag(part=1, **fields):
            keeper.issue("all_reduce", group="3", axis="tp")
    assert [s.axis for s in keeper.spans] == ["tp", "tp", "pp"]


def test_messages_of_a_collective_keep_the_names_of_the_tag_around_it(keeper):
    def collective():
        with tag(**keeper.names_inside("")):
            for number in (0, 1):
                with tag(kind="send", part=7, round=number):
                    keeper.issue("send", peer=0, lane=SEND)

    collective()
    collective()
    with tag(part=3, mb=5, phase="backward", axis="dp"):
        collective()
        collective()
    assert [(s.phase, s.mb, s.axis) for s in keeper.spans[::2]] == [
        ("", 0, ""),
        (".1", 0, ""),
        ("backward/3", 5, "dp"),
        ("backward/3.1", 5, "dp"),
    ]
    assert [(s.part, s.round) for s in keeper.spans] == [(7, 0), (7, 1)] * 4
    assert [Op.parse(2, str(s.op)) for s in keeper.spans] == [s.op for s in keeper.spans]


def test_a_recorder_keeps_a_limit_and_counts_the_rest():
    keeper = Recorder(limit=3)
    for _ in range(5):
        keeper.complete(keeper.issue("all_reduce", group="", sent_bytes=8))
        keeper.sample(1)
    assert (len(keeper.spans), len(keeper.samples), keeper.left_out, keeper.sent_bytes) == (3, 3, 4, 40)
    assert keeper.trace(1).left_out == 4


def test_nothing_is_kept_where_the_environment_says_so(monkeypatch):
    monkeypatch.setenv("PARALLEL_LAB_RECORD", "0")
    keeper = Recorder()
    keeper.complete(keeper.issue("send", peer=1))
    keeper.sample(1)
    assert (keeper.spans, keeper.samples, keeper.left_out) == ([], [], 0)


def test_a_long_run_needs_no_more_memory_than_a_short_one():
    """100,000 collectives and messages with new names, after the limits are reached."""
    keeper, log = Recorder(limit=1000), CallLog()

    def work(first, count):
        for mb in range(first, first + count):
            with tag(mb=mb), tag(**keeper.names_inside("")):
                keeper.complete(keeper.issue("all_reduce", group="", lane=SEND, sent_bytes=8))
            log.begin("all_reduce", "", (0, 1), 8, -1, "cell.py:1").state = DONE

    work(0, 12_000)
    tracemalloc.start()
    work(12_000, 100_000)
    held_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held_bytes < 4e6  # the names of the last 10,000 and the calls of as many, which were there before
    assert (keeper.left_out, log.total, log.made) == (111_000, 112_000, {("",): 112_000})


def test_samples(keeper):
    keeper.sample(100, "parameters")
    keeper.sample(7)
    assert [(s.rank, s.bytes, s.kind) for s in keeper.samples] == [(2, 100, "parameters"), (2, 7, "all")]
    assert keeper.samples[0].time_s <= keeper.samples[1].time_s


def test_time_counts_from_the_beginning():
    early, late = Recorder(began_s=0.0), Recorder(began_s=10.0)
    assert early.now() - late.now() == pytest.approx(10.0, abs=5.0)


def test_progress_reports_each_step_and_the_end(keeper):
    calls = []
    keeper.report = lambda *call: calls.append(call)
    assert list(progress("abc", "train")) == ["a", "b", "c"]
    assert calls == [("train", 0, 3), ("train", 1, 3), ("train", 2, 3), ("train", 3, 3)]


def test_progress_of_unknown_or_given_length(keeper):
    calls = []
    keeper.report = lambda *call: calls.append(call)
    assert list(progress(iter("ab"))) == ["a", "b"]
    assert calls == [("", 0, None), ("", 1, None)]
    calls.clear()
    list(progress(iter("ab"), total=2))
    assert calls == [("", 0, 2), ("", 1, 2), ("", 2, 2)]


def test_progress_is_silent_outside_a_launch(keeper):
    assert list(progress([1, 2])) == [1, 2]


def test_empty_trace_of_a_recorder(keeper):
    assert Trace(3, tuple(keeper.spans)).plan() == Plan(((), (), ()))


def test_threads_name_and_keep_their_own_messages(keeper):
    both_inside, many = threading.Barrier(2), 200

    def work(peer):
        for mb in range(many):
            with tag(mb=mb):
                both_inside.wait()
                keeper.complete(keeper.issue("send", peer=peer, lane=SEND))

    threads = [threading.Thread(target=work, args=(peer,)) for peer in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for peer in (1, 2):
        assert [s.mb for s in keeper.spans if s.peer == peer] == list(range(many))
    assert keeper.tags == []
