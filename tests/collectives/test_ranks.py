"""The collectives on real ranks give the numbers of torch.distributed.

Tolerances: all algorithms add the same numbers in another order, so float64 differs by about n units in the last place
(1e-12 is far above that for n up to 8), float32 by 1e-5. bfloat16 has 8 bits, and each of n-1 additions rounds once:
values are within n / 256 of the largest partial sum.
"""

import pytest
import torch
import torch.distributed as dist

from parallel_lab import collectives, launch

FLAT = ["ring", "tree", "recursive_doubling", "halving_doubling", "full_mesh", "star"]
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


def compare_all_reduce(algorithms, sizes):
    """For each case the largest difference from dist.all_reduce, in float64 as the common ground."""
    found = {}
    cases = [(size, torch.float64, "sum") for size in sizes]
    cases += [
        (1003, dtype, op) for dtype in TOLERANCE for op in ("sum", "max") if (dtype, op) != (torch.float64, "sum")
    ]
    for size, dtype, op in cases:
        expected = values(size, dtype).double()
        dist.all_reduce(expected, {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX}[op])
        for algorithm in algorithms:
            x = values(size, dtype)
            assert collectives.all_reduce(x, algorithm=algorithm, op=op) is x
            found[algorithm, size, dtype, op] = worst(x, expected)
    return found


def compare_the_others(sizes, powers):
    n, rank, found = dist.get_world_size(), dist.get_rank(), {}
    for size in sizes:
        x, column = values((size, 3), torch.float64), values(size, torch.float64)
        dist.all_reduce(total := x.clone())
        dist.all_reduce(mean := column / n)
        for algorithm in ["ring", "full_mesh", *(["halving_doubling"] if powers else [])]:
            share = collectives.reduce_scatter(x, algorithm=algorithm)
            found["reduce_scatter", algorithm, size] = worst(share, total.tensor_split(n)[rank])
            assert torch.equal(x, values((size, 3), torch.float64))
            whole = collectives.all_gather(share, algorithm=algorithm, rows=size)
            assert whole.shape == total.shape
            found["all_gather", algorithm, size] = worst(whole, total)
        for root in {0, n - 1}:
            dist.broadcast(expected := column.clone(), root)
            for algorithm in ("ring", "tree", "star"):
                sent = collectives.broadcast(column.clone(), root, None, algorithm)
                found["broadcast", algorithm, size, root] = worst(sent, expected)
                reduced = collectives.reduce(column.clone(), root, None, algorithm, op="mean")
                found["reduce", algorithm, size, root] = worst(reduced, mean) if rank == root else 0.0
        x = values((n * size, 2), torch.float64)
        given = [x.tensor_split(n) for x in gathered(x)]
        theirs = torch.cat([blocks[rank] for blocks in given])
        found["all_to_all", size] = worst(collectives.all_to_all(x), theirs)
        for both_ways in (False, True):
            relayed = collectives.all_to_all(x, algorithm="relay", both_ways=both_ways)
            found["all_to_all", size, both_ways] = worst(relayed, theirs)
    return found


def gathered(x):
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x)
    return parts


def compare_all(n):
    all_reduced = compare_all_reduce(FLAT, sizes(n))
    return all_reduced, compare_the_others([0, 1, n + 1, 103], n & (n - 1) == 0)


@pytest.mark.parametrize("n", RANKS)
def test_all_collectives_are_those_of_torch(n):
    # The largest of 1000 sums of n normal numbers is below 5 sqrt(n).
    for all_reduced, others in launch(compare_all, n, ranks=n).results:
        for case, difference in all_reduced.items():
            assert difference <= TOLERANCE[case[2]] * 5 * n**0.5, (case, difference)
        assert max(others.values()) < 1e-12 * 5 * n**0.5, others


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


def bits_of_all():
    """Each algorithm's float32 sum, and that of halving-doubling with far partners first."""
    found = {name: collectives.all_reduce(values(1003, torch.float32), algorithm=name) for name in FLAT}
    far = found["far first"] = values(1003, torch.float32)
    collectives.execute(collectives.halving_doubling.all_reduce_plan(dist.get_world_size(), near_first=False), far)
    return found


@pytest.mark.parametrize("n", [4, 7])
def test_all_ranks_have_the_same_bits(n):
    results = launch(bits_of_all, ranks=n).results
    for name, first in results[0].items():
        assert all(torch.equal(found[name], first) for found in results), name


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
