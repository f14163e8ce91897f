"""`partition` against all ways to cut, tried one by one; and which rank holds which stage."""

from itertools import combinations, pairwise
from random import Random

import pytest
from sweeps import plan_of, sizes

from parallel_lab.pipeline import one_f_one_b, partition, placement, repeated, stages_of, with_messages, with_needs
from parallel_lab.plan import Op, check_plan, parse


def slowest(costs, cuts, messages):
    edges = [0, *cuts, len(costs)]
    return max([sum(costs[a:b]) for a, b in pairwise(edges)] + [messages[cut - 1] for cut in cuts if messages])


def test_no_other_cut_has_a_faster_slowest_stage():
    draw = Random(0)
    for _ in range(200):
        layers = draw.randint(1, 8)
        stages = draw.randint(1, layers)
        costs = [draw.randint(0, 9) for _ in range(layers)]
        messages = [draw.randint(0, 9) for _ in range(layers - draw.randint(0, 1))] if draw.random() < 0.5 else []
        found = partition(costs, stages, messages)
        assert len(found) == stages and all(found), "each stage has a layer"
        assert [layer for one in found for layer in one] == list(range(layers)), "contiguous, and all of them"
        best = min(slowest(costs, cuts, messages) for cuts in combinations(range(1, layers), stages - 1))
        assert slowest(costs, [one.start for one in found[1:]], messages) == best, (costs, stages, messages)


def test_a_heavy_head_gets_a_stage_by_itself():
    assert partition([0.1, *[1.0] * 8, 3.0], 4) == [range(3), range(3, 6), range(6, 9), range(9, 10)]
    assert partition([1.0] * 4, 2, [9.0, 1.0, 9.0]) == [range(2), range(2, 4)], "where little has to cross"
    assert partition([1.0] * 4, 2, [1.0, 9.0, 1.0]) == [range(1), range(1, 4)], "3 s beside a message are better than 9"


@pytest.mark.parametrize(
    ("costs", "stages", "messages", "said"),
    [
        ([1, 2, 3], 4, [], "3 layers make 1 to 3 stages, not 4: each stage needs a layer"),
        ([1, 2, 3], 0, [], "not 0"),
        ([1, -2, 3], 2, [], "costs has -2: seconds are 0 or more"),
        ([1, float("nan")], 2, [], "costs has nan"),
        ([1, 2, 3], 2, [1], "messages_s has 1 numbers; 3 layers have 2 places for a cut"),
    ],
)
def test_what_cannot_be_cut_is_refused(costs, stages, messages, said):
    with pytest.raises(ValueError, match=said):
        partition(costs, stages, messages)


def test_which_rank_holds_which_stages():
    for name, p, m, v in sizes(1, 3, 4):
        plan = plan_of(name, p, m, v)
        where = placement(plan)
        if name in ("interleaved", "looped_bfs"):
            assert where == [stage % p for stage in range(p * v)]
        else:
            down = list(range(p))
            assert where == (down + down[::-1] if name in ("zb_v", "dualpipe_v") else down)
        for rank in range(p):
            assert stages_of(plan, rank) == stages_of(with_messages(plan), rank)
            assert stages_of(plan, rank) == [stage for stage, owner in enumerate(where) if owner == rank]


def test_a_stage_on_two_ranks_or_on_none_is_refused():
    with pytest.raises(ValueError, match="stage 0 has passes on rank 0 and on rank 1"):
        placement(parse("0F0\n0F1"))
    with pytest.raises(ValueError, match="stage 1 has no pass in this plan, which has stage 2"):
        placement(parse("0F0\n2F0"))


def test_a_row_of_steps_counts_microbatches_on():
    plan = repeated(one_f_one_b(2, 3), 2)
    check_plan(plan)
    assert " ".join(map(str, plan.rows[1])) == "1F0 1B0 1F1 1B1 1F2 1B2 1F3 1B3 1F4 1B4 1F5 1B5"
    assert repeated(one_f_one_b(2, 3), 1) == one_f_one_b(2, 3)
    with pytest.raises(ValueError, match="steps is 0"):
        repeated(plan, 0)


def test_messages_stand_beside_the_passes_that_make_and_use_them():
    plan = with_messages(one_f_one_b(2, 2))
    assert " ".join(map(str, plan.rows[0])) == (
        "0F0 0send0>1:forward 0F1 0send1>1:forward 0recv0<1:backward 0B0 0recv1<1:backward 0B1"
    )
    assert " ".join(map(str, plan.rows[1])) == (
        "0recv0<0:forward 1F0 1B0 0send0>0:backward 0recv1<0:forward 1F1 1B1 0send1>0:backward"
    )
    (arrived,) = plan.needs[Op(1, "F", 1, 0)]
    assert str(arrived) == "0recv0<0:forward" and plan.needs[arrived] == (arrived.sender(),)
    assert plan.needs[arrived.sender()] == (Op(0, "F", 0, 0),)


def test_both_directions_between_two_ranks_are_told_apart():
    """Of p = 2 looped, stage 1 gets activations from rank 0 and gradients from rank 0."""
    check_plan(with_messages(plan_of("interleaved", 2, 2, 2)))


def test_what_stays_on_a_rank_needs_no_message():
    assert with_messages(plan_of("zb_v", 1, 3)) == plan_of("zb_v", 1, 3)
    plan = with_needs(parse("0F0 1F0 1B0 0B0").rows)
    assert with_messages(plan) == plan
