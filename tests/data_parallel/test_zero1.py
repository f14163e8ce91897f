"""Stage 1 ends where one process ends, with any optimizer that steps elements, and is a drop-in for it."""

import itertools
import warnings

import pytest
import torch
import torch.distributed as dist
from torch import nn

from parallel_lab import launch
from parallel_lab.data_parallel import DDP, Zero1, average_gradients, clip_grad_norm_, formulas
from parallel_lab.data_parallel.flat_vector import owned
from parallel_lab.data_parallel.zero_guards import NoGuards
from parallel_lab.model import GPTConfig, build, loss, train
from parallel_lab.model.data import text_batches

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # torch scripts functions there, and warns of its own doing
    from torch.distributed.optim import ZeroRedundancyOptimizer

CONFIG = GPTConfig(seq=8, width=12, heads=2, layers=2)
BATCH, STEPS = 6, 3  # at 4 ranks the shares are 2, 2, 1, 1
SGD = (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9})
ADAM = (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1})
TOLERANCE = 1e-12  # float64; another order of sums, and Adam's division, leave some 1e-14


def tied_and_frozen():
    """A GPT with tied embedding, frozen positions and a frozen bias."""
    model = build(CONFIG, dtype=torch.float64)
    model.embedding.positions.weight.requires_grad_(False)
    model.blocks[1].feed_forward.up.bias.requires_grad_(False)
    return model


def worlds():
    """Groups of 1, 2, 3 and 4 of the ranks; None where this rank is not in it."""
    for n in (1, 2, 3, 4):
        group = dist.new_group(range(n))
        yield n, group if dist.get_rank() < n else None


def trained(group, optimizer_class, kwargs, make=Zero1, clip=0.0, ddp=True, **own):
    model, n, rank = tied_and_frozen(), group.size(), group.rank()
    own |= {"group": group} if make is Zero1 else {"process_group": group}
    wrapped = DDP(model, group=group) if ddp else model
    optimizer = make(model.parameters(), optimizer_class, **own, **kwargs)
    for x, y in text_batches(CONFIG.seq, BATCH, STEPS, rank=rank, world=n):
        optimizer.zero_grad()
        (loss(wrapped(x), y) * (len(x) * n / BATCH)).backward()
        if not ddp:
            average_gradients(model, group=group)
        if clip:
            clip_grad_norm_(model, clip)
        optimizer.step()
    return {name: value.clone() for name, value in model.state_dict().items()}


def one_process(optimizer_class, kwargs, clip=0.0):
    model = tied_and_frozen()
    optimizer = optimizer_class(model.parameters(), **kwargs)
    for x, y in text_batches(CONFIG.seq, BATCH, STEPS):
        optimizer.zero_grad()
        loss(model(x), y).backward()
        if clip:
            assert nn.utils.clip_grad_norm_(model.parameters(), clip) > clip, "nothing was clipped"
        optimizer.step()
    return model.state_dict()


def apart(some, others):
    assert some.keys() == others.keys()
    return max((some[name] - others[name]).abs().max().item() for name in others)


def test_ends_where_one_process_ends_at_every_world():
    """Behind DDP: with its guards, alone, and clipped; and with gradients that are averaged one by one."""
    cases = {
        "sgd": (SGD, {}),
        "adam": (ADAM, {}),
        "alone": (ADAM, {"guards": NoGuards}),
        "averaged by hand": (ADAM, {"ddp": False}),
        "clipped": (ADAM, {"clip": 0.5}),
    }

    def fn():
        expected = {
            name: one_process(*optimizer, clip=own.get("clip", 0.0)) for name, (optimizer, own) in cases.items()
        }
        found = {}
        for n, group in worlds():
            for name, (optimizer, own) in cases.items() if group else ():
                if n == 3 or name in ("sgd", "alone"):
                    found[n, name] = apart(trained(group, *optimizer, **own), expected[name])
        return found

    results = launch(fn, ranks=4).results
    assert len(results[0]) == len(cases) + 3 * 2
    assert max(max(each.values()) for each in results) < TOLERANCE
    reference = train(tied_and_frozen(), text_batches(CONFIG.seq, BATCH, STEPS), ADAM[0], **ADAM[1]).weights
    assert apart(one_process(*ADAM), reference) < TOLERANCE


