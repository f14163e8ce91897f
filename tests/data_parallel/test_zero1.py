"""Stage 1 ends where one process ends, sends what its formula says, and is a drop-in optimizer."""

import warnings

import pytest
import torch
import torch.distributed as dist
from torch import nn

from parallel_lab import launch
from parallel_lab.agree.problem import FLAG_BYTES
from parallel_lab.data_parallel import DDP, Zero1, average_gradients, clip_grad_norm_, formulas
from parallel_lab.data_parallel.flat import Layout
from parallel_lab.model import GPTConfig, build, loss, train
from parallel_lab.model.data import text_batches

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # torch scripts functions there, and warns of its own doing
    from torch.distributed.optim import ZeroRedundancyOptimizer

CONFIG = GPTConfig(seq=8, width=12, heads=2, layers=2)
BATCH, STEPS = 6, 4  # at 4 ranks the shares are 2, 2, 1, 1
OPTIMIZERS = [(torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}), (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1})]
TOLERANCE = 1e-12  # float64; another order of sums, and Adam's division, leave some 1e-14


def tied_and_frozen():
    """A GPT with tied embedding, frozen positions and a frozen bias."""
    model = build(CONFIG, dtype=torch.float64)
    model.embedding.positions.weight.requires_grad_(False)
    model.blocks[1].feed_forward.up.bias.requires_grad_(False)
    return model


def my_batches():
    """This rank's shares, and how much its mean counts in the mean over ranks."""
    n, rank = dist.get_world_size(), dist.get_rank()
    for x, y in text_batches(CONFIG.seq, BATCH, STEPS, rank=rank, world=n):
        yield x, y, len(x) * n / BATCH


def trained(optimizer_class, kwargs, make=Zero1, clip=0.0):
    model = tied_and_frozen()
    optimizer = make(model.parameters(), optimizer_class, **kwargs)
    for x, y, weight in my_batches():
        optimizer.zero_grad()
        (loss(model(x), y) * weight).backward()
        average_gradients(model)
        if clip:
            clip_grad_norm_(model, clip)
        optimizer.step()
    return {name: value.clone() for name, value in model.state_dict().items()}


def apart(some, others):
    assert some.keys() == others.keys()
    return max((some[name] - others[name]).abs().max().item() for name in others)


@pytest.mark.parametrize(("optimizer_class", "kwargs"), OPTIMIZERS)
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_ends_where_one_process_ends(n, optimizer_class, kwargs):
    expected = train(tied_and_frozen(), text_batches(CONFIG.seq, BATCH, STEPS), optimizer_class, **kwargs).weights
    for weights in launch(trained, optimizer_class, kwargs, ranks=n).results:
        assert apart(weights, expected) < TOLERANCE


@pytest.mark.parametrize("n", [2, 3])
def test_ends_where_torch_ends(n):
    def both():
        kwargs = {"lr": 0.01}
        theirs = trained(torch.optim.AdamW, kwargs, make=ZeroRedundancyOptimizer)
        return trained(torch.optim.AdamW, kwargs), theirs

    for ours, theirs in launch(both, ranks=n).results:
        assert apart(ours, theirs) < TOLERANCE


def test_steps_what_ddp_averages():
    def fn():
        model = DDP(tied_and_frozen())
        optimizer = Zero1(model.parameters(), torch.optim.AdamW, lr=0.01)
        for x, y, weight in my_batches():
            optimizer.zero_grad()
            (loss(model(x), y) * weight).backward()
            optimizer.step()
        return {name: value.clone() for name, value in model.state_dict().items()}

    expected = train(tied_and_frozen(), text_batches(CONFIG.seq, BATCH, STEPS), torch.optim.AdamW, lr=0.01).weights
    for weights in launch(fn, ranks=3).results:
        assert apart(weights, expected) < TOLERANCE


def clipped_by_one_process(max_norm):
    model = tied_and_frozen()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for x, y in text_batches(CONFIG.seq, BATCH, STEPS):
        optimizer.zero_grad()
        loss(model(x), y).backward()
        assert nn.utils.clip_grad_norm_(model.parameters(), max_norm) > max_norm, "nothing was clipped"
        optimizer.step()
    return model.state_dict()


