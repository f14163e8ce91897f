"""The strategies that run through a parameter server: one function, which each of them calls with its own rule."""

from collections.abc import Callable, Iterable

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab import parameter_server
from parallel_lab.model.data import Batch
from parallel_lab.model.reference import LossFn
from parallel_lab.parameter_server import Push, Rule
from parallel_lab.synchronization.batches import Source
from parallel_lab.synchronization.job import sent_bytes
from parallel_lab.synchronization.record import Record, Update


def train(
    model: nn.Module,
    batches: Source,
    optimizer_class: Callable[..., torch.optim.Optimizer],
    rule: Rule,
    *,
    steps: int | None,
    loss: LossFn,
    servers: int,
    group: dist.ProcessGroup | None,
    options: dict,
) -> Record:
    """`parameter_server.train` under `rule`, told as a `Record`.

    The first `servers` ranks serve and have no losses; the others work, `steps` gradients each. Each server keeps the
    updates of its own shard, so with one server its `updates` are the whole order of events.
    """
    before = sent_bytes()
    source = batches if callable(batches) else list[Batch](batches)
    options = {"servers": servers, "consistency": rule, "loss": loss, "steps": steps, "group": group, **options}
    told = parameter_server.train(model, source, optimizer_class, **options)
    sent = sent_bytes() - before
    return Record(told.losses, told.seconds, told.staleness, told.weights, sent, updates_of(told.pushes))


def updates_of(pushes: Iterable[Push]) -> list[Update]:
    """What became of each push of one server, in the order of use, in the form that virtual time uses as well."""
    return [
        Update(
            push.worker,
            started_s=push.time_s,
            finished_s=push.time_s,
            read_version=push.read,
            version=push.version + (not push.dropped),
            staleness=push.staleness,
            dropped=push.dropped,
            step=push.step,
            computed_s=push.time_s,
        )
        for push in pushes
    ]