def test_ends_where_torch_s_own_ends():
    """A launch of its own, on two ranks: torch compiles scripts in each rank that has its optimizer."""

    def fn():
        ours, theirs = (trained(dist.group.WORLD, *ADAM, make=make) for make in (Zero1, ZeroRedundancyOptimizer))
        return apart(ours, theirs)

    assert max(launch(fn, ranks=2).results) < TOLERANCE


class GroupAdam(torch.optim.Optimizer):
    """An Adam that counts its steps once a group, as fused ones do."""

    def __init__(self, params, lr=1e-2):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        with torch.enable_grad():
            loss = closure() if closure else None
        for group in self.param_groups:
            t = group["step"] = group.get("step", 0) + 1
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["m"], state["v"] = torch.zeros_like(p), torch.zeros_like(p)
                state["m"].lerp_(p.grad, 0.1)
                state["v"].mul_(0.999).addcmul_(p.grad, p.grad, value=0.001)
                p.sub_(group["lr"] * (state["m"] / (1 - 0.9**t)) / ((state["v"] / (1 - 0.999**t)).sqrt() + 1e-8))
        return loss


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 2)).double()


def by_shape(parameters):
    """The usual recipe: matrices decay, biases do not."""
    parameters = list(parameters)
    decayed = {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": 0.5}
    return [decayed, {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0}]


def schedule(make, parameters):
    """Groups of their own rates, a scheduler, a closure, a layer that is frozen, left out, and thawed again."""
    model = net()
    optimizer = make(parameters(model.parameters()))
    rates = [group["lr"] for group in optimizer.param_groups]
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rates, total_steps=10, cycle_momentum=False)
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).view(4, 3)

    def closure():
        optimizer.zero_grad()
        value = model(x).square().mean()
        value.backward()
        return value

    for step in range(8):
        model[2].requires_grad_(step not in (3, 4))
        value = optimizer.step(closure)
        scheduler.step()
        if step == 5:  # as a WGAN's critic is; master copies follow
            with torch.no_grad():
                model[0].weight.clamp_(-0.3, 0.3)
    assert not optimizer.zero_grad() and model[0].weight.grad is None
    return torch.cat([p.detach().flatten() for p in model.parameters()] + [value.detach().view(1)])


def scaled(make):
    """A gradient scaler whose first steps overflow: they are skipped on every rank or on none."""
    model = net().half().float()
    optimizer = make(model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=2)
    for _ in range(6):
        optimizer.zero_grad()
        scaler.scale(model(torch.ones(2, 3)).square().mean() * 2**4).backward()
        scaler.step(optimizer)
        scaler.update()
    return torch.cat([p.detach().flatten() for p in model.parameters()] + [torch.tensor([scaler.get_scale()])])


def test_is_a_drop_in_for_any_optimizer_that_steps_elements():
    adam = torch.optim.AdamW
    plain = {
        "groups by shape": lambda wrap: schedule(lambda p: wrap(p, adam, lr=0.05), by_shape),
        "steps counted by group": lambda wrap: schedule(lambda p: wrap(p, GroupAdam, lr=0.05), list),
        "master copies": lambda wrap: schedule(lambda p: wrap(p, GroupAdam, "masters", lr=0.05), list),
        "scaler": lambda wrap: scaled(lambda p: wrap(p, torch.optim.SGD, lr=0.1)),
    }

    def alone(params, optimizer_class, masters="", **kwargs):
        return optimizer_class(params, **kwargs)

    def sharded(params, optimizer_class, masters="", **kwargs):
        return Zero1(params, optimizer_class, master_dtype=torch.float64 if masters else None, **kwargs)

    def fn():
        return {name: (run(sharded) - run(alone)).abs().max().item() for name, run in plain.items()}

    for found in launch(fn, ranks=3).results:
        assert found.pop("scaler") < 1e-6  # float32
        assert max(found.values()) < TOLERANCE, found


def test_a_step_is_one_step_of_the_optimizer_inside():
    def fn():
        seen = []
        model = net()
        optimizer = Zero1(model.parameters(), torch.optim.SGD, lr=0.1, master_dtype=torch.float32)
        optimizer.optimizer.register_step_post_hook(lambda *_: seen.append(1))
        for _ in range(2):
            model(torch.ones(2, 3).double()).sum().backward()
            optimizer.step()
        return len(seen)

    assert launch(fn, ranks=3).results == [2, 2, 2]


