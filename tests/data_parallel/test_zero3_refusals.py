"""Mistakes with stage 3 are refused with a sentence; a pass that raised leaves nothing; optimizers step shards."""

import copy
import io
import pickle

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler

from parallel_lab import RankFailed, launch
from parallel_lab.data_parallel import Zero3, clip_grad_norm_
from parallel_lab.runtime import make_mesh


def chain(width=4, dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 2)).to(dtype)


WRONG = {
    "positional": (lambda: Zero3(chain(), torch.bfloat16), "TypeError: Zero3 got an argument without its name (dtype)"),
    "nothing": (lambda: Zero3(nn.ReLU()), "ValueError: Zero3 got a model without parameters"),
    "prefetch": (lambda: Zero3(chain(), prefetch=-1), "ValueError: prefetch=-1"),
    "units": (lambda: Zero3(chain(), units=[nn.Linear(2, 2)]), "not a module inside the model"),
    "fewer": (lambda: Zero3(chain(), reshard_after_forward=3), "a number that divides the 2 ranks"),
    "axes": (lambda: Zero3(chain(), group=make_mesh(a=1, b=1, c=2)), "expected one, or two (replicate, shard)"),
}


class Net(nn.Module):
    def __init__(self, peeks=False):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.head, self.peeks, self.raises = nn.Linear(4, 4), peeks, False

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        if self.raises:
            raise KeyError("in the middle")
        return self.head(x) + (self.layers[1].weight.sum() if self.peeks else 0)


def said(action):
    try:
        action()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def test_what_makes_no_sense_and_what_is_used_where_it_is_sharded():
    def fn():
        texts = {name: said(make) for name, (make, _) in WRONG.items()}
        wrapped, x = Zero3(Net()), torch.ones(1, 4)
        compiled = Zero3(Net())
        compiled.module.layers[0].compile(backend="aot_eager")
        texts["compiled"] = said(lambda: compiled(x))
        uses = {
            "another unit's parameter": lambda: Zero3(Net(peeks=True))(x),
            "the same in evaluation": lambda: torch.no_grad()(Zero3(Net(peeks=True)).eval())(x),
            "a layer of the root": lambda: wrapped.module.head(x),
        }
        copies = {
            "deepcopy": lambda: copy.deepcopy(wrapped),
            "pickle": lambda: pickle.dumps(wrapped),
            "torch.save": lambda: torch.save(wrapped, io.BytesIO()),
        }
        wrapped(x).sum().backward()  # all of that has left nothing behind
        return texts, {n: said(use) for n, use in uses.items()}, {n: said(use) for n, use in copies.items()}

    for texts, uses, copies in launch(fn, ranks=2).results:
        for name, (_, text) in WRONG.items():
            assert text in texts[name], name
        assert "Linear is compiled, and torch.compile cannot trace" in texts["compiled"]
        assert all("is sharded by Zero3, and its unit is not unsharded now" in text for text in uses.values()), uses
        assert uses["another unit's parameter"].startswith("RuntimeError: layers.1.weight")
        assert all("Take full_state_dict()" in text for text in copies.values()), copies


def test_a_changed_model_a_hook_and_a_shared_layer_are_refused():
    def changed(change):
        wrapped = Zero3(chain(3))
        wrapped(torch.ones(1, 4)).sum().backward()
        change(wrapped.module)
        return said(lambda: wrapped(torch.ones(1, 4)))

    def fn():
        actor, critic = chain(), chain()
        critic[0] = actor[0]
        Zero3(actor)
        return {
            "new weight": changed(lambda model: setattr(model[0], "weight", nn.Parameter(torch.ones(3, 4)))),
            "new module": changed(lambda model: model.__setitem__(2, nn.Linear(3, 1))),
            "new layer": changed(lambda model: model.append(nn.Linear(2, 1))),
            "hook": changed(lambda model: model[2].bias.register_hook(lambda gradient: 2 * gradient)),
            "late hook": changed(lambda model: model[2].bias.register_post_accumulate_grad_hook(print)),
            "shared layer": said(lambda: Zero3(critic)),
        }

    for found in launch(fn, ranks=2).results:
        new = "is new since Zero3 was made, and not sharded: change the model first, and then make the Zero3"
        assert found["new weight"] == f"RuntimeError: 0.weight {new}"
        assert found["new module"] == f"RuntimeError: 2.weight {new}"
        assert found["new layer"] == f"RuntimeError: 3.weight {new}"
        assert all("2.bias has a hook, which Zero3 would not call" in found[name] for name in ("hook", "late hook"))
        assert "ValueError: 0.weight is sharded already, by another Zero3" in found["shared layer"]


