"""From the calls of each rank to one sentence."""

import sys
import threading
import time
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist

from parallel_lab import Deadlock, Delay, launch
from parallel_lab.runtime.kernel import diagnose
from parallel_lab.runtime.kernel.diagnose import State, describe, hopeless, mismatch, verdict
from parallel_lab.runtime.rank import calls
from parallel_lab.runtime.rank.calls import DONE, DROPPED, ISSUED, KEPT, UNCOUNTED, WAITING, Call, CallLog, read_calls

ALL = (0, 1, 2)


def call(kind, number=0, state=WAITING, peer=-1, size=16, ranks=ALL, group="", tag=0, dtype="float32"):
    return Call(kind, group, ranks, number, size, peer, "cell.py:3", tag, dtype, state)


def test_the_first_difference_is_the_cause():
    good, bad = [call("all_reduce", n, DONE) for n in range(3)], call("broadcast", 1, DONE, peer=0)
    states = {0: State(good), 1: State([good[0], bad, good[2]]), 2: State(good)}
    expected = "rank 1 called broadcast where the others called all_reduce (collective number 2)"
    assert mismatch(states) == verdict(states) == expected


def test_sizes_may_differ_where_they_have_to():
    for kind, allowed in (("all_to_all", True), ("all_gather", True), ("all_reduce", False), ("broadcast", False)):
        states = {rank: State([call(kind, size=16 * (rank + 1))]) for rank in range(2)}
        assert (mismatch(states) == "") == allowed, kind


def test_groups_are_looked_at_apart():
    states = {
        0: State([call("all_reduce", group="a", ranks=(0, 1)), call("broadcast", group="b", ranks=(0, 2))]),
        1: State([call("all_reduce", group="a", ranks=(0, 1))]),
        2: State([call("broadcast", group="b", ranks=(0, 2))]),
    }
    assert mismatch(states) == ""


@pytest.mark.parametrize(
    ("late", "words"),
    [
        (State([], finished=True), "rank 2 returned; ranks 0 and 1 wait for it in all_reduce, which it never joined"),
        (State([], line="cell.py:9"), "rank 2 is busy at cell.py:9; ranks 0 and 1 wait for it in all_reduce"),
        (State([], ended="was killed by SIGKILL"), "rank 2 was killed by SIGKILL; ranks 0 and 1 wait for it"),
    ],
)
def test_the_rank_that_is_waited_for(late, words):
    states = {0: State([call("all_reduce")]), 1: State([call("all_reduce")]), 2: late}
    assert verdict(states).startswith(words)


def test_the_few_are_named_when_most_have_returned():
    states = {0: State([call("all_reduce")]), 1: State([], finished=True), 2: State([], finished=True)}
    assert verdict(states) == "only rank 0 called all_reduce; ranks 1 and 2 returned without it"


def test_a_circle_is_walked():
    states = {rank: State([call("recv", peer=(rank + 1) % 3)]) for rank in ALL}
    assert verdict(states).startswith("a circle: rank 0 waits for rank 1 in recv(from rank 1), rank 1 waits for rank 2")
    assert hopeless(states) == [0, 1, 2]
    assert hopeless(states | {2: State([])}) == [], "rank 2 may still send"
    assert hopeless(states, moved=[1]) == []


def test_a_rank_that_waits_for_one_that_has_returned_is_lost_whatever_the_others_do():
    states = {0: State([], finished=True), 1: State([call("recv", peer=0)]), 2: State([], line="cell.py:9")}
    assert hopeless(states) == [1]
    assert hopeless(states | {2: State([call("recv", peer=1)])}) == [1, 2], "and so is who waits for it"


@pytest.mark.parametrize(
    ("sent", "taken", "words"),
    [
        (
            {"size": 48},
            {"size": 32},
            "12 float32 (48 bytes) to rank 1 at cell.py:3, and rank 1 receives them into 8 float",
        ),
        ({"size": 32}, {"size": 48}, "the rest of which is never written"),
        (
            {},
            {"dtype": "int32"},
            "16 bytes) to rank 1 at cell.py:3, and rank 1 receives them into 4 int32 (16 bytes) at",
        ),
        ({"tag": 7, "size": 8}, {"tag": 7}, "rank 0 sends 2 float32 (8 bytes) to rank 1 with tag 7 at cell.py:3"),
        ({}, {}, ""),
        ({"tag": 1}, {"size": 8}, ""),
        ({"number": 1}, {"size": 8}, ""),
        ({"group": "dp"}, {"size": 8}, ""),
        ({"state": DROPPED}, {"size": 8}, ""),
    ],
)
def test_the_two_ends_of_a_message_are_compared(sent, taken, words):
    states = {0: State([call("send", peer=1, **sent)]), 1: State([call("recv", peer=0, **taken)])}
    assert words in mismatch(states) and bool(words) == bool(mismatch(states))


def test_of_a_receive_from_anyone_no_count_tells_whose_message_it_took():
    takes = [call("recv", state=DONE), call("recv", peer=0, size=8, state=DONE)]
    states = {0: State([call("send", peer=1)]), 1: State(takes, finished=True)}
    assert mismatch(states) == ""
    assert hopeless(states) == []


