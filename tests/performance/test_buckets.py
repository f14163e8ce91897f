"""Sizes, order and pieces of gradients on a link: the closed forms, the plan in the simulator, and real ranks agree."""

import math

import pytest

from parallel_lab import Link, launch
from parallel_lab.network import price
from parallel_lab.performance import buckets
from parallel_lab.performance.buckets import Piece, best_count, choose, cost, exchange, execute, over_nodes, queue
from parallel_lab.plan import check_plan
from parallel_lab.simulate import simulate

SLOW = Link(2e-3, 1e8)
LAYERS = [4e6, 1e6, 1e6, 2e6]
FORWARD, BACKWARD = [0.004] * 4, [0.008] * 4


@pytest.mark.parametrize("n", [2, 3, 4, 7])
@pytest.mark.parametrize("count", [1, 2, 5, 16])
def test_equal_buckets_take_what_the_closed_form_says(n, count):
    size, layers = 8e6, [8e6 / count] * count
    backward, forward_s = [0.04 / count] * count, 0.02
    sent = queue(SLOW, n, layers, backward, "arrival")
    plan = exchange(n, sent)
    check_plan(plan)
    trace = simulate(plan, cost(SLOW, sent, [0.0] * count, backward))
    assert forward_s + trace.duration_s == pytest.approx(buckets.step_s(n, count, size, SLOW, forward_s, 0.04))
    assert trace.bytes_sent(0) == pytest.approx(2 * (n - 1) / n * size, rel=1e-3)


@pytest.mark.parametrize("n", [2, 4, 16])
@pytest.mark.parametrize("link", [Link(1e-4, 1e9), Link(5e-6, 2e9), Link(1e-3, 1e7), Link(2e-2, 1e9)])
@pytest.mark.parametrize("backward_s", [0.005, 0.05, 0.5])
def test_the_best_number_of_buckets(n, link, backward_s):
    def step_s(count):
        return buckets.step_s(n, count, 2e7, link, 0.01, backward_s)

    best = best_count(n, link, backward_s, 2e7)
    tried = min(range(1, 3000), key=step_s)
    assert min(step_s(max(1, math.floor(best))), step_s(math.ceil(best))) <= step_s(tried) * (1 + 1e-9)


def test_without_a_latency_buckets_cannot_be_too_small():
    assert best_count(4, Link(0, 1e9), 0.1, 1e8) == math.inf


def test_priority_serves_the_first_layer_first_and_pieces_let_it_in():
    assert [p.layer for p in queue(SLOW, 2, LAYERS, BACKWARD, "arrival")] == [3, 2, 1, 0]
    by_priority = queue(SLOW, 2, LAYERS, BACKWARD, "priority")
    assert [p.layer for p in by_priority] == [3, 0, 1, 2], "layer 3 holds the link until all others are there"
    cut = queue(SLOW, 2, LAYERS, BACKWARD, "priority", pieces=4)
    assert [p.layer for p in cut].index(0) <= 4 and cut[-1].layer == 3
    assert sorted(cut) == [Piece(layer, k, LAYERS[layer] / 4) for layer in range(4) for k in range(4)]


@pytest.mark.parametrize("n", [2, 3, 4])
def test_priority_and_pieces_end_the_next_forward_earlier(n):
    link = Link(1e-5, 1e8)
    times = {}
    for order, pieces in (("arrival", 1), ("priority", 1), ("priority", 8)):
        sent = queue(link, n, LAYERS, BACKWARD, order, pieces)
        trace = simulate(exchange(n, sent), cost(link, sent, FORWARD, BACKWARD))
        times[order, pieces] = trace.duration_s
        assert trace.bytes_sent(0) == pytest.approx(2 * (n - 1) / n * sum(LAYERS), rel=1e-3), "the same bytes"
    assert times["priority", 8] < times["priority", 1] < times["arrival", 1]


def test_real_ranks_carry_out_the_plan_over_the_emulated_link():
    """The order is that of the plan on every rank, and no step is shorter than what the link and the passes take."""
    sent = queue(SLOW, 2, LAYERS, BACKWARD, "priority", pieces=2)
    plan = exchange(2, sent)
    predicted_s = simulate(plan, cost(SLOW, sent, FORWARD, BACKWARD)).duration_s
    run = launch(execute, sent, FORWARD, BACKWARD, ranks=2, link=SLOW, device="cpu")
    for rank in range(2):
        own = run.trace.of(rank)
        for lane in ("compute", "send"):
            assert [s.op for s in own if s.lane == lane] == [op for op in plan.rows[rank] if op.lane == lane]
        assert run.trace.bytes_sent(rank) == sum(price("all_reduce", 2, p.size_bytes).sent_bytes for p in sent)
    assert run.trace.duration_s >= 0.98 * predicted_s
    assert predicted_s >= sum(price("all_reduce", 2, p.size_bytes).seconds(SLOW) for p in sent)


def test_trees_for_small_tensors_and_rings_for_large_ones():
    link = Link(1e-5, 1e10)
    small, large = choose(64, 1e3, link), choose(64, 1e9, link)
    assert next(iter(small)) == "recursive_doubling" and list(small.values()) == sorted(small.values())
    assert large["ring"] < large["tree"] and large["halving_doubling"] <= large["ring"]
    for name, seconds in large.items():
        assert seconds == price("all_reduce", 64, 1e9, algorithm=name).seconds(link)


@pytest.mark.parametrize(("nodes", "per_node"), [(2, 2), (2, 4), (4, 4)])
def test_rings_in_nodes_and_between_them(nodes, per_node):
    intra, inter, size = Link(1e-6, 1e11), Link(1e-5, 1e9), 1e8
    times = over_nodes(nodes * per_node, per_node, size, intra, inter)
    inside = 2 * (per_node - 1) * intra.seconds(size / per_node)
    between = 2 * (nodes - 1) * inter.seconds(size / per_node / nodes)
    assert times["hierarchical"] == pytest.approx(inside + between, rel=1e-6)
    assert times["hierarchical"] < times["ring"]
