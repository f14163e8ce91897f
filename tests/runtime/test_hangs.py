"""Ranks that wait for ever, or meet in different calls, end in time with a report that names who, where and why."""

import functools
import os
import re
import signal
import sys
import time

import pytest
import torch
import torch.distributed as dist

from parallel_lab import Deadlock, Drop, Link, RankFailed, TimedOut, launch, progress
from parallel_lab.runtime import Mismatch, Stopped

pytestmark = pytest.mark.usefixtures("nothing_stays")
TIMEOUT_S = 4.0  # where only time shows that nothing more comes


def test_a_rank_skips_a_collective(fails):
    def fn():
        if dist.get_rank() != 2:
            dist.all_reduce(torch.ones(4))

    error = fails(
        fn,
        Deadlock,
        "rank 2 returned; ranks 0 and 1 wait for it in all_reduce",
        "16 bytes",
        r"`dist.all_reduce\(torch.ones\(4\)\)`",
    )
    assert error.rank == 2


def test_mismatched_collectives(fails):
    def fn():
        x = torch.ones(1 << 16)
        if dist.get_rank() == 1:
            dist.broadcast(x, src=0)
        else:
            dist.all_reduce(x)
        dist.barrier()

    fails(
        fn,
        (Deadlock, RankFailed, Mismatch),
        "rank 1 called broadcast where the others called all_reduce",
        timeout=TIMEOUT_S,
    )


@pytest.mark.parametrize("big", [8, 1 << 18])
def test_mismatched_sizes(fails, big):
    def fn():
        dist.all_reduce(torch.ones(big if dist.get_rank() == 2 else 4))

    fails(
        fn,
        (Deadlock, RankFailed, Mismatch),
        f"rank 2 called all_reduce on {4 * big:,} bytes where the others called all_reduce on 16",
    )


def test_mismatched_roots(fails):
    def fn():
        dist.broadcast(torch.ones(4), src=1 if dist.get_rank() == 1 else 0)

    words = "rank 1 called broadcast with root 1 where the others called broadcast with root 0"
    fails(fn, (Deadlock, Mismatch), words, timeout=TIMEOUT_S)


def test_send_without_receive(fails):
    def fn():
        if dist.get_rank() == 0:
            dist.send(torch.ones(1 << 20), dst=1)

    fails(fn, Deadlock, r"rank 1 returned; rank 0 waits for it in send\(to rank 1\)", ranks=2)


def test_receives_in_a_circle(fails):
    def fn():
        x = torch.ones(4)
        dist.recv(x, src=(dist.get_rank() + 1) % 3)
        dist.send(x, dst=(dist.get_rank() - 1) % 3)

    fails(fn, Deadlock, r"a circle: rank 0 waits for rank 1 in recv\(from rank 1\), rank 1 waits for rank 2")


def test_a_dropped_message_hangs_its_receiver(fails):
    def fn():
        x = torch.ones(4)
        dist.send(x, dst=1) if dist.get_rank() == 0 else dist.recv(x, src=0)

    words = r"a fault dropped rank 0's send\(to rank 1\) at test_hangs.py, line \d+.*rank 1 waits for it in recv"
    fails(fn, Deadlock, "rank 1 waits in recv", words, ranks=2, faults=[Drop(rank=0, kind="send")])


def test_a_dropped_message_is_told_while_other_ranks_compute(fails):
    def fn():
        x = torch.ones(4)
        if dist.get_rank() == 2:
            time.sleep(60)
        dist.send(x, dst=1) if dist.get_rank() == 0 else dist.recv(x, src=0)

    fails(fn, Deadlock, "a fault dropped", r"rank 2 is busy at .*time.sleep", faults=[Drop(rank=0, kind="send")])


def test_a_receive_that_is_too_small_names_both_lines(fails):
    def fn():
        if dist.get_rank() == 0:
            dist.send(torch.ones(12), dst=1, tag=3)
        else:
            dist.recv(torch.ones(8), src=0, tag=3)

    ends = r"12 float32 \(48 bytes\) to rank 1 with tag 3 at .*send.*into 8 float32 \(32 bytes\) at .*recv.*too small"
    fails(fn, RankFailed, "rank 1 was killed by SIGABRT", ends, ranks=2)


@pytest.mark.parametrize(
    ("taken", "words"), [(torch.zeros(12), "never written"), (torch.zeros(8).int(), "another type")]
)
def test_a_message_that_gloo_lets_pass_is_no_result(fails, taken, words):
    def fn():
        dist.send(torch.ones(8), dst=1) if dist.get_rank() == 0 else dist.recv(taken, src=0)

    fails(fn, Mismatch, words, "cannot be trusted", ranks=2)


def test_a_rank_and_itself(fails):
    def fn(kind):
        getattr(dist, kind)(torch.ones(1), dist.get_rank())

    for kind, words in (("send", "sends to"), ("isend", "sends to"), ("recv", "receives from")):
        alone, two = f"ValueError: rank 0 {words} itself, for it is the only", f"ValueError: rank 0 {words} itself: a"
        fails(functools.partial(fn, kind), RankFailed, alone, ranks=1)
        fails(functools.partial(fn, kind), RankFailed, two, ranks=2)


