"""Each fault ends with the right report in time, leaves nothing behind, and the next launch works."""

import contextlib
import os
import signal
import sys
import threading
import time

import psutil
import pytest
import torch
import torch.distributed as dist

import parallel_lab
from parallel_lab import Delay, Kill, RankFailed, launch
from parallel_lab.runtime.kernel import forkserver, watch

pytestmark = pytest.mark.usefixtures("nothing_stays")


def test_exception_on_one_rank(fails):
    def fn():
        if dist.get_rank() == 1:
            raise ValueError("broken input")
        dist.all_reduce(torch.ones(4))

    error = fails(
        fn, RankFailed, r"^rank 1 failed", r"test_faults.py, line \d+, in fn", "raise ValueError", "broken input"
    )
    assert (error.rank, error.cause) == (1, "ValueError")
    assert set(error.failures) == {1}, "ranks that lost their peer did not fail of their own"


def test_a_file_of_the_package_is_named_without_the_folder_that_the_package_stands_in(fails):
    folder = os.path.dirname(os.path.dirname(parallel_lab.__file__))

    def fn():
        if dist.get_rank() == 1:
            raise RuntimeError(f"At:\n  {folder}/parallel_lab/runtime/rank/work.py(111): _arrived")

    error = fails(fn, RankFailed, r"(?m)^  parallel_lab/runtime/rank/work.py\(111\)")
    assert folder not in str(error).partition("RuntimeError")[2]


def test_the_report_has_what_an_exception_was_raised_from_and_the_members_of_a_group(fails):
    def fn():
        try:
            os.stat("no such file")
        except OSError:
            try:
                raise KeyError("tokens.bin")
            except KeyError as error:
                members = [ValueError(f"shard {n} is truncated") for n in (6, 7)]
                raise ExceptionGroup("loading failed", members) from error

    def chained():
        dist.get_rank() == 1 and fn()

    led = r"No such file.*\nand while this was handled:(.|\n)*KeyError: 'tokens.bin'(.|\n)*which led to:\n"
    fails(chained, RankFailed, led + r"(.|\n)*loading failed \(2 sub-exceptions\)", r"member 2(.|\n)*shard 7 is trunc")

    def suppressed():
        try:
            os.stat("no such file")
        except OSError:
            raise TypeError("plain") from None

    assert "No such" not in fails(suppressed, RankFailed, "TypeError: plain").report


def test_causes_that_go_round_and_a_recursion_without_end_are_told_once(fails):
    def circle():
        first, second = ValueError("first"), KeyError("second")
        first.__cause__, second.__cause__ = second, first
        raise first

    assert fails(circle, RankFailed, r"second(.|\n)*which led to:(.|\n)*first", ranks=1).report.count("led to") == 1

    def deeper(n):
        return deeper(n + 1)

    report = fails(lambda: deeper(0), RankFailed, r"and the same \d+ times more", "RecursionError", ranks=1).report
    assert report.count("return deeper(n + 1)") == 1


@pytest.mark.parametrize("ask", [input, breakpoint])
def test_a_rank_that_asks_a_person_fails_at_its_line(fails, ask):
    fails(lambda: ask(), RankFailed, r"test_faults.py, line \d+, in <lambda>")


def test_different_exceptions_name_the_first_and_list_the_others(fails, monkeypatch):
    def fn():
        dist.barrier()
        if dist.get_rank() == 0:
            time.sleep(1.5)
            raise KeyError("late")
        if dist.get_rank() == 2:
            raise ZeroDivisionError("early")

    monkeypatch.setattr(watch, "GRACE_S", 20)  # it ends when all ranks are over
    error = fails(fn, RankFailed, r"^rank 2 failed", r"rank 0 raised KeyError")
    assert error.failures.keys() == {0, 2}


@pytest.mark.parametrize(("leave", "words"), [(sys.exit, r"called sys.exit\(3\)"), (os._exit, "exited with code 3")])
def test_a_rank_exits(fails, leave, words):
    def fn():
        if dist.get_rank() == 1:
            leave(3)
        dist.barrier()

    error = fails(fn, RankFailed, "^rank 1", words)
    assert (error.rank, error.cause) == (1, "exit")


def test_a_rank_is_killed_says_so_at_once(fails):
    def fn():
        if dist.get_rank() == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        dist.barrier()

    error = fails(
        fn,
        RankFailed,
        "^rank 2 was killed by SIGKILL, which the system does when memory runs out",
        "rank [01] (lost its|waits)",
    )
    assert (error.rank, error.cause) == (2, "killed")


def test_kill_fault_strikes_the_nth_operation(fails):
    def fn():
        for _ in range(5):
            dist.all_reduce(torch.ones(4))
            print("done")

    error = fails(fn, RankFailed, "^rank 0 was killed", faults=[Kill(rank=0, kind="all_reduce", nth=3)])
    assert error.output[0].count("done") == 3


def test_a_rank_runs_out_of_its_memory_limit(fails):
    def fn():
        if dist.get_rank() == 1:
            return torch.ones(1 << 28).sum().item()
        dist.barrier()

    fails(fn, RankFailed, "^rank 1 failed", "ran out of memory", memory_bytes=200_000_000)


def test_stop_ends_every_rank(stopped):
    with stopped(ranks=3) as begun:

        def fn():
            begun()
            time.sleep(60)

        launch(fn, ranks=3, timeout=60)


