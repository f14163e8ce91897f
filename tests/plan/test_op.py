"""Op prints and parses; Plan.of groups by rank and pairs messages."""

import pytest

from parallel_lab.plan import COMPUTE, Op, Plan, recv, send


@pytest.mark.parametrize(
    ("op", "text"),
    [
        (Op(2, "F", 2, 0), "2F0"),
        (Op(0, "B", 11, 12), "11B12"),
        (Op(1, "step", -1), "-1step0"),
        (send(1, 3, 1, 4), "1send4>3"),
        (recv(3, 1, 1), "1recv0<1"),
        (recv(1, 2, 1, 5, reduce=True), "1recv_reduce5<2"),
    ],
)
def test_text_of_an_op(op, text):
    assert str(op) == text
    assert Op.parse(op.rank, text) == op


@pytest.mark.parametrize("text", ["", "F0", "2F", "2F0>", "2F0 ", "x"])
def test_no_step(text):
    with pytest.raises(ValueError, match="is no step"):
        Op.parse(0, text)


def test_a_receive_knows_its_sender():
    assert recv(3, 1, 5, 2, reduce=True).sender() == send(1, 3, 5, 2)


def test_plan_groups_by_rank_and_keeps_order():
    ops = [Op(1, "F", 1), Op(0, "F", 0), Op(1, "B", 1)]
    plan = Plan.of(ops, ranks=3)
    assert plan.rows == ((ops[1],), (ops[0], ops[2]), ())
    assert (plan.ranks, len(plan), list(plan)) == (3, 3, [ops[1], ops[0], ops[2]])


def test_receives_need_their_sends_beside_other_needs():
    work = Op(1, "F", 0, lane=COMPUTE)
    plan = Plan.of([send(0, 1, 0), work, recv(1, 0, 0)], {recv(1, 0, 0): [work]})
    assert plan.needs[recv(1, 0, 0)] == (work, send(0, 1, 0))
