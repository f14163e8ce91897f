"""Products in 16 bits are those of torch.autocast and of FSDP, bit by bit, where these do the same; and masters.

Autocast keeps norms, softmax and losses in float32, and FSDP does not: so a network of linears is the same with both,
and one with a norm with FSDP alone.
"""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from parallel_lab import launch
from parallel_lab.data_parallel import DDP, Zero3
from parallel_lab.model import GPTConfig, build
from parallel_lab.model.data import text_batches
from parallel_lab.precision import MasterWeights, MixedPrecision, Policy, formulas
from parallel_lab.runtime import make_mesh
from parallel_lab.trace.memory import held_bytes

HALF = [torch.bfloat16, torch.float16]


def network(norm=False, seed=0):
    torch.manual_seed(seed)
    middle = [nn.LayerNorm(16)] if norm else []
    return nn.Sequential(nn.Linear(8, 16), *middle, nn.ReLU(), nn.Linear(16, 3))


def drawn(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gradients(model, forward, x):
    loss = F.mse_loss(forward(x), torch.ones(len(x), 3))
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters())]


@pytest.mark.parametrize("compute", HALF)
def test_linears_are_those_of_autocast(compute):
    ours, theirs = network(), network()
    mixed = MixedPrecision(ours, Policy(compute=compute))

    def autocast(x):
        with torch.autocast("cpu", compute):
            return theirs(x).float()

    for a, b in zip(gradients(ours, mixed, drawn(5, 8)), gradients(theirs, autocast, drawn(5, 8)), strict=True):
        assert a.dtype is torch.float32 and torch.equal(a, b)


def test_what_computes_is_in_the_type_of_the_policy_and_what_is_kept_is_not():
    seen = []
    model = network(norm=True).double()
    mixed = MixedPrecision(model, Policy())
    for layer in model:
        layer.register_forward_hook(lambda layer, inputs, output: seen.append((inputs[0].dtype, output.dtype)))
    out = mixed(drawn(5, 8))
    out.sum().backward()
    assert set(seen) == {(torch.bfloat16, torch.bfloat16)} and out.dtype is torch.float32
    assert all(p.dtype is torch.float32 and p.grad.dtype is torch.float32 for p in model.parameters())
    assert [name for name, _ in mixed.named_parameters()] == [f"module.{name}" for name, _ in model.named_parameters()]


def test_a_gpt_with_tied_weights_and_frozen_ones():
    """The embedding is also the head: both gradients reach the one parameter. Tokens are whole numbers and stay so."""
    config = GPTConfig(seq=8, layers=1, heads=2, width=8, tied=True)
    model, right = build(config), build(config)
    for each in (model, right):
        next(p for name, p in each.named_parameters() if "norm" in name).requires_grad_(False)
    tokens, targets = next(iter(text_batches(8, 4, 1)))
    mixed = MixedPrecision(model, Policy())
    for forward in (mixed, right):
        F.cross_entropy(forward(tokens).flatten(0, 1), targets.flatten()).backward()
    for (name, p), q in zip(model.named_parameters(), right.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        if q.grad is not None:
            assert (p.grad - q.grad).norm() <= 0.05 * q.grad.norm() + 1e-6, name


def averaged(reduction):
    """Gradients of this rank's rows, averaged by ours and by FSDP's, of a network with a norm."""
    rank, n = dist.get_rank(), dist.get_world_size()
    x = drawn(4, 8, seed=rank)
    policy = Policy(reduction=reduction)
    model = MixedPrecision(network(norm=True), policy)
    gradients(model.module, model, x)
    model.average_gradients()
    ours = [p.grad for p in model.module.parameters()]
    sharded = network(norm=True)
    fully_shard(
        sharded,
        mesh=make_mesh(dp=n),
        mp_policy=MixedPrecisionPolicy(policy.compute, policy.reduction, torch.float32),
    )
    gradients(sharded, sharded, x)
    theirs = [p.grad.full_tensor() for p in sharded.parameters()]
    zero = Zero3(network(norm=True), compute_dtype=policy.compute, reduce_dtype=policy.reduction)
    F.mse_loss(zero(x.to(policy.compute)).float(), torch.ones(4, 3)).backward()
    shards = [p.grad for p in zero.module.parameters()]
    rows = [whole.chunk(n)[rank] if rank < len(whole.chunk(n)) else whole[:0] for whole in ours]
    return (
        all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)),
        all(torch.equal(a, b.reshape(a.shape)) for a, b in zip(rows, shards, strict=True)),
        [g.dtype for g in ours],
    )


@pytest.mark.parametrize("reduction", [torch.float32, torch.bfloat16])
def test_ranks_average_as_fsdp_and_as_zero3_do(reduction):
    """Two ranks: a sum of two numbers has one order, so all bits are the same."""
    for as_fsdp, as_zero3, dtypes in launch(averaged, reduction, ranks=2, timeout=120).results:
        assert as_fsdp and as_zero3 and set(dtypes) == {torch.float32}


