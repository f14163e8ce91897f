"""DDP ends where one process ends that has all batches, and where PyTorch's DDP ends.

Tolerance: float64, 1e-12 absolute on losses, gradients and weights of order 1: only the order of sums differs. The
model with a float32 part has 1e-6 for gradients (24 bits) and, after steps of AdamW, 1e-5 for weights.
"""

import functools

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from parallel_lab import data_parallel, launch
from parallel_lab.data_parallel import DDP, clip_grad_norm_, ddp, mean_hook, shard_batch
from parallel_lab.data_parallel.extras.hooks import sum_hook
from parallel_lab.model import GPTConfig, reference
from parallel_lab.model.data import text_batches
from parallel_lab.model.gpt import loss as cross_entropy

TOLERANCE = 1e-12
STEPS, BATCH = 4, 7  # 7 is even over no number of ranks but one
SGD = (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9})
ADAMW = (torch.optim.AdamW, {"lr": 1e-2, "weight_decay": 0.1})


class Branches(nn.Module):
    """Rows with a positive first number go through `yes`, others through `no`: a rank's share may lack either.

    `never` is used by no row at all.
    """

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 5)
        self.yes, self.no, self.never = nn.Linear(5, 4), nn.Linear(5, 4), nn.Linear(5, 4)

    def forward(self, x):
        hidden, out = self.first(x), x.new_zeros(len(x), 4)
        for branch, rows in ((self.yes, x[:, 0] > 0), (self.no, x[:, 0] <= 0)):
            if rows.any():
                out = out.index_add(0, rows.nonzero().flatten(), branch(hidden[rows]))
        return out


