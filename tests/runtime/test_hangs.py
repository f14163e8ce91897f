"""Ranks that wait for ever, or meet in different calls, end in time with a report that names who, where and why."""

import re

import pytest
import torch
import torch.distributed as dist

from parallel_lab import Deadlock, Drop, RankFailed
from parallel_lab.runtime import Mismatch

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

    fails(fn, Deadlock, "rank 1 waits in recv", ranks=2, timeout=TIMEOUT_S, faults=[Drop(rank=0, kind="send")])


def test_endless_python(fails):
    def fn():
        while dist.get_rank() == 1:
            pass
        dist.barrier()

    fails(
        fn,
        Deadlock,
        r"rank 1 is busy at test_hangs.py, line \d+: `(while|pass).*; ranks 0 and 2 wait for it in barrier",
        timeout=TIMEOUT_S,
    )


def test_endless_native_call(fails):
    def fn():
        if dist.get_rank() == 1:  # doubles its work with each letter, and keeps the interpreter to itself
            re.match(r"(a+)+$", "a" * 60 + "b")
        dist.barrier()

    fails(fn, Deadlock, r"rank 1 is busy at test_hangs.py, line \d+: `re.match", "native code", timeout=TIMEOUT_S)