@pytest.mark.parametrize("n", [2, 3])
def test_clipping(n):
    for weights in launch(trained, torch.optim.AdamW, {"lr": 0.01}, clip=0.5, ranks=n).results:
        assert apart(weights, clipped_by_one_process(0.5)) < TOLERANCE


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_sends_what_its_formula_says(n):
    def fn():
        model = nn.Linear(7, 5)  # 40 elements: 42 at 3 ranks
        optimizer = Zero1(model.parameters(), torch.optim.SGD, lr=0.1)
        dist.barrier()
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()

    trace = launch(fn, ranks=n).trace
    psi = formulas.padded([40], n)
    gathered = formulas.sent_bytes("zero1", psi, n, 4) - formulas.sent_bytes("ddp", psi, n, 4)
    for rank in range(n):
        spans = trace.of(rank)
        start = max(i for i, s in enumerate(spans) if s.kind == "barrier")
        assert sum(s.sent_bytes for s in spans[start:]) == gathered + 2 * (n - 1) * FLAG_BYTES // n


def test_groups_schedulers_and_closures_work_as_with_any_optimizer():
    def run(make):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2)).double()
        groups = [
            {"params": model[0].parameters(), "lr": 0.05, "weight_decay": 0.3},
            {"params": model[1].parameters()},
        ]
        optimizer = make(groups)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=[0.1, 0.01], total_steps=6)
        x = torch.linspace(-1, 1, 12, dtype=torch.float64).view(4, 3)

        def closure():
            optimizer.zero_grad()
            value = model(x).square().mean()
            value.backward()
            return value

        for _ in range(5):
            value = optimizer.step(closure)
            schedule.step()
        assert not optimizer.zero_grad() and model[0].weight.grad is None
        return torch.cat([p.detach().flatten() for p in model.parameters()] + [value.detach().view(1)])

    expected = run(lambda groups: torch.optim.AdamW(groups, lr=0.01))
    for found in launch(lambda: run(lambda groups: Zero1(groups, torch.optim.AdamW, lr=0.01)), ranks=3).results:
        assert (found - expected).abs().max() < TOLERANCE


def test_a_master_copy_keeps_what_bfloat16_would_lose():
    def fn(master_dtype):
        model = nn.Linear(4, 4, bias=False).to(torch.bfloat16)
        nn.init.ones_(model.weight)
        optimizer = Zero1(model.parameters(), torch.optim.SGD, lr=1.0, master_dtype=master_dtype)
        for _ in range(64):
            model.weight.grad = torch.full_like(model.weight, 2**-10)  # half of what bfloat16 can take from 1
            optimizer.step()
        return model.weight.detach().float().unique()

    assert launch(fn, torch.float32, ranks=2)[1].tolist() == [1 - 64 * 2**-10]
    assert launch(fn, None, ranks=2)[1].tolist() == [1.0]


def test_parameters_that_have_no_gradient_are_left_alone():
    def fn():
        used, unused = nn.Linear(3, 3), nn.Linear(3, 3)
        before = unused.weight.detach().clone()
        optimizer = Zero1([*used.parameters(), *unused.parameters()], torch.optim.AdamW, lr=0.1, weight_decay=1.0)
        used(torch.ones(2, 3)).sum().backward()
        optimizer.step()
        return torch.equal(unused.weight, before)

    assert launch(fn, ranks=2).results == [True, True]


def test_ranks_may_own_nothing():
    def fn():
        parameter = nn.Parameter(torch.tensor(3.0))
        optimizer = Zero1([parameter], torch.optim.SGD, lr=1.0)
        parameter.grad = torch.tensor(1.0)
        optimizer.step()
        return parameter.item(), len(optimizer.state)

    assert launch(fn, ranks=3).results == [(2.0, 1), (2.0, 0), (2.0, 0)]


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7])
def test_a_layout_gives_every_element_to_one_rank(ranks):
    layout = Layout.of([("a", (3, 5)), ("b", ()), ("c", (0, 2)), ("d", (7,))], ranks)
    assert layout.used == 23 and layout.share * ranks == layout.numel == formulas.padded([23], ranks)
    owned = [(p.name, i) for rank in range(ranks) for p in layout.pieces(rank) for i in range(p.start, p.stop)]
    expected = [(name, i) for name, size in (("a", 15), ("b", 1), ("d", 7)) for i in range(size)]
    assert owned == expected