def test_ranks_with_different_models_and_a_gradient_that_is_not_finite_name_the_rank():
    with pytest.raises(RankFailed, match=r"rank 1 does not have the model of rank 0") as failed:
        launch(lambda: Zero3(chain(5 if dist.get_rank() == 1 else 4)), ranks=3)
    assert failed.value.rank == 1

    def fn():
        (Zero3(chain())(torch.ones(2, 4)).sum() * (float("nan") if dist.get_rank() == 2 else 1.0)).backward()

    with pytest.raises(RankFailed, match=r"rank 2: the gradient of 2\.weight is NaN") as failed:
        launch(fn, ranks=3)
    assert failed.value.rank == 2 and list(failed.value.failures) == [2]


def test_a_gradient_that_is_not_finite_costs_nothing():
    def without(value):
        model = Zero3(chain())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def step(factor):
            (model(torch.ones(2, 4)).sum() * factor).backward()
            optimizer.step()

        step(1.0)
        before, text = repr(model.shard_state(optimizer)), ""
        try:
            step(value if dist.get_rank() == 1 else 1.0)
        except ValueError as error:
            text = str(error)
            if "cannot go on" not in text:
                dist.barrier()  # lets the others go, who wait for the culprit
        same, gone = repr(model.shard_state(optimizer)) == before, not model.gradient_shards()
        step(1.0)
        return text, same, gone, repr(model.shard_state(optimizer)) != before

    run = launch(lambda: [without(float("nan")), without(float("inf"))], ranks=2)
    for others, culprit in zip(*run.results, strict=True):
        assert culprit[0].startswith("rank 1: the gradient of 2.") and "cannot go on" in others[0]
        assert others[1:] == culprit[1:] == (True, True, True)


