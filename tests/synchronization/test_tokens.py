"""A loss that is a mean over tokens, some of which do not count: equal to one process, however they are spread."""

import importlib
import sys
from copy import deepcopy

import cloudpickle
import pytest
import torch
import torch.distributed as dist
from kit import F64, same, worlds
from torch import nn
from torch.nn import functional

from parallel_lab import launch
from parallel_lab.synchronization import LocalSteps, Synchronous, train

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def mean(outputs, targets):
    return functional.cross_entropy(outputs.flatten(0, 1), targets.flatten(), ignore_index=-100)


def total_and_count(outputs, targets):
    loss = functional.cross_entropy(outputs.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum")
    return loss, (targets != -100).sum()


def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(5, 6), nn.Linear(6, 5)).to(F64)


def padded_batch():
    """Four sequences with 1, 2, 6 and no targets that count."""
    inputs = torch.randint(0, 5, (4, 6), generator=torch.Generator().manual_seed(1))
    targets = inputs.roll(1, 1).clone()
    targets[0, 1:] = targets[1, 2:] = targets[3, :] = -100
    return inputs, targets


def test_padding_weighs_nothing():
    batches, sgd = [padded_batch()] * 2, {"optimizer_class": torch.optim.SGD, "lr": 1.0}

    def fn(group):
        found = []
        for loss in (mean, total_and_count):
            found.append(train(Synchronous(), make(), batches, loss=loss, group=group, **sgd))
            found.append(train(LocalSteps(1), make(), batches, loss=loss, group=group, **sgd))
            if group.size() > 1:
                served = train(Synchronous(), make(), batches, loss=loss, servers=1, group=group, **sgd)
                found += [served] if dist.get_rank() else []
        return found

    alone = make()
    optimizer, losses = torch.optim.SGD(alone.parameters(), lr=1.0), []
    for inputs, targets in batches:
        optimizer.zero_grad()
        value = mean(alone(inputs), targets)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    start = deepcopy(make()).state_dict()
    assert max((alone.state_dict()[name] - start[name]).abs().max() for name in start) > 0.1
    for n, results in worlds(fn).items():
        for rank, records in enumerate(results):
            assert len(records) == (6 if n > 1 and rank else 4)
            for record in records:
                same(record.weights, alone.state_dict())
            torch.testing.assert_close(records[0].losses, losses)


def test_the_old_spelling_still_trains():
    """Programs from before the folder was renamed run on, with a warning."""
    with pytest.warns(DeprecationWarning, match="synchronization"):
        old = importlib.import_module("parallel_lab.synchronisation").synchronous
    batches, sgd = [padded_batch()], {"optimizer_class": torch.optim.SGD, "loss": mean, "lr": 1.0}

    def fn():
        return old.train(make(), batches, **sgd).weights, train(Synchronous(), make(), batches, **sgd).weights

    before, now = launch(fn, ranks=2)[0]
    assert all(torch.equal(before[name], now[name]) for name in now)
