"""The plans alone, with no process: right results, and enough needs for any order of events.

`replay` carries a plan out on arrays, in a random order that keeps nothing but the plan's own needs. What a send reads
and what a receive writes happens at a single moment between those needs and the steps that wait for it, so a missing
need shows as a wrong number in some order. The numbers are whole, so results are compared exactly.
"""

import random
from dataclasses import replace

import numpy as np
import pytest

from parallel_lab.collectives import (
    ChunkPlan,
    Message,
    assemble,
    full_mesh,
    halving_doubling,
    hierarchical,
    leaves,
    recursive_doubling,
    relay,
    ring,
    star,
    tree,
)
from parallel_lab.plan import RECEIVING
from parallel_lab.plan.check import check_plan

RANKS = range(1, 9)
SIZE = 37  # no multiple of any number of leaves but 1
NODES = [(1, 1), (1, 4), (4, 1), (2, 2), (2, 3), (3, 2), (2, 4), (4, 2), (3, 3)]

ALL_REDUCE = {
    "ring": ring.all_reduce_plan,
    "ring, 3 pieces": lambda n: ring.all_reduce_plan(n, pieces=3),
    "ring, 2 pieces, posted late": lambda n: ring.all_reduce_plan(n, pieces=2, ahead=0),
    "ring, posted one ahead": lambda n: ring.all_reduce_plan(n, ahead=1),
    "tree": tree.all_reduce_plan,
    "tree from the last": lambda n: tree.all_reduce_plan(n, root=n - 1),
    "recursive_doubling": recursive_doubling.all_reduce_plan,
    "halving_doubling": halving_doubling.all_reduce_plan,
    "halving_doubling, far first": lambda n: halving_doubling.all_reduce_plan(n, near_first=False),
    "full_mesh": full_mesh.all_reduce_plan,
    "one shot": full_mesh.one_shot_plan,
    "star": star.all_reduce_plan,
    "star from the last": lambda n: star.all_reduce_plan(n, root=n - 1),
}
POWERS = (1, 2, 4, 8)
SCATTER = [(module, n) for module in (ring, full_mesh) for n in RANKS] + [(halving_doubling, n) for n in POWERS]
ROOTED = [ring, tree, star]


def start(n, size=SIZE, seed=0):
    return [np.random.default_rng([seed, rank]).integers(-99, 99, size) for rank in range(n)]


def replay(plan: ChunkPlan, held, seed=0):
    """Carries `plan` out on `held`, an array for each rank, in a random order that respects its needs; returns them.

    What is sent and added to in one round is added to later, as the executor does it: it lands in scratch until then.
    """
    held, bounds, mail = [h.copy() for h in held], plan.bounds(len(held[0])), {}
    waiting = {op: set(plan.needs.get(op, ())) for op in plan}
    for op in plan:
        if op.kind == "recv_reduce":
            same = (other for other in plan.rows[op.rank] if (other.part, other.round) == (op.part, op.round))
            waiting[op].update(other for other in same if other.kind == "send")
    draw = random.Random(seed)
    while waiting:
        ready = [op for op, before in waiting.items() if not before]
        assert ready, f"no step can run; {len(waiting)} are left"
        op = draw.choice(ready)
        del waiting[op]
        for before in waiting.values():
            before.discard(op)
        chunk = held[op.rank][slice(*bounds[op.part])]
        if op.kind == "send":
            mail[op] = chunk.copy()
        elif op.kind == "recv":
            chunk[:] = mail[op.sender()]
        else:
            chunk += mail[op.sender()]
    return held


def walk(plan: ChunkPlan):
    """What the executor does with sends that end only when the receive is posted: every rank must get to its end."""
    place, issued, over = [0] * plan.ranks, set(), set()
    moved = True
    while moved:
        moved = False
        for rank, row in enumerate(plan.rows):
            while place[rank] < len(row):
                op = row[place[rank]]
                if not all(b in over for b in plan.needs.get(op, ()) if b.rank == rank):
                    break
                issued.add(op)
                place[rank] += 1
                moved = True
        for op in plan:
            pair = (op.sender(), op) if op.kind in RECEIVING else ()
            if pair and set(pair) <= issued and not set(pair) <= over:
                over.update(pair)
                moved = True
    return all(place[rank] == len(row) for rank, row in enumerate(plan.rows))


