"""Stage 2 ends where one process ends, whatever the program does between its forward passes and its steps."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from parallel_lab import launch
from parallel_lab.data_parallel import Zero2, clip_grad_norm_
from parallel_lab.data_parallel.zero_guards import Guards, NoGuards
from parallel_lab.model import GPTConfig, build, loss
from parallel_lab.model.data import text_batches

CONFIG = GPTConfig(seq=8, width=12, heads=2, layers=2)
BATCH, STEPS = 12, 3
SGD = (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9})
ADAM = (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1})
TOLERANCE = 1e-12  # float64


def tied_and_frozen():
    model = build(CONFIG, dtype=torch.float64)
    model.embedding.positions.weight.requires_grad_(False)
    model.blocks[1].feed_forward.up.bias.requires_grad_(False)
    return model


def by_shape(model):
    """The usual recipe: matrices decay, biases do not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    decayed = {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": 0.5}
    return [decayed, {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0}]


def trained(group, optimizer_class, kwargs, clip=0.0, accumulate=1, no_sync=False, groups=False, guards=Guards):
    """Uneven shares count by their size; with `accumulate` each is cut into as many microbatches."""
    n, rank, model = group.size(), group.rank(), tied_and_frozen()
    own = {"param_groups": by_shape(model) if groups else None, "guards": guards, "group": group}
    model = Zero2(model, optimizer_class, bucket_bytes=5000, **own, **kwargs)
    norms = []
    for inputs, targets in text_batches(CONFIG.seq, BATCH, STEPS, rank=rank, world=n):
        model.zero_grad()
        for i, (x, y) in enumerate(zip(inputs.tensor_split(accumulate), targets.tensor_split(accumulate), strict=True)):
            weight = len(x) * n / BATCH
            if no_sync and i + 1 < accumulate:
                with model.no_sync():
                    (loss(model(x), y) * weight).backward()
            else:
                (loss(model(x), y) * weight).backward()
        if clip:
            norms.append(clip_grad_norm_(model, clip).item())
        model.step()
    return {name: value.clone() for name, value in model.module.state_dict().items()}, norms


def one_process(optimizer_class, kwargs, clip=0.0, groups=False, **_):
    model, norms = tied_and_frozen(), []
    optimizer = optimizer_class(by_shape(model) if groups else model.parameters(), **kwargs)
    for x, y in text_batches(CONFIG.seq, BATCH, STEPS):
        optimizer.zero_grad()
        loss(model(x), y).backward()
        if clip:
            norms.append(nn.utils.clip_grad_norm_(model.parameters(), clip).item())
            assert norms[-1] > clip, "nothing was clipped"
        optimizer.step()
    return model.state_dict(), norms


def apart(some, others):
    assert some.keys() == others.keys()
    return max((some[name] - others[name]).abs().max().item() for name in others)


def test_ends_where_one_process_ends_at_every_world():
    cases = {
        "sgd": (SGD, {}),
        "adam": (ADAM, {}),
        "alone": (ADAM, {"guards": NoGuards}),
        "microbatches": (ADAM, {"accumulate": 2}),
        "no_sync": (ADAM, {"accumulate": 2, "no_sync": True}),
        "clipped, groups": (ADAM, {"clip": 0.5, "groups": True}),
    }

    def fn():
        expected = {name: one_process(*optimizer, **own) for name, (optimizer, own) in cases.items()}
        found = {}
        for n in (1, 2, 3, 4):
            group = dist.new_group(range(n))
            for name, (optimizer, own) in cases.items() if dist.get_rank() < n else ():
                if n == 3 or name in ("sgd", "alone"):
                    weights, norms = trained(group, *optimizer, **own)
                    assert norms == pytest.approx(expected[name][1], rel=1e-12)
                    found[n, name] = apart(weights, expected[name][0])
        return found

    results = launch(fn, ranks=4).results
    assert len(results[0]) == len(cases) + 3 * 2
    assert max(max(each.values()) for each in results) < TOLERANCE


class Loop:
    """The same program for Zero2 on every rank and for one process, on the same data."""

    def __init__(self, make, sharded, optimizer_class=torch.optim.AdamW, lr=0.05, **own):
        torch.manual_seed(0)
        self.net = make()
        if sharded:
            self.model = self.optimizer = Zero2(self.net, optimizer_class, lr=lr, bucket_bytes=100, **own)
        else:
            self.model, self.optimizer = self.net, optimizer_class(self.net.parameters(), lr=lr)

    def step(self, x=None):
        self.optimizer.zero_grad()
        x = torch.linspace(-1, 1, 12, dtype=next(self.net.parameters()).dtype).view(4, 3) if x is None else x
        self.model(x).square().sum().backward()
        self.optimizer.step()


def net():
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 2)).double()


