"""Clipping by the global norm equals torch's on the whole gradient, whether it is replicated or sharded.

Tolerance: float64, 1e-12 relative; only the order of a sum differs.
"""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from parallel_lab import launch
from parallel_lab.data_parallel import DDP, clip_grad_norm_
from parallel_lab.data_parallel.extras.clip import Sharded

SIZES = [(3, 5), (7,), (2, 2, 2)]


def gradients(scale):
    generator = torch.Generator().manual_seed(7)
    return [scale * torch.randn(size, generator=generator, dtype=torch.float64) for size in SIZES]


def oracle(scale, max_norm):
    parameters = [nn.Parameter(torch.zeros(size, dtype=torch.float64)) for size in SIZES]
    for parameter, gradient in zip(parameters, gradients(scale), strict=True):
        parameter.grad = gradient
    norm = nn.utils.clip_grad_norm_(parameters, max_norm)
    return norm, torch.cat([p.grad.flatten() for p in parameters])


class Shards:
    """Gradients cut over the ranks, as ZeRO holds them."""

    def __init__(self, scale, group):
        self.group = group
        self.parts = [g.flatten().tensor_split(self.group.size())[self.group.rank()] for g in gradients(scale)]

    def gradient_shards(self):
        return self.parts


SCALES = (0.01, 100.0)


def clip_shards():
    """For each world and scale the norm and this rank's shards."""
    found = {}
    for n in (1, 2, 3, 4):
        group = dist.new_group(range(n))
        for scale in SCALES if dist.get_rank() < n else ():
            shards = Shards(scale, group)
            assert isinstance(shards, Sharded)
            found[n, scale] = clip_grad_norm_(shards, 2.0), shards.parts
    return found


def test_shards():
    results = launch(clip_shards, ranks=4).results
    for n, scale in results[0]:
        norm, whole = oracle(scale, 2.0)
        found = [results[rank][n, scale] for rank in range(n)]
        joined = torch.cat([torch.cat([parts[i] for _, parts in found]) for i in range(len(SIZES))])
        torch.testing.assert_close(joined, whole, rtol=1e-12, atol=0)
        for mine, _ in found:
            torch.testing.assert_close(mine, norm, rtol=1e-12, atol=0)


def all_replicated():
    return {kind: clip_replicated(kind) for kind in ("ddp", "parameters", "one")}


def clip_replicated(kind):
    torch.manual_seed(0)
    model = nn.Linear(4, 3).double()
    net = DDP(model)
    net(torch.ones(2, 4, dtype=torch.float64) * (1 + dist.get_rank())).square().sum().backward()
    before = [p.grad.clone() for p in model.parameters()]
    given = {"ddp": net, "parameters": model.parameters(), "one": model.weight}[kind]
    return clip_grad_norm_(given, 0.5), before, [p.grad for p in model.parameters()]


def test_replicated_gradients_need_no_message():
    run = launch(all_replicated, ranks=3)
    for kind, (norm, before, after) in (pair for found in run.results for pair in found.items()):
        clipped = before[: 1 if kind == "one" else 2]
        whole = torch.cat([g.flatten() for g in clipped]).norm()
        torch.testing.assert_close(norm, whole, rtol=1e-12, atol=0)
        for a, b in zip(after, clipped, strict=False):
            torch.testing.assert_close(a, b * 0.5 / (whole + 1e-6), rtol=1e-12, atol=0)
    assert [s.kind for s in run.trace.of(0) if s.lane == "send"][-1] == "all_reduce"
    assert len([s for s in run.trace.of(0) if s.kind == "all_reduce"]) == 3 * 2, "the models' check and one bucket"


def not_finite():
    shards = Shards(1.0, dist.group.WORLD)
    if dist.get_rank() == 1:
        shards.parts[0][0] = float("inf")
    before = [part.clone() for part in shards.parts]
    with pytest.raises(ValueError, match="norm of the gradients is inf"):
        clip_grad_norm_(shards, 1.0)
    return all(torch.equal(a, b) for a, b in zip(before, shards.parts, strict=True))


def test_a_norm_that_no_factor_mends_leaves_the_gradients_alone():
    assert launch(not_finite, ranks=2).results == [True, True]


@pytest.mark.parametrize("max_norm", [0, -1.0, float("nan")])
def test_a_norm_to_clip_at_that_makes_no_sense(max_norm):
    with pytest.raises(ValueError, match="max_norm is"):
        clip_grad_norm_([torch.zeros(2)], max_norm)
