"""Stage 3 with modules and programs of all sorts: what users do with a model, compared with one process."""

import copy
import dataclasses
from types import SimpleNamespace

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.checkpoint import checkpoint

from parallel_lab import launch
from parallel_lab.data_parallel import Zero3
from parallel_lab.trace.memory import SavedTensors

TOLERANCE = 1e-12  # float64


@dataclasses.dataclass
class Out:
    hidden: torch.Tensor


class Layered(nn.Module):
    """Three layers of 8, each a unit, and a head, which is the root's."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.head = nn.Linear(8, 1)

    def forward(self, x):
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return self.head(x)


class Dataclasses(Layered):
    """Blocks hand on what hooks on tensors do not see, or have to look for."""

    def __init__(self, wrap):
        super().__init__()
        self.layers = nn.ModuleList(Block(wrap) for _ in range(3))
        self.wrap = wrap

    def forward(self, x):
        x = self.wrap(hidden=x)
        for layer in self.layers:
            x = layer(x)
        return self.head(x.hidden)


class Block(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.linear, self.wrap = nn.Linear(8, 8), wrap

    def forward(self, x):
        return self.wrap(hidden=torch.tanh(self.linear(x.hidden)))


class SideLoss(Layered):
    """The loss has a term that no output of a unit carries, as the routers of experts do."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Router() for _ in range(3))

    def forward(self, x):
        return super().forward(x.detach()).detach() + sum(layer.aside for layer in self.layers)


class Router(nn.Linear):
    def __init__(self):
        super().__init__(8, 8)

    def forward(self, x):
        out = super().forward(x)
        self.aside = out.square().mean()
        return out.detach()


class TwiceAndAgain(Layered):
    """A unit that is used twice, one that is computed again, one of which a part is computed again."""

    def __init__(self, use_reentrant):
        super().__init__()
        self.use_reentrant = use_reentrant
        self.layers[2] = nn.Sequential(nn.Linear(8, 8), nn.Tanh())

    def again(self, function, x):
        return checkpoint(function, x, use_reentrant=self.use_reentrant)

    def forward(self, x):
        x = self.layers[0](x).tanh()
        x = self.again(self.layers[1], x).tanh()
        return self.head(self.again(self.layers[2], self.layers[0](x))).tanh()


class Inside(nn.Module):
    """A unit that has a part of itself computed again, with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.inner, self.scale = nn.Linear(8, 8), nn.Parameter(torch.ones(8))

    def forward(self, x):
        return checkpoint(lambda y: torch.tanh(self.inner(y) * self.scale), x, use_reentrant=False)


class ChecksInside(Layered):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Inside() for _ in range(3))


class PartlyFrozen(Layered):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)) for _ in range(4))
        self.layers[0].requires_grad_(False)
        self.layers[1][0].requires_grad_(False)
        self.layers[2].requires_grad_(False)
        self.layers[3][2].weight.requires_grad_(False)


class Recurrent(Layered):
    """Modules that keep their parameters elsewhere too."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.LSTM(8, 8)])
        self.odd = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
        self.old = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)

    def forward(self, x):
        x, _ = self.layers[0](x)
        return self.head(self.odd(self.old(x[None])[0]))


def plain(model, x):
    model(x).square().mean().backward()


def gan(model, x):
    """Two forward passes, one backward pass."""
    (model(x).square().mean() + model(x + 1).square().mean()).backward()


def forwards_then_backwards(model, x):
    losses = [model(x).square().mean(), model(x + 1).square().mean()]
    for value in losses:
        value.backward()


def twice_through_one_graph(model, x):
    value = model(x).square().mean()
    value.backward(retain_graph=True)
    value.backward()


def by_the_input_first(model, x):
    x = x.clone().requires_grad_()
    value = model(x).square().mean()
    torch.autograd.grad(value, x, retain_graph=True)
    value.backward()


def after_evaluating(model, x):
    with torch.no_grad():
        model(x)
    model.eval()(x)
    model.train()(x)  # a forward pass without its backward pass
    plain(model, x)


def with_a_frozen_layer(model, x):
    """Frozen and thawed after it was wrapped."""
    module = getattr(model, "module", model)
    module.layers[1].requires_grad_(False)
    plain(model, x)
    module.layers[1].requires_grad_(True)
    plain(model, x)


def computed_again(model, x):
    checkpoint(model, x, use_reentrant=False).square().mean().backward()


def through_its_module(model, x):
    plain(getattr(model, "module", model), x)


def measured(model, x):
    with SavedTensors() as saved:
        plain(model, x)
    assert saved.peak_bytes >= 4 * x.nbytes, "what autograd saves inside was not seen"


PROGRAMS = {
    "dataclasses": (lambda: Dataclasses(Out), plain),
    "odd objects": (lambda: Dataclasses(SimpleNamespace), plain),
    "a loss on the side": (SideLoss, plain),
    "twice, and computed again": (lambda: TwiceAndAgain(False), plain),
    "computed again the old way": (lambda: TwiceAndAgain(True), lambda m, x: plain(m, x.clone().requires_grad_())),
    "computed again inside": (ChecksInside, plain),
    "partly frozen": (PartlyFrozen, plain),
    "recurrent": (Recurrent, plain),
    "two forwards, one backward": (Layered, gan),
    "with BatchNorm": (lambda: nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)), gan),
    "forward, forward, backward, backward": (Layered, forwards_then_backwards),
    "twice through one graph": (Layered, twice_through_one_graph),
    "by the input first": (Layered, by_the_input_first),
    "after evaluating": (Layered, after_evaluating),
    "frozen and thawed": (Layered, with_a_frozen_layer),
    "all computed again": (Layered, computed_again),
    "through its module": (Layered, through_its_module),
    "measured": (Layered, measured),
}
SETTINGS = ({}, {"prefetch": 2, "reshard_after_forward": False})


def whole_gradients(model):
    """By name, from the rows of all ranks."""
    found = {}
    for unit in model.units:
        for slot, shard in zip(unit.slots, unit.shards, strict=True):
            rows = [None] * model.group.size()
            dist.all_gather_object(rows, shard.grad, group=model.group)
            found[slot.name] = None if rows[0] is None else torch.cat(rows).view(slot.shape)
    return found


def difference(make, program, settings, dtype=torch.float64):
    torch.manual_seed(0)
    alone = make().to(dtype)
    model, x = Zero3(copy.deepcopy(alone), **settings), torch.randn(6, 8, dtype=dtype)
    program(alone, x)
    program(model, x)
    assert all(unit.whole is None and unit.gathering is None and unit.small is None for unit in model.units)
    found = whole_gradients(model)
    for name, p in alone.named_parameters():
        if (p.grad is None) != (found[name] is None) and (found[name] is None or found[name].any()):
            return f"{name} has {found[name]}, and {p.grad} in one process"
    return max((found[n] - p.grad).abs().max().item() for n, p in alone.named_parameters() if p.grad is not None)


def test_programs_of_users():
    def fn():
        return {
            (name, k): difference(make, program, settings)
            for name, (make, program) in PROGRAMS.items()
            for k, settings in enumerate(SETTINGS)
        }

    for off in launch(fn, ranks=2).results:
        wrong = {what: value for what, value in off.items() if not isinstance(value, float) or value > TOLERANCE}
        assert not wrong
