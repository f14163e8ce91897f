"""Plans that cannot finish, or make no sense: the error names who waits at what, and the cause."""

import pytest

from parallel_lab.plan import Op, Plan, PlanError, parse, recv, send
from parallel_lab.simulate import AlphaBeta, PassCost, StuckPlan, simulate


def test_stuck_plan_names_each_stuck_rank_what_it_waits_at_and_for():
    plan = Plan.of([recv(0, 1, 0), Op(0, "F", 0), recv(1, 2, 0), send(1, 0, 0), Op(2, "F", 2)],
                   {send(1, 0, 0): [recv(1, 2, 0)]})  # fmt: skip
    with pytest.raises(StuckPlan) as caught:
        simulate(plan, AlphaBeta(0.0, 1.0))
    text = str(caught.value)
    assert "rank 0 waits at 0recv0<1 for rank 1's 0send0>0" in text
    assert "rank 1 waits at 0recv0<2 for rank 2's 0send0>1, which is in no row" in text
    assert "rank 2 waits" not in text
    assert text.endswith("rank 1: [0recv0<2] 0send0>0\nrank 2:  2F0")  # the cause is marked, not who waits for it
    assert text.count("[") == 1


def test_stuck_plan_finds_the_cause_behind_other_waits():
    work, far, late = Op(0, "F", 0), Op(1, "F", 1), recv(0, 1, 5)
    with pytest.raises(StuckPlan) as caught:
        simulate(Plan(((work, late), (far,)), {work: (far,), far: (late,)}), PassCost())
    text = str(caught.value)
    assert "rank 0 waits at 0F0 for rank 1's 1F0" in text
    assert "rank 0 waits at 5recv0<1 for rank 1's 5send0>0, which is in no row" in text
    assert "rank 0:  0F0 [5recv0<1]" in text


def test_stuck_plan_tells_a_circle():
    a, b = Op(0, "F", 0), Op(1, "F", 1)
    with pytest.raises(StuckPlan) as caught:
        simulate(Plan(((a,), (b,)), {a: (b,), b: (a,)}), PassCost())
    text = str(caught.value)
    assert "rank 0 waits at 0F0 for rank 1's 1F0\n" in text
    assert "rank 1 waits at 1F0 for rank 0's 0F0\n" in text
    assert "rank 0 waits at 0F0 for rank 1's 1F0, which waits for rank 0's 0F0 again: a circle" in text


def test_stuck_plan_is_a_plan_error():
    assert issubclass(StuckPlan, PlanError)


def test_doubled_op_is_refused():
    with pytest.raises(PlanError, match="stands 2 times"):
        simulate(parse("0F0 0F0"), PassCost())


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
def test_impossible_time_is_refused(seconds):
    with pytest.raises(ValueError, match="gives rank 0's 0F0"):
        simulate(parse("0F0"), PassCost(forward_s=seconds))
