"""The plan of a step: what it is, and that recorded steps are just that."""

from itertools import pairwise

import pytest
import torch
import torch.distributed as dist
from torch import nn

from parallel_lab import Link, launch
from parallel_lab.data_parallel import DDP, average, average_gradients, ddp
from parallel_lab.plan import Op, check_plan
from parallel_lab.runtime import make_mesh
from parallel_lab.simulate import CostModel, simulate
from parallel_lab.trace import Trace, span, tag

WIDTH, LAYERS = 24, 5
LAYER_BYTES = 8 * (WIDTH * WIDTH + WIDTH)
MICROBATCHES = 3


def test_rows():
    row = ["0F0:forward", "0B0:backward", "0all_reduce0:backward", "1B0:backward", "1all_reduce0:backward"]
    plan = ddp.plan(2, 2)
    assert [str(op) for op in plan.rows[1]] == [*row, "0update0:step"]
    late = ddp.plan(2, 2, overlap=False)
    assert [str(op) for op in late.rows[1]] == [*row[:2], row[3], row[2], row[4], "0update0:step"]
    steps = ddp.plan(1, 1, microbatches=2, mb=4, buffers=1, axis="dp")
    quiet = ["0F4:forward", "-1B4:backward", "0broadcast5@dp:forward"]
    last = ["0F5:forward", "0B5:backward", "0all_reduce5@dp:backward", "0update5:step"]
    assert [str(op) for op in steps.rows[0]] == quiet + last
    for each in (plan, late, steps, ddp.plan(1, 1), ddp.plan(4, 7), ddp.plan(3, 2, microbatches=3, buffers=2)):
        check_plan(each)


def test_an_all_reduce_needs_its_bucket_on_every_rank():
    plan, late = ddp.plan(3, 4), ddp.plan(3, 4, overlap=False)
    reduce = [Op(1, "all_reduce", part, lane="send", phase="backward") for part in range(4)]
    assert set(plan.needs[reduce[2]]) == {Op(rank, "B", 2, phase="backward") for rank in range(3)}
    assert set(late.needs[reduce[2]]) == {Op(rank, "B", 3, phase="backward") for rank in range(3)}
    assert set(plan.needs[Op(1, "update", 0, phase="step")]) == set(reduce)


class Seconds(CostModel):
    """A second a backward and an all-reduce, nothing else costs time."""

    def seconds(self, op):
        return float(op.kind in ("B", "all_reduce"))


def test_overlap_hides_all_but_the_last_all_reduce():
    assert simulate(ddp.plan(2, 5), Seconds()).duration_s == 6
    assert simulate(ddp.plan(2, 5, overlap=False), Seconds()).duration_s == 10


@pytest.mark.parametrize(("n", "buckets", "microbatches"), [(0, 1, 1), (1, 0, 1), (-1, 2, 1), (1, 1, 0)])
def test_no_such_plan(n, buckets, microbatches):
    with pytest.raises(ValueError, match="at least 1 of each"):
        ddp.plan(n, buckets, microbatches=microbatches)


def step(net, optimizer, microbatches=1):
    """One step of a user's: all microbatches but the last in `no_sync`."""
    x = torch.ones(2, WIDTH, dtype=torch.float64)
    optimizer.zero_grad()
    with net.no_sync():
        for _ in range(microbatches - 1):
            net(x).sum().backward()
    net(x).sum().backward()
    with span("update", mb=net.mb, phase="step"):
        optimizer.step()


def layers():
    torch.manual_seed(0)
    return [nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)]


def steps(overlap=True, group=None, count=2):
    """Two steps of one microbatch, of which the first settles the order of the buckets, and two of three."""
    net = DDP(nn.Sequential(*layers()).double(), bucket_bytes=LAYER_BYTES, overlap=overlap, group=group)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for microbatches in (1, 1, MICROBATCHES, MICROBATCHES)[:count]:
        step(net, optimizer, microbatches)
    return [bucket.flat.nbytes for bucket in net.buckets]


def of_phases(trace, rank, *phases):
    return [s for s in trace.of(rank) if s.phase in phases]


@pytest.mark.parametrize(("ranks", "overlap"), [(1, True), (2, False), (3, True), (4, True)])
def test_recorded_steps_are_the_plan(ranks, overlap):
    run = launch(steps, overlap, count=4, ranks=ranks)
    check_plan(run.trace.plan())
    each = [(1, 0), (1, 1), (MICROBATCHES, 2), (MICROBATCHES, 2 + MICROBATCHES)]
    plans = [ddp.plan(ranks, LAYERS, overlap, microbatches=count, mb=first) for count, first in each]
    for rank in range(ranks):
        ops = [s.op for s in run.trace.of(rank)]
        assert [(op.kind, op.part, op.phase) for op in ops[:2]] == [
            ("all_reduce", 0, "setup"),
            ("broadcast", 0, "setup"),
        ]
        assert [op for op in ops if op.phase == "agree"] == [Op(rank, "broadcast", 2, 0, lane="send", phase="agree")]
        assert [op for op in ops[2:] if op.phase != "agree"] == [op for plan in plans for op in plan.rows[rank]]
        reduces = [s for s in run.trace.of(rank) if s.kind == "all_reduce"][1:]
        assert [s.bytes for s in reduces] == 4 * [LAYER_BYTES] * LAYERS
        assert run[rank] == [LAYER_BYTES] * LAYERS
        assert sum(s.sent_bytes for s in reduces) == 4 * 2 * (ranks - 1) * LAYERS * LAYER_BYTES // ranks


