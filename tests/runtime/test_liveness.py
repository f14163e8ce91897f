"""Messages to and from ranks that died: their wait ends, whether or not gloo notices."""

import threading
import time

import pytest
import torch
import torch.distributed as dist

from parallel_lab import launch
from parallel_lab.runtime.rank import waiting
from parallel_lab.runtime.rank.faults import Kill
from parallel_lab.runtime.rank.waiting import Liveness


def never() -> float:
    threading.Event().wait()
    return 0.0


def test_a_wait_for_a_rank_that_dies_ends_with_an_error():
    peers, seen = Liveness([1, 2]), []

    def wait():
        with pytest.raises(RuntimeError, match="rank 1, which has died"):
            peers.wait(1, never)
        seen.append(1)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    peers.note(2)  # another rank
    assert peers.wait(1, lambda: 2.5) == 2.5
    assert not seen
    peers.note(1)
    thread.join(timeout=20)
    assert seen


def test_what_came_in_before_the_death_counts(monkeypatch):
    monkeypatch.setattr(waiting, "NOTICE_S", 20)  # it ends with the wait
    peers = Liveness([1])
    peers.note(1)
    assert peers.wait(1, lambda: time.sleep(0.01) or 2.5) == 2.5
    with pytest.raises(OSError, match="its own words"):
        peers.wait(1, lambda: (_ for _ in ()).throw(OSError("its own words")))


def test_a_rank_that_must_not_fail_is_waited_for_in_the_same_thread():
    assert Liveness([1]).wait(0, lambda: float(threading.get_ident())) == threading.get_ident()


@pytest.mark.parametrize("kind", ["send", "recv"])
def test_the_kernel_tells_the_others_of_a_death(kind):
    def fn():
        work = getattr(dist, f"i{kind}")(torch.zeros(1), 1) if dist.get_rank() != 1 else None
        dist.barrier()
        if dist.get_rank() == 1:
            dist.send(torch.zeros(1), 0)
        # As gloo in the rare case: it never says that the message has arrived, nor that it has not.
        work.inner = type("Silent", (), {"wait": lambda self: never()})()
        with pytest.raises(RuntimeError, match="rank 1, which has died"):
            work.wait()
        return True

    run = launch(fn, ranks=3, faults=[Kill(rank=1, kind="send")], may_fail=[1], timeout=20)
    assert run.results == [True, None, True]
