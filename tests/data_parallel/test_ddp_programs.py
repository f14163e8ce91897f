"""Programs that users write: the gradients are those of one process, or a sentence says what to do instead.

Every rank has the same data, so the mean over the ranks is what one process finds alone; or it has its own, and all
ranks must agree. Tolerance: float64, 1e-12 absolute on values of order 1. One launch runs all programs.
"""

import copy
import itertools
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import softplus
from torch.utils.checkpoint import checkpoint

from parallel_lab import launch
from parallel_lab.data_parallel import DDP, average_gradients, ddp, mean_hook
from parallel_lab.data_parallel.guards import ChangedModel, KeptGradients, SharedParameters, UnusedParameters

TOLERANCE = 1e-12
FLOAT = torch.float64
SMALL = 100  # bytes: several buckets


def mlp(*widths, seed=0):
    torch.manual_seed(seed)
    layers = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.Tanh())]
    return nn.Sequential(*layers[:-1]).to(FLOAT)


def data(rows=6, width=4, own=False, seed=5):
    generator = torch.Generator().manual_seed(seed + (dist.get_rank() if own else 0))
    return torch.randn(rows, width, generator=generator, dtype=FLOAT)


def gradients(model):
    return [None if p.grad is None else p.grad.clone() for p in model.parameters()]


def differ(some, others):
    """The largest difference; infinite where one has a gradient and the other none."""
    pairs = list(zip(some, others, strict=True))
    if any((a is None) != (b is None) for a, b in pairs):
        return float("inf")
    return max((a - b).abs().max().item() for a, b in pairs if a is not None)


def apart(tensors):
    """How far the ranks' tensors are apart."""
    flat = torch.cat([t.detach().reshape(-1) for t in tensors])
    everyone = [torch.empty_like(flat) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, flat)
    return max((each - flat).abs().max().item() for each in everyone)


def against_one_process(program, model):
    """Runs `program(model, call)` through a DDP and alone."""
    alone = copy.deepcopy(model)
    program(model, DDP(model, bucket_bytes=SMALL))
    program(alone, alone)
    return differ(gradients(model), gradients(alone))


def two_forwards_one_backward():
    def program(model, call):
        (softplus(-call(data())).mean() + softplus(call(data(seed=9))).mean()).backward()

    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)).to(FLOAT)
    torch.manual_seed(0)
    return against_one_process(program, model)


def own_buffers():
    """Without broadcast, each rank keeps its own running mean; with it, that of rank 0."""
    found = []
    for broadcast in (True, False):
        model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 1)).to(FLOAT)
        net = DDP(model, broadcast_buffers=broadcast)
        for _ in range(2):
            net(data(own=True)).sum().backward()
        with torch.no_grad():
            net(data())  # the last exchange, and then the same batch on all ranks
        found.append(apart([model[0].running_mean]))
    return max(found[0], float(found[1] == 0))


def grad_before_backward():
    def program(_, call):
        x = data().requires_grad_()
        loss = call(x).square().mean()
        torch.autograd.grad(loss, x, retain_graph=True)
        loss.backward()

    return against_one_process(program, mlp(4, 8, 1))


def grad_of_parameters_before_backward():
    def program(model, call):
        loss = call(data()).square().mean()
        torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
        loss.backward()

    return against_one_process(program, mlp(4, 8, 1))


def gradient_penalty():
    def program(_, call):
        x = data().requires_grad_()
        (slope,) = torch.autograd.grad(call(x).sum(), x, create_graph=True)
        (slope.norm(dim=1) - 1).square().mean().backward()

    return against_one_process(program, mlp(4, 8, 1))


def grad_in_no_sync_then_sync():
    def program(_, call):
        with call.no_sync() if isinstance(call, DDP) else torch.enable_grad():
            loss = call(data()).square().mean()
            loss.backward(retain_graph=True)
            loss.backward()
        call(data(seed=6)).square().mean().backward()

    return against_one_process(program, mlp(4, 8, 1))


def shared_encoder(heads, joint):
    """`heads` networks on one encoder, each in a DDP, in one pass or one after another."""
    encoder = mlp(4, 8)
    nets = nn.ModuleList(nn.Sequential(encoder, nn.Tanh(), nn.Linear(8, 1 + i)) for i in range(heads)).to(FLOAT)
    alone = copy.deepcopy(nets)
    wrapped = [DDP(net, bucket_bytes=SMALL) for net in nets]
    worst = 0.0
    for step in range(3):
        for calls in (wrapped, alone):
            losses = [call(data(seed=step)).square().mean() for call in calls]
            if joint:
                sum(losses).backward()
            else:
                for loss in losses:
                    loss.backward()
        worst = max(worst, differ(gradients(nets), gradients(alone)))
        if step == 1:
            nets.zero_grad(set_to_none=True)
            alone.zero_grad(set_to_none=True)
    return worst


