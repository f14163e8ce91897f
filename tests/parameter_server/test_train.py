"""Training as one call: means over tokens, uneven and empty shares, and what each rank tells."""

import torch
import torch.distributed as dist
from small import LOSS, assert_weights, batches, mlp

from parallel_lab import launch, model
from parallel_lab.synchronization import Asynchronous, Synchronous, train


def padded(outputs, targets):
    """A mean over the targets that are not padding."""
    return LOSS(outputs, targets, ignore_index=-100)


def total(outputs, targets):
    """The same as a sum and a count."""
    return LOSS(outputs, targets, ignore_index=-100, reduction="sum"), (targets != -100).sum()


def uneven():
    """Batches of which some samples are padding: all of worker 0's in the second; the third is too small for all."""
    data = batches(3)
    data[0][1][:2] = -100
    data[1][1][:3] = -100
    return [*data[:2], tuple(tensor[:2] for tensor in data[2])]


def test_every_mean_is_over_what_counts():
    def fn():
        found = {}
        for servers in (1, 2):
            group = dist.new_group(list(range(servers + 3)))
            if dist.get_rank() < servers + 3:
                for name, loss in {"mean": padded, "sum and count": total}.items():
                    options = {"loss": loss, "servers": servers, "group": group, "lr": 0.1, "momentum": 0.9}
                    found[servers, name] = train(Synchronous(), mlp(), uneven(), torch.optim.SGD, **options)
        return found

    run = launch(fn, ranks=5, timeout=30)
    expected = model.train(mlp(), uneven(), torch.optim.SGD, loss=padded, lr=0.1, momentum=0.9)
    for servers, name in run[0]:
        for rank in range(servers, servers + 3):
            assert_weights(run[rank][servers, name].weights, expected.weights)
    assert_weights(run[0][1, "mean"].weights, expected.weights)
    assert run[0][2, "mean"].weights == {}
    assert [len(run[rank][1, "mean"].losses) for rank in range(4)] == [0, 2, 3, 2]


def test_own_batches_for_some_steps_under_another_rule():
    def own(worker, workers):
        return batches(2 + worker)

    def fn():
        mine = mlp()
        done = train(Asynchronous(), mine, own, torch.optim.SGD, steps=2, loss=LOSS, lr=0.1)
        return done, mine.state_dict()

    run = launch(fn, ranks=3, timeout=30)
    assert [len(done.losses) for done, _ in run.results] == [0, 2, 2]
    assert len(run[0][0].updates) == 4
    for done, mine in run.results:
        assert_weights(mine, mlp().state_dict(), atol=0)
        assert_weights(done.weights, run[0][0].weights, atol=0)
