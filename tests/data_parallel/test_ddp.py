"""DDP ends where one process ends that has all batches, and where PyTorch's DDP ends.

Tolerance: float64, 1e-12 absolute on losses, gradients and weights of order 1: only the order of sums differs. The
model with a float32 part has 1e-6 for gradients (24 bits) and, after steps of AdamW, 1e-5 for weights.

One launch of four ranks trains everything; the smaller worlds are groups of its first ranks.
"""

import functools

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from parallel_lab import launch
from parallel_lab.data_parallel import DDP, average_gradients, clip_grad_norm_, ddp, mean_hook, shard_batch
from parallel_lab.data_parallel.extras.hooks import sum_hook
from parallel_lab.model import GPTConfig, reference
from parallel_lab.model.data import text_batches
from parallel_lab.model.gpt import loss as cross_entropy

TOLERANCE = 1e-12
STEPS, BATCH = 3, 7  # 7 is even over no number of ranks but one
WORLDS = (1, 2, 3, 4)
KINDS = ("gpt", "frozen", "branches", "mixed")
SGD = (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9})
ADAMW = (torch.optim.AdamW, {"lr": 1e-2, "weight_decay": 0.1})
OPTIMIZERS = {"sgd": SGD, "adamw": ADAMW}


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


def train(kind, wrap, optimizer, group, max_norm=None, accumulate=1, average=False):
    """What this rank has at the end: mean losses, gradients, weights."""
    model = build(kind)
    net = wrap(model, group)
    optimizer_class, kwargs = optimizer
    optimizer = optimizer_class(net.parameters(), **kwargs)
    losses = []
    for batch in batches(kind):
        optimizer.zero_grad()
        (x, y), weight = shard_batch(*batch, group=group)
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
        if average:
            average_gradients(model, group=group)
        if max_norm:
            (clip_grad_norm_ if isinstance(net, DDP) else nn.utils.clip_grad_norm_)(net.parameters(), max_norm)
        optimizer.step()
    whole = torch.tensor(losses, dtype=torch.float64)
    dist.all_reduce(whole, group=group)
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return (whole / group.size()).tolist(), gradients, model.state_dict()


def wrapped(**settings):
    return lambda model, group: DDP(model, group=group, **settings)


def torchs(model, group):
    return DistributedDataParallel(model, process_group=group, find_unused_parameters=True)


def plain(model, group):
    return model


def assert_same(got, expected, tolerance=TOLERANCE):
    losses, gradients, weights = got
    assert losses == pytest.approx(expected[0], rel=0, abs=tolerance)
    for mine, theirs in ((gradients, expected[1]), (weights, expected[2])):
        assert mine.keys() == theirs.keys()
        for name in mine:
            torch.testing.assert_close(
                mine[name], theirs[name], rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
            )


@functools.cache
def one_process(kind, name):
    optimizer_class, kwargs = OPTIMIZERS[name]
    found = reference.train(build(kind), batches(kind), optimizer_class, **kwargs)
    return found.losses, found.gradients, found.weights


class Lazy:
    """Communicates when it is waited for, and not before: whoever does not wait has no mean."""

    def __init__(self, group, flat):
        self.group, self.flat = group, flat

    def wait(self):
        mean_hook(self.group, self.flat).wait()


SMALL = 2000
WAYS = {  # to the same mean: how to wrap, and what else to tell `train`
    "bare": (wrapped(bucket_bytes=SMALL, guards=[]), {}),
    "bucketed, not overlapped": (wrapped(bucket_bytes=SMALL, overlap=False), {}),
    "naive": (plain, {"average": True}),
    "a hook": (wrapped(hook=mean_hook), {}),
    "a hook that is lazy": (wrapped(bucket_bytes=SMALL, hook=Lazy), {}),
}


SOME = (("branches", "sgd"), ("gpt", "adamw"))  # at 1, 2 and 4 ranks
ALL = (*SOME, ("frozen", "sgd"), ("mixed", "adamw"))  # at 3 ranks: each model once, with either optimizer


def everything():
    """For each world: our DDP by kind and optimizer; PyTorch's beside ours; the other ways; microbatches."""
    found = {}
    groups = {world: dist.new_group(range(world)) for world in WORLDS}
    for world in range(dist.get_rank() + 1, 5):
        group, small = groups[world], wrapped(bucket_bytes=SMALL)
        for kind, name in ALL if world == 3 else SOME:
            found[world, kind, name] = train(kind, small, OPTIMIZERS[name], group)
        for kind in KINDS if world == 3 else ("branches",):
            found[world, kind] = [train(kind, wrap, ADAMW, group, max_norm=0.5) for wrap in (small, torchs)]
        for way, (wrap, settings) in WAYS.items() if world == 3 else ():
            for kind in ("frozen", "mixed"):
                found[world, way, kind] = train(kind, wrap, SGD, group, **settings)
        for kind in ("gpt", "branches") if world == 2 else ():
            found[world, "microbatches", kind] = train(kind, small, ADAMW, group, accumulate=3)
    return found


@pytest.fixture(scope="module")
def found():
    """What each world found, a list of its ranks."""
    results = launch(everything, ranks=4, timeout=200).results
    return {key: [results[rank][key] for rank in range(key[0])] for key in results[0]}


def test_it_ends_where_one_process_ends(found):
    for world in WORLDS:
        for kind, optimizer in ALL if world == 3 else SOME:
            for got in found[world, kind, optimizer]:
                assert_same(got, one_process(kind, optimizer), 1e-5 if kind == "mixed" else TOLERANCE)


def test_it_ends_where_pytorchs_ends(found):
    for world in WORLDS:
        for kind in KINDS if world == 3 else ("branches",):
            for ours, theirs in found[world, kind]:
                assert_same(ours, theirs, 1e-6 if kind == "mixed" else TOLERANCE)


@pytest.mark.parametrize("way", WAYS)
def test_other_ways_to_the_same_mean(found, way):
    for kind in ("frozen", "mixed"):
        for got in found[3, way, kind]:
            assert_same(got, one_process(kind, "sgd"), 1e-5 if kind == "mixed" else TOLERANCE)


@pytest.mark.parametrize("kind", ["gpt", "branches"])
def test_three_microbatches_without_sync_are_one_batch(found, kind):
    for got in found[2, "microbatches", kind]:
        assert_same(got, one_process(kind, "adamw"))


def broken():
    """A DDP that does not wait, and one that sums."""
    group = dist.group.WORLD
    summed = train("gpt", wrapped(hook=sum_hook), SGD, group)
    ddp.finish = lambda handle, flat: None
    return summed, train("gpt", wrapped(bucket_bytes=SMALL, hook=Lazy), SGD, group)


def test_a_ddp_that_sums_or_does_not_wait_is_wrong():
    for got in launch(broken, ranks=2)[0]:
        with pytest.raises(AssertionError):
            assert_same(got, one_process("gpt", "sgd"))


def test_one_all_reduce_a_parameter_sends_as_much_in_more_messages():
    def fn():
        train("frozen", plain, ADAMW, dist.group.WORLD, average=True)

    trace = launch(fn, ranks=2).trace
    parameters = [p for p in build("frozen").parameters() if p.requires_grad]
    reduces = [s for s in trace.of(0) if s.kind == "all_reduce"][:-1]
    assert len(reduces) == STEPS * len(parameters)
    assert sum(s.bytes for s in reduces) == STEPS * 8 * sum(p.numel() for p in parameters)