def freezes(sharded):
    """A layer is frozen after two steps, stands still, and is thawed again."""
    loop = Loop(net, sharded)
    for step in range(8):
        loop.net[2].requires_grad_(step not in (2, 3, 4))
        if step == 3:
            before = [p.detach().clone() for p in loop.net[2].parameters()]
        loop.step()
        if step == 4:
            assert all(map(torch.equal, before, loop.net[2].parameters())), "a frozen layer has moved"
    return loop.net


def frozen_all_but_the_head(sharded):
    """Whole buckets are frozen, those that come last and those that come first."""
    loop = Loop(net, sharded)
    loop.step()
    for layers in ([0, 2], [2, 4], []):
        for k in (0, 2, 4):
            loop.net[k].requires_grad_(k not in layers)
        loop.step()
    return loop.net


class Trips(nn.Module):
    """Raises once in the middle of the backward pass."""

    def __init__(self):
        super().__init__()
        self.first, self.last, self.armed = nn.Linear(3, 5), nn.Linear(5, 2), False
        self.double()

    def forward(self, x):
        x = self.first(x)
        if self.armed:
            x.register_hook(self.trip)
        return self.last(torch.tanh(x))

    def trip(self, _):
        raise ArithmeticError("in the middle of the backward pass")


def raises(sharded):
    """Twice: once where all ranks raise, once where one has sent less. Then training goes on."""
    loop = Loop(Trips, sharded)
    loop.step()
    for uneven in (False, True):
        late = uneven and dist.get_rank() == 1
        loop.net.armed = not late
        handle = loop.net.first.weight.register_hook(loop.net.trip) if late else None
        with pytest.raises(ArithmeticError):
            loop.step()
        if handle:
            handle.remove()
        loop.net.armed = False
        loop.step()
    return loop.net


def raises_in_forward(sharded):
    loop = Loop(net, sharded)
    loop.step()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        loop.step(torch.ones(2, 7, dtype=torch.float64))
    loop.step()
    return loop.net


