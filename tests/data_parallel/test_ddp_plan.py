"""The plan of a step: what it is, and that a recorded step is just that."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from parallel_lab import Link, launch
from parallel_lab.data_parallel import DDP, ddp
from parallel_lab.plan import Op, check_plan
from parallel_lab.simulate import simulate
from parallel_lab.trace import span

WIDTH, LAYERS = 24, 5
LAYER_BYTES = 8 * (WIDTH * WIDTH + WIDTH)


def test_rows():
    plan = ddp.plan(2, 2)
    assert [str(op) for op in plan.rows[1]] == ["0F0", "0B0", "0all_reduce0", "1B0", "1all_reduce0", "0update0"]
    late = ddp.plan(2, 2, overlap=False)
    assert [str(op) for op in late.rows[1]] == ["0F0", "0B0", "1B0", "0all_reduce0", "1all_reduce0", "0update0"]
    for each in (plan, late, ddp.plan(1, 1), ddp.plan(4, 7)):
        check_plan(each)


def test_an_all_reduce_needs_its_bucket_on_every_rank():
    plan, late = ddp.plan(3, 4), ddp.plan(3, 4, overlap=False)
    reduce = Op(1, "all_reduce", 2, lane="send")
    assert set(plan.needs[reduce]) == {Op(rank, "B", 2) for rank in range(3)}
    assert set(late.needs[reduce]) == {Op(rank, "B", 3) for rank in range(3)}
    assert set(plan.needs[Op(1, "update", 0)]) == {Op(1, "all_reduce", part, lane="send") for part in range(4)}


class Seconds:
    """A second a backward and an all-reduce, nothing else costs time."""

    def seconds(self, op):
        return float(op.kind in ("B", "all_reduce"))

    def bytes(self, op):
        return 0


def test_overlap_hides_all_but_the_last_all_reduce():
    assert simulate(ddp.plan(2, 5), Seconds()).duration_s == 6
    assert simulate(ddp.plan(2, 5, overlap=False), Seconds()).duration_s == 10


@pytest.mark.parametrize(("n", "buckets"), [(0, 1), (1, 0), (-1, 2)])
def test_no_such_plan(n, buckets):
    with pytest.raises(ValueError, match="at least 1 of each"):
        ddp.plan(n, buckets)


def step(overlap, steps):
    """The last of `steps` steps is the steady state: buckets stand in the order of the gradients."""
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)]).double()
    net = DDP(model, bucket_bytes=LAYER_BYTES, overlap=overlap)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for number in range(steps):
        with span("step", part=number, lane="recv"):
            optimizer.zero_grad()
            net(torch.ones(2, WIDTH, dtype=torch.float64)).sum().backward()
            with span("update"):
                optimizer.step()
    return [bucket.bytes for bucket in net.buckets]


def last_step(trace, rank):
    spans = trace.of(rank)
    (begin,) = [i for i, s in enumerate(spans) if s.kind == "step" and s.part == 1]
    return spans[begin + 1 :]


def as_ops(spans):
    """A PyTorch collective carries no part: the k-th all-reduce is that of bucket k."""
    reduces = iter(range(len(spans)))
    return tuple(s.op._replace(part=next(reduces)) if s.kind == "all_reduce" else s.op for s in spans)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("overlap", [True, False])
def test_a_recorded_step_is_the_plan(ranks, overlap):
    run = launch(step, overlap, 2, ranks=ranks)
    plan = ddp.plan(ranks, LAYERS, overlap)
    for rank in range(ranks):
        spans = last_step(run.trace, rank)
        assert as_ops(spans) == plan.rows[rank]
        sizes = [s.bytes for s in spans if s.kind == "all_reduce"]
        assert sizes == run[rank] == [LAYER_BYTES] * LAYERS
        sent = sum(s.sent_bytes for s in spans)
        assert sent == 2 * (ranks - 1) * LAYERS * LAYER_BYTES // ranks


@pytest.mark.parametrize("overlap", [True, False])
def test_on_a_slow_link_buckets_leave_while_the_backward_pass_goes_on(overlap):
    run = launch(step, overlap, 2, ranks=2, link=Link(0.0, 1e6))
    for rank in range(2):
        spans = last_step(run.trace, rank)
        backward = [s for s in spans if s.kind == "B"]
        reduces = [s for s in spans if s.kind == "all_reduce"]
        over_s = backward[-1].end_s
        assert [s.start_s < over_s for s in reduces] == [overlap] * (LAYERS - 1) + [False]
        assert all(s.start_s >= b.end_s for s, b in zip(reduces, backward, strict=True)), "never before it is full"
        assert all(a.end_s <= b.end_s for a, b in pairwise(reduces))
        (update,) = [s for s in spans if s.kind == "update"]
        assert update.start_s >= reduces[-1].end_s, "no step before every mean is there"
        assert (run.trace.overlap_s(rank) > 0) is True
