"""GPipe, 1F1B and interleaved 1F1B: shape, bubble and memory against their closed forms."""

import pytest

from parallel_lab.pipeline import gpipe, interleaved, one_f_one_b, with_needs
from parallel_lab.plan import Op, Plan, PlanError, check_plan, parse, to_grid
from parallel_lab.simulate import PassCost, simulate

SIZES = [(p, m) for p in range(1, 9) for m in (1, 2, 3, 5, 8, 16)]
INTERLEAVED = [(p, p * rounds, v) for p in range(1, 9) for rounds in (1, 2, 3) for v in (1, 2, 3, 4)]


@pytest.mark.parametrize("schedule", [gpipe, one_f_one_b])
@pytest.mark.parametrize(("p", "m"), SIZES)
def test_each_stage_runs_each_pass_once(schedule, p, m):
    plan = schedule(p, m)
    check_plan(plan)
    for stage, row in enumerate(plan.rows):
        assert sorted(row) == sorted(Op(stage, kind, stage, mb) for kind in "FB" for mb in range(m))


@pytest.mark.parametrize("schedule", [gpipe, one_f_one_b])
@pytest.mark.parametrize(("p", "m"), SIZES)
@pytest.mark.parametrize("backward_s", [1, 2, 3.5])
def test_bubble(schedule, p, m, backward_s):
    trace = simulate(schedule(p, m), PassCost(1, backward_s))
    assert trace.bubble() == pytest.approx((p - 1) / (m + p - 1), abs=1e-12)
    assert trace.duration_s == pytest.approx((m + p - 1) * (1 + backward_s))


@pytest.mark.parametrize(("p", "m"), SIZES)
def test_activations_held(p, m):
    cost = PassCost(activation_bytes=100)
    all_forwards, alternating = simulate(gpipe(p, m), cost), simulate(one_f_one_b(p, m), cost)
    assert [all_forwards.peak_bytes(s) for s in range(p)] == [100 * m] * p
    assert [alternating.peak_bytes(s) for s in range(p)] == [100 * min(p - s, m) for s in range(p)]


@pytest.mark.parametrize(("p", "m", "v"), INTERLEAVED)
def test_interleaved_runs_each_pass_of_each_chunk_once(p, m, v):
    plan = interleaved(p, m, v)
    check_plan(plan)
    for rank, row in enumerate(plan.rows):
        stages = range(rank, p * v, p)
        assert sorted(row) == sorted(Op(rank, kind, s, mb) for kind in "FB" for s in stages for mb in range(m))


@pytest.mark.parametrize(("p", "m", "v"), INTERLEAVED)
def test_interleaved_bubble_and_activations(p, m, v):
    trace = simulate(interleaved(p, m, v), PassCost(1 / v, 2 / v, activation_bytes=100))
    assert trace.bubble() == pytest.approx((p - 1) / (v * m + p - 1), abs=1e-12)
    held = [min(2 * (p - 1 - rank) + (v - 1) * p + 1, v * m) for rank in range(p)]
    assert [trace.peak_bytes(rank) for rank in range(p)] == [100 * chunks for chunks in held]


@pytest.mark.parametrize(("p", "v"), [(2, 2), (4, 2), (4, 3), (8, 4)])
def test_interleaving_holds_more_on_rank_0_by_the_published_factor(p, v):
    m = 2 * p
    plain = simulate(one_f_one_b(p, m), PassCost(activation_bytes=v * 100)).peak_bytes(0)
    chunked = simulate(interleaved(p, m, v), PassCost(activation_bytes=100)).peak_bytes(0)
    assert chunked / plain == pytest.approx(1 + (p - 1) / (p * v))


def test_one_chunk_a_rank_has_the_bubble_of_1f1b_but_runs_further_ahead():
    assert interleaved(4, 8, 1).rows != one_f_one_b(4, 8).rows
    assert simulate(interleaved(4, 8, 1), PassCost()).duration_s == simulate(one_f_one_b(4, 8), PassCost()).duration_s


def test_grids():
    assert to_grid(gpipe(2, 2)) == "rank 0:  0F0  0F1  0B0  0B1\nrank 1:  1F0  1F1  1B0  1B1"
    assert to_grid(one_f_one_b(2, 3)) == (
        "rank 0:  0F0  0F1  0B0  0F2  0B1  0B2\nrank 1:  1F0  1B0  1F1  1B1  1F2  1B2"
    )


def test_needs():
    needs = gpipe(3, 2).needs
    assert Op(0, "F", 0, 1) not in needs
    assert needs[Op(1, "F", 1, 1)] == (Op(0, "F", 0, 1),)
    assert set(needs[Op(1, "B", 1, 0)]) == {Op(1, "F", 1, 0), Op(2, "B", 2, 0)}
    assert needs[Op(2, "B", 2, 0)] == (Op(2, "F", 2, 0),)


def test_needs_go_from_the_last_rank_round_to_the_first():
    needs = interleaved(2, 2, 2).needs
    assert needs[Op(0, "F", 2, 1)] == (Op(1, "F", 1, 1),)
    assert set(needs[Op(1, "B", 1, 1)]) == {Op(1, "F", 1, 1), Op(0, "B", 2, 1)}


def test_needs_of_a_split_backward():
    needs = with_needs(parse("0F0 0I0 0W0\n1F0 1I0 1W0").rows).needs
    assert set(needs[Op(0, "I", 0)]) == {Op(0, "F", 0), Op(1, "I", 1)}
    assert needs[Op(0, "W", 0)] == (Op(0, "I", 0),)
    assert needs[Op(1, "W", 1)] == (Op(1, "I", 1),)


def test_a_schedule_of_ones_own_that_forgets_a_pass_is_caught():
    with pytest.raises(PlanError, match="rank 1 waits at 1F1 for rank 0's 0F1, which is in no row"):
        check_plan(with_needs(parse("0F0 0B0\n1F0 1F1 1B0 1B1").rows))


def test_a_schedule_of_ones_own_in_an_impossible_order_is_caught():
    with pytest.raises(PlanError, match="can never finish"):
        check_plan(with_needs(parse("0F0 0B0 0F1 0B1\n1F0 1F1 1B0 1B1").rows))


@pytest.mark.parametrize("schedule", [gpipe, one_f_one_b])
def test_sizes_below_one_are_refused(schedule):
    for p, m, name in [(0, 1, "p"), (1, 0, "m"), (-1, 2, "p")]:
        with pytest.raises(ValueError, match=f"{name} is "):
            schedule(p, m)


def test_interleaved_refuses_sizes():
    with pytest.raises(ValueError, match="v is 0"):
        interleaved(2, 2, 0)
    with pytest.raises(ValueError, match="m = 6 is no multiple of p = 4"):
        interleaved(4, 6, 2)


def test_empty_rows_need_nothing():
    assert with_needs([[], []]) == Plan(((), ()))
