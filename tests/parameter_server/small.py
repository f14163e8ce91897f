"""A small model, its batches, and one training through servers that keeps what the tests look at."""

import sys
from dataclasses import dataclass, field

import cloudpickle
import torch

from parallel_lab import model
from parallel_lab import parameter_server as ps
from parallel_lab.model.data import share
from parallel_lab.trace import span

# Ranks get these helpers as copies and need not import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

LOSS = torch.nn.functional.cross_entropy
WIDTHS = (5, 7, 3)  # 66 parameters: neither 4 servers nor 5 divide them


def mlp(widths=WIDTHS):
    return model.build(widths, seed=1, dtype=torch.float64)


def batches(steps=8, size=7):  # seven samples: neither two nor three workers share them evenly
    draw = torch.Generator().manual_seed(3)
    each = [(torch.randn(size, 5, generator=draw), torch.randint(3, (size,), generator=draw)) for _ in range(steps)]
    return [(inputs.double(), targets) for inputs, targets in each]


@dataclass
class Worked:
    """What a worker did."""

    losses: list = field(default_factory=list)
    versions: list = field(default_factory=list)
    weights: dict = field(default_factory=dict)
    sent_bytes: int = 0


def work(worker, data, loss=LOSS):
    """Pull, forward, backward, push; `data` holds global batches, or is a function of the worker's index."""
    done = Worked()
    try:
        for mb, (inputs, targets) in enumerate(data(worker.index) if callable(data) else data):
            mine = slice(None) if callable(data) else share(len(inputs), worker.index, worker.workers)
            done.versions.append(worker.pull())
            worker.model.zero_grad(set_to_none=False)
            with span("forward", mb=mb):
                value = loss(worker.model(inputs[mine]), targets[mine])
            with span("backward", mb=mb):
                value.backward()
            done.losses.append(value.item())
            worker.push(len(inputs[mine]))
        worker.finish()
    except BaseException:
        worker.leave()
        raise
    done.weights = {name: tensor.clone() for name, tensor in worker.model.state_dict().items()}
    done.sent_bytes = worker.sent_bytes
    return done


def said(call, *arguments, **options):
    """The error that a call raises, as a rank can return it."""
    try:
        call(*arguments, **options)
    except (TypeError, ValueError) as error:
        return type(error), str(error)
    return None


def learn(rule, data, *, servers=1, optimizer=torch.optim.SGD, loss=LOSS, make=mlp, group=None, **settings):
    """One training; every rank of the group calls it."""
    net = make()
    if torch.distributed.get_rank(group) < servers:
        return ps.serve(net, optimizer, rule, servers=servers, group=group, **{"lr": 0.1} | settings)
    return work(ps.Worker(net, servers=servers, group=group), data, loss)


def assert_weights(found, expected, atol=1e-12):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=atol)
