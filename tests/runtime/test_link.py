"""An emulated link takes alpha + bytes / beta, for messages and collectives, one after another on one link.

The emulator decides the moment at which an operation ends, and the trace records that moment; so durations between
ends are exact however busy the machine is. That the wall clock follows within 10 % is measured by benchmarks/link.py.
"""

import time

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from parallel_lab import LaunchError, Link, launch
from parallel_lab.network import Nodes
from parallel_lab.runtime import ring_cost
from parallel_lab.runtime.rank.emulate import ROUNDING_S, WayIn

LINK = Link(latency_s=0.002, bytes_per_s=100e6)
SIZE_BYTES = 1_000_000
ONE_S = LINK.seconds(SIZE_BYTES)


def ends(run, rank, kind):
    return [s.end_s for s in run.trace.of(rank) if s.kind == kind]


def test_a_message_is_never_early():
    def fn():
        x = torch.ones(SIZE_BYTES // 4)
        dist.barrier()
        began = time.monotonic()
        dist.send(x, dst=1) if dist.get_rank() == 0 else dist.recv(x, src=0)
        return began, time.monotonic(), x.sum().item()

    run = launch(fn, ranks=2, link=LINK)
    assert run[1][1] - run[0][0] >= ONE_S
    assert run[1][2] == SIZE_BYTES // 4
    span = run.trace.of(0)[1]
    assert span.end_s - span.start_s == pytest.approx(ONE_S, abs=1e-2)
    assert ends(run, 1, "recv") == pytest.approx(ends(run, 0, "send"))


def test_messages_of_one_rank_share_its_link():
    def fn():
        x = torch.ones(SIZE_BYTES // 4)
        if dist.get_rank() == 0:
            return [work.wait() for work in [dist.isend(x, dst=1), dist.isend(x, dst=2)]]
        dist.recv(x, src=0)

    first, second = (s for s in launch(fn, ranks=3, link=LINK).trace.of(0) if s.kind == "send")
    assert second.end_s == pytest.approx(max(first.end_s, second.start_s) + ONE_S, abs=1e-6)


def test_a_receiver_takes_one_message_after_another():
    def fn():
        xs = [torch.ones(SIZE_BYTES // 4) for _ in range(2)]
        dist.barrier()
        if dist.get_rank() == 0:
            return [work.wait() for work in [dist.irecv(xs[0], src=1), dist.irecv(xs[1], src=2)]]
        dist.send(xs[0], dst=0)

    one, other = ends(launch(fn, ranks=3, link=LINK), 0, "recv")
    assert abs(other - one) >= ONE_S - ROUNDING_S  # in the order of arrival, whichever that is


CALLS = {
    "all_reduce": lambda x, y: dist.all_reduce(x, async_op=True),
    "broadcast": lambda x, y: dist.broadcast(x, src=0, async_op=True),
    "all_gather": lambda x, y: dist.all_gather_into_tensor(y, x, async_op=True),
    "reduce_scatter": lambda x, y: dist.reduce_scatter_tensor(x, y, async_op=True),
    "all_to_all": lambda x, y: dist.all_to_all_single(torch.empty_like(y), y, async_op=True),
}


@pytest.mark.parametrize("ranks", [2, 3])
def test_collectives_cost_what_their_ring_costs(ranks):
    def fn():
        x, y = torch.ones(SIZE_BYTES // 4), torch.ones(ranks * (SIZE_BYTES // 4))
        for call in CALLS.values():
            for work in [call(x, y) for _ in range(2)]:
                work.wait()

    run = launch(fn, ranks=ranks, link=LINK)
    for kind in CALLS:
        size = SIZE_BYTES * (ranks if kind in ("all_gather", "reduce_scatter", "all_to_all") else 1)
        cost_s = ring_cost(kind, ranks, size).seconds(LINK)
        starts = [next(s.start_s for s in run.trace.of(rank) if s.kind == kind) for rank in range(ranks)]
        first, second = ends(run, 0, kind)
        assert first - max(starts) == pytest.approx(cost_s, abs=0.05)
        assert second - first >= cost_s - ROUNDING_S, "they share the link"
        assert first == pytest.approx(ends(run, ranks - 1, kind)[0], abs=1e-6), "it ends on all ranks at once"


def test_ddp_of_pytorch_goes_over_the_link():
    def fn():
        model = DistributedDataParallel(torch.nn.Linear(1000, 1000, bias=False))
        return [model(torch.ones(1, 1000)).sum().backward() for _ in range(2)]

    run = launch(fn, ranks=2, link=LINK)
    spans = [s for s in run.trace.of(0) if s.kind == "all_reduce" and s.bytes == 4_000_000]
    assert len(spans) == 2
    assert min(s.end_s - s.start_s for s in spans) >= ring_cost("all_reduce", 2, 4_000_000).seconds(LINK) - ROUNDING_S


def test_a_link_must_make_sense():
    with pytest.raises(ValueError, match="latency_s >= 0"):
        Link(latency_s=-1)
    with pytest.raises(ValueError, match="bytes_per_s > 0"):
        Link(bytes_per_s=0)


@pytest.mark.parametrize("kind", ["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "reduce"])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7])
def test_ring_costs_add_up(kind, ranks):
    size = 840 * ranks
    sent = [ring_cost(kind, ranks, size, place).sent_bytes for place in range(ranks)]
    times = 2 if kind == "all_reduce" else 1
    assert sum(sent) == times * (ranks - 1) * size, "every rank but one must get, or give, everything"
    if ranks == 1:
        assert ring_cost(kind, 1, size).seconds(LINK) == 0


@pytest.mark.parametrize(
    ("arrivals", "delivered"),
    [
        ([(50, 50), (50, 50)], [50, 100]),  # together: one after the other
        ([(100, 50), (50, 50)], [100, 50]),  # the earlier is looked at later, and is not held back
        ([(50, 50), (200, 50), (60, 50)], [50, 200, 100]),  # a gap that is long enough
        ([(50, 50), (130, 50), (60, 50)], [50, 130, 180]),  # a gap that is too short
        ([(0.3, 0.1), (0.1 + 0.1, 0.1), (0.1, 0.1)], [0.3, 0.2, 0.1]),  # and sums that are not exact
    ],
)
def test_messages_come_in_by_arrival(arrivals, delivered):
    way = WayIn()
    assert [way.book(due, seconds) for due, seconds in arrivals] == pytest.approx(delivered)
    assert way.free_s == pytest.approx(max(delivered))


def test_a_collective_does_not_wait_for_one_of_another_group_that_somebody_has_not_joined_yet():
    """Rank 1 waits for rank 2 before it joins rank 0 in what rank 0 has begun; rank 0 meets rank 2 in between."""

    def fn():
        x, rank = torch.ones(1), dist.get_rank()
        pairs = {pair: dist.new_group(list(pair)) for pair in ((0, 1), (0, 2), (1, 2))}
        if rank == 0:
            first = dist.all_reduce(x, group=pairs[0, 1], async_op=True)
            dist.all_reduce(torch.ones(1), group=pairs[0, 2])
            first.wait()
        elif rank == 1:
            dist.all_reduce(torch.ones(1), group=pairs[1, 2])
            dist.all_reduce(x, group=pairs[0, 1])
        else:
            dist.all_reduce(torch.ones(1), group=pairs[0, 2])
            dist.all_reduce(torch.ones(1), group=pairs[1, 2])
        return x.item()

    assert launch(fn, ranks=3, link=LINK).results == [2, 2, 1]


def test_nodes_have_a_fast_link_inside_and_a_slow_one_between_each_with_a_port_of_its_own():
    """Rank 0 sends to 1, in its node, and to 2, at the same time; then collectives of both kinds."""
    slow = Link(latency_s=0.02, bytes_per_s=100e6)

    def fn():
        x, rank = torch.ones(SIZE_BYTES // 4), dist.get_rank()
        halves = [dist.new_group([0, 1]), dist.new_group([2, 3])]
        across = [dist.new_group([0, 2]), dist.new_group([1, 3])]
        if rank == 0:
            for work in [dist.isend(x, dst=2), dist.isend(x, dst=1)]:
                work.wait()
        elif rank < 3:
            dist.recv(x, src=0)
        dist.barrier()
        for group in (halves[rank // 2], across[rank % 2]):
            dist.all_reduce(x, group=group)

    run = launch(fn, ranks=4, link=Nodes((0, 0, 1, 1), inside=LINK, between=slow))
    far, near = (s for s in run.trace.of(0) if s.kind == "send")
    assert far.end_s == pytest.approx(far.start_s + slow.seconds(SIZE_BYTES), abs=1e-6)
    assert near.end_s == pytest.approx(near.start_s + ONE_S, abs=1e-6)
    inside, across = (s for s in run.trace.of(0) if s.kind == "all_reduce")
    ring = ring_cost("all_reduce", 2, SIZE_BYTES)
    assert inside.end_s - inside.start_s > ring.seconds(LINK) - 1e-6
    assert across.end_s - across.start_s > ring.seconds(slow) - 1e-6
    alone = launch(lambda: dist.all_reduce(torch.ones(SIZE_BYTES // 4)), ranks=2, link=Nodes((0, 0), LINK, slow))
    (span,) = alone.trace.of(0)
    assert span.end_s == pytest.approx(max(s.start_s for s in alone.trace.spans) + ring.seconds(LINK), abs=1e-6)


def test_each_rank_has_a_node():
    with pytest.raises(ValueError, match="node_of names the nodes of 2 ranks, and there is a rank 2"):
        Nodes((0, 0), LINK, LINK).among((0, 2))
    with pytest.raises(LaunchError, match="node_of names the nodes of 2 ranks, and there is a rank 2"):
        launch(lambda: dist.barrier(), ranks=3, link=Nodes((0, 0), LINK, LINK))
