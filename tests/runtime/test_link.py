"""An emulated link takes alpha + bytes / beta, for messages and collectives, one after another on one link.

Timing tests have a tolerance of their own here: emulated time is what is tested. The emulation never delivers early,
so the lower bound is tight; the upper bound leaves room for a busy machine, and the best of several tries counts.
"""

import time

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from parallel_lab import Link, launch
from parallel_lab.runtime import ring_cost

LINK = Link(latency_s=0.002, bytes_per_s=100e6)
SIZE_BYTES = 4_000_000


def best(action, tries=5):
    times = []
    for _ in range(tries):
        dist.barrier()
        began = time.monotonic()
        action()
        times.append(time.monotonic() - began)
    return min(times)


def slowest(fn, ranks):
    return max(launch(fn, ranks=ranks, link=LINK).results)


def close(seconds, expected):
    assert 0.98 * expected <= seconds <= 1.1 * expected, f"{seconds:.4f} s, expected {expected:.4f} s"


def test_a_message():
    def fn():
        x = torch.ones(SIZE_BYTES // 4)
        return best(lambda: dist.send(x, dst=1) if dist.get_rank() == 0 else dist.recv(x, src=0))

    close(slowest(fn, 2), LINK.seconds(SIZE_BYTES))


def test_messages_of_one_rank_share_its_link():
    def fn():
        x = torch.ones(SIZE_BYTES // 4)
        if dist.get_rank() == 0:
            return best(lambda: [work.wait() for work in [dist.isend(x, dst=1), dist.isend(x, dst=2)]])
        return best(lambda: dist.recv(x, src=0))

    close(slowest(fn, 3), 2 * LINK.seconds(SIZE_BYTES))


def test_a_receiver_takes_one_message_after_another():
    def fn():
        xs = [torch.ones(SIZE_BYTES // 4) for _ in range(2)]
        if dist.get_rank() == 0:
            return best(lambda: [work.wait() for work in [dist.irecv(xs[0], src=1), dist.irecv(xs[1], src=2)]])
        return best(lambda: dist.send(xs[0], dst=0))

    close(slowest(fn, 3), 2 * LINK.seconds(SIZE_BYTES))


@pytest.mark.parametrize("ranks", [2, 3])
def test_collectives_cost_what_their_ring_costs(ranks):
    def fn(kind):
        x, y = torch.ones(SIZE_BYTES // 4), torch.ones(ranks * (SIZE_BYTES // 4))
        calls = {
            "all_reduce": lambda: dist.all_reduce(x),
            "broadcast": lambda: dist.broadcast(x, src=0),
            "all_gather": lambda: dist.all_gather_into_tensor(y, x),
            "reduce_scatter": lambda: dist.reduce_scatter_tensor(x, y),
            "asynchronous": lambda: [w.wait() for w in [dist.all_reduce(x, async_op=True) for _ in range(2)]],
        }
        return best(calls[kind], tries=3)

    for kind in ("all_reduce", "broadcast", "all_gather", "reduce_scatter"):
        size = SIZE_BYTES * (ranks if kind in ("all_gather", "reduce_scatter") else 1)
        took = max(launch(fn, kind, ranks=ranks, link=LINK).results)
        close(took, ring_cost(kind, ranks, size).seconds(LINK))
    took = max(launch(fn, "asynchronous", ranks=ranks, link=LINK).results)
    close(took, 2 * ring_cost("all_reduce", ranks, SIZE_BYTES).seconds(LINK))


def test_ddp_of_pytorch_goes_over_the_link():
    def fn():
        model = DistributedDataParallel(torch.nn.Linear(1000, 1000, bias=False))
        x = torch.ones(1, 1000)
        return best(lambda: model(x).sum().backward())

    link_s = ring_cost("all_reduce", 2, SIZE_BYTES).seconds(LINK)
    run = launch(fn, ranks=2, link=LINK)
    spans = [s for s in run.trace.of(0) if s.kind == "all_reduce" and s.bytes == SIZE_BYTES]
    close(min(s.end_s - s.start_s for s in spans), link_s)
    assert min(run.results) >= link_s


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