def test_a_tag_that_nobody_receives_is_named():
    states = {0: State([call("send", peer=1, tag=1)]), 1: State([call("recv", peer=0, tag=2)])}
    assert hopeless(states) == [0, 1]
    assert verdict(states).startswith("rank 0 sent tag 1, rank 1 waits for tag 2; a message needs one tag at both ends")
    assert "recv(from rank 0, tag 2)" in describe(1, states[1])


def test_a_program_with_endless_tags_is_counted_up_to_a_limit(monkeypatch):
    for module in (calls, diagnose):
        monkeypatch.setattr(module, "STREAMS", 3)
    log = CallLog()
    for tag in range(5):
        log.begin("send", "", ALL, 16, 1, "cell.py:3", tag)
    assert [c.number for c in log.calls] == [0, 0, 0, UNCOUNTED, UNCOUNTED] and len(log.made) == 3
    states = {0: State(log.calls, made=log.made, finished=True), 1: State([call("recv", 5, peer=0, tag=9)])}
    assert hopeless(states) == [], "it may have been sent"


def test_a_message_under_way_is_no_deadlock():
    states = {0: State([call("send", peer=1)]), 1: State([call("recv", peer=0)])}
    assert not hopeless(states)
    assert "slow" in verdict(states)


def test_a_message_that_nobody_waited_for_is_named():
    states = {0: State([call("send", state=ISSUED, peer=1), call("recv", peer=1)]), 1: State([call("recv", peer=0)])}
    assert not hopeless({1: states[1], 0: State([call("send", state=ISSUED, peer=1)])})
    states[1].calls.append(call("send", state=ISSUED, peer=0))
    assert "rank 1 issued it at cell.py:3 and has not waited for it: keep what isend returns" in verdict(states)


def test_a_rank_that_has_not_begun_is_not_busy():
    states = {0: State([call("barrier")]), 1: State([], begun=False), 2: State([call("barrier")])}
    assert not hopeless(states)
    assert describe(1, states[1]) == "rank 1 has not begun"
    assert verdict(states) == "rank 1 has not begun; ranks 0 and 2 wait for it in barrier"


def test_a_busy_rank_leaves_hope():
    states = {0: State([call("barrier")]), 1: State([call("barrier", state=ISSUED)]), 2: State([])}
    assert not hopeless(states)


def test_messages_are_matched_in_order():
    done = [call("send", n, DONE, peer=1) for n in range(2)]
    states = {0: State(done, finished=True), 1: State([call("recv", 2, peer=0)])}
    assert verdict(states) == "rank 0 returned; rank 1 waits for it in recv(from rank 0), which it never answered"


def test_the_file_of_a_dead_rank_is_read(tmp_path):
    log = CallLog(tmp_path / "calls")
    for line in ("cell.py:1", "cell.py:2", f"{'long' * 500}.py:3"):
        log.begin("send", "", tuple(range(64)), 8, 1, line)
    first, second, third = log.calls
    assert read_calls(tmp_path / "calls") == [first, second, replace(third, line="")]
    for _ in range(KEPT):
        log.begin("all_reduce", "", ALL, 8, -1, "cell.py:4")
    with open(tmp_path / "calls", "r+b") as file:  # the rank died as it wrote this one
        file.write(bytes(4))
    assert [c.number for c in read_calls(tmp_path / "calls")] == [c.number for c in log.calls if c.number != KEPT - 3]
    assert read_calls(tmp_path / "none") == []


def test_calls_that_are_no_longer_kept_have_still_been_made():
    waits = call("recv", 5, peer=0)
    log = CallLog()
    for _ in range(6):
        log.begin("send", "", ALL, 16, 1, "cell.py:3")
    for _ in range(KEPT):
        log.begin("all_reduce", "", ALL, 16, -1, "cell.py:4").state = DONE
    states = {0: State(list(log.calls), made=log.made), 1: State([waits])}
    assert len(states[0].calls) == KEPT
    assert not hopeless(states), "the message was sent, and may be on its way"
    assert hopeless({0: State([], finished=True, made={("", "send", 1, 0): 5}), 1: State([waits])})
    barrier = State([call("barrier", KEPT, ranks=(0, 1))])
    assert verdict(states | {1: barrier}).startswith("rank 0 is busy; rank 1 waits for it in barrier")


def test_a_certain_deadlock_does_not_wait_for_the_timeout():
    def fn():
        dist.recv(torch.ones(4), src=1 - dist.get_rank())

    with pytest.raises(Deadlock, match="2 of 2 ranks can never finish"):
        launch(fn, ranks=2, timeout=100_000)


def test_a_slow_rank_is_no_deadlock():
    def fn():
        dist.barrier()
        time.sleep(1.5 * dist.get_rank())
        dist.barrier()
        return True

    assert launch(fn, ranks=2, faults=[Delay(rank=1, seconds=1.5)]).results == [True, True]


def test_the_kernel_may_ask_while_calls_are_noted():
    """The thread that answers the kernel reads the calls while others add to them."""
    log, over = CallLog(), threading.Event()

    def note():
        while not over.is_set():
            log.begin("send", "", (0, 1), 4, 1, "", state=DONE)

    noting = threading.Thread(target=note, name="waiter")
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    noting.start()
    try:
        assert not any(log.waiting() for _ in range(5000))
    finally:
        over.set()
        noting.join()
        sys.setswitchinterval(before)
