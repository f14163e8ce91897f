"""Codes, mixed precision and loss scaling, with tensors on the CPU and on a GPU that the ranks share.

Codes are computed in float64, and are the same bits on both. Gradients of 16-bit products may differ in the last digits
of 16 bits: the largest error is held against a hundredth of the largest gradient.
"""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from parallel_lab import launch
from parallel_lab.precision import DynamicScale, MasterWeights, MixedPrecision, Policy, microscaling, quantize
from parallel_lab.precision.formats import E2M1, E4M3, E5M2, FLOAT16
from parallel_lab.precision.sums import reproducible_all_reduce, reproducible_sum
from parallel_lab.runtime import rank_device

pytestmark = pytest.mark.usefixtures("by_value")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.LayerNorm(128), nn.GELU(), nn.Linear(128, 8))


def drawn(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("device", DEVICES)
def test_codes_are_the_same_bits(device):
    x = torch.cat([drawn(4000) * 2.0**power for power in (-20, -8, 0, 8, 15)]).view(40, -1)
    for format in (FLOAT16, E5M2, E4M3, E2M1):
        codes = format.encode(x.to(device))
        assert torch.equal(codes.cpu(), format.encode(x)) and torch.equal(format.decode(codes).cpu(), format.round(x))
    for made, right in (
        (quantize(x.to(device), block=(1, 128)), quantize(x, block=(1, 128))),
        (microscaling.quantize(x.to(device)), microscaling.quantize(x)),
    ):
        assert torch.equal(made.dequantize().cpu(), right.dequantize())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("compute", [torch.bfloat16, torch.float16])
def test_a_scaled_step_on_two_ranks(device, compute):
    """Gradients are those of float32 to a hundredth; an infinity, or NaN, on rank 1 alone makes both skip."""

    def fn():
        rank, here = dist.get_rank(), rank_device()
        assert here.type == device
        x, y = drawn(16, 64, seed=rank).to(here), drawn(16, 8, seed=rank + 2).to(here)
        right, model = network().to(here), MixedPrecision(network().to(here), Policy(compute=compute))
        F.mse_loss(right(x), y).backward()
        optimizer, scaler = torch.optim.SGD(model.parameters(), 0.1), DynamicScale(2.0**10)
        scaler.scale(F.mse_loss(model(x), y)).backward()
        assert scaler.unscale(optimizer)
        pairs = zip(model.parameters(), right.parameters(), strict=True)
        off = max(float((p.grad - q.grad).abs().max() / q.grad.abs().max()) for p, q in pairs)
        first = scaler.step(optimizer)
        scaler.update()
        before, said = model.module[3].weight.detach().clone(), []
        for bad in (torch.inf, torch.nan):
            model.module[0].bias.grad[0] = bad if rank == 1 else 1.0
            said.append(scaler.step(optimizer))
            scaler.update()
        return off, first, said, scaler.value, torch.equal(before, model.module[3].weight)

    for off, *rest in launch(fn, ranks=2, device=device, timeout=120).results:
        assert off < 0.02 and rest == [True, [False, False], 2.0**8, True]


@pytest.mark.parametrize("device", DEVICES)
def test_masters_and_sums(device):
    def fn():
        here = rank_device()
        model = network().to(here, torch.bfloat16)
        optimizer, scaler = MasterWeights(model.parameters(), torch.optim.AdamW, lr=1e-2), DynamicScale(4.0)
        scaler.scale(model(drawn(4, 64).to(here, torch.bfloat16)).float().square().mean()).backward()
        done = scaler.step(optimizer)
        rounded = all(torch.equal(p, m.bfloat16()) for p, m in zip(model.parameters(), optimizer.masters, strict=True))
        mine = drawn(50, seed=dist.get_rank()).to(here)
        reproducible_all_reduce(mine)
        return done, rounded, mine.cpu()

    right = reproducible_sum([drawn(50, seed=rank) for rank in range(2)])
    for done, rounded, total in launch(fn, ranks=2, device=device, timeout=120).results:
        assert done and rounded and torch.equal(total, right)
