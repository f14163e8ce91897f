"""A sum through servers in pieces: the right sum, the bytes and the time that the formulas say."""

import itertools

import pytest
import torch
import torch.distributed as dist

from parallel_lab import Link, launch
from parallel_lab.parameter_server import formulas, push_pull, push_pull_plan
from parallel_lab.plan import check_plan
from parallel_lab.simulate import AlphaBeta, simulate

PLANS = list(itertools.product((1, 2, 3, 4, 8), (1, 2, 3, 4, 8), (1, 2, 5)))
LINKS = [Link(1.0, 100.0), Link(10.0, 100.0), Link(5.0, 1000.0, gap_s=0.5)]


def simulated_s(workers, servers, pieces, size, link):
    cost = AlphaBeta.over(link, size / (servers * pieces))
    return simulate(push_pull_plan(workers, servers, pieces), cost).duration_s


@pytest.mark.parametrize(("workers", "servers", "pieces"), PLANS)
def test_the_plan_can_be_done_and_sends_what_the_table_says(workers, servers, pieces):
    plan = push_pull_plan(workers, servers, pieces)
    check_plan(plan)
    size = 7 * servers * pieces
    for rank in range(servers):
        assert plan.sent(rank, size) == workers * size // servers
    for rank in range(servers, servers + workers):
        assert plan.sent(rank, size) == size
        assert sum(op.kind == "send" for op in plan.rows[rank]) == servers * pieces


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize(("workers", "servers", "pieces"), PLANS)
def test_overlapped_seconds(workers, servers, pieces, link):
    """Exact from two workers on; the last piece of a single worker is answered sooner."""
    size = 4800.0
    took_s = simulated_s(workers, servers, pieces, size, link)
    said_s = formulas.overlapped_seconds(workers, servers, size, link, pieces)
    assert took_s <= said_s * (1 + 1e-9)
    assert took_s >= formulas.bound_seconds(workers, servers, size, link)
    if workers > 1:
        assert took_s == pytest.approx(said_s)


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize(("workers", "servers"), [(4, 1), (4, 2), (4, 3), (4, 4), (16, 4), (16, 9), (3, 3)])
def test_best_pieces(workers, servers, link):
    found = [formulas.overlapped_seconds(workers, servers, 3e4, link, pieces) for pieces in range(1, 200)]
    best = formulas.best_pieces(workers, servers, 3e4, link)
    assert formulas.overlapped_seconds(workers, servers, 3e4, link, best) == pytest.approx(min(found), rel=1e-3)


def test_servers_against_the_ring():
    """Long messages: n servers near half of its time, n / 2 near it, one n / 2 times. Short ones: a star wins."""
    link, size = Link(0.0, 1e8), 10**8
    ring_s = formulas.ring_seconds(64, size, link)
    assert formulas.bound_seconds(64, 64, size, link) / ring_s == pytest.approx(32 / 63)
    assert formulas.bound_seconds(64, 1, size, link) / ring_s == pytest.approx(64 * 32 / 63)
    assert formulas.overlapped_seconds(64, 64, size, link) < 0.51 * ring_s
    assert formulas.crossover(64, size, link) == 33
    assert formulas.crossover(64, size, link, within=1.05) == 31
    far = Link(1e-3, 1.25e7)
    assert formulas.step_seconds(64, 1, 1000, far) < formulas.ring_seconds(64, 1000, far)
    assert formulas.all_reduce_seconds(64, 1000, far) < formulas.step_seconds(64, 1, 1000, far)


@pytest.mark.parametrize(("servers", "pieces"), [(1, 1), (1, 3), (2, 1), (2, 2), (3, 4)])
def test_the_sum_and_the_trace(servers, pieces):
    def fn():
        tensor = torch.full((23,), float(dist.get_rank()), dtype=torch.float64)
        push_pull(tensor, servers=servers, pieces=pieces)
        return tensor

    run = launch(fn, ranks=5)
    expected = torch.full((23,), float(sum(range(servers, 5))), dtype=torch.float64)
    for rank in range(servers, 5):
        assert run[rank].equal(expected)
    plan = push_pull_plan(5 - servers, servers, pieces)
    for rank in range(5):
        assert tuple(span.op._replace(phase="", axis="") for span in run.trace.of(rank)) == plan.rows[rank]
        assert run.trace.bytes_sent(rank) == 8 * plan.sent(rank, 23)


def test_arguments():
    with pytest.raises(ValueError, match="pieces"):
        push_pull_plan(2, 1, 0)


@pytest.mark.parametrize(("workers", "servers"), [(2, 1), (4, 1), (4, 2), (8, 8), (64, 7)])
def test_the_bound_where_workers_serve_too(workers, servers):
    """The best share of the bytes, found by trying, leaves the busiest link as much as the formula says."""
    link, tries = Link(0.0, 1.0), 10**5
    own = [share / tries / workers for share in range(tries + 1)]
    busiest = min(max(1 + (workers - 2) * x, workers * (1 - workers * x) / servers) for x in own)
    assert formulas.unified_bound_seconds(workers, servers, 1.0, link) == pytest.approx(busiest, rel=1e-3)
    assert formulas.unified_bound_seconds(workers, 0, 1.0, link) == formulas.ring_seconds(workers, 1, link)
    assert formulas.unified_bound_seconds(workers, workers, 1.0, link) == pytest.approx(1.0)
    assert formulas.unified_bound_seconds(workers, 3 * workers, 1.0, link) == pytest.approx(1.0)


def test_what_a_server_holds_and_what_rows_cost():
    assert formulas.server_held_bytes(10, 2, workers=3) == 5 * 4 * (1 + 2 + 3)
    assert formulas.rows_bytes(256, 32) == 256 * 8 + 2 * 256 * 128
