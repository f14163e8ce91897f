"""Who waits burns watts: a straggler among real ranks, a simulated pipeline whose quick passes run slower."""

import time

import pytest
import torch
import torch.distributed as dist

from parallel_lab import launch
from parallel_lab.pipeline import one_f_one_b
from parallel_lab.systems.energy import Chip, burned, slow_down, straggler_share
from parallel_lab.trace import Span, Trace

CHIP = Chip(static_w=100, dynamic_w=300)


def with_straggler(steps, late_s):
    for _ in range(steps):
        time.sleep(0.005 + late_s * (dist.get_rank() == 2))
        dist.all_reduce(torch.ones(10))


def test_a_straggler_burns_everyone_s_watts():
    run = launch(with_straggler, 4, 0.08, ranks=4, device="cpu")
    found = burned(run, busy_w=400, waiting_w=300)
    waited = found.waiting_s
    assert min(waited, key=waited.__getitem__) == 2
    assert all(waited[rank] > 0.2 for rank in (0, 1, 3))  # four times 80 ms, less than that where the machine is busy
    assert found.waiting_j == pytest.approx(300 * sum(waited.values()))
    assert found.joules == pytest.approx(found.waiting_j + 400 * sum(found.working_s.values()))
    assert found.share > 0.4


def test_share_by_hand():
    """Three ranks of a trace: one joins 2 s after the others, at which all leave."""
    spans = tuple(
        span
        for rank, late in enumerate((0.0, 2.0, 0.0))
        for span in (Span(rank, "F", 0.0, 4.0 + late), Span(rank, "all_reduce", 4.0 + late, 6.0, lane="send"))
    )
    found = burned(Trace(3, spans), busy_w=100, waiting_w=100)
    assert found.waiting_s == pytest.approx({0: 2.0, 1: 0.0, 2: 2.0})
    assert found.share == pytest.approx(straggler_share(3, step_s=4.0, late_s=2.0)) == pytest.approx(4 / 18)
    assert straggler_share(3, 4.0, 0.0) == 0


@pytest.mark.parametrize("stage_s", [(1, 1, 1, 1), (1, 1, 1, 1.2), (0.8, 1, 1, 1.3)])
def test_quick_passes_run_slower_and_the_step_ends_as_early(stage_s):
    found = slow_down(one_f_one_b(4, 6), stage_s, CHIP, idle_w=80)
    assert found.after_s <= found.before_s * (1 + 1e-9)
    assert 0 < found.less < 0.4 and min(found.clocks.values()) < 1
    slowest = max(range(4), key=stage_s.__getitem__)
    if stage_s[slowest] > 1:  # in the steady state the slowest stage is critical
        steady = [clock for op, clock in found.clocks.items() if op.part == slowest and 1 <= op.mb <= 4]
        assert set(steady) == {1.0}


def test_a_longer_step_saves_more():
    least, more = (slow_down(one_f_one_b(3, 4), (1, 1, 1.2), CHIP, 80, longer=each) for each in (0.0, 0.1))
    assert more.less > least.less and more.after_s <= 1.1 * more.before_s * (1 + 1e-9)


def test_nothing_to_gain_on_one_stage():
    found = slow_down(one_f_one_b(1, 3), (1.0,), CHIP, idle_w=80)
    assert set(found.clocks.values()) == {1.0} and found.less == 0