def with_everything(group):
    """Buffers of two dtypes, a parameter that nobody uses, one thawed late, gradients kept for one step."""
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
    model.never = nn.Linear(2, 2)
    model.forward = lambda x: model[2](model[1](model[0](x)))
    model[0].requires_grad_(False)
    net = DDP(model, bucket_bytes=64, group=group)
    for number in range(3):
        if number == 1:
            model[0].requires_grad_(True)
        with net.no_sync():
            net(torch.ones(5, 4)).sum().backward(retain_graph=True)
            net(torch.ones(5, 4)).sum().backward()
        net(torch.ones(5, 4)).sum().backward()
        with torch.no_grad():
            net(torch.ones(5, 4))
    with net.join():
        for _ in range(1 + dist.get_rank() % 2):
            net(torch.ones(5, 4)).sum().backward()
    for number in range(2):
        average_gradients(nn.Linear(2, 2), mb=net.mb + 1 + number, group=group)


def on_a_mesh():
    mesh = make_mesh(dp=2, tp=2)
    steps(group=mesh.get_group("dp"))


@pytest.mark.parametrize("ranks", [1, 3])
def test_no_two_steps_have_one_name(ranks):
    run = launch(with_everything, None, ranks=ranks)
    check_plan(run.trace.plan())
    assert {s.phase for s in run.trace.of(0)} == {"setup", "rewrap", "forward", "backward", "agree", "join"}
    last = [s.op for s in run.trace.of(ranks - 1)][-4:]
    assert last == [op for n in (0, 1) for op in average.plan(ranks, 2, mb=last[-1].mb - 1 + n).rows[ranks - 1]]


def test_buffers_are_in_the_plan():
    def fn():
        model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6))
        net = DDP(model)
        for _ in range(2):
            net(torch.ones(5, 4)).sum().backward()
            with span("update", mb=net.mb, phase="step"):
                pass

    trace = launch(fn, ranks=2).trace
    found = [s.op for s in of_phases(trace, 1, "forward", "backward", "step")]
    assert found == [op for mb in (0, 1) for op in ddp.plan(2, 1, mb=mb, buffers=2).rows[1]]


def test_on_an_axis_of_a_mesh():
    trace = launch(on_a_mesh, ranks=4).trace
    check_plan(trace.plan())
    for rank in range(4):
        ops = [s.op for s in of_phases(trace, rank, "forward", "backward", "step")]
        (axis,) = {op.axis for op in ops if op.kind == "all_reduce"}
        assert axis in ("", "dp")
        expected = [op for mb in (0, 1) for op in ddp.plan(2, LAYERS, mb=mb, axis=axis).rows[rank // 2]]
        assert ops == [op._replace(rank=rank) for op in expected]


def test_a_user_names_what_a_hook_sends():
    """A hook that sends twice a bucket gives its messages rounds of their own."""

    def fn():
        def twice(group, flat):
            with tag(round=1):
                dist.all_reduce(torch.zeros(1), group=group)
            return dist.all_reduce(flat.div_(group.size()), group=group, async_op=True)

        net = DDP(nn.Linear(2, 2), hook=twice)
        net(torch.ones(1, 2)).sum().backward()

    check_plan(launch(fn, ranks=2).trace.plan())


@pytest.mark.parametrize("overlap", [True, False])
def test_on_a_slow_link_buckets_leave_while_the_backward_pass_goes_on(overlap):
    run = launch(steps, overlap, ranks=2, link=Link(0.0, 1e6))
    for rank in range(2):
        spans = [s for s in of_phases(run.trace, rank, "backward", "step") if s.mb == 1]
        backward = [s for s in spans if s.kind == "B"]
        reduces = [s for s in spans if s.kind == "all_reduce"]
        over_s = backward[-1].end_s
        assert [s.start_s < over_s for s in reduces] == [overlap] * (LAYERS - 1) + [False]
        assert all(s.start_s >= b.end_s for s, b in zip(reduces, backward, strict=True)), "never before it is full"
        assert all(a.end_s <= b.end_s for a, b in pairwise(reduces))
        assert all(a.end_s <= b.start_s for a, b in pairwise(backward))
        (update,) = [s for s in spans if s.kind == "update"]
        assert update.start_s >= reduces[-1].end_s, "no step before every mean is there"
        assert (Trace(2, tuple(spans)).overlap_s(rank) > 0) is overlap