def one_of_two_on_an_encoder():
    """Passes through one DDP alone, in turns; gradients are kept."""
    encoder = mlp(4, 8)
    actor, critic = nn.Sequential(encoder, mlp(8, 2)), nn.Sequential(encoder, mlp(8, 1))
    both = nn.ModuleList([actor, critic])
    alone = copy.deepcopy(both)
    wrapped = [DDP(actor), DDP(critic)]
    for turn in (0, 1, 1, 0):
        for calls in (wrapped, alone):
            calls[turn](data(seed=turn)).square().mean().backward()
    return differ(gradients(both), gradients(alone))


def detached_encoder():
    """The critic sees the encoder's output detached in one forward, and through the encoder in the other."""
    encoder = mlp(4, 8)
    critic = mlp(8, 1)
    both = nn.ModuleList([encoder, nn.Sequential(encoder, critic)])
    alone = copy.deepcopy(both)
    for calls in ([DDP(net) for net in both], alone):
        hidden = calls[0](data())
        (hidden.square().mean() + calls[1](data(seed=3)).square().mean()).backward()
    return differ(gradients(both), gradients(alone))


def wrapped_again():
    model = mlp(4, 8, 1)
    alone = copy.deepcopy(model)
    net = DDP(model)
    net(data()).sum().backward()
    net = DDP(net.module)
    model.zero_grad()
    net(data()).sum().backward()
    alone(data()).sum().backward()
    return differ(gradients(model), gradients(alone))


def inside_another():
    inner = mlp(4, 8)
    model = nn.Sequential(DDP(inner), nn.Linear(8, 1).to(FLOAT))
    alone = nn.Sequential(copy.deepcopy(inner), copy.deepcopy(model[1]))
    net = DDP(model)
    net(data()).sum().backward()
    alone.load_state_dict({k.replace("0.module.", "0."): v for k, v in model.state_dict().items()})
    alone(data()).sum().backward()
    return differ(gradients(model), gradients(alone))


def kept_gradients():
    """Gradients of two tasks are kept, as the tensors, as views of them, and flattened."""
    kept = {}
    for how in ("ours", "alone"):
        model = mlp(4, 8, 3)
        call = DDP(model, bucket_bytes=SMALL) if how == "ours" else model
        kept[how] = []
        for task in range(3):
            model.zero_grad()
            call(data())[:, task].square().mean().backward()
            keep = [lambda g: g, lambda g: g.view(-1), lambda g: g.t()][task]
            kept[how] += [keep(p.grad) for p in model.parameters()]
    return differ(kept["ours"], kept["alone"])


def buffers_are_reused():
    """Where nobody keeps gradients, no memory is taken anew: 0 if so."""
    net = DDP(mlp(4, 8, 3), bucket_bytes=SMALL)
    places = []
    for step in range(4):
        net.zero_grad(set_to_none=step % 2 == 0)
        net(data()).sum().backward()
        places.append([bucket.flat.data_ptr() for bucket in net.buckets])
    return float(places[1:] != [places[1]] * 3)


def zeroed_not_dropped():
    def program(model, call):
        for step in range(3):
            model.zero_grad(set_to_none=False)
            call(data(seed=step)).square().mean().backward()

    return against_one_process(program, mlp(4, 8, 1))


CHANGES = ("thaw", "thaw and freeze", "freeze", "new parameter", "new layer", "layer removed", "dtype", "data")


def changed(change):
    """A model that changes after wrapping, in training on each rank's own data: how far the ranks come apart."""
    torch.manual_seed(0)
    model = mlp(4, 8, 1)
    if change in ("thaw", "thaw and freeze"):
        model[0].requires_grad_(False)
    net = DDP(model, bucket_bytes=SMALL)
    worst = 0.0
    for step in range(5):
        if step == 1:
            if change.startswith("thaw"):
                model[0].requires_grad_(True)
            if change == "freeze":
                model[0].requires_grad_(False)
            if change == "new parameter":
                torch.manual_seed(dist.get_rank())
                model[0].weight = nn.Parameter(torch.randn(8, 4, dtype=FLOAT))
            if change == "new layer":
                model.append(nn.Linear(1, 1).to(FLOAT))
            if change == "layer removed":
                del model[2]
            if change == "dtype":
                model.to(torch.float32)
            if change == "data":
                model[0].weight.data = torch.ones(8, 4, dtype=FLOAT)
        if step == 3 and change == "thaw and freeze":
            model[0].requires_grad_(False)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        optimizer.zero_grad()
        net(data(own=True).to(next(model.parameters()).dtype)).square().mean().backward()
        optimizer.step()
        worst = max(worst, apart(list(model.parameters())))
    return worst