def sums(dtypes):
    rank = dist.get_rank()
    for reduction in dtypes:
        model = MixedPrecision(network(), Policy(reduction=reduction))
        gradients(model.module, model, drawn(4, 8, seed=rank))
        model.average_gradients()
    ddp = DDP(MixedPrecision(network(), Policy()))
    gradients(ddp.module, ddp, drawn(4, 8, seed=rank))
    return [p.grad for p in ddp.module.parameters()]


def test_bytes_are_those_of_the_reduction_at_any_number_of_ranks():
    """Half of float32's in 16 bits; and DDP takes the module as it is."""
    count = sum(p.numel() for p in network().parameters())
    for n in (1, 2, 3, 4):
        run = launch(sums, [torch.float32, torch.bfloat16], ranks=n)
        sent = [span.sent_bytes for span in run.trace.of(0) if span.phase == "gradients"]
        wanted = [formulas.sent_bytes(count, n, Policy(reduction=each)) for each in (torch.float32, torch.bfloat16)]
        assert sent == pytest.approx(wanted) and wanted[0] == 2 * wanted[1]
        single = [
            gradients(model, MixedPrecision(model, Policy()), drawn(4, 8, seed=rank))[1:]
            for rank, model in enumerate(network() for _ in range(n))
        ]
        for mean, *own in zip(run[0], *single, strict=True):
            torch.testing.assert_close(mean, torch.stack(own).mean(0))


@pytest.mark.parametrize(
    "policy", [Policy(compute=torch.float32), Policy(), Policy(parameters=torch.bfloat16)], ids=str
)
def test_held_bytes_are_those_of_the_formula(policy):
    """16 bytes a parameter with Adam in each case: mixed precision halves activations, not the states of the model."""
    model = MixedPrecision(network(), policy)
    narrow = policy.parameters.itemsize < 4
    made = MasterWeights if narrow else (lambda params, kind, **kwargs: kind(params, **kwargs))
    optimizer = made(model.parameters(), torch.optim.Adam, lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        gradients(model.module, model, drawn(4, 8))
        optimizer.step()
    optimizer.zero_grad()
    gradients(model.module, model, drawn(4, 8))
    count = sum(p.numel() for p in model.parameters())
    found = held_bytes(model, getattr(optimizer, "optimizer", optimizer))
    steps = 4 * len(list(model.parameters()))  # Adam counts them, a float32 each
    wanted = formulas.held_bytes(policy)
    assert found["parameters"] == wanted.parameters * count and found["gradients"] == wanted.gradients * count
    assert found["optimizer_state"] - steps == (wanted.masters + wanted.moments) * count
    assert wanted.total == 16


def test_masters_step_as_float32_does_and_round_once():
    """Updates of 2^-12: in bfloat16 alone the weight stays; masters collect them. Gradients of two passes add up."""
    narrow, plain = (nn.Parameter(torch.ones(3, dtype=torch.bfloat16)) for _ in range(2))
    wide = nn.Parameter(torch.ones(3))
    masters = MasterWeights([narrow], torch.optim.SGD, lr=2.0**-12)
    right, lost = torch.optim.SGD([wide], 2.0**-12), torch.optim.SGD([plain], 2.0**-12)
    for step in range(64):
        for p in (narrow, plain, wide):
            p.grad = torch.full_like(p, -1.0)
        if step == 5:
            masters.take_gradients()
            assert narrow.grad is None
            narrow.grad, wide.grad = -torch.ones_like(narrow), -2 * torch.ones_like(wide)
        for optimizer in (masters, right, lost):
            optimizer.step()
            optimizer.zero_grad()
        assert torch.equal(masters.masters[0], wide) and torch.equal(narrow, wide.bfloat16())
    assert (plain == 1).all() and narrow[0] == 1 + 65 / 4096 // 2**-7 * 2**-7


def test_a_run_goes_on_from_its_masters():
    """Going on from the 16-bit weights would be another run."""

    def fresh(state=None):
        model = network().bfloat16()
        optimizer = MasterWeights(model.parameters(), torch.optim.AdamW, lr=1e-3)
        if state:
            optimizer.load_state_dict(state)
        return model, optimizer

    def steps(model, optimizer, numbers):
        for step in numbers:
            optimizer.zero_grad()
            model(drawn(4, 8, seed=step).bfloat16()).float().square().mean().backward()
            optimizer.step()
        return [p.detach().clone() for p in optimizer.masters]

    whole = steps(*fresh(), range(6))
    model, optimizer = fresh()
    steps(model, optimizer, range(3))
    again = fresh(optimizer.state_dict())
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again[0].parameters(), strict=True))
    rest = steps(*again, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(whole, rest, strict=True))


def test_refusals():
    with pytest.raises(TypeError, match=r"compute=torch\.int8: expected a floating dtype"):
        Policy(compute=torch.int8)
    with pytest.raises(ValueError, match="no parameter that requires a gradient"):
        MasterWeights([], torch.optim.SGD, lr=0.1)