def test_tags_that_never_meet(fails):
    def fn():
        dist.send(torch.ones(4), 1, tag=1) if dist.get_rank() == 0 else dist.recv(torch.ones(4), 0, tag=2)

    fails(fn, Deadlock, "can never finish", "rank 0 sent tag 1, rank 1 waits for tag 2", ranks=2)


def test_ranks_that_still_call_are_out_of_time(fails):
    def fn():
        print("begun")
        for _ in progress(range(10**9), label="steps"):
            dist.all_reduce(torch.ones(4))

    words = (
        "were still going after 4 s",
        r"rank 0 made [\d,]+ calls",
        "Still under way",
        "Progress: steps",
        r"timeout=\S+\)",
    )
    error = fails(fn, TimedOut, *words, timeout=TIMEOUT_S)
    assert "What is wrong" not in error.report
    assert error.output == ("begun\n",) * 3
    label, done, total = error.progress[0]
    assert (label, total) == ("steps", 10**9) and done > 0


def test_a_link_on_which_one_call_takes_longer_than_the_time(fails):
    words = "Over this link one all_reduce of 4,000 bytes needs "
    sum_ = r"2\(n-1\) = 4 rounds of S/n bytes, 4 x \(1 s \+ 1,333 bytes / 2 bytes/s\) = 2,671 s"
    fails(lambda: dist.all_reduce(torch.ones(1000)), TimedOut, words + sum_, timeout=TIMEOUT_S, link=Link(1, 2))


def test_endless_python(fails):
    def fn():
        while dist.get_rank() == 1:
            pass
        dist.barrier()

    fails(
        fn,
        TimedOut,
        r"rank 1 is busy at test_hangs.py, line \d+: `(while|pass).*; ranks 0 and 2 wait for it in barrier",
        timeout=TIMEOUT_S,
    )


def test_endless_native_call(fails):
    def fn():
        if dist.get_rank() == 1:  # doubles its work with each letter, and keeps the interpreter to itself
            re.match(r"(a+)+$", "a" * 60 + "b")
        dist.barrier()

    fails(fn, Deadlock, r"rank 1 is busy at test_hangs.py, line \d+: `re.match", "native code", timeout=TIMEOUT_S)


def test_stop_is_one_block_that_says_where_each_rank_stood(stopped):
    told = []
    with stopped(ranks=2) as begun:

        def fn():
            for step in progress(range(7), label="step"):
                if step == 3:
                    begun()
                    dist.recv(torch.ones(1), 1) if dist.get_rank() == 0 else time.sleep(60)

        try:
            launch(fn, ranks=2)
        except Stopped as error:
            told.append(error)
            raise
    (block,) = told[0]._render_traceback_()
    assert re.match(r"Stopped: stopped by you after \d+\.\d s, at step \d of 7\.\nrank 0 (waits in|is busy)", block), (
        block
    )
    assert "rank 1 is busy at test_hangs.py, line" in block
    assert told[0].trace.ranks == 2


def test_stop_before_the_ranks_have_begun_is_one_line(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    said = ""
    with monkeypatch.context() as patched:
        patched.setitem(launch.__globals__, "Watch", interrupted)
        try:
            launch(print, ranks=2)
        except Stopped as stopped:
            said = stopped.report
    assert said.startswith("stopped by you before")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells that a process is stopped")
def test_a_stopped_rank_is_named_and_found_by_standing_still(fails):
    def fn():
        if dist.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        dist.all_reduce(torch.ones(4))

    error = fails(fn, Deadlock, r"(?m)^rank 1 is stopped \(by SIGSTOP", "What is wrong: rank 1 is stopped", still_s=1.0)
    assert error.rank == 1 and "native code" not in str(error)


def test_ranks_that_wait_in_different_collectives_are_ended_before_the_time(fails):
    def fn():
        (dist.barrier if dist.get_rank() == 1 else dist.all_reduce)(*(() if dist.get_rank() == 1 else (torch.ones(4),)))

    fails(fn, Deadlock, "can never finish", "rank 1 called barrier where the others called all_reduce")


def test_a_dropped_collective_is_told_where_the_next_one_took_its_place(fails):
    def fn():
        dist.barrier()
        dist.all_reduce(torch.ones(4))

    said = "rank 1 called all_reduce where the others called barrier .*: a fault dropped rank 1's barrier"
    fails(fn, Deadlock, "can never finish", said, faults=[Drop(1, "barrier")])


def test_that_memory_ran_out_is_told_where_it_led_to_another_error(fails):
    def fn():
        try:
            torch.ones(2**38)
        except RuntimeError as error:
            raise OSError("cannot save") from error

    fails(fn, RankFailed, "OSError: cannot save", "It ran out of memory", ranks=1)
