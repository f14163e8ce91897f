"""The scale of every step is that of torch's GradScaler; ranks skip together, on all axes of a layout."""

import copy
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from parallel_lab import launch
from parallel_lab.data_parallel import DDP, Zero1, Zero3
from parallel_lab.hybrid import Layout, parallelize, train_step
from parallel_lab.hybrid import step as hybrid_step
from parallel_lab.hybrid.step import gradients
from parallel_lab.model import GPTConfig, build
from parallel_lab.model.data import text_batches
from parallel_lab.precision import DynamicScale, MasterWeights, MixedPrecision, Policy, StaticScale
from parallel_lab.trace import recorder

BROKEN = {3, 4, 9, 17, 18, 19, 30}  # steps with a gradient that is not finite


def mlp(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 1))


@pytest.mark.parametrize("growth, backoff", [(2.0, 0.5), (1.7, 0.3)])
def test_every_step_is_that_of_grad_scaler(growth, backoff):
    """Scale, weights and what is skipped, over 40 steps, three of them in a row broken; clipping in between."""
    ours, theirs = mlp(), mlp()
    mine = DynamicScale(1024.0, growth, backoff, 4)
    scaler = torch.amp.GradScaler("cpu", 1024.0, growth_factor=growth, backoff_factor=backoff, growth_interval=4)
    optimizers = [torch.optim.AdamW(model.parameters(), lr=1e-2) for model in (ours, theirs)]
    for step in range(40):
        x = torch.randn(5, 6, generator=torch.Generator().manual_seed(step))
        for model, each, optimizer, unscale in (
            (ours, mine, optimizers[0], mine.unscale),
            (theirs, scaler, optimizers[1], scaler.unscale_),
        ):
            optimizer.zero_grad()
            each.scale(model(x).square().mean()).backward()
            if step in BROKEN:
                model[2].weight.grad[0, step % 12] = torch.inf if step % 2 else torch.nan
            unscale(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 0.05)
            done = each.step(optimizer)
            assert each is scaler or done is (step not in BROKEN)
            each.update()
        assert mine.value == scaler.get_scale(), step
        assert mine.clean == scaler._get_growth_tracker()
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(a, b), step
    assert mine.state_dict() == scaler.state_dict()
    again = DynamicScale()
    again.load_state_dict(scaler.state_dict())
    scaler.load_state_dict(mine.state_dict())
    assert again.state_dict() == scaler.state_dict() == mine.state_dict()


def test_the_scale_finds_what_float16_can_hold():
    """A gradient of 2 times 65,536, or times 32,768, is no float16: two steps are skipped, and 16,384 serves."""
    model = mlp().half()
    optimizer, scaler, said = MasterWeights(model.parameters(), torch.optim.SGD, lr=0.1), DynamicScale(), []
    before = [p.clone() for p in model.parameters()]
    for _ in range(3):
        optimizer.zero_grad()
        loss = model(torch.ones(4, 6, dtype=torch.float16)).sum() / 2
        assert scaler.scale(loss).dtype is torch.float32 and scaler.scale(loss).isfinite()
        scaler.scale(loss).backward()
        said.append((scaler.step(optimizer), torch.equal(model[2].bias, before[3])))
        scaler.update()
    assert said == [(False, True), (False, True), (True, False)] and scaler.value == 2.0**14


def test_scaling_keeps_what_would_underflow():
    """A gradient of 2^-30 is 0 in float16; scaled by 2^16 it is there."""
    for scale, kept in ((1.0, 0.0), (2.0**16, 2.0**-30)):
        weight = nn.Parameter(torch.ones(1))
        scaler = StaticScale(scale)
        scaler.scale((weight.half() * 2.0**-15).float().sum() * 2.0**-15).backward()
        scaler.unscale([weight])
        assert weight.grad.item() == kept


