"""Ranks with different numbers of batches: the same weights as one process that has all of them.

Tolerance: float64, 1e-12; only the order of sums differs.
"""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from parallel_lab import RankFailed, launch
from parallel_lab.data_parallel import DDP
from parallel_lab.model import reference

TOLERANCE = 1e-12
ROWS = 2


def batches(steps):
    """For each step the parts (inputs, targets) of the ranks that have a batch: rank r has steps[r] of them."""
    generator = torch.Generator().manual_seed(3)
    made = {}
    for rank, count in enumerate(steps):
        for step in range(count):
            x = torch.randn(ROWS, 6, generator=generator, dtype=torch.float64)
            made[step, rank] = x, torch.randint(4, (ROWS,), generator=generator)
    return made


def together(made, places):
    """The parts at `places`, (step, rank) each, as one batch."""
    return tuple(torch.cat(column) for column in zip(*[made[place] for place in places], strict=True))


def train(steps, extra, optimizer_class, kwargs, group=None):
    """Uneven batches inside join, then `extra` even steps that show whether the optimizers still agree."""
    n, rank, made = len(steps), dist.get_rank(), batches([s + extra for s in steps])
    net = DDP(reference.build((6, 8, 4), dtype=torch.float64), bucket_bytes=200, group=group)
    optimizer = optimizer_class(net.parameters(), **kwargs)

    def step(number, ranks):
        x, y = made[number, rank]
        optimizer.zero_grad()
        (nn.functional.cross_entropy(net(x), y) * n / ranks).backward()
        optimizer.step()

    with net.join(optimizer):
        for number in range(steps[rank]):
            step(number, sum(count > number for count in steps))
    joined = {name: value.clone() for name, value in net.state_dict().items()}
    for number in range(extra):
        step(steps[rank] + number, n)
    return joined, net.state_dict()


STEPS = ([3], [3, 1], [0, 2], [2, 3, 1], [1, 4, 2, 2], [2, 2])
OPTIMIZERS = {"sgd": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}), "adamw": (torch.optim.AdamW, {"lr": 1e-2})}


@pytest.fixture(scope="module")
def trained():
    def fn():
        groups = {n: dist.new_group(range(n)) for n in (1, 2, 3, 4)}
        mine = [steps for steps in STEPS if dist.get_rank() < len(steps)]
        return {
            (str(steps), name): train(steps, 1, *OPTIMIZERS[name], groups[len(steps)])
            for steps in mine
            for name in OPTIMIZERS
        }

    return launch(fn, ranks=4).results


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weights_are_those_of_one_process(trained, steps, name):
    optimizer, kwargs = OPTIMIZERS[name]
    model, loss = reference.build((6, 8, 4), dtype=torch.float64), nn.functional.cross_entropy
    made = batches([s + 1 for s in steps])
    ranks = range(len(steps))
    uneven = [together(made, [(step, r) for r in ranks if steps[r] > step]) for step in range(max(steps))]
    even = together(made, [(steps[r], r) for r in ranks])
    joined = reference.train(model, uneven, optimizer, loss=loss, **kwargs).weights
    further = reference.train(model, [*uneven, even], optimizer, loss=loss, **kwargs).weights
    for weights, more in [trained[rank][str(steps), name] for rank in ranks]:
        for name in joined:
            torch.testing.assert_close(weights[name], joined[name], rtol=0, atol=TOLERANCE)
            torch.testing.assert_close(more[name], further[name], rtol=0, atol=TOLERANCE)


def with_buffers(steps):
    torch.manual_seed(0)
    net = DDP(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)))
    with net.join():
        for step in range(steps[dist.get_rank()]):
            net(torch.randn(5, 3) + step).sum().backward()
    return {name: b.clone() for name, b in net.module.named_buffers()}


def test_buffers_come_from_a_rank_that_was_there_to_the_end():
    results = launch(with_buffers, [1, 3, 3], ranks=3).results
    for buffers in results:
        assert buffers["1.num_batches_tracked"] == 3
        for name, value in buffers.items():
            assert torch.equal(value, results[1][name])


def unused_everywhere(steps):
    net = DDP(nn.ModuleDict({"a": nn.Linear(2, 2), "never": nn.Linear(2, 2)}))
    net.module.forward = lambda x: net.module["a"](x)
    with net.join():
        for _ in range(steps[dist.get_rank()]):
            net.zero_grad()
            net(torch.ones(1, 2)).sum().backward()
    return net.module["never"].weight.grad is None, net.module["a"].weight.grad.abs().sum().item()


def test_a_parameter_that_nobody_used_is_settled_with_those_that_left():
    assert [never for never, _ in launch(unused_everywhere, [1, 3], ranks=2).results] == [True, True]


def test_even_batches_cost_announcements_only():
    run = launch(train, [2, 2], 0, torch.optim.SGD, {"lr": 0.1}, ranks=2)
    kinds = [(s.kind, s.bytes) for s in run.trace.of(0) if s.phase == "join" or s.kind == "broadcast"]
    assert kinds.count(("all_reduce", 32)) == 2 + 1
    assert [kind for kind, _ in kinds].count("broadcast") == 2, "weights at the start and the order of buckets"


def fails_inside():
    net = DDP(nn.Linear(2, 2))
    with net.join():
        if dist.get_rank() == 1:
            raise KeyError("lost batch")
        net(torch.ones(1, 2)).sum().backward()


def test_an_error_inside_is_not_hidden():
    with pytest.raises(RankFailed, match="lost batch") as failed:
        launch(fails_inside, ranks=2)
    assert failed.value.rank == 1
