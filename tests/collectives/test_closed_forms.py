"""What each plan sends, in bytes (here elements), messages and rounds, against the closed forms of its docstring."""

from math import ceil, log2

import pytest

from parallel_lab.collectives import (
    ChunkPlan,
    full_mesh,
    halving_doubling,
    hierarchical,
    recursive_doubling,
    relay,
    ring,
    star,
    tree,
)

RANKS = range(1, 9)
POWERS = (1, 2, 4, 8)
EVEN = 12 * 840  # a multiple of every number of leaves below
NODES = [(1, 1), (1, 4), (4, 1), (2, 2), (2, 3), (3, 2), (2, 4), (4, 2), (3, 3)]
SCATTER = [(module, n) for module in (ring, full_mesh) for n in RANKS] + [(halving_doubling, n) for n in POWERS]


def bytes_and_messages(plan: ChunkPlan, rank: int):
    return plan.sent(rank, EVEN), sum(op.kind == "send" for op in plan.rows[rank])


@pytest.mark.parametrize(("module", "n"), SCATTER)
def test_reduce_scatter_and_all_gather(module, n):
    messages = ceil(log2(n)) if module is halving_doubling else n - 1
    for plan in (module.reduce_scatter_plan(n), module.all_gather_plan(n)):
        assert plan.rounds == (min(1, n - 1) if module is full_mesh else messages)
        assert {bytes_and_messages(plan, rank) for rank in range(n)} == {(EVEN * (n - 1) // n, messages)}


@pytest.mark.parametrize(("nodes", "per_node"), NODES)
def test_hierarchical(nodes, per_node):
    n, plan = nodes * per_node, hierarchical.all_reduce_plan(nodes, per_node)
    across = 2 * EVEN * (nodes - 1) // (nodes * per_node)
    for rank in range(n):
        bounds = plan.bounds(EVEN)
        leaving = [o for o in plan.rows[rank] if o.kind == "send" and o.peer // per_node != rank // per_node]
        assert sum(bounds[o.part][1] - bounds[o.part][0] for o in leaving) == across
        inside = 2 * EVEN * (per_node - 1) // per_node
        assert bytes_and_messages(plan, rank) == (inside + across, 2 * (per_node - 1) + 2 * (nodes - 1))
    assert plan.rounds == 2 * (per_node - 1) + 2 * (nodes - 1)


@pytest.mark.parametrize("n", RANKS)
@pytest.mark.parametrize("pieces", [1, 4])
def test_ring(n, pieces):
    plan = ring.all_reduce_plan(n, pieces)
    assert plan.rounds == 2 * (n - 1)
    for rank in range(n):
        assert bytes_and_messages(plan, rank) == (2 * EVEN * (n - 1) // n, 2 * pieces * (n - 1))
        assert {op.peer for op in plan.rows[rank] if op.kind == "send"} <= {(rank + 1) % n}
    for root in (0, n - 1):
        for chain, idle in (
            (ring.broadcast_plan(n, root, pieces), root - 1),
            (ring.reduce_plan(n, root, pieces), root),
        ):
            assert chain.rounds == (n - 1 + pieces - 1 if n > 1 else 0)
            for rank in range(n):
                expected = (0, 0) if rank == idle % n else (EVEN, pieces)
                assert bytes_and_messages(chain, rank) == expected


@pytest.mark.parametrize("n", RANKS)
@pytest.mark.parametrize("root", [0, 2])
def test_tree(n, root):
    root %= n
    down, up, both = (f(n, root) for f in (tree.broadcast_plan, tree.reduce_plan, tree.all_reduce_plan))
    log = ceil(log2(n))
    assert (down.rounds, up.rounds, both.rounds) == (log, log, 2 * log)
    for rank in range(n):
        v = (rank - root) % n
        children = sum(v < 2**k and v + 2**k < n for k in range(log))
        rise = 0 if rank == root else 1
        assert bytes_and_messages(down, rank) == (children * EVEN, children)
        assert bytes_and_messages(up, rank) == (rise * EVEN, rise)
        assert bytes_and_messages(both, rank) == ((children + rise) * EVEN, children + rise)
    assert bytes_and_messages(down, root)[1] == log
    assert sum(bytes_and_messages(down, rank)[0] for rank in range(n)) == (n - 1) * EVEN


@pytest.mark.parametrize("n", RANKS)
@pytest.mark.parametrize("near_first", [True, False])
def test_halving_doubling(n, near_first):
    plan = halving_doubling.all_reduce_plan(n, near_first)
    steps = n.bit_length() - 1
    p = 2**steps
    folds = n - p
    assert plan.rounds == 2 * steps + (3 if folds else 0)
    core = 2 * EVEN * (p - 1) // p
    for rank in range(n):
        if rank < 2 * folds and rank % 2:
            expected = (EVEN, 2)
        elif rank < 2 * folds:
            expected = (core + 3 * EVEN // 2, 2 * steps + 2)
        else:
            expected = (core, 2 * steps)
        assert bytes_and_messages(plan, rank) == expected


@pytest.mark.parametrize("n", RANKS)
def test_recursive_doubling(n):
    plan = recursive_doubling.all_reduce_plan(n)
    steps = n.bit_length() - 1
    folds = n - 2**steps
    assert plan.rounds == steps + (2 if folds else 0)
    for rank in range(n):
        messages = steps if rank >= 2 * folds else 1 if rank % 2 else steps + 1
        assert bytes_and_messages(plan, rank) == (messages * EVEN, messages)


@pytest.mark.parametrize("n", RANKS)
def test_all_to_all(n):
    size = EVEN * n * n  # the grid of what all ranks put in
    for plan, sent, messages in (
        (full_mesh.all_to_all_plan(n), EVEN * (n - 1), n - 1),
        (relay.all_to_all_plan(n), EVEN * n * (n - 1) // 2, n - 1),
        (relay.all_to_all_plan(n, both_ways=True), EVEN * (n * n // 4), n // 2 * 2),
    ):
        assert {plan.sent(rank, size) for rank in range(n)} == {sent}
        assert {sum(op.kind == "send" for op in row) for row in plan.rows} == {messages}
    assert relay.all_to_all_plan(n).rounds == n - 1
    assert relay.all_to_all_plan(n, both_ways=True).rounds == n // 2


@pytest.mark.parametrize("n", RANKS)
def test_one_shot(n):
    plan = full_mesh.one_shot_plan(n)
    assert plan.rounds == min(1, n - 1)
    assert {bytes_and_messages(plan, rank) for rank in range(n)} == {((n - 1) * EVEN, n - 1)}


@pytest.mark.parametrize("n", RANKS)
def test_full_mesh_and_star(n):
    mesh, wheel = full_mesh.all_reduce_plan(n), star.all_reduce_plan(n, root=n // 2)
    assert (mesh.rounds, wheel.rounds) == (min(2, 2 * (n - 1)), 2 * (n - 1))
    for rank in range(n):
        assert bytes_and_messages(mesh, rank) == (2 * EVEN * (n - 1) // n, 2 * (n - 1))
        server = rank == n // 2
        assert bytes_and_messages(wheel, rank) == (((n - 1) * EVEN, n - 1) if server else (EVEN, 1))