def test_what_is_out_of_order_is_refused_and_changes_nothing():
    model = mlp()
    optimizer, scaler = torch.optim.SGD(model.parameters(), 0.1), DynamicScale(4.0)
    with pytest.raises(ValueError, match=r"update\(\) without step"):
        scaler.update()
    scaler.scale(model(torch.ones(2, 6)).sum()).backward()
    assert scaler.unscale(optimizer)
    grads = [p.grad.clone() for p in model.parameters()]
    for again in (optimizer, model.parameters()):
        with pytest.raises(ValueError, match=r"unscale\(\) twice before update"):
            scaler.unscale(again)
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), grads, strict=True))
    assert scaler.step(optimizer)
    with pytest.raises(ValueError, match=r"step\(\) twice before update"):
        scaler.step(optimizer)
    scaler.update()
    narrow = [nn.Parameter(torch.ones(2, dtype=torch.bfloat16))]
    narrow[0].grad = torch.ones_like(narrow[0])
    scaler.unscale(narrow)
    with pytest.raises(ValueError, match=r"unscale\(\) twice"):  # also where the masters have their gradients next
        scaler.unscale(MasterWeights(narrow, torch.optim.SGD, lr=0.1))
    assert narrow[0].grad is not None
    scaler.update()
    half = nn.Parameter(torch.ones(2, dtype=torch.float16))
    half.grad = torch.ones_like(half)
    with pytest.raises(ValueError, match="gradients in float16 cannot be unscaled"):
        scaler.unscale([half])
    for arguments in ({"growth": 1.0}, {"backoff": 1.0}, {"backoff": 0.0}, {"initial": 0.0}, {"interval": 0}):
        with pytest.raises(ValueError):
            DynamicScale(**arguments)


def test_several_optimizers_and_a_static_scale():
    """One overflow backs the scale off once; the other optimizer steps, as with GradScaler. A static scale stays."""
    for scaler in (DynamicScale(8.0, interval=2), StaticScale(8.0)):
        model = mlp()
        both = [torch.optim.SGD(part.parameters(), 0.1) for part in (model[0], model[2])]
        scaler.scale(model(torch.ones(2, 6)).sum()).backward()
        model[0].weight.grad[0] = torch.nan
        assert [scaler.step(each) for each in both] == [False, True]
        scaler.update()
        assert scaler.value == (4.0 if isinstance(scaler, DynamicScale) else 8.0)
        fresh = copy.copy(scaler)
        fresh.load_state_dict(scaler.state_dict())
        assert fresh.value == scaler.value


def over_ranks(place):
    """Three steps of sharded parameters, with an infinity on rank `place` alone in the second."""
    rank, n = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(rank)
    shard = nn.Parameter(torch.randn(3))
    optimizer, scaler, said = torch.optim.SGD([shard], 0.1), DynamicScale(8.0, interval=2), []
    for step in range(3):
        shard.grad = 8.0 * torch.ones(3) if rank or n == 1 else None  # rank 0 has no gradient at all
        if step == 1 and rank == place:
            shard.grad = torch.full((3,), torch.inf)
        before = shard.detach().clone()
        said.append((scaler.step(optimizer), torch.equal(before, shard)))
        scaler.update()
    flags = [span for span in recorder().spans if span.kind == "all_reduce" and span.phase == "overflow"]
    return said, scaler.value, [span.bytes for span in flags]


def test_ranks_skip_together_whoever_overflowed():
    for n in (1, 2, 3, 4):
        for rank, (said, value, sent) in enumerate(launch(over_ranks, n - 1, ranks=n).results):
            still = rank == 0 and n > 1
            assert said == [(True, still), (False, True), (True, still)] and value == 4.0
            assert sent == [4, 4, 4]


CONFIG = GPTConfig(seq=8, layers=2, heads=4, width=16)
LAYOUTS = [Layout(pp=2, tp=2), Layout(dp=2, cp=2), Layout(pp=2, dp=2)]


def in_layout(layout, place, zero):
    """Three steps with a scale, an infinity on one rank in the second; and two without either.

    Returns of each step whether weights stayed, and whether the norm was finite; and how far the two runs are apart.
    """
    scaler, said, batches = DynamicScale(2.0**10), [], list(text_batches(CONFIG.seq, 4, 3))
    ours, right = (
        parallelize(build(CONFIG, dtype=torch.float64), layout, lr=1e-2, microbatches=2, clip=0.5, zero=zero)
        for _ in range(2)
    )
    weights = ours.named_parameters()

    def planted(parallel, *batch):
        loss = gradients(parallel, *batch)
        if parallel.steps == 1 and dist.get_rank() == place:
            next(p for p in weights.values() if p.numel()).grad[0] = torch.inf
        return loss

    for batch in batches:
        before = {name: p.detach().clone() for name, p in weights.items()}
        hybrid_step.gradients = planted
        scaled = train_step(ours, *batch, scale=scaler)
        hybrid_step.gradients = gradients
        stayed = all(torch.equal(weights[name], old) for name, old in before.items())
        said.append((stayed, bool(scaled.norm.isfinite())))
        if ours.steps != 2:
            plain = train_step(right, *batch)
            torch.testing.assert_close(scaled, plain, rtol=0, atol=1e-12)
    off = [(p - weights[name]).abs().max().item() for name, p in right.named_parameters().items() if p.numel()]
    return said, max(off), scaler.value


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_all_axes_of_a_layout_skip_together(layout):
    """The infinity is on the last rank alone: other stages, shards and replicas have finite gradients and skip too.

    Losses, norms and weights are those of a run that was never scaled and left that step out; float64, 1e-12.
    """

    def run():
        return {zero: in_layout(layout, dist.get_world_size() - 1, zero) for zero in (0, 1, 3)}

    for found in launch(run, ranks=4, timeout=120).results:
        for zero, (said, off, value) in found.items():
            assert said[0][1] and said[2][1] and said[1] == (True, False), (zero, said)
            assert off < 1e-12 and value == 2.0**9, (zero, off)