def test_unpicklable_function():
    lock = threading.Lock()
    with pytest.raises(TypeError, match=r"must be copied to the ranks.*cannot pickle"):
        launch(lambda: lock, ranks=2)


def test_unpicklable_result(fails):
    fails(lambda: threading.Lock(), RankFailed, "what the function returned cannot be sent to the notebook")


@pytest.mark.parametrize("ranks", [0, -1, 65, 2.5, "4"])
def test_more_ranks_than_allowed(ranks):
    with pytest.raises(ValueError, match="whole number from 1 to 64"):
        launch(int, ranks=ranks)


TRIP = """
import os, torch
server = os.getpid()
def tripped(plain):
    def call(*arguments):
        if os.getpid() == server:
            raise SystemExit("the fork server asked CUDA, so that no fork of it can")
        return plain(*arguments)
    return call
torch.cuda._lazy_init = tripped(torch.cuda._lazy_init)
if hasattr(torch._C, "_cuda_getDeviceCount"):
    torch._C._cuda_getDeviceCount = tripped(torch._C._cuda_getDeviceCount)
"""


def test_a_dead_fork_server_is_replaced_and_asks_nothing_of_cuda(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(TRIP)
    monkeypatch.syspath_prepend(tmp_path)
    forkserver.get().process.kill()
    forkserver.get().process.wait()

    def fn():
        return dist.get_rank(), torch.cuda._lazy_init.__name__

    try:
        assert launch(fn, ranks=2).results == [(0, "call"), (1, "call")], "the trap stands"
    finally:  # the next fork server, which a fixture may start before this test is over, has no trap
        monkeypatch.undo()
        forkserver.restart()


def test_children_of_ranks_end_with_them():
    def fn():
        if os.fork() == 0:
            time.sleep(60)
        return os.getpgid(0)

    groups = launch(fn, ranks=2).results
    deadline = time.monotonic() + 10  # they are killed at once, and gone when the system has collected them
    while any(psutil.pid_exists(group) or members(group) for group in groups):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def members(group):
    """The living processes of a process group."""
    alive = (p for p in psutil.process_iter(["status"]) if p.info["status"] != psutil.STATUS_ZOMBIE)
    return [p for p in alive if _group(p) == group]


def _group(process):
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return None


def test_endless_printing_is_cut():
    def fn():
        for _ in range(200_000):
            print("x" * 100)

    run = launch(fn, ranks=1, echo=False, timeout=30)
    assert len(run.output[0]) < 8_000_000
    assert "left out" in run.output[0]


def test_delay_makes_a_rank_late():
    trace = launch(lambda: dist.barrier(), ranks=2, faults=[Delay(rank=1, seconds=0.3)]).trace
    delay, late = trace.of(1)
    assert (delay.kind, late.kind) == ("delay", "barrier")
    assert delay.end_s - delay.start_s >= 0.3
    assert delay.end_s <= late.start_s
    assert trace.of(0)[0].end_s >= delay.end_s


def others_go_on(gone):
    """The ranks that stay pass a message round, once they have seen that rank `gone` is no more."""
    rank, n = dist.get_rank(), dist.get_world_size()
    dist.barrier()  # all are connected: a rank that dies earlier takes those with it that still connect to it
    here = [r for r in range(n) if r != gone]
    if rank == gone:
        dist.send(torch.zeros(1), here[0])
        raise ValueError("out of luck")
    if rank == here[0]:
        with contextlib.suppress(RuntimeError):
            for _ in range(2):
                dist.recv(torch.zeros(1), gone)
    box = torch.full((1,), float(rank))
    others = here[here.index(rank) + 1 :] + here[: here.index(rank)]
    works = [dist.isend(box, others[0]), dist.irecv(got := torch.zeros(1), others[-1])]
    for work in works:
        work.wait()
    return int(got)


@pytest.mark.parametrize("faults", [(), (Kill(rank=1, kind="send"),)])
def test_ranks_that_may_fail_do_not_end_the_others(faults):
    run = launch(others_go_on, 1, ranks=3, faults=faults, may_fail=[1], timeout=20)
    assert run.results == [2, None, 0]
    killed = {1: "was killed by SIGKILL, as Kill(rank=1, kind='send', nth=0) says"}
    assert run.failures == (killed if faults else {1: "raised ValueError: out of luck"})


def test_a_rank_that_must_not_fail_still_ends_the_launch(fails):
    def fn():
        dist.barrier()
        if dist.get_rank() == 2:
            raise ValueError("mine")
        if dist.get_rank() == 1:
            raise KeyError("tolerated")
        dist.recv(torch.zeros(1), 2)

    error = fails(fn, RankFailed, r"^rank 2 failed", "mine", may_fail=[1])
    assert error.rank == 2


def test_when_every_rank_that_may_fail_does_nothing_is_returned(fails):
    def fn():
        raise ValueError("all of us")

    fails(fn, RankFailed, "all of us", ranks=2, may_fail=[0, 1])


@pytest.mark.parametrize("wrong", [[3], [-1]])
def test_only_ranks_may_fail(wrong):
    with pytest.raises(ValueError, match="expected ranks from 0 to 1"):
        launch(int, ranks=2, may_fail=wrong)