class Breaks(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise KeyError("in the middle of the backward pass")


def norms(model, alone):
    mine = sum(g.double().square().sum() for g in model.gradient_shards())
    dist.all_reduce(mine)
    return mine.sqrt().item(), nn.utils.get_total_norm([p.grad for p in alone.parameters()]).item()


def test_a_pass_that_raised_leaves_nothing():
    def fn():
        torch.manual_seed(0)
        alone = Net().double()
        model, x = Zero3(copy.deepcopy(alone)), torch.randn(3, 4, dtype=torch.float64)
        found = []
        for broken in ("forward", "backward", "activation"):
            if broken == "forward":
                model.module.raises = True
                text = said(lambda: model(x))
                model.module.raises = False
            elif broken == "backward":
                handle = model.module.layers[1].register_forward_hook(lambda *args: Breaks.apply(args[2]))
                text = said(lambda: model(x).sum().backward())
                handle.remove()
            else:
                handle = model.module.layers[0].register_forward_hook(lambda *args: args[2].sigmoid().add_(1))
                text = said(lambda: model(x).sum().backward())
                handle.remove()
            shapes = [tuple(p.shape) for p in model.parameters()][:1]
            model.zero_grad()
            alone.zero_grad()
            model(x).square().sum().backward()
            alone(x).square().sum().backward()
            found.append((text, shapes, *norms(model, alone)))
        return found

    for found in launch(fn, ranks=2).results:
        texts, shapes, ours, theirs = zip(*found, strict=True)
        assert "in the middle" in texts[0] and "in the middle" in texts[1] and "inplace operation" in texts[2]
        assert set(map(tuple, shapes)) <= {((2, 4),), ((4, 4),)}
        assert ours == pytest.approx(theirs, rel=1e-12)


class CountingAdam(torch.optim.Optimizer):
    """Counts its steps once a group, as fused ones do."""

    def __init__(self, params, lr=0.01):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            t = group["step"] = group.get("step", 0) + 1
            for p in (p for p in group["params"] if p.grad is not None):
                m = self.state[p].setdefault("m", torch.zeros_like(p)).lerp_(p.grad, 0.1)
                p.sub_(group["lr"] * m / (1 - 0.9**t) / (p.grad.abs() + 1e-3))


def decayed(parameters):
    """The usual recipe: matrices decay, vectors do not."""
    parameters = list(parameters)
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": 0.5},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]


def scaled(model, optimizer, x, scaler):
    """One step as mixed precision makes it: scaled, unscaled, clipped, and left out if a gradient was infinite."""
    optimizer.zero_grad()
    scaler.scale(model(x).square().mean()).backward()
    scaler.unscale_(optimizer)
    if isinstance(model, Zero3):
        norm = clip_grad_norm_(model, 0.1) if all(g.isfinite().all() for g in model.gradient_shards()) else None
    else:
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    scaler.step(optimizer)
    scaler.update()
    return norm


def test_any_optimizer_steps_the_shards():
    def fn():
        off = {}
        makes = {
            "counts": lambda net: CountingAdam(net.parameters()),
            "decay": lambda net: torch.optim.AdamW(decayed(net.parameters()), lr=0.1),
            "fused": lambda net: torch.optim.AdamW(net.parameters(), lr=0.1, foreach=True),
            "before": lambda net: torch.optim.AdamW(net.parameters(), lr=0.1),
        }
        for name, make in makes.items():
            alone = chain(3, torch.float64)
            net = copy.deepcopy(alone)
            early = make(net) if name == "before" else None  # made before sharding: it has the same parameters
            model = Zero3(net)
            optimizer, reference = early or make(model), make(alone)
            for _ in range(5):
                x = torch.randn(6, 4, dtype=torch.float64)
                for each, steps in ((model, optimizer), (alone, reference)):
                    steps.zero_grad()
                    each(x).square().mean().backward()
                    steps.step()
            found = model.full_state_dict()
            off[name] = max((found[k] - v).abs().max().item() for k, v in alone.state_dict().items())
        return off

    for off in launch(fn, ranks=2).results:
        assert max(off.values()) < 1e-12, off


def test_a_scaler_and_clipping_over_shards():
    def fn():
        alone = chain(3)
        model = Zero3(copy.deepcopy(alone), check_finite=False)
        ends = []
        for net in (model, alone):
            optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
            scaler = ShardedGradScaler(device="cpu", init_scale=4.0, process_group=dist.group.WORLD)
            for step in range(3):
                x = torch.full((2, 4), float("inf") if step == 1 else 0.5 + step)
                scaled(net, optimizer, x, scaler)
            ends.append(scaler.get_scale())
        found = model.full_state_dict()
        return ends, max((found[k] - v).abs().max().item() for k, v in alone.state_dict().items())

    for (ours, theirs), off in launch(fn, ranks=2).results:
        assert ours == theirs == 2.0 and off < 1e-6  # float32; the infinite step was left out on every rank


DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64]


class Fourier(nn.Module):
    def __init__(self, dtype):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([Times(dtype), Times(dtype)])
        self.scalar = nn.Parameter(torch.tensor(0.5))
        self.empty = nn.Parameter(torch.empty(0, 3))
        self.mixed = nn.ModuleList([nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3).double())])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        x = x.abs().float() * self.scalar
        return self.mixed[0][1](self.mixed[0][0](x).double()).sum()


class Times(nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 3, dtype=torch.float64 if dtype != torch.complex64 else dtype).to(dtype))

    def forward(self, x):
        return x.to(self.w.dtype) @ self.w.conj()


def test_dtypes_scalars_and_parameters_without_elements():
    def fn():
        off = {}
        for dtype in DTYPES:
            alone = Fourier(dtype)
            model, x = Zero3(copy.deepcopy(alone)), torch.ones(4, 3)
            for _ in range(2):
                for net in (model, alone):
                    net.zero_grad()
                    net(x).backward()
                    torch.optim.SGD([p for p in net.parameters() if p.grad is not None], lr=1e-2).step()
            found = model.full_state_dict()
            assert list(found) == list(alone.state_dict())
            scale = max(v.abs().max().item() for v in alone.state_dict().values() if v.numel())
            pairs = [(found[k], v) for k, v in alone.state_dict().items() if v.numel()]
            off[dtype] = max((a - b).abs().max().item() for a, b in pairs) / scale
        return off

    for off in launch(fn, ranks=2).results:
        for dtype, value in off.items():
            assert value <= 4 * torch.finfo(dtype).eps + 1e-7, (dtype, value)  # the mean of two equal gradients
