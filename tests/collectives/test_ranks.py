"""The collectives on real ranks: the numbers of torch.distributed, the plan's bytes and messages, and the plan itself.

Tolerances: all algorithms add the same numbers in another order, so float64 differs by about n units in the last place
(1e-12 is far above that for n up to 8), float32 by 1e-5. bfloat16 has 8 bits, and each of n-1 additions rounds once:
values are within n / 256 of the largest partial sum.
"""

import pytest
import torch
import torch.distributed as dist

from parallel_lab import Deadlock, collectives, launch
from parallel_lab.collectives import full_mesh, halving_doubling, hierarchical, ring, star, tree

FLAT = ["ring", "tree", "halving_doubling", "full_mesh", "star"]
RANKS = range(1, 9)
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 8 / 256}


def sizes(n):
    return sorted({0, 1, 2, n - 1, n + 1, 1000, 1003})


def values(size, dtype, seed=0):
    """This rank's own numbers, the same in every call with the same seed."""
    generator = torch.Generator().manual_seed(1000 * seed + dist.get_rank())
    return torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)


def worst(got, expected):
    return (got.double() - expected.double()).abs().max().item() if got.numel() else 0.0


def compare_all_reduce(algorithms, sizes, dtypes):
    """For each case the largest difference from dist.all_reduce, in float64 as the common ground."""
    found = {}
    for algorithm in algorithms:
        for size in sizes:
            for dtype in dtypes:
                for op, theirs in (("sum", dist.ReduceOp.SUM), ("max", dist.ReduceOp.MAX))[: 1 + (size == 1003)]:
                    x = values(size, dtype)
                    expected = x.double()
                    dist.all_reduce(expected, theirs)
                    assert collectives.all_reduce(x, algorithm=algorithm, op=op) is x
                    found[algorithm, size, dtype, op] = worst(x, expected)
    return found


@pytest.mark.parametrize("n", RANKS)
def test_all_reduce_is_that_of_torch(n):
    for found in launch(compare_all_reduce, FLAT, sizes(n), list(TOLERANCE), ranks=n).results:
        for (algorithm, size, dtype, op), difference in found.items():
            # The largest of 1000 sums of n normal numbers is below 5 sqrt(n).
            assert difference <= TOLERANCE[dtype] * 5 * n**0.5, (algorithm, size, dtype, op, difference)


def compare_the_others(sizes, powers):
    n, rank, found = dist.get_world_size(), dist.get_rank(), {}
    for size in sizes:
        for algorithm in ["ring", "full_mesh", *(["halving_doubling"] if powers else [])]:
            x = values((size, 3), torch.float64)
            total = x.clone()
            dist.all_reduce(total)
            share = collectives.reduce_scatter(x, algorithm=algorithm)
            found["reduce_scatter", algorithm, size] = worst(share, total.tensor_split(n)[rank])
            assert torch.equal(x, values((size, 3), torch.float64))
            whole = collectives.all_gather(share, algorithm=algorithm, rows=size)
            assert whole.shape == total.shape
            found["all_gather", algorithm, size] = worst(whole, total)
        for algorithm in ("ring", "tree", "star"):
            for root in {0, n - 1}:
                x = values(size, torch.float64)
                expected = x.clone()
                dist.broadcast(expected, root)
                found["broadcast", algorithm, size, root] = worst(
                    collectives.broadcast(x, root, None, algorithm), expected
                )
                x = values(size, torch.float64)
                total = x.clone()
                dist.all_reduce(total)
                collectives.reduce(x, root, None, algorithm, op="mean")
                found["reduce", algorithm, size, root] = worst(x, total / n) if rank == root else 0.0
        x, theirs = values((n * size, 2), torch.float64), torch.empty(n * size, 2, dtype=torch.float64)
        given = [x.tensor_split(n) for x in gathered(x)]
        theirs = torch.cat([blocks[rank] for blocks in given])
        found["all_to_all", size] = worst(collectives.all_to_all(x), theirs)
    return found


def gathered(x):
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x)
    return parts


@pytest.mark.parametrize("n", RANKS)
def test_the_others_are_those_of_torch(n):
    few = [0, 1, n + 1, 103]
    for found in launch(compare_the_others, few, n & (n - 1) == 0, ranks=n).results:
        assert max(found.values()) < 1e-12 * 5 * n**0.5, found


def hierarchy(shapes):
    for per_node in shapes:
        for size in (0, 1, 7, 1003):
            x = values(size, torch.float64)
            expected = x.clone()
            dist.all_reduce(expected)
            collectives.all_reduce(x, algorithm="hierarchical", ranks_per_node=per_node)
            assert worst(x, expected) < 1e-12 * 15


@pytest.mark.parametrize(("n", "shapes"), [(4, [1, 2, 4]), (6, [2, 3])])
def test_hierarchical_all_reduce(n, shapes):
    launch(hierarchy, shapes, ranks=n)


