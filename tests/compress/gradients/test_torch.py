"""Parity with PyTorch's own hooks, and known values of one exchange.

Tolerance of PowerSGD, float64: 1e-12 absolute on weights of order 1 after five steps.
"""

import numpy as np
import pytest
import torch
import torch.distributed as dist
from shared_gradients import batch, build, one_step, weights
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

from parallel_lab import launch
from parallel_lab.compress.gradients import QSGD, Cast, OneBit, PowerSGD, RandomK, Sign, TopK
from parallel_lab.compress.gradients.power_sgd import orthonormalize
from parallel_lab.data_parallel import DDP

RANKS, START, STEPS = 3, 2, 5


def first_qs(hook, rank):
    """Gives our hook the random Qs with which PyTorch's begins, of its only bucket."""
    chance = torch.Generator().manual_seed(int(np.random.RandomState(0).randint(1_000_000_000)))
    for name, p in reversed(list(build().named_parameters())):  # the order of the bucket
        if hook.compresses(p.shape):
            size = p.shape[1], min(rank, *p.shape)
            hook.kept[name] = orthonormalize(torch.randn(size, generator=chance, dtype=torch.float64))


def against_power_sgd(rank):
    """How far the weights of ours are from theirs."""
    theirs = DistributedDataParallel(build(torch.float64))
    state = PowerSGDState(None, matrix_approximation_rank=rank, start_powerSGD_iter=START)
    theirs.register_comm_hook(state, powerSGD_hook)
    ours = DDP(build(torch.float64), hook=PowerSGD(rank, start=START))
    first_qs(ours.hook, rank)
    dense = DDP(build(torch.float64))
    models = theirs, ours, dense
    for model in models:
        optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
        for step in range(STEPS):
            one_step(model, optimizer, step)
    left, right, full = map(weights, models)
    return (left - right).abs().max().item(), (full - right).abs().max().item()


def against_casts(dtype, hook):
    """The same of 16 bits."""
    theirs, ours = DistributedDataParallel(build()), DDP(build(), hook=Cast(dtype))
    theirs.register_comm_hook(None, lambda state, bucket: hook(state, bucket))  # by its name, one wants NCCL
    for model in (theirs, ours):
        x, y = batch(0)
        nn.functional.mse_loss(model(x), y).backward()
    pairs = zip(theirs.module.parameters(), ours.module.parameters(), strict=True)
    grads = [(a.grad, b.grad) for a, b in pairs]
    return max((a - b).abs().max().item() for a, b in grads) / max(a.abs().max().item() for a, _ in grads)


class One:
    """A bucket of one vector."""

    index, names = 0, ("x",)

    def __init__(self, vector):
        self.flat, self.parameters = vector, (torch.empty_like(vector),)


@pytest.fixture(scope="module")
def ran():
    def fn():
        group, rank = dist.group.WORLD, dist.get_rank()

        def exchanged(hook, mine):
            bucket = One(torch.tensor(mine))
            hook(group, bucket).wait()
            owed = hook.state_dict()["residuals"].get("x")
            return bucket.flat.tolist(), None if owed is None else owed.tolist()

        casts = {
            "bfloat16": against_casts(torch.bfloat16, default_hooks.bf16_compress_hook),
            "float16": against_casts(torch.float16, default_hooks.fp16_compress_hook),
        }
        power = {r: against_power_sgd(r) for r in (1, 2, 3)}
        mine = [[3.0, -1.0, 0.5, 0.0], [-3.0, 6.0, 0.5, 0.0], [0.0, 0.0, 0.5, -9.0]][rank]
        known = {
            "top-k": exchanged(TopK(0.25), mine),
            "sign": exchanged(Sign(), mine),
            "vote": exchanged(Sign(vote=True), mine),
            "random-k": exchanged(RandomK(0.5), [6.0] * 4),
            "without": exchanged(RandomK(0.5, error_feedback=False), [6.0] * 4),
            "1-bit": exchanged(OneBit(block=8), [1.0, 3.0, -2.0, -4.0, 2.0, -3.0, 2.0, -3.0] * 3),
        }
        return casts, power, known

    return launch(fn, ranks=RANKS, timeout=120).results


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_power_sgd_ends_where_pytorch_s_hook_ends(ran, rank):
    for _, power, _ in ran:
        apart, from_dense = power[rank]
        assert apart < 1e-12 and from_dense > 1e-4


