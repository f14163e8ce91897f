"""check_plan: each way in which a plan is impossible is named, with rank and step, and shown."""

import pytest

from parallel_lab.pipeline import gpipe, interleaved, one_f_one_b
from parallel_lab.plan import Op, Plan, PlanError, check_plan, parse, recv, send


def error(plan):
    with pytest.raises(PlanError) as caught:
        check_plan(plan)
    return str(caught.value)


def pair():
    return [send(0, 1, 0), recv(1, 0, 0)]


@pytest.mark.parametrize(
    "plan", [Plan(()), Plan.of([], ranks=3), gpipe(3, 4), one_f_one_b(4, 2), interleaved(2, 4, 3), Plan.of(pair())]
)
def test_possible_plans_pass(plan):
    check_plan(plan)


def test_plan_error_is_a_value_error():
    assert issubclass(PlanError, ValueError)


def test_need_that_no_row_holds():
    late, gone = Op(1, "F", 1, 0), Op(0, "F", 0, 0)
    text = error(Plan(((Op(0, "B", 0, 0),), (late,)), {late: (gone,)}))
    assert "rank 1 waits at 1F0 for rank 0's 0F0, which is in no row" in text
    assert text.splitlines()[1:] == ["rank 0:  0B0", "rank 1: [1F0]"]


def test_receive_whose_send_no_row_holds():
    text = error(Plan.of([Op(0, "F", 0), recv(1, 0, 2, 3)]))
    assert "rank 1 waits at 2recv3<0 for rank 0's 2send3>1, which is in no row" in text
    assert "[2recv3<0]" in text


def test_receive_needs_its_sender_even_if_needs_do_not_say_so():
    text = error(Plan(((Op(0, "F", 0),), (recv(1, 0, 0, reduce=True),))))
    assert "rank 1 waits at 0recv_reduce0<0 for rank 0's 0send0>1" in text


def test_needs_of_an_op_that_no_row_holds():
    text = error(Plan(((Op(0, "F", 0),),), {Op(0, "B", 0): (Op(0, "F", 0),)}))
    assert "needs are given for rank 0's 0B0, which is in no row" in text


def test_doubled_op():
    text = error(parse("0F0 0F1 0F0"))
    assert "rank 0's 0F0 stands 2 times" in text
    assert "rank 0: [0F0] 0F1 [0F0]" in text


def test_op_in_the_wrong_row():
    text = error(Plan(((Op(0, "F", 0),), (Op(2, "F", 5),), ())))
    assert "rank 2's 5F0 stands in the row of rank 1" in text
    assert "rank 1: [5F0]" in text


def test_send_that_nobody_receives():
    text = error(Plan.of([*pair(), send(1, 0, 4, 1)]))
    assert "rank 1 sends 4send1>0, and rank 0 never receives it" in text
    assert "[4send1>0]" in text


def test_message_received_twice():
    text = error(Plan.of([*pair(), recv(1, 0, 0, reduce=True)]))
    assert "rank 1 receives the message of rank 0's 0send0>1 twice" in text


def test_two_ranks_that_each_receive_first_wait_in_a_circle():
    ops = [op for r in (0, 1) for op in (recv(r, 1 - r, 0), send(r, 1 - r, 0))]
    text = error(Plan.of(ops, {send(r, 1 - r, 0): [recv(r, 1 - r, 0)] for r in (0, 1)}))
    assert (
        "rank 0 waits at 0recv0<1 for rank 1's 0send0>0, which waits for rank 1's 0recv0<0, "
        "which waits for rank 0's 0send0>1, which waits for rank 0's 0recv0<1 again" in text
    )
    assert text.splitlines()[1:] == ["rank 0: [0recv0<1][0send0>1]", "rank 1: [0recv0<0][0send0>0]"]


def test_side_by_side_lanes_are_no_circle():
    check_plan(Plan.of(op for r in (0, 1) for op in (recv(r, 1 - r, 0), send(r, 1 - r, 0))))


def test_order_inside_a_lane_that_can_never_finish():
    plan = one_f_one_b(2, 2)
    rows = (plan.rows[0], (plan.rows[1][1], plan.rows[1][0], *plan.rows[1][2:]))  # 1B0 ahead of 1F0
    text = error(Plan(rows, plan.needs))
    assert "rank 1's 1B0 (ahead of it in its lane)" in text
    assert "[1B0][1F0]" in text


def test_an_op_that_needs_itself():
    op = Op(0, "F", 0)
    assert "rank 0 waits at 0F0 for rank 0's 0F0 again" in error(Plan(((op,),), {op: (op,)}))


def test_a_large_plan_is_shown_around_the_step():
    plan = one_f_one_b(40, 100)
    rows = list(plan.rows)
    rows[20] = tuple(op for op in rows[20] if op != Op(20, "F", 20, 50))
    text = error(Plan(tuple(rows), plan.needs))
    assert "for rank 20's 20F50, which is in no row" in text
    assert len(text) < 1500
    assert "…" in text
    assert text.count("[") == 1
    assert "rank 20" in text and "rank 30" not in text


def test_a_long_circle_is_cut_short():
    ops = [Op(rank, "F", rank) for rank in range(30)]
    text = error(Plan(tuple((op,) for op in ops), {op: (ops[op.rank - 1],) for op in ops}))
    assert "... 18 more steps, back to rank 0's 0F0" in text
    assert len(text) < 2000