class Twice(nn.Module):
    """Two uses of one layer, one of them without gradients."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(3, 3), nn.Linear(3, 2)
        self.double()

    def forward(self, x):
        with torch.no_grad():
            target = self.layer(x)
        return self.head(torch.tanh(self.layer(x) - target + self.layer(x)))


def siamese(sharded):
    """Two forward passes and one backward pass, a forward pass without gradients between."""
    loop = Loop(Twice, sharded)
    for _ in range(3):
        loop.optimizer.zero_grad()
        x = torch.linspace(-1, 1, 12, dtype=torch.float64).view(4, 3)
        one = loop.model(x)
        with torch.no_grad():
            loop.model(x)
        (one - loop.model(2 * x)).square().sum().backward()
        loop.optimizer.step()
    return loop.net


def two_graphs(sharded):
    """Forward, forward, backward, backward, and a graph that is walked twice; `autograd.grad` between."""
    loop = Loop(net, sharded)
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).view(4, 3).requires_grad_()
    for _ in range(2):
        loop.optimizer.zero_grad()
        one, two = loop.model(x).sum(), loop.model(x).square().sum()
        torch.autograd.grad(one, x, retain_graph=True)
        one.backward(retain_graph=True)
        two.backward()
        one.backward()
        loop.optimizer.step()
    return loop.net


def checkpointed(sharded):
    loop = Loop(net, sharded)
    for _ in range(2):
        loop.optimizer.zero_grad()
        x = torch.linspace(-1, 1, 12, dtype=torch.float64).view(4, 3)
        torch.utils.checkpoint.checkpoint(loop.model, x, use_reentrant=False).square().sum().backward()
        loop.optimizer.step()
    return loop.net


def counts_steps(sharded):
    class Counts(torch.optim.SGD):
        """A rate that falls with the steps counted in its group."""

        def step(self, closure=None):
            for group in self.param_groups:
                group["count"] = group.get("count", 0) + 1
                group["lr"] = 0.05 / group["count"]
            return super().step(closure)

    loop = Loop(net, sharded, Counts)
    for _ in range(3):
        loop.step()
    return loop.net


def loads_weights(sharded):
    """torch's state dict is the model's. Master copies follow, also where the model itself loads, or is clamped."""
    loop = Loop(net, sharded, **({"master_dtype": torch.float64} if sharded else {}))
    other = net().state_dict()
    loop.net.load_state_dict({name: value + 0.1 for name, value in other.items()})
    loop.step()
    loop.model.load_state_dict(other)
    loop.step()
    with torch.no_grad():
        for p in loop.net.parameters():
            p.clamp_(-0.2, 0.2)
    loop.step()
    assert loop.model.state_dict().keys() == other.keys()
    return loop.net


def wrapped_again(sharded):
    """A layer is thawed, and so the model is wrapped anew: the old wrapper lets go of its parameters."""

    def half_frozen():
        model = net()
        model[0].requires_grad_(False)
        return model

    loop = Loop(half_frozen, sharded)
    loop.step()
    loop.net.requires_grad_(True)
    if sharded:
        loop.model = loop.optimizer = Zero2(loop.net, torch.optim.AdamW, lr=0.05)
    else:
        loop.optimizer = torch.optim.AdamW(loop.net.parameters(), lr=0.05)
    loop.step()
    with torch.no_grad():
        loop.model(torch.ones(1, 3, dtype=torch.float64))
    loop.step()
    return loop.net


class Turns(nn.Module):
    """A complex weight."""

    def __init__(self):
        super().__init__()
        self.turn, self.head = nn.Parameter(torch.randn(3, 3, dtype=torch.complex128)), nn.Linear(3, 2).double()

    def forward(self, x):
        return self.head((x.to(torch.complex128) @ self.turn).abs())


def clips(sharded):
    """The norm of complex and real gradients together, a frozen layer among them."""
    loop = Loop(Turns, sharded)
    for bias in (True, False):
        loop.net.head.bias.requires_grad_(bias)
        loop.optimizer.zero_grad()
        loop.model(torch.ones(2, 3, dtype=torch.float64)).square().sum().backward()
        norm = clip_grad_norm_(loop.model, 0.5)
        assert norm > 0.5
        loop.optimizer.step()
        with torch.no_grad():
            loop.net.head.weight[0, 0] = norm / 1000  # compared with one process's
    return loop.net


PROGRAMS = [
    clips,
    wrapped_again,
    freezes,
    frozen_all_but_the_head,
    raises,
    raises_in_forward,
    siamese,
    two_graphs,
    checkpointed,
]
PROGRAMS += [counts_steps, loads_weights]


def test_programs_of_users_end_where_one_process_ends():
    def fn():
        return {run.__name__: apart(run(True).state_dict(), run(False).state_dict()) for run in PROGRAMS}

    for found in launch(fn, ranks=3).results:
        assert max(found.values()) < TOLERANCE, found


class Scales(nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 3).to(dtype))

    def forward(self, x):
        return (self.weight * x).abs().square().sum()


def test_dtypes_and_scalers():
    def grid():
        found = {}
        for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64):
            torch.manual_seed(0)
            model = Scales(dtype)
            other = nn.Parameter(model.weight.detach().clone())
            zero, alone = Zero2(model, torch.optim.AdamW, lr=0.1), torch.optim.AdamW([other], lr=0.1)
            for _ in range(2):
                zero(torch.ones(5, 3)).backward()
                (other * torch.ones(5, 3)).abs().square().sum().backward()
                for each in (zero, alone):
                    each.step()
                    each.zero_grad()
            found[dtype] = torch.equal(model.weight, other)
        return found

    def near_the_end_of_float16():
        model = nn.Linear(1, 1, bias=False).half()
        zero = Zero2(model, torch.optim.SGD, lr=2.0**-20)
        nn.init.zeros_(model.weight)
        (zero(torch.full((1, 1), 200.0).half()) * 200).sum().backward()  # 40,000: the sum of two is above 65,504
        return zero.gradient_shards()[0].item() if zero.gradient_shards() else 40_000.0

    def scaled(sharded):
        """Only one rank's gradients overflow, in its part of one parameter: all ranks skip the step, or none."""
        own = {"check_finite": False} if sharded else {}
        loop = Loop(lambda: net().float(), sharded, torch.optim.SGD, **own)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126, growth_interval=2)
        for _ in range(6):
            loop.optimizer.zero_grad()
            scaler.scale(loop.model(torch.ones(2, 3)).square().mean() * 2**4).backward()
            scaler.step(loop.optimizer)
            scaler.update()
        return loop.net, scaler.get_scale()

    def fn():
        (ours, scale), (alone, expected) = scaled(True), scaled(False)
        return grid(), near_the_end_of_float16(), apart(ours.state_dict(), alone.state_dict()), scale - expected

    for dtypes, large, off, scale_off in launch(fn, ranks=2).results:
        assert all(dtypes.values()), dtypes
        assert large == 40_000.0
        assert off < 1e-6 and scale_off == 0.0