def in_two_groups():
    """Ranks {4, 1, 2} and {0, 3}: ranks of a group are not the world's."""
    groups = [([4, 1, 2], dist.new_group([4, 1, 2])), ([0, 3], dist.new_group([0, 3]))]
    found = []
    for members, group in groups:
        if dist.get_rank() not in members:
            with pytest.raises(ValueError, match="not in the group"):
                collectives.all_reduce(torch.ones(3), group)
            continue
        for algorithm in FLAT:
            x = values(50, torch.float64)
            expected = x.clone()
            dist.all_reduce(expected, group=group)
            found.append(worst(collectives.all_reduce(x, group, algorithm), expected))
        first = dist.get_global_rank(group, 0)
        x = torch.tensor([float(dist.get_rank())])
        found.append(abs(collectives.broadcast(x, 0, group).item() - first))
        rows = collectives.all_gather(torch.tensor([float(dist.get_rank())]), group)
        found.append(worst(rows, torch.tensor([float(dist.get_global_rank(group, i)) for i in range(len(members))])))
    return found


def test_sub_groups():
    for found in launch(in_two_groups, ranks=5).results:
        assert len(found) == len(FLAT) + 2
        assert max(found) < 1e-12 * 15


def run_plans(plans, size):
    for plan in plans:
        collectives.execute(plan, torch.ones(size))


def every_plan(n):
    plans = [module.all_reduce_plan(n) for module in (ring, tree, halving_doubling, full_mesh, star)]
    plans += [ring.all_reduce_plan(n, pieces=3), ring.all_reduce_plan(n, pieces=2, ahead=0)]
    plans += [tree.broadcast_plan(n, n - 1), star.reduce_plan(n, n - 1), ring.broadcast_plan(n, 0, 4)]
    return plans + ([hierarchical.all_reduce_plan(2, n // 2)] if n % 2 == 0 else [])


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_the_trace_is_the_plan_and_its_bytes(n):
    plans, size = every_plan(n), 9 * 840
    trace = launch(run_plans, plans, size, ranks=n).trace
    steps = trace.plan().rows
    for rank in range(n):
        assert steps[rank] == tuple(op for plan in plans for op in plan.rows[rank])
        assert trace.bytes_sent(rank) == sum(plan.sent(rank, size) for plan in plans) * torch.float32.itemsize
        assert trace.messages(rank) == sum(op.kind == "send" for plan in plans for op in plan.rows[rank])


def test_a_ring_all_reduce_moves_what_its_closed_form_says():
    n, size = 4, 1 << 16
    trace = launch(lambda: collectives.all_reduce(torch.ones(size)), ranks=n).trace
    for rank in range(n):
        assert trace.bytes_sent(rank) == 2 * size * 4 * (n - 1) // n
        assert trace.messages(rank) == 2 * (n - 1)
        received = [s.kind for s in trace.of(rank) if s.lane == "recv"]
        assert received == ["recv_reduce"] * (n - 1) + ["recv"] * (n - 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_two_ranks_send_large_tensors_on_a_connection_for_each_direction(dtype):
    size, passes = 2**21 // dtype.itemsize + 1, 3  # the second connection is there from the second pass on

    def sums():
        worst = 0.0
        for seed in range(passes):  # what is sent must not be added to before it has left: try it a few times
            x = values(size, dtype, seed)
            expected = x.clone()
            dist.all_reduce(expected)
            worst = max(worst, (collectives.all_reduce(x) - expected).abs().max().item())
        return worst

    run = launch(sums, ranks=2)
    assert run.results == [0.0, 0.0]  # a sum of two numbers has one order
    sends = [s for s in run.trace.of(0) if s.kind == "send"]
    assert sum(s.bytes for s in sends) == passes * size * dtype.itemsize
    assert len(sends) == passes * 2  # the two rounds of a ring of two


def test_a_partner_that_never_comes_is_missed_in_a_message_even_before_the_second_connection():
    def alone():
        if dist.get_rank() == 0:
            collectives.all_reduce(torch.ones(2**20))

    with pytest.raises(Deadlock, match=r"rank 0.*(send|recv)") as caught:
        launch(alone, ranks=2, timeout=2)
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
        "expected one of ring, tree, halving_doubling, full_mesh, star, hierarchical",
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


def mixed_uses():
    x = torch.full((6,), float(dist.get_rank() + 1), requires_grad=True)
    collectives.all_reduce(x)  # a leaf that requires a gradient: in place, unseen by autograd
    whole = torch.arange(12).view(3, 4) + dist.get_rank()
    collectives.all_reduce(whole)
    mean = collectives.all_reduce(torch.full((5,), float(dist.get_rank())), op="mean")
    return x.tolist(), whole.tolist(), mean.tolist()


def test_shapes_integers_and_leaves():
    n = 3
    for x, whole, mean in launch(mixed_uses, ranks=n).results:
        assert x == [6.0] * 6
        assert whole == (torch.arange(12).view(3, 4) * n + 3).tolist()
        assert mean == [1.0] * 5
