"""Plans that cannot finish, or make no sense: the error names who waits at what, and shows the step."""

import pytest

from parallel_lab.plan import Op, Plan, PlanError, parse, recv, send
from parallel_lab.simulate import AlphaBeta, PassCost, simulate


def test_the_cause_is_named_and_marked_and_not_who_waits_for_it():
    plan = Plan.of([recv(0, 1, 0), Op(0, "F", 0), recv(1, 2, 0), send(1, 0, 0), Op(2, "F", 2)],
                   {send(1, 0, 0): [recv(1, 2, 0)]})  # fmt: skip
    with pytest.raises(PlanError) as caught:
        simulate(plan, AlphaBeta(0.0, 1.0))
    text = str(caught.value)
    assert "rank 1 waits at 0recv0<2 for rank 2's 0send0>1, which is in no row" in text
    assert text.endswith("rank 1: [0recv0<2] 0send0>0\nrank 2:  2F0")
    assert text.count("[") == 1


def test_a_circle_is_told():
    a, b = Op(0, "F", 0), Op(1, "F", 1)
    with pytest.raises(PlanError) as caught:
        simulate(Plan(((a,), (b,)), {a: (b,), b: (a,)}), PassCost())
    assert "rank 0 waits at 0F0 for rank 1's 1F0, which waits for rank 0's 0F0 again: a circle" in str(caught.value)


def test_doubled_op_is_refused():
    with pytest.raises(PlanError, match="stands 2 times"):
        simulate(parse("0F0 0F0"), PassCost())


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
def test_impossible_time_is_refused(seconds):
    with pytest.raises(ValueError, match="gives rank 0's 0F0"):
        simulate(parse("0F0"), PassCost(forward_s=seconds))