def most_scratch(plan: ChunkPlan, rank: int):
    """The most receives to be added that `rank` has posted and not yet waited for, as it walks its row."""
    posted, most = set(), 0
    for op in plan.rows[rank]:
        posted -= set(plan.needs.get(op, ()))
        if op.kind == "recv_reduce":
            posted.add(op)
        most = max(most, len(posted))
    return most


def assert_sound(plan: ChunkPlan, n: int):
    check_plan(plan)
    assert plan.ranks == n
    assert walk(plan)
    for rank, row in enumerate(plan.rows):
        position = {op: i for i, op in enumerate(row)}
        for op in row:
            assert all(position[b] < position[op] for b in plan.needs.get(op, ()) if b.rank == rank)


@pytest.mark.parametrize("n", RANKS)
@pytest.mark.parametrize("name", ALL_REDUCE)
def test_all_reduce_gives_every_rank_the_sum(name, n):
    plan = ALL_REDUCE[name](n)
    assert_sound(plan, n)
    for seed in range(5):
        held = start(n, seed=seed)
        for result in replay(plan, held, seed):
            assert np.array_equal(result, sum(held))


@pytest.mark.parametrize(("nodes", "per_node"), NODES)
def test_hierarchical_all_reduce(nodes, per_node):
    n = nodes * per_node
    plan = hierarchical.all_reduce_plan(nodes, per_node)
    assert_sound(plan, n)
    for seed in range(3):
        held = start(n, seed=seed)
        assert all(np.array_equal(result, sum(held)) for result in replay(plan, held, seed))


@pytest.mark.parametrize(("module", "n"), SCATTER)
def test_reduce_scatter_and_all_gather(module, n):
    scatter, gather = module.reduce_scatter_plan(n), module.all_gather_plan(n)
    for plan in (scatter, gather):
        assert_sound(plan, n)
    held = start(n)
    total, share = sum(held), np.array_split(np.arange(SIZE), n)
    for rank, result in enumerate(replay(scatter, held)):
        assert np.array_equal(result[share[rank]], total[share[rank]])
    own = [np.where(np.isin(np.arange(SIZE), share[rank]), total, 0) for rank in range(n)]
    assert all(np.array_equal(result, total) for result in replay(gather, own))


@pytest.mark.parametrize("n", RANKS)
@pytest.mark.parametrize("module", ROOTED, ids=lambda m: m.__name__.split(".")[-1])
def test_broadcast_and_reduce_at_every_root(module, n):
    for root in range(n):
        more = {"pieces": 3} if module is ring else {}
        broadcast, reduction = module.broadcast_plan(n, root, **more), module.reduce_plan(n, root, **more)
        held = start(n)
        for plan in (broadcast, reduction):
            assert_sound(plan, n)
        assert all(np.array_equal(result, held[root]) for result in replay(broadcast, held, root))
        assert np.array_equal(replay(reduction, held, root)[root], sum(held))


@pytest.mark.parametrize("n", RANKS)
def test_all_to_all_turns_rows_into_columns(n):
    plan = full_mesh.all_to_all_plan(n)
    assert_sound(plan, n)
    held = start(n, size=n * n * 2)
    for rank, result in enumerate(replay(plan, held)):
        blocks = result.reshape(n, n, 2)
        for peer in range(n):
            assert np.array_equal(blocks[peer, rank], held[peer].reshape(n, n, 2)[peer, rank])
    assert all(sum(op.kind == "send" for op in row) == n - 1 for row in plan.rows)


@pytest.mark.parametrize("n", RANKS)
@pytest.mark.parametrize("both_ways", [False, True])
def test_a_relay_brings_each_block_as_far_as_it_has_to_go(n, both_ways):
    plan = relay.all_to_all_plan(n, both_ways)
    assert_sound(plan, n)
    held = start(n, size=n * n * 2)  # row i is rank i's, by distance
    for rank, result in enumerate(replay(plan, held)):
        blocks = result.reshape(n, n, 2)
        for peer in range(n):
            distance = (rank - peer) % n
            assert np.array_equal(blocks[peer, distance], held[peer].reshape(n, n, 2)[peer, distance])
    for rank, row in enumerate(plan.rows):
        assert {op.peer for op in row if op.kind == "send"} <= {(rank + 1) % n, (rank - 1) % n if both_ways else rank}