def test_a_nan_of_one_rank_is_seen_by_the_scaler_of_every_rank():
    def fn():
        model = Zero2(net().float(), torch.optim.SGD, check_finite=False, lr=0.1)
        value = float("inf") if dist.get_rank() == 1 else 1.0
        (model.module[4].bias.sum() * value + 0 * model(torch.ones(1, 3)).sum()).backward()
        return any(shard.isnan().any().item() for shard in model.gradient_shards())

    assert launch(fn, ranks=3).results == [True] * 3


def test_the_discriminator_of_a_gan_trains():
    """Two forward passes in training and one backward pass, with BatchNorm: its buffers are shared between."""

    def fn():
        torch.manual_seed(0)
        model = Zero2(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)), torch.optim.SGD, lr=0.1)
        before = model.module[0].weight.detach().clone()
        real, fake = torch.randn(6, 4) + dist.get_rank(), torch.randn(6, 4)
        (F.softplus(-model(real)).mean() + F.softplus(model(fake)).mean()).backward()
        model.step()
        norm = model.module[1]
        norm.running_mean.fill_(5.0 + dist.get_rank())
        norm.momentum = 0.0
        seen = []
        for training in (False, True):
            model.train(training)
            model(torch.randn(4, 4))
            seen.append(norm.running_mean.unique().tolist())
        return torch.equal(before, model.module[0].weight), seen

    assert launch(fn, ranks=2).results == [(False, [[5.0], [5.0]]), (False, [[6.0], [5.0]])]


class Fork(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3).float()

    def forward(self, x):
        return self.a(x) if dist.get_rank() == 0 else self.b(x)


def test_unused_parameters_count_as_zeros_and_dtypes_travel_apart():
    def fn():
        model = Zero2(Fork().double(), torch.optim.SGD, lr=1.0, bucket_bytes=8)
        before = {k: v.clone() for k, v in model.module.state_dict().items()}
        model(torch.ones(1, 3, dtype=torch.float64)).sum().backward()
        gradients = [p.grad for p in model.parameters()]
        model.step()
        changes = [(before[k] - v).unique().tolist() for k, v in model.module.state_dict().items()]
        mixed = Zero2(nn.Sequential(nn.Linear(3, 3).double(), nn.Linear(3, 3)), torch.optim.SGD, lr=0.1)
        return changes, gradients, [bucket.data.dtype for bucket in mixed.vectors]

    for changes, gradients, dtypes in launch(fn, ranks=2).results:
        assert changes == [pytest.approx([0.5])] * 4 + [[0.0]] * 2
        assert gradients == [None] * 6, "the whole gradients are freed"
        assert dtypes == [torch.float32, torch.float64]


def test_buckets_leave_during_the_backward_pass():
    def fn():
        model = Zero2(nn.Sequential(*[nn.Linear(7, 7) for _ in range(4)]), torch.optim.SGD, lr=0.1, bucket_bytes=4 * 56)
        order = []
        for k, layer in enumerate(model.module):
            layer.weight.register_hook(
                lambda _, k=k: order.append((k, sum(b.buffer is not None for b in model.vectors)))
            )
        model(torch.ones(2, 7)).sum().backward()
        return order

    order = launch(fn, ranks=2)[0]
    assert [k for k, _ in order] == [3, 2, 1, 0]
    assert order[-1][1] > 0, "no bucket was on its way while the first layer's gradient was computed"
