"""Collectives, gaps and ports in a simulation, against closed forms."""

import pytest

from parallel_lab.collectives import halving_doubling, plan_for
from parallel_lab.data_parallel import ddp, zero3
from parallel_lab.network import Link, ring_cost
from parallel_lab.plan import SEND, Op, Plan, PlanError, recv, send
from parallel_lab.simulate import AlphaBeta, PassCost, Topology, simulate

L, G, BETA = 10.0, 4.0, 100.0
GAP = Link(L, BETA, gap_s=G)
FAST, SLOW = Link(0.5, 1000.0), Link(2.0, 100.0)


def messages(pairs) -> Plan:
    """A message for each pair of ranks, in this order, all ready at the start."""
    ops = [(send(a, b, k), recv(b, a, k)) for k, (a, b) in enumerate(pairs)]
    return Plan.of(op for pair in ops for op in pair)


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("size", [0, 300])
def test_messages_back_to_back_follow_after_a_gap(k, size):
    trace = simulate(messages([(0, 1)] * k), AlphaBeta.over(GAP, size))
    assert trace.duration_s == pytest.approx((k - 1) * (G + size / BETA) + L + size / BETA)
    assert [s.start_s for s in trace.of(0)] == pytest.approx([i * (G + size / BETA) for i in range(k)])
    assert [s.end_s for s in trace.of(1)] == pytest.approx([s.end_s for s in trace.of(0)])
    whole = simulate(messages([(0, 1)] * k), AlphaBeta(L, BETA, size))
    assert whole.duration_s == pytest.approx(k * (L + size / BETA)), "by default a port is held for the whole time"


def test_who_receives_from_many_takes_in_one_a_gap():
    assert simulate(messages([(r, 0) for r in range(1, 6)]), AlphaBeta.over(GAP)).duration_s == L + 4 * G
    # From a link that is far away nothing is held up: its message comes in last, and needs the port only then.
    mixed = AlphaBeta.over(GAP, part_bytes=[1000, 0])
    assert [s.end_s for s in simulate(messages([(1, 0), (2, 0)]), mixed).of(0)] == [L + 10, L + 10 + G]


def test_the_broadcast_of_the_paper():
    """Culler et al. 1993, figure 3: P = 8, L = 6, o = 2, g = 4; the best tree has reached all at time 24."""
    tree = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 5), (1, 6), (2, 7)]
    plan = messages(tree)
    needs = {op: [recv(op.rank, a, k) for k, (a, b) in enumerate(tree) if b == op.rank] for op in plan if op.peer > 4}
    trace = simulate(Plan.of(plan, needs), AlphaBeta(6 + 2 * 2, BETA, gap_s=4))
    assert [trace.of(r)[0].end_s for r in range(1, 8)] == [10, 14, 18, 22, 20, 24, 24]


@pytest.mark.parametrize("n", [2, 3, 8])
def test_what_a_gap_shortens(n):
    def took_s(algorithm, kind="all_reduce"):
        plan = plan_for(kind, algorithm, n)
        part_bytes = [stop - start for start, stop in plan.bounds(300 * n)]
        return simulate(plan, AlphaBeta.over(GAP, part_bytes)).duration_s

    one_s = L + 300 / BETA
    assert took_s("ring") == pytest.approx(2 * (n - 1) * one_s), "each round of a ring waits for the one before"
    assert took_s("full_mesh", "all_gather") == pytest.approx((n - 2) * (G + 300 / BETA) + one_s)
    assert took_s("full_mesh") == pytest.approx(2 * (n - 2) * (G + 300 / BETA) + 2 * one_s)
    assert took_s("star") == pytest.approx(2 * (n - 2) * (G + 3 * n) + 2 * (L + 3 * n))


@pytest.mark.parametrize("n", [2, 5, 8])
def test_what_a_link_for_each_pair_shortens(n):
    def took_s(kind, algorithm, *more):
        plan = plan_for(kind, algorithm, n, *more)
        part_bytes = [200 * (last - first) for first, last in plan.extents]
        one_port, own = (AlphaBeta(L, BETA, part_bytes, own_links=own_links) for own_links in (False, True))
        return simulate(plan, one_port).duration_s, simulate(plan, own).duration_s

    one_s = L + 2
    assert took_s("all_reduce", "full_mesh") == pytest.approx((2 * (n - 1) * one_s, 2 * min(n - 1, 1) * one_s))
    assert took_s("all_reduce", "ring") == pytest.approx((2 * (n - 1) * one_s,) * 2)
    # A block is two leaves. Both ways, half of what one port sends goes over each of the links to the neighbors.
    way_s = n // 2 * L + n * n // 4 * 2
    ports = 1 if n == 2 else 2
    assert took_s("all_to_all", "relay", True) == pytest.approx((2 * way_s, 2 * way_s / ports))
    assert took_s("all_to_all", "relay") == pytest.approx(((n - 1) * L + n * (n - 1) * 2,) * 2)