def test_a_layout_in_real_float16():
    """From a scale that is too large all ranks, in both stages and both shards, skip the same steps, and then train."""

    def run():
        made = parallelize(build(CONFIG), Layout(pp=2, tp=2), lr=1e-2)
        scaler, losses, norms = DynamicScale(2.0**22), [], []
        for batch in [next(iter(text_batches(CONFIG.seq, 4, 1)))] * 12:
            with torch.autocast("cpu", torch.float16):
                outcome = train_step(made, *batch, scale=scaler)
            losses.append(outcome.loss.item())
            norms.append(outcome.norm.isfinite().item())
        return losses, norms, scaler.value, all(p.isfinite().all() for p in made.named_parameters().values())

    first, *others = launch(run, ranks=4, timeout=120).results
    losses, norms, value, finite = first
    assert all(other == first for other in others) and finite
    assert not norms[0] and norms[-1] and value < 2.0**22
    skipped = norms.index(True)
    assert losses[: skipped + 1] == [losses[0]] * (skipped + 1) and losses[-1] < losses[0]


def test_a_rank_that_skips_alone_drifts():
    """What the flag is for: without it the ranks of a replicated model have different weights, and nobody says so."""

    def run(group):
        model = MixedPrecision(mlp(), Policy(compute=torch.float16))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        scaler = DynamicScale(4.0, group=group())
        scaler.scale(model(torch.ones(2, 6)).sum()).backward()
        model.average_gradients()
        if dist.get_rank():
            model.module[0].bias.grad[0] = torch.inf
        scaler.step(optimizer)
        weights = [torch.empty(12, 6) for _ in range(2)]
        dist.all_gather(weights, model.module[0].weight.detach())
        return torch.equal(*weights)

    def alone():
        return [dist.new_group([rank]) for rank in range(2)][dist.get_rank()]

    assert not any(launch(run, alone, ranks=2).results)
    assert all(launch(run, lambda: None, ranks=2).results)


def in_float16(technique):
    """Four steps in real float16 from a scale that is too large; what each step did, and all weights together."""
    rank, half = dist.get_rank(), Policy(compute=torch.float16)
    if technique == "Zero3":
        model: Any = Zero3(mlp(), compute_dtype=torch.float16, reduce_dtype=torch.float32, check_finite=False)
        dtype, optimizer = torch.float16, torch.optim.AdamW(model.module.parameters(), lr=1e-2)
    else:
        dtype, model = torch.float32, DDP(MixedPrecision(mlp(), half), check_finite=False)
        kind = Zero1 if technique == "Zero1" else (lambda params, kind, check_finite, **more: kind(params, **more))
        optimizer = kind(model.parameters(), torch.optim.AdamW, check_finite=False, lr=1e-2)
    scaler, said = DynamicScale(2.0**17), []
    x = torch.ones(4, 6, dtype=dtype) * (1 + 3 * rank)  # the gradients of rank 1 are larger
    for _ in range(6):
        optimizer.zero_grad()
        scaler.scale(model(x).float().square().mean()).backward()
        said.append(scaler.step(optimizer))
        scaler.update()
    held = model.full_state_dict() if technique == "Zero3" else model.module.module.state_dict()
    return said, scaler.value, list(held.values())


def test_real_overflows_under_ddp_zero1_and_zero3():
    """What refuses gradients that are not finite lets them pass with check_finite=False; then all skip, and go on."""

    def run():
        return {technique: in_float16(technique) for technique in ("DDP", "Zero1", "Zero3")}

    both = launch(run, ranks=2).results
    for technique, (said, value, weights) in both[0].items():
        other = both[1][technique]
        assert said == other[0] and value == other[1], (technique, said, other)
        assert said[0] is False and said[-1] is True and value < 2.0**17, (technique, said)
        for mine, theirs in zip(weights, other[2], strict=True):
            assert mine.isfinite().all() and torch.equal(mine, theirs), technique
