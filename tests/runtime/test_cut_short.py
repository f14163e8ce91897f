"""What the ranks did until a launch failed is kept, whatever made it fail."""

import os

import pytest
import torch
import torch.distributed as dist

from parallel_lab import Deadlock, Kill, Link, RankFailed, TimedOut, launch, span
from parallel_lab.runtime import LaunchError

pytestmark = pytest.mark.usefixtures("nothing_stays")


def steps(ending, count=3):
    """`count` passes with an all-reduce after each, then `ending(rank)`."""

    def fn():
        for mb in range(count):
            with span("forward", mb=mb):
                torch.ones(64) @ torch.ones(64)
            dist.all_reduce(torch.ones(8))
        ending(dist.get_rank())

    return fn


def caught(fn, kind, **options) -> LaunchError:
    with pytest.raises(kind) as raised:
        launch(fn, **{"ranks": 2, **options})
    assert raised.value.trace
    return raised.value


def kinds(error, rank):
    return [s.kind for s in error.trace.of(rank)]


def cut(error, rank):
    return [(s.kind, s.peer) for s in error.trace.of(rank) if s.cut]


def test_of_a_deadlock_every_rank_shows_what_it_did_and_in_what_it_waited():
    error = caught(steps(lambda rank: dist.send(torch.ones(8), 1 - rank)), Deadlock)
    for rank in range(2):
        assert kinds(error, rank) == ["F", "all_reduce"] * 3 + ["send"]
        assert cut(error, rank) == [("send", 1 - rank)]
        waiting = error.trace.of(rank)[-1]
        assert waiting.line.startswith("test_cut_short.py, line") and not waiting.sent_bytes
    assert min(s.end_s for s in error.trace.spans if s.cut) > max(s.end_s for s in error.trace.spans if s.ended)


def test_of_a_rank_that_returned_all_is_there():
    error = caught(steps(lambda rank: rank or dist.all_reduce(torch.ones(4))), Deadlock)
    assert kinds(error, 1) == ["F", "all_reduce"] * 3 and cut(error, 1) == []
    assert cut(error, 0) == [("all_reduce", -1)]


def test_a_rank_that_raised_keeps_its_spans_and_so_do_those_that_wait_for_it():
    def ending(rank):
        if rank == 1:
            raise FloatingPointError("not finite")
        dist.all_reduce(torch.ones(4))

    error = caught(steps(ending), RankFailed)
    assert kinds(error, 1) == ["F", "all_reduce"] * 3
    assert cut(error, 0) == [("all_reduce", -1)]


def test_of_a_rank_that_was_killed_nothing_is_left_and_of_the_others_all():
    error = caught(steps(lambda rank: None), RankFailed, faults=[Kill(rank=1, kind="all_reduce", nth=2)])
    assert kinds(error, 1) == []
    assert kinds(error, 0) == ["F", "all_reduce"] * 3


def test_of_a_rank_that_exits_nothing_is_left():
    error = caught(steps(lambda rank: os._exit(3) if rank else dist.barrier()), RankFailed)
    assert kinds(error, 1) == [] and len(kinds(error, 0)) >= 6


def test_when_time_is_up_what_is_under_way_had_not_ended():
    error = caught(steps(lambda rank: None, count=1), TimedOut, link=Link(60.0, 1e9), timeout=2)
    assert cut(error, 0) == cut(error, 1) == [("all_reduce", -1)]


def test_the_report_in_a_notebook_says_how_to_see_it():
    error = caught(steps(lambda rank: rank or dist.all_reduce(torch.ones(4))), Deadlock)
    (block,) = error._render_traceback_()
    assert block.endswith("To see what the ranks did until then: draw()")
    assert "draw()" not in str(error)


def test_nothing_is_offered_where_nothing_was_recorded():
    error = caught(steps(lambda rank: rank or dist.all_reduce(torch.ones(4))), Deadlock, record=False)
    assert error.trace and not error.trace.spans
    assert "draw()" not in error._render_traceback_()[0]