def checkpointed(reentrant):
    class Blocks(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(mlp(4, 4, 4, seed=i) for i in range(3))

        def forward(self, x):
            for block in self.blocks:
                x = checkpoint(block, x, use_reentrant=reentrant)
            return x

    def program(_, call):
        call(data().requires_grad_()).square().sum().backward()

    return against_one_process(program, Blocks())


@dataclass
class Out:
    hidden: Any
    text: str = "not a tensor"


class Hidden:
    def __init__(self, tensor):
        self.tensor = tensor


def other_outputs(kind):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mlp(4, 8, 1)

        def forward(self, x):
            return kind(self.body(x))

    def program(_, call):
        out = call(data())
        (out.hidden if isinstance(out, Out) else out.tensor).square().sum().backward()

    return against_one_process(program, Model())


def no_parameter_used_here():
    """On one rank the output depends on the input alone; it takes part with zeros."""

    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mlp(4, 4)

        def forward(self, x, through):
            return self.body(x) if through else x

    model = Gate()
    alone = copy.deepcopy(model)
    net = DDP(model)
    for _ in range(2):
        net(data().requires_grad_(), dist.get_rank() > 0).sum().backward()
        alone(data(), True).sum().backward()
    n = dist.get_world_size()
    return differ(gradients(model), [g * (n - 1) / n for g in gradients(alone)])


def frozen_for_another(steps=3):
    """A GAN's discriminator, frozen while the generator learns through it."""
    made = {}
    for how in ("ours", "alone"):
        generator, judge = mlp(4, 4, seed=1), mlp(4, 1, seed=2)
        g, d = (DDP(generator), DDP(judge)) if how == "ours" else (generator, judge)
        for step in range(steps):
            judge.requires_grad_(True)
            (softplus(-d(data(seed=step))).mean() + softplus(d(g(data()).detach())).mean()).backward()
            judge.requires_grad_(False)
            softplus(-d(g(data()))).mean().backward()
        made[how] = gradients(generator) + gradients(judge)
    return differ(made["ours"], made["alone"])


def raised_in_the_middle():
    """A pass that raises on all ranks after a bucket has left; the next is right."""
    model = mlp(4, 8, 8, 1)
    alone = copy.deepcopy(model)
    net = DDP(model, bucket_bytes=SMALL)
    for steps in range(3):
        torn = model[2].weight.register_hook(lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            net(data()).sum().backward()
        torn.remove()
        model.zero_grad()
        alone.zero_grad()
        net(data(seed=steps)).square().sum().backward()
        alone(data(seed=steps)).square().sum().backward()
        if differ(gradients(model), gradients(alone)) > TOLERANCE:
            return float("inf")
    return 0.0


def forward_that_raised():
    class Torn(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.good = mlp(4, 1), True

        def forward(self, x):
            return self.body(x) if self.good else 1 / 0

    model = Torn()
    alone = copy.deepcopy(model)
    net = DDP(model)
    model.good = False
    with pytest.raises(ZeroDivisionError), net.no_sync():
        net(data())
    model.good = True
    net(data()).sum().backward()
    alone(data()).sum().backward()
    return differ(gradients(model), gradients(alone))


def after_a_forward_for_its_value_only():
    def program(_, call):
        call(data(seed=1))
        with torch.no_grad():
            call(data(seed=2))
        call(data(seed=3)).sum().backward()

    return against_one_process(program, mlp(4, 8, 1))


PROGRAMS = {
    "two forwards with BatchNorm, one backward": two_forwards_one_backward,
    "broadcast_buffers": own_buffers,
    "autograd.grad by the input first": grad_before_backward,
    "autograd.grad by the parameters first": grad_of_parameters_before_backward,
    "gradient penalty": gradient_penalty,
    "two passes in no_sync": grad_in_no_sync_then_sync,
    "two DDPs on an encoder, one loss": lambda: shared_encoder(2, True),
    "three DDPs on an encoder, one loss": lambda: shared_encoder(3, True),
    "three DDPs on an encoder, a loss each": lambda: shared_encoder(3, False),
    "two DDPs on an encoder, in turns": one_of_two_on_an_encoder,
    "an encoder inside and outside": detached_encoder,
    "wrapped again": wrapped_again,
    "a DDP inside a DDP": inside_another,
    "kept gradients": kept_gradients,
    "no new memory": buffers_are_reused,
    "zero_grad(set_to_none=False)": zeroed_not_dropped,
    **{
        f"changed: {change}": lambda change=change: changed(change)
        for change in (
            "thaw",
            "thaw and freeze",
            "freeze",
            "new parameter",
            "new layer",
            "layer removed",
            "dtype",
            "data",
        )
    },
    "checkpointing": lambda: checkpointed(False),
    "reentrant checkpointing": lambda: checkpointed(True),
    "a dataclass": lambda: other_outputs(Out),
    "an object": lambda: other_outputs(Hidden),
    "no parameter used on one rank": no_parameter_used_here,
    "frozen for another": frozen_for_another,
    "a pass that raised": raised_in_the_middle,
    "a forward that raised": forward_that_raised,
    "a forward for its value only": after_a_forward_for_its_value_only,
}


def unused_by_all():
    """Weight decay would move a parameter whose gradient is zeros; one that nobody used stands still."""
    model = nn.ModuleDict({"used": mlp(4, 2), "never": mlp(4, 2)})
    model.forward = lambda x: model["used"](x)
    net = DDP(model)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.5)
    before = model["never"][0].weight.detach().clone()
    net(data()).sum().backward()
    optimizer.step()
    return (model["never"][0].weight - before).abs().max().item()


PROGRAMS["unused by all"] = unused_by_all

WITHOUT = {  # a program that goes wrong without its guard
    KeptGradients: "kept gradients",
    SharedParameters: "two DDPs on an encoder, one loss",
    ChangedModel: "changed: thaw",
    UnusedParameters: "unused by all",
}


@pytest.fixture(scope="module")
def found():
    def fn():
        results = {name: program() for name, program in PROGRAMS.items()}
        real = ddp.default_guards
        for guard, name in WITHOUT.items():
            ddp.default_guards = lambda check, guard=guard: [g for g in real(check) if not isinstance(g, guard)]
            results[guard.__name__] = PROGRAMS[name]()
        return results

    return launch(fn, ranks=3, timeout=120).results


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_is_right(found, name):
    assert max(results[name] for results in found) <= TOLERANCE


@pytest.mark.parametrize("guard", WITHOUT)
def test_without_its_guard_it_is_wrong(found, guard):
    assert max(results[guard.__name__] for results in found) > 1e-3


GRID = {
    "float64": (torch.float64, 1e-12),
    "float32": (torch.float32, 1e-6),
    "bfloat16": (torch.bfloat16, 2e-2),  # 8 bits
    "float16": (torch.float16, 2e-3),  # 11 bits
    "complex64": (torch.complex64, 1e-6),
}


def in_every_dtype():
    """For each dtype and way the largest difference from the mean of what every rank finds alone."""

    class Net(nn.Module):
        def __init__(self, dtype):
            super().__init__()
            self.weight = nn.Parameter(data(4, 3).to(dtype))
            self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))  # no dims, and another dtype
            self.none = nn.Parameter(torch.empty(0, dtype=dtype))

        def forward(self, x):
            return (x.to(self.weight.dtype) @ self.weight).abs().double().sum() * self.scale

    worst = {}
    for name, (dtype, _) in GRID.items():
        for way in ("DDP", "hook", "average_gradients"):
            model = Net(dtype)
            alone = copy.deepcopy(model)
            net = {"DDP": lambda m: DDP(m), "hook": lambda m: DDP(m, hook=mean_hook)}.get(way, lambda m: m)(model)
            for step in range(2):
                net(data(own=True, seed=step)).backward()
                alone(data(own=True, seed=step)).backward()
                if way == "average_gradients":
                    average_gradients(model)
                for p in [p for p in alone.parameters() if p.numel()]:
                    wide = p.grad.to(torch.complex128 if p.is_complex() else FLOAT)
                    dist.all_reduce(wide)
                    p.grad = (wide / dist.get_world_size()).to(p.dtype)
            off = differ([model.weight.grad, model.scale.grad], [alone.weight.grad, alone.scale.grad])
            worst[name, way] = off / alone.weight.grad.abs().max().item()
    return worst


def test_every_dtype():
    for worst in launch(in_every_dtype, ranks=2).results:
        for (name, way), off in worst.items():
            assert off <= GRID[name][1], (name, way)
