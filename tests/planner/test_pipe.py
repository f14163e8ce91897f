"""The fast pipeline says what the simulator says, for any seconds of the passes, and a folded step is the long one."""

import random

import pytest

from parallel_lab.pipeline import with_messages
from parallel_lab.planner.pipe import Seconds, compiled, finish_s, schedule_plan
from parallel_lab.simulate import PassCost, simulate

SCHEDULES = [("gpipe", 1), ("1f1b", 1), ("interleaved", 2), ("interleaved", 3), ("zb_h1", 1), ("zb_h2", 1)]
SCHEDULES += [("zb_v", 2), ("dualpipe_v", 2)]


def some_seconds(stages, message_s, seed):
    """Of unequal stages: the last has the head, and each its own seconds."""
    draw = random.Random(seed)
    forward, inputs, weights = ([draw.uniform(0.8, 1.2) for _ in range(stages)] for _ in range(3))
    return Seconds([*forward[:-1], 1.5], inputs, weights, message_s)


@pytest.mark.parametrize(("schedule", "v"), SCHEDULES)
def test_equals_the_simulator(schedule, v):
    for p, m in ((2, 4), (4, 8), (4, 12)):
        seconds = some_seconds(p * v, 0.05, seed=p + m)
        whole = [i + w for i, w in zip(seconds.input_s, seconds.weight_s, strict=True)]
        cost = PassCost(seconds.forward_s, whole, seconds.input_s, seconds.weight_s, message_s=0.05)
        trace = simulate(with_messages(schedule_plan(schedule, p, m, v)), cost)
        ends = [max(span.end_s for span in trace.spans if span.rank == rank) for rank in range(p)]
        found = finish_s(schedule, p, m, v, seconds)
        # Messages of one rank that leave at the same time wait for each other in the simulator only.
        assert found == pytest.approx(ends, rel=0.01)
        assert max(found) <= trace.duration_s + 1e-9


@pytest.mark.parametrize(("schedule", "v"), SCHEDULES)
def test_without_messages_it_is_exact(schedule, v):
    seconds = some_seconds(4 * v, 0.0, seed=1)
    whole = [i + w for i, w in zip(seconds.input_s, seconds.weight_s, strict=True)]
    cost = PassCost(seconds.forward_s, whole, seconds.input_s, seconds.weight_s)
    trace = simulate(schedule_plan(schedule, 4, 12, v), cost)
    assert max(finish_s(schedule, 4, 12, v, seconds)) == pytest.approx(trace.duration_s)
    own = finish_s(schedule, 4, 12, v, seconds, own=True)
    assert max(own) == pytest.approx(max(trace.window_s(rank) for rank in range(4)))


@pytest.mark.parametrize(("schedule", "v"), SCHEDULES)
def test_folding_loses_nothing(schedule, v, monkeypatch):
    """Stages of equal layers, the first with one less, the last with the head."""
    monkeypatch.setattr("parallel_lab.planner.pipe._WHOLE", 0)
    stages = 4 * v
    for message_s in (0.0, 0.05, 0.3):
        forward, inputs, weights = ([0.75 * each, *[each] * (stages - 2), 1.2 * each] for each in (1.0, 1.2, 0.9))
        seconds = Seconds(forward, inputs, weights, message_s)
        for m in (32, 48):
            folded = finish_s(schedule, 4, m, v, seconds)
            with monkeypatch.context() as patch:
                patch.setattr("parallel_lab.planner.pipe._WHOLE", 10**9)
                assert finish_s(schedule, 4, m, v, seconds) == pytest.approx(folded, rel=1e-9)


def test_folding_of_unequal_stages(monkeypatch):
    seconds = some_seconds(8, 0.05, seed=3)
    whole = finish_s("interleaved", 4, 40, 2, seconds)
    monkeypatch.setattr("parallel_lab.planner.pipe._WHOLE", 0)
    assert finish_s("interleaved", 4, 40, 2, seconds) == pytest.approx(whole, rel=0.03)


def test_a_plan_as_numbers():
    plan = compiled("1f1b", 2, 2, 1)
    assert plan.ranks == (0, 1)
    assert set(plan.kinds) == {("F", 0), ("F", 1), ("B", 0), ("B", 1)}
    assert len(plan.passes) == 8