class Mixed(nn.Module):
    """A float32 part inside float64, in the middle, so that buckets of two dtypes are filled in turns."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList([nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 4)])

    def forward(self, x):
        x = self.parts[0](x).tanh()
        return self.parts[2](self.parts[1](x.float()).tanh().double())


def build(kind):
    torch.manual_seed(1)
    if kind in ("gpt", "frozen"):
        model = reference.build(GPTConfig(seq=8, layers=2, heads=2, width=8), dtype=torch.float64)
        if kind == "frozen":
            model.embedding.positions.weight.requires_grad_(False)
            model.blocks[0].requires_grad_(False)
        return model
    if kind == "mixed":
        model = Mixed().double()
        model.parts[1].float()
        return model
    return Branches().double()


def batches(kind):
    if kind in ("gpt", "frozen"):
        return list(text_batches(8, BATCH, STEPS))
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(STEPS, BATCH, 6, generator=generator, dtype=torch.float64)
    x[:, :4, 0] = x[:, :4, 0].abs()  # the first ranks see one branch only
    return list(zip(x, torch.randint(4, (STEPS, BATCH), generator=generator), strict=True))


def train(kind, wrap, optimizer_class, kwargs, max_norm=None, accumulate=1):
    """What this rank has at the end: mean losses, gradients, weights."""
    model = build(kind)
    net = wrap(model)
    optimizer = optimizer_class(net.parameters(), **kwargs)
    losses = []
    for batch in batches(kind):
        optimizer.zero_grad()
        (x, y), weight = shard_batch(*batch)
        losses.append(0.0)
        parts = list(zip(x.tensor_split(accumulate), y.tensor_split(accumulate), strict=True))
        for i, (x_part, y_part) in enumerate(parts):
            share = weight * len(x_part) / len(x)
            if i < accumulate - 1:
                with net.no_sync():
                    (part := cross_entropy(net(x_part), y_part) * share).backward()
            else:
                (part := cross_entropy(net(x_part), y_part) * share).backward()
            losses[-1] += part.item()
        if max_norm:
            (clip_grad_norm_ if isinstance(net, DDP) else nn.utils.clip_grad_norm_)(net.parameters(), max_norm)
        optimizer.step()
    whole = torch.tensor(losses, dtype=torch.float64)
    dist.all_reduce(whole)
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return (whole / dist.get_world_size()).tolist(), gradients, model.state_dict()


small = functools.partial(DDP, bucket_bytes=2000)


torchs = functools.partial(DistributedDataParallel, find_unused_parameters=True)


def assert_same(got, expected, tolerance=TOLERANCE):
    losses, gradients, weights = got
    assert losses == pytest.approx(expected[0], rel=0, abs=tolerance)
    for mine, theirs in ((gradients, expected[1]), (weights, expected[2])):
        assert mine.keys() == theirs.keys()
        for name in mine:
            torch.testing.assert_close(
                mine[name], theirs[name], rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
            )


def one_process(kind, optimizer_class, kwargs):
    found = reference.train(build(kind), batches(kind), optimizer_class, **kwargs)
    return found.losses, found.gradients, found.weights


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("optimizer", [SGD, ADAMW], ids=["sgd", "adamw"])
@pytest.mark.parametrize("kind", ["gpt", "frozen", "branches", "mixed"])
def test_it_ends_where_one_process_ends(kind, optimizer, ranks):
    expected = one_process(kind, *optimizer)
    for got in launch(train, kind, small, *optimizer, ranks=ranks).results:
        assert_same(got, expected, 1e-5 if kind == "mixed" else TOLERANCE)


@pytest.mark.parametrize("ranks", [2, 3, 4])
@pytest.mark.parametrize("kind", ["gpt", "frozen", "branches", "mixed"])
def test_it_ends_where_pytorchs_ends(kind, ranks):
    def both():
        return train(kind, small, *ADAMW, 0.5), train(kind, torchs, *ADAMW, 0.5)

    for ours, theirs in launch(both, ranks=ranks).results:
        assert_same(ours, theirs, 1e-6 if kind == "mixed" else TOLERANCE)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("kind", ["gpt", "branches"])
def test_three_microbatches_without_sync_are_one_batch(kind, ranks):
    expected = one_process(kind, *ADAMW)
    run = launch(train, kind, functools.partial(DDP, bucket_bytes=2**30), *ADAMW, accumulate=3, ranks=ranks)
    for got in run.results:
        assert_same(got, expected)
    if kind == "gpt":
        size = 8 * sum(p.numel() for p in build(kind).parameters())
        assert [s.bytes for s in run.trace.of(0) if s.kind == "all_reduce" and s.bytes > 100] == [size] * STEPS


@pytest.mark.parametrize("wrap", [functools.partial(DDP, overlap=False), functools.partial(DDP, hook=mean_hook)])
def test_other_ways_to_the_same_mean(wrap):
    for got in launch(train, "gpt", wrap, *SGD, ranks=2).results:
        assert_same(got, one_process("gpt", *SGD))


class Naive(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)


def naive(kind, optimizer_class, kwargs):
    optimizers = []

    def optimizer_of(parameters, **kwargs):
        optimizers.append(optimizer_class(parameters, **kwargs))
        step = optimizers[0].step
        optimizers[0].step = lambda: (data_parallel.average_gradients(net.module), step())
        return optimizers[0]

    def wrap(model):
        nonlocal net
        net = Naive(model)
        return net

    net = None
    return train(kind, wrap, optimizer_of, kwargs)


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("kind", ["gpt", "frozen"])
def test_one_all_reduce_a_parameter_gives_the_same(kind, ranks):
    run = launch(naive, kind, *ADAMW, ranks=ranks)
    for got in run.results:
        assert_same(got, one_process(kind, *ADAMW))
    parameters = [p for p in build(kind).parameters() if p.requires_grad]
    reduces = [s for s in run.trace.of(0) if s.kind == "all_reduce"][:-1]
    assert len(reduces) == STEPS * len(parameters)
    assert sum(s.bytes for s in reduces) == STEPS * 8 * sum(p.numel() for p in parameters)


class Lazy:
    """Communicates when it is waited for, and not before: whoever does not wait has no mean."""

    def __init__(self, group, flat):
        self.group, self.flat = group, flat

    def wait(self):
        mean_hook(self.group, self.flat).wait()


def test_hooks_are_waited_for_and_a_ddp_that_does_not_wait_is_wrong():
    lazy = functools.partial(small, hook=Lazy)
    for got in launch(train, "gpt", lazy, *SGD, ranks=2).results:
        assert_same(got, one_process("gpt", *SGD))

    def unwaited():
        ddp.finish = lambda handle, flat: None
        return train("gpt", lazy, *SGD)

    with pytest.raises(AssertionError):
        assert_same(launch(unwaited, ranks=2)[0], one_process("gpt", *SGD))


def test_a_sum_in_place_of_the_mean_is_wrong():
    with pytest.raises(AssertionError):
        assert_same(
            launch(train, "gpt", functools.partial(DDP, hook=sum_hook), *SGD, ranks=2)[0], one_process("gpt", *SGD)
        )
