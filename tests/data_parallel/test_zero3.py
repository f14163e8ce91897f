"""Stage 3 ends where one process and FSDP2 end, with microbatches, prefetch, other units and clipping."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

from parallel_lab import launch
from parallel_lab.data_parallel import Zero3, clip_grad_norm_
from parallel_lab.model import GPTConfig, build, loss, train
from parallel_lab.model.data import text_batches
from parallel_lab.runtime import make_mesh

CONFIG = GPTConfig(seq=8, width=12, heads=2, layers=3)
BATCH, STEPS = 12, 3
OPTIMIZERS = [(torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}), (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1})]
TOLERANCE = 1e-12  # float64


def tied_and_frozen():
    model = build(CONFIG, dtype=torch.float64)
    model.embedding.positions.weight.requires_grad_(False)
    for parameter in model.blocks[1].attention.parameters():
        parameter.requires_grad_(False)
    for parameter in model.blocks[2].parameters():
        parameter.requires_grad_(False)
    return model


def trained(optimizer_class, kwargs, clip=0.0, accumulate=1, no_sync=False, prefetch=1, units=None):
    n, rank = dist.get_world_size(), dist.get_rank()
    whole = tied_and_frozen()
    model = Zero3(whole, prefetch=prefetch, units=units and units(whole))
    optimizer = optimizer_class(model.parameters(), **kwargs)
    for inputs, targets in text_batches(CONFIG.seq, BATCH, STEPS, rank=rank, world=n):
        optimizer.zero_grad()
        for i, (x, y) in enumerate(zip(inputs.tensor_split(accumulate), targets.tensor_split(accumulate), strict=True)):
            weight = len(x) * n / BATCH
            if no_sync and i + 1 < accumulate:
                with model.no_sync():
                    (loss(model(x), y) * weight).backward()
            else:
                (loss(model(x), y) * weight).backward()
        if clip:
            clip_grad_norm_(model, clip)
        optimizer.step()
    assert sum(unit.held_bytes + unit.buffer_bytes for unit in model.units) == 0
    return model.full_state_dict()


def one_process(optimizer_class, kwargs):
    return train(tied_and_frozen(), text_batches(CONFIG.seq, BATCH, STEPS), optimizer_class, **kwargs).weights


def apart(some, others):
    assert list(some) == list(others)
    return max((some[name] - others[name]).abs().max().item() for name in others)


@pytest.mark.parametrize(("optimizer_class", "kwargs"), OPTIMIZERS)
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_ends_where_one_process_ends(n, optimizer_class, kwargs):
    expected = one_process(optimizer_class, kwargs)
    for weights in launch(trained, optimizer_class, kwargs, ranks=n).results:
        assert apart(weights, expected) < TOLERANCE


@pytest.mark.parametrize("no_sync", [False, True])
def test_microbatches_add_up(no_sync):
    expected = one_process(*OPTIMIZERS[1])
    for weights in launch(trained, *OPTIMIZERS[1], accumulate=3, no_sync=no_sync, ranks=2).results:
        assert apart(weights, expected) < TOLERANCE


@pytest.mark.parametrize("prefetch", [0, 2, 9])
def test_prefetch_changes_nothing_but_the_order(prefetch):
    for weights in launch(trained, *OPTIMIZERS[1], prefetch=prefetch, ranks=2).results:
        assert apart(weights, one_process(*OPTIMIZERS[1])) < TOLERANCE


def test_units_may_be_chosen_and_lie_in_one_another():
    def units(model):
        return [*model.blocks, model.blocks[0].attention, model.head.norm]

    for weights in launch(trained, *OPTIMIZERS[1], units=units, ranks=3).results:
        assert apart(weights, one_process(*OPTIMIZERS[1])) < TOLERANCE


def test_clipping():
    model = tied_and_frozen()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for x, y in text_batches(CONFIG.seq, BATCH, STEPS):
        optimizer.zero_grad()
        loss(model(x), y).backward()
        assert nn.utils.clip_grad_norm_(model.parameters(), 0.5) > 0.5, "nothing was clipped"
        optimizer.step()
    for weights in launch(trained, torch.optim.AdamW, {"lr": 0.01}, clip=0.5, ranks=3).results:
        assert apart(weights, model.state_dict()) < TOLERANCE


@pytest.mark.parametrize("n", [2, 3, 4])
def test_ends_where_fsdp2_ends(n):
    def fn():
        mesh = make_mesh(dp=n)
        ours, theirs = Zero3(build(CONFIG, dtype=torch.float64)), build(CONFIG, dtype=torch.float64)
        for block in theirs.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(theirs, mesh=mesh)
        for model in (ours, theirs):
            optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
            for x, y in text_batches(CONFIG.seq, BATCH, STEPS, rank=dist.get_rank(), world=n):
                optimizer.zero_grad()
                loss(model(x), y).backward()
                optimizer.step()
        return ours.full_state_dict(), {name: t.full_tensor() for name, t in theirs.state_dict().items()}

    for ours, theirs in launch(fn, ranks=n).results:
        assert apart(ours, theirs) < TOLERANCE