def test_casts_are_those_of_pytorch(ran):
    """To two units of the last place of the largest gradient: they divide in 16 bits, and round once more."""
    for casts, *_ in ran:
        assert casts["bfloat16"] < 2**-7 and casts["float16"] < 2**-10


def test_known_exchanges(ran):
    (_, _, first), (_, _, second), _ = ran
    assert first["top-k"][0] == pytest.approx([1.0, 2.0, 0.0, -3.0]) and first["top-k"][1] == [0.0, -1.0, 0.5, 0.0]
    assert second["top-k"][1] == [-3.0, 0.0, 0.5, 0.0]
    assert first["vote"] == ([1.0, 1.0, 1.0, 1.0], None)  # zero counts as positive
    scales = [4.5 / 4, 9.5 / 4, 9.5 / 4]
    assert first["sign"][0][:2] == pytest.approx([(scales[0] - scales[1] + scales[2]) / 3, sum(scales[1:]) / 3 - 0.375])
    assert first["sign"][1] == pytest.approx([3 - scales[0], -1 + scales[0], 0.5 - scales[0], -scales[0]])
    mean, owed = first["random-k"]
    assert sorted(mean) == pytest.approx([0, 0, 6, 6]) and [a + b for a, b in zip(mean, owed, strict=True)] == [6] * 4
    assert sorted(first["without"][0]) == pytest.approx([0, 0, 12, 12]) and first["without"][1] is None
    assert first["1-bit"][0] == pytest.approx([2.0, 2.0, -3.0, -3.0, 2.0, -3.0, 2.0, -3.0] * 3)
    assert first["1-bit"][1] == pytest.approx([-1.0, 1.0, 1.0, -1.0, 0.0, 0.0, 0.0, 0.0] * 3)


@pytest.mark.parametrize(("levels", "block"), [(1, 64), (7, 64), (127, 300)])
def test_qsgd_is_right_on_average_and_as_noisy_as_its_bound(levels, block):
    """Over 2,000 draws the mean is off by 5 standard errors at most, the variance below lemma 3.1's."""
    hook, draws = QSGD(levels, block=block), 2000
    vector = torch.randn(300, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    chance = torch.Generator().manual_seed(2)
    drawn = torch.stack(
        [hook.dequantize(n.double(), c) for n, c in (hook.quantize(vector, chance) for _ in range(draws))]
    )
    off = (drawn.mean(0) - vector).abs()
    level = vector.norm() / levels  # an element that is drawn a few times only has no standard error yet
    assert (off <= 5 * drawn.std(0) / draws**0.5 + 5 * level / draws).all()
    variance = (drawn - vector).square().sum(1).mean()
    blocks = [part.square().sum() for part in vector.split(block)]
    assert variance <= sum(blocks) * min(block / levels**2, block**0.5 / levels)


def test_qsgd_of_zeros_is_zeros():
    hook = QSGD(7)
    norms, codes = hook.quantize(torch.zeros(10), torch.Generator())
    assert not hook.dequantize(norms, codes).any()


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_a_matrix_of_low_rank_is_found_in_one_step_of_power_sgd(rank):
    generator = torch.Generator().manual_seed(3)
    m = torch.randn(20, rank, generator=generator, dtype=torch.float64) @ torch.randn(
        rank, 30, generator=generator, dtype=torch.float64
    )
    p = orthonormalize(m @ torch.randn(30, rank, generator=generator, dtype=torch.float64))
    assert torch.allclose(p.T @ p, torch.eye(rank, dtype=torch.float64)) and torch.allclose(p @ (p.T @ m), m)