def test_near_partners_first_are_a_hierarchy_with_fewer_rounds():
    def took_s(plan):
        part_bytes = [stop - start for start, stop in plan.bounds(64_000)]
        return simulate(plan, Topology(8, FAST, SLOW, part_bytes)).duration_s

    near, far = (took_s(halving_doubling.all_reduce_plan(64, near_first)) for near_first in (True, False))
    assert near == pytest.approx(6 * (0.5 + 2.0) + 2 * (64_000 * 7 / 8 / 1000 + 8_000 * 7 / 8 / 100))
    assert near < took_s(plan_for("all_reduce", "hierarchical", 8, 8)) < far


@pytest.mark.parametrize("n", [1, 2, 4])
def test_a_step_of_ddp_is_priced_as_its_closed_form(n):
    forward_s, backward_s, size, buckets, link = 1.0, 2.0, 4_000, 5, Link(0.01, 1e4)
    cost = AlphaBeta.over(link, size // buckets, {"F": forward_s, "B": backward_s / buckets, "update": 0.0})
    b_s, c_s = backward_s / buckets, ring_cost("all_reduce", n, size // buckets).seconds(link)
    overlapped = simulate(ddp.plan(n, buckets), cost)
    assert overlapped.duration_s == pytest.approx(forward_s + b_s + (buckets - 1) * max(b_s, c_s) + c_s)
    late = simulate(ddp.plan(n, buckets, overlap=False), cost)
    assert late.duration_s == pytest.approx(forward_s + backward_s + buckets * c_s)
    for rank in range(n):
        assert overlapped.bytes_sent(rank) == 2 * (n - 1) * size // n
        assert overlapped.messages(rank) == 2 * (n - 1) * buckets
        assert [s.bytes for s in overlapped.of(rank) if s.kind == "all_reduce"] == [size // buckets] * buckets
    # One rank's plan with the price of n ranks: how a cluster of any size is simulated in no time.
    alone = simulate(ddp.plan(1, buckets), AlphaBeta.over(link, size // buckets, cost.compute_s, ranks=n))
    assert (alone.duration_s, alone.bytes_sent(0)) == (overlapped.duration_s, overlapped.bytes_sent(0))


def test_a_step_of_zero3_sends_three_halves_of_ddp():
    n, layers, size = 4, 3, 1200
    cost = AlphaBeta(1e-3, 1e6, size, lambda op: {"F": 3e-3, "B": 6e-3}.get(op.kind, 0.0))
    trace = simulate(zero3.plan(n, layers, guarded=False), cost)
    assert [trace.bytes_sent(rank) for rank in range(n)] == [3 * layers * size * (n - 1) // n] * n


def test_a_collective_starts_and_ends_on_all_ranks_at_once():
    late = Op(1, "F", 0)
    ops = [Op(rank, "all_to_all", 0, lane=SEND) for rank in range(3)]
    traffic = [[0, 100, 0], [0, 0, 0], [0, 300, 0]]  # rank 1 takes in 400 bytes in two messages
    cost = AlphaBeta(1.0, 100.0, lambda op: traffic, compute_s=7.0)
    trace = simulate(Plan.of([late, *ops], {ops[1]: [late]}), cost)
    spans = [s for s in trace.spans if s.kind == "all_to_all"]
    assert [(s.start_s, s.end_s) for s in spans] == [(7.0, 13.0)] * 3
    assert [(s.sent_bytes, s.sent_messages) for s in spans] == [(100, 1), (0, 0), (300, 1)]


def test_collectives_in_another_order_are_stuck():
    first, second = [[Op(rank, "all_reduce", part, lane=SEND) for rank in range(2)] for part in range(2)]
    plan = Plan(((first[0], second[0]), (second[1], first[1])))
    with pytest.raises(PlanError, match="rank 0 waits at 0all_reduce0 for rank 1's 1all_reduce0"):
        simulate(plan, AlphaBeta(1.0, 1.0))
    # On axes of their own, over links of their own, they do not wait for each other.
    mesh = Plan(tuple(tuple(op._replace(axis="ab"[op.part]) for op in row) for row in plan.rows))
    assert simulate(mesh, Topology(1, FAST, SLOW, ranks={"a": 2, "b": 1})).duration_s == 2 * SLOW.latency_s


def test_collectives_with_a_gap_follow_one_another_sooner():
    ops = [Op(rank, "all_reduce", part, lane=SEND) for rank in range(2) for part in range(3)]
    trace = simulate(Plan.of(ops), AlphaBeta.over(GAP))
    assert [s.start_s for s in trace.of(1)] == [0, 2 * G, 4 * G] and trace.duration_s == 4 * G + 2 * L


TP, DP = [(0, 1), (2, 3)], [(0, 2), (1, 3)]
SIZES = {"tp": 2000, "dp": 800}


def rings(axis, groups):
    """The messages of a ring all-reduce in each group, and what they need."""
    plan, ops, needs = plan_for("all_reduce", "ring", 2), [], {}
    for group in groups:
        name = {op: op._replace(rank=group[op.rank], peer=group[op.peer], axis=axis) for op in plan}
        ops += name.values()
        needs |= {name[op]: [name[need] for need in before] for op, before in plan.needs.items()}
    return ops, needs


def as_messages() -> tuple[Plan, dict]:
    (tp, tp_needs), (dp, dp_needs) = rings("tp", TP), rings("dp", DP)
    return Plan.of([*tp, *dp], tp_needs | dp_needs), {axis: size // 2 for axis, size in SIZES.items()}


def as_collectives() -> tuple[Plan, dict]:
    return Plan.of(Op(r, "all_reduce", 0, axis=axis, lane=SEND) for r in range(4) for axis in ("tp", "dp")), SIZES


@pytest.mark.parametrize("case", [as_messages, as_collectives])
def test_rings_on_links_of_their_own_overlap(case):
    plan, part_bytes = case()
    mesh = {"dp": 2, "tp": 2}
    tp_s, dp_s = (ring_cost("all_reduce", 2, SIZES[axis]).seconds(link) for axis, link in (("tp", FAST), ("dp", SLOW)))
    trace = simulate(plan, Topology(2, FAST, SLOW, part_bytes, ranks=mesh))
    assert trace.duration_s == pytest.approx(max(tp_s, dp_s))
    for axis, took_s in (("tp", tp_s), ("dp", dp_s)):
        assert max(s.end_s for s in trace.spans if s.axis == axis) == pytest.approx(took_s)
    # Where both go over one kind of link, one waits for the other.
    one = simulate(plan, Topology(4, SLOW, SLOW, part_bytes, ranks=mesh)).duration_s
    assert one == pytest.approx(sum(ring_cost("all_reduce", 2, size).seconds(SLOW) for size in SIZES.values()))


def test_a_ring_that_leaves_the_node_is_as_slow_as_its_slowest_link():
    plan = Plan.of(Op(rank, "all_gather", 0, lane=SEND) for rank in range(4))
    for ranks_per_node, link in ((4, FAST), (2, SLOW)):
        trace = simulate(plan, Topology(ranks_per_node, FAST, SLOW, 400))
        assert trace.duration_s == ring_cost("all_gather", 4, 400).seconds(link)


def test_a_root_sends_what_the_others_take():
    plan = Plan.of(Op(rank, "scatter", 0, peer=1, lane=SEND) for rank in range(3))
    trace = simulate(plan, AlphaBeta(1.0, 100.0, 300))
    assert [(s.sent_bytes, s.sent_messages) for s in trace.spans] == [(0, 0), (200, 2), (0, 0)]


def test_passes_and_collectives_in_one_model():
    passes = PassCost(1.0, 2.0, activation_bytes=8)
    ops = [Op(0, "F", 0), Op(0, "B", 0), Op(0, "all_reduce", 0, axis="dp", lane=SEND)]
    cost = AlphaBeta(0.5, 100.0, {"dp": 200}, passes.seconds, held_bytes=passes.held, ranks={"dp": 2})
    trace = simulate(Plan.of(ops, {ops[2]: [ops[1]]}), cost)
    assert trace.duration_s == 3 + 2 * (0.5 + 1.0) and trace.peak_bytes(0) == 8


def test_an_algorithm_of_the_collectives():
    plan = Plan.of(Op(rank, "all_reduce", 0, lane=SEND) for rank in range(8))
    took = {
        a: simulate(plan, AlphaBeta(1.0, 1e9, algorithm=a)).duration_s for a in ("ring", "tree", "halving_doubling")
    }
    assert took == {"ring": 14, "tree": 6, "halving_doubling": 6}
    each = {"all_reduce": "tree", "barrier": "ring"}  # a barrier needs no entry in part_bytes
    plan = Plan.of([*plan, *(Op(rank, "barrier", -1, lane=SEND) for rank in range(8))])
    trace = simulate(plan, AlphaBeta(1.0, 1e9, {"all_reduce": 0}, algorithm=each))
    assert trace.duration_s == 6 + 14 and trace.messages(0) == 3 + 14


def test_what_a_network_cannot_price():
    reduce = Op(0, "all_reduce", 0, axis="dp", lane=SEND)
    with pytest.raises(ValueError, match="0all_reduce0@dp has a price only among so many ranks"):
        AlphaBeta(1.0, 1.0).seconds(reduce)
    with pytest.raises(ValueError, match="runs on axis 'dp', and `ranks` has 'tp'"):
        simulate(Plan.of([reduce]), AlphaBeta(1.0, 1.0, ranks={"tp": 2}))
    with pytest.raises(ValueError, match=r"collectives on the axes \['dp', 'tp'\]"):
        simulate(Plan.of([reduce, reduce._replace(axis="tp")]), AlphaBeta(1.0, 1.0))
    with pytest.raises(ValueError, match="no number for 0update0: there is one for 'F', 'B'"):
        simulate(Plan.of([Op(0, "update", 0)]), AlphaBeta(1.0, 1.0, compute_s={"F": 1.0, "B": 2.0}))
