"""A slow rank is named and a slow link is told from it, in simulated traces exactly and in a real run by order."""

import pytest
import torch
import torch.distributed as dist

from parallel_lab import Link, launch
from parallel_lab.systems.resilience import any_slow, expected_step_s, slowness
from parallel_lab.trace import Span, Trace

pytestmark = pytest.mark.usefixtures("by_value")


def trace(late_s=(0.0, 0.0, 0.0), carried_s=0.01, step_s=1.0, steps=5):
    """Steps of `step_s`, at whose end rank r calls an all-reduce `late_s[r]` later than it might."""
    spans = []
    for step in range(steps):
        called = [step * (step_s + max(late_s) + carried_s) + step_s + late for late in late_s]
        for rank, start in enumerate(called):
            spans.append(Span(rank, "F", start - step_s - late_s[rank], start))
            spans.append(Span(rank, "all_reduce", start, max(called) + carried_s, lane="send"))
    return Trace(len(late_s), tuple(spans))


def test_a_slow_rank():
    found = slowness(trace((0.0, 0.5, 0.1)))
    assert (found.cause, found.rank) == ("rank", 1)
    assert found.cost_s == pytest.approx(0.4), "without it the next slowest would be waited for"
    assert found.waits(0) == pytest.approx(2.5) and found.waits(1) == 0 and found.times_last(1) == 5
    assert found.waits_for(1) == pytest.approx(5 * (0.5 + 0.4)) and "rank 1 is slow" in str(found)


def test_a_slow_link_and_neither():
    link = slowness(trace((0.0, 0.01, 0.0), carried_s=3.0))
    assert (link.cause, link.rank) == ("link", -1) and link.cost_s == pytest.approx(3.0)
    assert "the link is slow" in str(link) and "it is computing" in str(slowness(trace()))
    with pytest.raises(ValueError, match="no collective of two ranks"):
        slowness(Trace(2, ()))


def test_real_ranks_one_of_which_always_comes_last():
    """Rank 2 calls once all others have: whatever the machine does, it is last."""

    def fn():
        for _ in range(6):
            if dist.get_rank() == 2:
                for other in (0, 1, 3):
                    dist.recv(torch.ones(1), other)
                dist.all_reduce(torch.ones(4))
            else:
                work = dist.all_reduce(torch.ones(4), async_op=True)
                dist.send(torch.ones(1), 2)
                work.wait()

    run = launch(fn, ranks=4)
    found = slowness(run)
    assert found.times_last(2) == len(found.meetings) == 6 and found.waits(2) == 0 < found.waits_for(2)


def test_a_real_slow_link():
    def fn():
        for _ in range(4):
            dist.all_reduce(torch.ones(1000))

    found = slowness(launch(fn, ranks=3, link=Link(0.02, 1e9)))
    assert all(meeting.over_s for meeting in found.meetings) and found.cause in ("link", "rank")


def test_any_slow():
    assert any_slow(0.001, 1024) == pytest.approx(0.641, abs=5e-4)
    assert any_slow(0, 5) == 0 and any_slow(1, 5) == 1 and any_slow(0.3, 1) == pytest.approx(0.3)
    assert expected_step_s(1.0, 3.0, 0.5, 2) == pytest.approx(0.25 + 3 * 0.75)
    with pytest.raises(ValueError, match="probability"):
        any_slow(1.5, 2)