def test_dtypes_master_copies_and_ranks_that_own_nothing():
    def grid():
        found = {}
        for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64):
            torch.manual_seed(0)
            weight = nn.Parameter(torch.randn(5, 3, dtype=dtype))
            other = nn.Parameter(weight.detach().clone())
            gradient = torch.randn(5, 3).to(dtype)
            ours = Zero1([weight], torch.optim.AdamW, lr=0.1)
            theirs = torch.optim.AdamW([other], lr=0.1)
            for _ in range(2):
                weight.grad, other.grad = gradient.clone(), gradient.clone()
                ours.step()
                theirs.step()
            found[dtype] = torch.equal(weight, other)
        return found

    def rounded(master_dtype):
        model = nn.Linear(4, 4, bias=False).to(torch.bfloat16)
        nn.init.ones_(model.weight)
        optimizer = Zero1(model.parameters(), torch.optim.SGD, lr=1.0, master_dtype=master_dtype)
        for _ in range(64):
            model.weight.grad = torch.full_like(model.weight, 2**-10)  # half of what bfloat16 can take from 1
            optimizer.step()
        return model.weight.detach().float().unique().tolist()

    def little():
        parameter, unused = nn.Parameter(torch.tensor(3.0)), nn.Parameter(torch.tensor(7.0))
        optimizer = Zero1([parameter, unused], torch.optim.AdamW, lr=1.0, weight_decay=0.5)
        parameter.grad = torch.tensor(1.0)
        optimizer.step()
        return round(parameter.item(), 3), unused.item(), len(optimizer.state)

    run = launch(lambda: (grid(), rounded(torch.float32), rounded(None), little()), ranks=3)
    for dtypes, masters, without, _ in run.results:
        assert all(dtypes.values()), dtypes
        assert masters == [1 - 64 * 2**-10] and without == [1.0]
    assert [each[-1] for each in run.results] == [(0.5, 7.0, 1), (0.5, 7.0, 1), (0.5, 7.0, 0)]


def test_torch_s_state_dict_is_that_of_one_process():
    """Saved by ranks and loaded by one process, and the other way round; training goes on as if nothing had been."""

    def steps(optimizer, model, count):
        for _ in range(count):
            optimizer.zero_grad()
            model(torch.ones(2, 3).double()).square().sum().backward()
            optimizer.step()

    def fn():
        alone, model = net(), net()
        reference = torch.optim.AdamW(by_shape(alone.parameters()), lr=0.1)
        optimizer = Zero1(by_shape(model.parameters()), torch.optim.AdamW, lr=0.1)
        steps(reference, alone, 2)
        steps(optimizer, model, 2)
        saved, expected = optimizer.state_dict(), reference.state_dict()
        assert saved["param_groups"] == expected["param_groups"]
        assert saved["state"].keys() == expected["state"].keys()
        for number, state in expected["state"].items():
            for key, value in state.items():
                torch.testing.assert_close(saved["state"][number][key], value, rtol=0, atol=TOLERANCE)
        again = net()
        again.load_state_dict(alone.state_dict())
        other = Zero1(by_shape(again.parameters()), torch.optim.AdamW, lr=0.5)
        other.load_state_dict(expected)
        back = torch.optim.AdamW(by_shape(model.parameters()), lr=0.5)
        back.load_state_dict(saved)
        steps(reference, alone, 2)
        steps(other, again, 2)
        steps(back, model, 2)
        with pytest.raises(ValueError, match=r"had \[6\] parameters, and have \[3, 3\]"):
            other.load_state_dict(torch.optim.AdamW(net().parameters()).state_dict())
        dist.barrier()
        return apart(again.state_dict(), alone.state_dict()), apart(model.state_dict(), alone.state_dict())

    assert max(itertools.chain(*launch(fn, ranks=3).results)) < TOLERANCE


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
def test_every_element_belongs_to_one_rank(n):
    sizes = [15, 1, 0, 7]
    found = [
        (index, i) for rank in range(n) for index, start, stop, _ in owned(sizes, n, rank) for i in range(start, stop)
    ]
    assert found == [(index, i) for index, size in enumerate(sizes) for i in range(size)]
    assert formulas.padded([23], n) % n == 0
