"""Recorder, span, tag and progress."""

import threading

import pytest

from parallel_lab.plan import RECV, SEND, Op, Plan, recv, send
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


def test_work_complete_out_of_order_keeps_the_order_of_issue(keeper):
    first = keeper.issue("send", peer=0, lane=SEND, bytes=8)
    second = keeper.issue("send", peer=1, lane=SEND, bytes=9)
    keeper.complete(second)
    keeper.complete(first, wait_s=0.5)
    assert [(s.bytes, s.wait_s) for s in keeper.spans] == [(8, 0.5), (9, 0.0)]
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
    assert [op.mb for op in plan.rows[1]] == [0, 1, 2, 0]
    held = set(plan)
    assert len(held) == 8
    assert all(set(needs) <= held for needs in plan.needs.values()) and len(plan.needs) == 4


def test_untagged_messages_are_counted_by_peer_and_group(keeper):
    for peer, group in [(0, ""), (1, ""), (0, "tp"), (0, "")]:
        keeper.issue("send", peer=peer, group=group, lane=SEND)
    assert [s.mb for s in keeper.spans] == [0, 0, 0, 1]


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
