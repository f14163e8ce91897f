"""Every byte passes the one door: PyTorch's own DDP, FSDP2, tensor parallel and pipelining too."""

import time

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.pipelining import PipelineStage, ScheduleGPipe
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

from parallel_lab import Link, compat, launch
from parallel_lab.runtime import make_mesh, ring_cost
from parallel_lab.runtime.rank import stage
from parallel_lab.trace.memory import held_bytes

WIDTH = 16


def mlp(layers=2):
    torch.manual_seed(0)
    return nn.Sequential(*[nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(layers)])


def loss_of_one_process(ranks, layers=2):
    model, x = mlp(layers), torch.ones(ranks, WIDTH)
    model(x).square().mean().backward()
    return [p.grad for p in model.parameters()]


@pytest.mark.parametrize("ranks", [2, 3])
def test_ddp(ranks):
    def fn():
        model = DistributedDataParallel(mlp())
        model(torch.ones(1, WIDTH)).square().mean().backward()
        return [p.grad for p in model.parameters()]

    run = launch(fn, ranks=ranks)
    for mine, theirs in zip(run[0], loss_of_one_process(ranks), strict=True):
        torch.testing.assert_close(mine, theirs)
    size = 2 * 4 * WIDTH**2
    reduces = [s for s in run.trace.of(0) if s.kind == "all_reduce" and s.bytes == size]
    assert [s.sent_bytes for s in reduces] == [2 * (ranks - 1) * size // ranks]
    assert reduces[0].end_s > reduces[0].start_s, "DDP takes a future and never waits, yet the end is recorded"


def test_fsdp2_is_recorded():
    def fn():
        model = mlp()
        for layer in model:
            fully_shard(layer, mesh=make_mesh(dp=2))
        fully_shard(model, mesh=make_mesh(dp=2))
        model(torch.ones(1, WIDTH)).square().mean().backward()
        return [p.grad.full_tensor() for p in model.parameters()]

    run = launch(fn, ranks=2)
    for mine, theirs in zip(run[0], loss_of_one_process(2), strict=True):
        torch.testing.assert_close(mine, theirs)
    kinds = [s.kind for s in run.trace.of(0)]
    gathered = ring_cost("all_gather", 2, 4 * WIDTH**2).sent_bytes
    assert kinds.count("all_gather") >= 2
    assert kinds.count("reduce_scatter") == 2
    assert {s.sent_bytes for s in run.trace.of(0) if s.kind == "reduce_scatter"} == {gathered}


def test_tensor_parallel_is_recorded():
    def fn():
        model = parallelize_module(mlp(), make_mesh(tp=2), {"0": ColwiseParallel(), "1": RowwiseParallel()})
        return model(torch.ones(1, WIDTH)) + 0  # what comes out waits for its all-reduce when it is used

    run = launch(fn, ranks=2)
    torch.testing.assert_close(run[1], mlp()(torch.ones(1, WIDTH)))
    assert "all_reduce" in {s.kind for s in run.trace.of(0)}


def test_pipelining_is_recorded():
    def fn():
        rank = dist.get_rank()
        part = PipelineStage(mlp()[rank], rank, 2, torch.device("cpu"))
        schedule = ScheduleGPipe(part, 4)
        return schedule.step(torch.ones(4, WIDTH)) if rank == 0 else schedule.step()

    run = launch(fn, ranks=2)
    torch.testing.assert_close(run[1], mlp()(torch.ones(4, WIDTH)))
    sends = [s for s in run.trace.of(0) if s.kind == "send" and s.bytes == 4 * WIDTH]
    assert len(sends) == 4
    assert {s.peer for s in sends} == {1}


COLLECTIVES = {
    "all_reduce": lambda x, n: dist.all_reduce(x),
    "broadcast": lambda x, n: dist.broadcast(x, src=1 % n),
    "reduce": lambda x, n: dist.reduce(x, dst=0),
    "all_gather": lambda x, n: dist.all_gather([torch.empty_like(x) for _ in range(n)], x),
    "all_gather_into": lambda x, n: dist.all_gather_into_tensor(torch.empty(n * x.numel()), x),
    "reduce_scatter": lambda x, n: dist.reduce_scatter(torch.empty_like(x), [x] * n),
    "reduce_scatter_into": lambda x, n: dist.reduce_scatter_tensor(torch.empty_like(x), x.repeat(n)),
    "all_to_all": lambda x, n: dist.all_to_all([torch.empty_like(x) for _ in range(n)], [x] * n),
    "all_to_all_into": lambda x, n: dist.all_to_all_single(torch.empty(n * x.numel()), x.repeat(n)),
    "gather": lambda x, n: dist.gather(x, [torch.empty_like(x) for _ in range(n)] if dist.get_rank() == 0 else None),
    "scatter": lambda x, n: dist.scatter(torch.empty_like(x), [x] * n if dist.get_rank() == 0 else None),
    "barrier": lambda x, n: dist.barrier(),
    "objects": lambda x, n: dist.all_gather_object([None] * n, {"rank": dist.get_rank()}),
}


if torch.torch_version.TorchVersion(torch.__version__) < (2, 13):
    del COLLECTIVES["all_to_all"]  # torch 2.11's gloo has it on one tensor alone


def one_of_each():
    n = dist.get_world_size()
    for call in COLLECTIVES.values():
        call(torch.ones(100), n)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_every_collective_is_recorded_once_with_its_bytes(ranks):
    trace = launch(one_of_each, ranks=ranks).trace
    kinds = [s.kind for s in trace.of(0)]
    expected = [name.removesuffix("_into") for name in COLLECTIVES if name != "objects"]
    assert kinds[: len(expected)] == expected
    for rank in range(ranks):
        for s in trace.of(rank)[: len(expected)]:
            whole = 400 if s.kind in ("all_reduce", "broadcast", "reduce") else 400 * ranks
            root = 1 % ranks if s.kind == "broadcast" else 0
            cost = ring_cost(s.kind, ranks, whole * (s.kind != "barrier"), (rank - root) % ranks)
            assert (s.sent_bytes, s.sent_messages) == (cost.sent_bytes, cost.sent_messages), s


def test_staging_through_host_memory_gives_the_same_results(monkeypatch):
    """What CUDA tensors need under gloo, exercised on tensors that do not."""

    def fn(staged):
        if staged:
            stage.needed = lambda *_: True
        n, rank = dist.get_world_size(), dist.get_rank()
        outs = [torch.zeros(3) for _ in range(n)]
        dist.all_gather(outs, torch.full((3,), float(rank)))
        total = torch.full((3,), float(rank))
        dist.all_reduce(total)
        other = torch.zeros(3)
        works = dist.batch_isend_irecv(
            [dist.P2POp(dist.isend, total + rank, (rank + 1) % n), dist.P2POp(dist.irecv, other, (rank - 1) % n)]
        )
        [work.wait() for work in works]
        one = torch.zeros(3)
        dist.reduce_scatter(one, [torch.full((3,), float(rank + i)) for i in range(n)])
        return torch.stack([*outs, total, other, one])

    plain, staged = launch(fn, False, ranks=3), launch(fn, True, ranks=3)
    for a, b in zip(plain.results, staged.results, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("link", [None, Link(1e-3)])
def test_a_wait_does_not_write_the_result_again(link):
    """gloo's reduce_scatter copies its result at every wait, and a sum that has arrived may have been changed since."""

    def changed_before_the_wait():
        found, ones = [], torch.ones(4)
        for into, given, start in (
            (torch.zeros(2), ones, compat.reduce_scatter_single),
            (torch.zeros(2), list(ones.split(2)), dist.reduce_scatter),
        ):
            work = start(into, given, async_op=True)
            while not work.is_completed():
                time.sleep(1e-4)
            into.add_(1)
            work.wait()
            found.append(into.tolist())
        return found

    assert launch(changed_before_the_wait, ranks=2, link=link).results == [[[3.0, 3.0]] * 2] * 2


def test_sub_groups_name_global_ranks():
    def fn():
        group = dist.new_group([1, 2])
        if dist.get_rank() in (1, 2):
            x = torch.ones(4)
            dist.all_reduce(x, group=group)
            other = 3 - dist.get_rank()
            dist.send(x, dst=2, group=group) if other == 2 else dist.recv(x, src=1, group=group)

    trace = launch(fn, ranks=4).trace
    assert [(s.kind, s.peer) for s in trace.of(1)[-2:]] == [("all_reduce", -1), ("send", 2)]
    assert trace.of(1)[-1].group != ""
    assert trace.bytes_sent(3) == 0


def test_what_fsdp2_holds_is_this_rank_s_share():
    def fn():
        model = mlp()
        for layer in model:
            fully_shard(layer)
        fully_shard(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        model(torch.ones(1, WIDTH)).sum().backward()
        optimizer.step()
        return held_bytes(model, optimizer)

    whole = 2 * 4 * WIDTH**2
    for n in (1, 2):
        share = whole // n
        expected = {"parameters": share, "gradients": share, "optimizer_state": share}
        assert launch(fn, ranks=n).results == [expected] * n
