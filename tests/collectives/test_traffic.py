"""The collectives on real ranks: what is sent is the plan, and what cannot be sent is refused."""

import pytest
import torch
import torch.distributed as dist

from parallel_lab import Deadlock, collectives, launch
from parallel_lab.collectives import full_mesh, halving_doubling, hierarchical, recursive_doubling, ring, star, tree
from parallel_lab.plan import check_plan


def run_plans(plans, size):
    for plan in plans:
        collectives.execute(plan, torch.ones(size))


def every_plan(n):
    modules = (ring, tree, recursive_doubling, halving_doubling, full_mesh, star)
    plans = [module.all_reduce_plan(n) for module in modules]
    plans += [halving_doubling.all_reduce_plan(n, near_first=False), full_mesh.one_shot_plan(n)]
    plans += [ring.all_reduce_plan(n, pieces=3), ring.all_reduce_plan(n, pieces=2, ahead=0)]
    plans += [tree.broadcast_plan(n, n - 1), star.reduce_plan(n, n - 1), ring.broadcast_plan(n, 0, 4)]
    return plans + ([hierarchical.all_reduce_plan(2, n // 2)] if n % 2 == 0 else [])


def named(op, number):
    """The step, as the collective after `number` others has it."""
    return op._replace(phase=f".{number}" if number else "")


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_the_trace_is_the_plan_and_its_bytes(n):
    plans, size = every_plan(n), 9 * 840
    trace = launch(run_plans, plans, size, ranks=n).trace
    steps = trace.plan().rows
    for rank in range(n):
        assert steps[rank] == tuple(named(op, number) for number, plan in enumerate(plans) for op in plan.rows[rank])
        assert trace.bytes_sent(rank) == sum(plan.sent(rank, size) for plan in plans) * torch.float32.itemsize
        assert trace.messages(rank) == sum(op.kind == "send" for plan in plans for op in plan.rows[rank])
    check_plan(trace.plan())


def test_a_ring_all_reduce_moves_what_its_closed_form_says():
    n, size = 4, 1 << 16
    trace = launch(lambda: collectives.all_reduce(torch.ones(size)), ranks=n).trace
    for rank in range(n):
        assert trace.bytes_sent(rank) == 2 * size * 4 * (n - 1) // n
        assert trace.messages(rank) == 2 * (n - 1)
        received = [s.kind for s in trace.of(rank) if s.lane == "recv"]
        assert received == ["recv_reduce"] * (n - 1) + ["recv"] * (n - 1)


def test_a_partner_that_never_comes_is_missed_in_a_message_even_before_the_second_connection():
    def alone():
        if dist.get_rank() == 0:
            collectives.all_reduce(torch.ones(2**20))

    with pytest.raises(Deadlock, match=r"rank 0.*(send|recv)") as caught:
        launch(alone, ranks=2, timeout=20)
    assert "rank 1" in str(caught.value)


def test_chunks_of_no_elements_are_not_sent():
    trace = launch(lambda: collectives.all_reduce(torch.ones(2), algorithm="full_mesh"), ranks=4).trace
    # Ranks 0 and 1 own an element each: they send it to three ranks; everyone sends its share to the owners.
    assert [trace.messages(rank) for rank in range(4)] == [4, 4, 2, 2]


def refusals():
    found = []
    cases = [
        lambda: collectives.all_reduce(torch.ones(3), algorithm="butterfly"),
        lambda: collectives.broadcast(torch.ones(3), algorithm="full_mesh"),
        lambda: collectives.all_reduce(torch.ones(3, 4).t()),
        lambda: collectives.all_reduce(torch.ones(3), op="product"),
        lambda: collectives.all_reduce(torch.ones(3, dtype=torch.int64), op="mean"),
        lambda: collectives.all_reduce(torch.ones(3), algorithm="hierarchical", ranks_per_node=3),
        lambda: collectives.execute(ring.all_reduce_plan(3), torch.ones(3)),
        lambda: collectives.broadcast(torch.ones(3), src=2),
        lambda: collectives.all_gather(torch.ones(3), rows=4),
        lambda: collectives.reduce_scatter(torch.tensor(1.0)),
        lambda: collectives.all_to_all(torch.ones(3)),
    ]
    for case in cases:
        try:
            case()
            found.append("nothing was raised")
        except ValueError as error:
            found.append(str(error))
    return found


def test_refusals_say_what_is_wrong():
    expected = [
        "expected one of ring, tree, recursive_doubling, halving_doubling, full_mesh, star, hierarchical",
        "unknown algorithm 'full_mesh' for broadcast: expected one of ring, tree, star",
        "shape (4, 3) is not contiguous",
        "unknown op 'product': expected one of sum, mean, max",
        "a mean of torch.int64",
        "a divisor of the 2 ranks; it is 3",
        "the plan is for 3 ranks, the group has 2",
        "rank 2: the group has ranks 0 to 1",
        "has 3 rows; its share of 4 rows is 2",
        "no dim cannot be cut into rows",
        "3 rows cannot be cut into 2 equal blocks",
    ]
    for found in launch(refusals, ranks=2).results:
        assert len(found) == len(expected)
        for message, part in zip(found, expected, strict=True):
            assert part in message
