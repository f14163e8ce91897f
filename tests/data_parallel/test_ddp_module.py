"""DDP as a module: what it sends, buffers, buckets, hooks, names, outputs of any shape.

Tolerance: float64, 1e-12 absolute on values of order 1: only the order of sums differs.
"""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from parallel_lab import launch
from parallel_lab.data_parallel import DDP

TOLERANCE = 1e-12


def with_batch_norm(wrap):
    torch.manual_seed(dist.get_rank())  # other weights on every rank: those of rank 0 must win
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)).double()
    net = wrap(model)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(dist.get_rank())
    for _ in range(3):
        optimizer.zero_grad()
        net(torch.randn(5, 4, generator=generator, dtype=torch.float64)).square().mean().backward()
        optimizer.step()
    own = {name: b.clone() for name, b in model.named_buffers()}
    net(torch.ones(2, 4, dtype=torch.float64))
    net.eval()
    return own, model.state_dict(), net(torch.ones(2, 4, dtype=torch.float64))


@pytest.mark.parametrize("ranks", [1, 3])
def test_buffers_are_those_of_rank_0_before_each_forward(ranks):
    run = launch(lambda: (with_batch_norm(DDP), with_batch_norm(DistributedDataParallel)), ranks=ranks)
    for ours, theirs in run.results:
        torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE)
    shares = [s for s in run.trace.of(0) if s.kind == "broadcast" and s.phase]
    assert len(shares) == 2 + 4 * 2, "weights of two dtypes at the start; at each forward buffers of two dtypes"


def test_in_eval_mode_nothing_is_sent():
    def fn():
        net = DDP(nn.BatchNorm1d(3)).eval()
        with torch.no_grad():
            net(torch.ones(2, 3))

    assert [s.kind for s in launch(fn, ranks=2).trace.of(0)] == ["all_reduce", "broadcast", "broadcast", "F"]


def halved():
    """A hook with a future: half the mean, as another tensor."""
    seen = []

    def half(group, flat):
        seen.append(flat.numel())
        flat.mul_(0.5 / group.size())
        work = dist.all_reduce(flat, group=group, async_op=True)
        return work.get_future().then(lambda done: done.value()[0].clone())

    torch.manual_seed(0)
    net = DDP(nn.Linear(3, 2).double(), hook=half)
    net(torch.full((1, 3), 1.0 + dist.get_rank(), dtype=torch.float64)).sum().backward()
    return seen, net.module.weight.grad


def test_a_hook_takes_the_place_of_the_mean():
    for seen, gradient in launch(halved, ranks=3).results:
        assert seen == [8]
        torch.testing.assert_close(gradient, torch.full((2, 3), 1.0, dtype=torch.float64), rtol=0, atol=TOLERANCE)


def test_buckets_stand_in_the_order_in_which_gradients_came():
    class Backwards(nn.Module):
        """Used last to first, so the reverse of registration is the wrong order."""

        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList(nn.Linear(4, 4, bias=False) for _ in range(3))

        def forward(self, x):
            for part in reversed(self.parts):
                x = part(x)
            return x

    def fn():
        net = DDP(Backwards(), bucket_bytes=1)
        orders = []
        for _ in range(3):
            net(torch.ones(1, 4)).sum().backward()
            orders.append([list(bucket.names) for bucket in net.buckets])
            assert all(
                p.grad.data_ptr() == v.data_ptr()
                for b in net.buckets
                for p, v in zip(b.parameters, b.views, strict=True)
            )
        return orders, [p.grad.clone() for p in net.parameters()]

    run = launch(fn, ranks=2)
    expected = [[f"parts.{i}.weight"] for i in range(3)]
    assert run[0][0] == run[1][0] == [expected] * 3
    for a, b in zip(run[0][1], run[1][1], strict=True):
        assert torch.equal(a, b)
    assert [s.kind for s in run.trace.of(0)].count("broadcast") == 2


class Dict(nn.Linear):
    def forward(self, x):
        return {"out": [super().forward(x)], "text": "other things pass"}


def small_things():
    """Names in a state dict; a group of some ranks, and outputs in a dict; gradients that are kept."""
    net = DDP(nn.Linear(2, 3))
    state = {name: t + 1 for name, t in net.state_dict().items()}
    nn.Linear(2, 3).load_state_dict(net.state_dict())
    net.load_state_dict(state)
    assert list(state) == ["weight", "bias"]
    assert torch.equal(net.module.bias, state["bias"])

    rank, group = dist.get_rank(), dist.new_group([1, 2])
    if rank > 0:
        net = DDP(Dict(1, 1, bias=False), group=group)
        net(torch.full((1, 1), float(rank)))["out"][0].sum().backward()
        assert net.module.weight.grad.item() == 1.5

    net = DDP(nn.Linear(1, 1, bias=False))
    for factor in (1.0, 10.0):
        net(torch.full((1, 1), factor * (1 + rank))).sum().backward()
    assert net.module.weight.grad.item() == 22.0


def test_small_things():
    launch(small_things, ranks=3)