@pytest.mark.parametrize(("nodes", "per_node"), [(2, 2), (2, 4), (4, 2), (8, 8)])
def test_near_first_sends_to_other_nodes_what_a_hierarchy_sends(nodes, per_node):
    def leaving(plan, rank, size=840 * 64):
        bounds = plan.bounds(size)
        there = [op.part for op in plan.rows[rank] if op.kind == "send" and op.peer // per_node != rank // per_node]
        return sum(bounds[part][1] - bounds[part][0] for part in there)

    n = nodes * per_node
    near, far = (halving_doubling.all_reduce_plan(n, near_first) for near_first in (True, False))
    rings = hierarchical.all_reduce_plan(nodes, per_node)
    across = {leaving(rings, rank) for rank in range(n)}
    assert {leaving(near, rank) for rank in range(n)} == across
    assert {leaving(far, rank) for rank in range(n)} == {per_node * each for each in across}
    if n == 4:
        assert [op.peer for op in near.rows[0] if op.kind == "send"] == [1, 2, 2, 1]
        assert [op.peer for op in far.rows[0] if op.kind == "send"] == [2, 1, 1, 2]


def test_the_swap_of_two_ranks_is_one_round():
    plan = recursive_doubling.all_reduce_plan(2)
    assert [[str(op) for op in row] for row in plan.rows] == [
        ["0recv_reduce0<1", "0send0>1"],
        ["0recv_reduce0<0", "0send0>0"],
    ]


def test_a_ring_posts_its_receives_before_it_waits_for_any():
    row = ring.all_reduce_plan(4).rows[1]
    kinds = [op.kind for op in row]
    assert kinds == [*["recv_reduce"] * 3, *["recv"] * 3, *["send"] * 6]


@pytest.mark.parametrize("n", [4, 8])
def test_scratch_is_bounded_by_the_rounds_posted_ahead(n):
    assert most_scratch(ring.all_reduce_plan(n), 0) == n - 1
    assert most_scratch(ring.all_reduce_plan(n, ahead=0), 0) == 2
    assert most_scratch(ring.all_reduce_plan(n, ahead=1), 0) == 3
    assert most_scratch(star.all_reduce_plan(n), 0) == 2
    assert most_scratch(tree.reduce_plan(n), 0) == 2
    assert most_scratch(recursive_doubling.all_reduce_plan(n), 0) == 2


def test_replay_notices_a_missing_need():
    plan = ring.all_reduce_plan(4)
    forgetful = replace(plan, needs={op: b for op, b in plan.needs.items() if op.kind != "send"})
    held = start(4)
    assert any(not np.array_equal(r, sum(held)) for seed in range(5) for r in replay(forgetful, held, seed))


def test_a_receive_waits_for_the_send_that_still_reads_its_chunk():
    plan = assemble(2, [Message(0, 0, 1, part=0), Message(1, 1, 0, part=1), Message(2, 1, 0, part=0)], leaves(2))
    sent = plan.rows[0][0]
    late = next(op for op in plan.rows[0] if op.round == 2)
    # Rank 1 sends the message of round 2 from the chunk that took the message of round 0, so that one has arrived.
    assert sent not in plan.needs[late]
    free = assemble(3, [Message(0, 0, 1, part=0), Message(1, 2, 0, part=0)], leaves(1))
    assert free.rows[0][0] in free.needs[free.rows[0][1]]


def test_a_chunk_cannot_be_sent_and_overwritten_in_one_round():
    with pytest.raises(ValueError, match=r"rank 1: 0recv0<0 writes what 0send0>0 sends in the same round"):
        assemble(2, [Message(0, 0, 1, 0), Message(0, 1, 0, 0)], leaves(1))


def test_bounds_are_those_of_array_split():
    plan = ring.all_reduce_plan(5)
    for size in (0, 1, 4, 5, 6, 1003):
        pieces = np.array_split(np.arange(size), 5)
        assert [stop - start for start, stop in plan.bounds(size)] == [len(piece) for piece in pieces]
        assert plan.bounds(size)[0][0] == 0
        assert plan.bounds(size)[-1][1] == size


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ring.all_reduce_plan(0), "at least 1 rank"),
        (lambda: ring.all_reduce_plan(2, pieces=0), "at least 1 piece"),
        (lambda: halving_doubling.reduce_scatter_plan(6), "power of two"),
        (lambda: halving_doubling.all_reduce_plan(0), "at least 1 rank"),
        (lambda: hierarchical.all_reduce_plan(0, 2), "both are at least 1"),
    ],
)
def test_impossible_numbers_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
