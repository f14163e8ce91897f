"""A parameter server: keeps a shard, answers pulls, applies pushes.

Li et al., "Scaling distributed machine learning with the parameter server", OSDI 2014, sections 2.2 to 3.5; Dean et
al., "Large scale distributed deep networks", NeurIPS 2012, section 4.1.

The parameters live on servers; each worker pulls them, computes a gradient on its own data, and pushes it. Which
pushes make an update, and who waits for whom, is the consistency's affair. A server sees its shard alone, and workers
speak with servers alone, never with each other: so one that dies stops nobody.

Sharded over the servers: parameters and optimizer state. Replicated on each worker: parameters and gradients.
With n workers, s servers and a vector of S bytes, a step sends S from each worker and n S / s from each server, beside
requests of 48 bytes. A server holds S / s of parameters, as much for each state of the optimizer, and n S / s of
gradients; a worker holds the model and its gradients.

Nothing is copied on the way: a server sends the parameters from where they are, a worker receives them to where they
belong and sends the gradients from where they are (see `answer` and `vector` for what cannot be done so).

A server has a thread for each worker, which serves that worker's requests in their order. The threads meet in `Shard`.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab.agree.arguments import check_rate, whole
from parallel_lab.agree.same_model import check_same_model
from parallel_lab.parameter_server import handshake, snapshots, vector, wire
from parallel_lab.parameter_server.desk import Desk
from parallel_lab.parameter_server.record import Record
from parallel_lab.parameter_server.rules import Rule
from parallel_lab.parameter_server.shard import Shard


def serve(
    model: nn.Module,
    optimizer_class: Callable[..., torch.optim.Optimizer],
    rule: Rule,
    *,
    servers: int = 1,
    spares: int = 0,
    snapshot: str | os.PathLike | None = None,
    every: int = 10,
    resume: bool = False,
    group: dist.ProcessGroup | None = None,
    **optimizer_kwargs: Any,
) -> Record:
    """Serves this rank's shard of `model` until every worker has finished, left or died.

    The first `servers` ranks of the group call this, the others make a `Worker`. The parameters begin as those of this
    rank's `model`, which is left as it is.

    Args:
        rule: a strategy of `synchronization`, such as `Synchronous()`.
        spares: the last `spares` of the servers begin with no shard, and take over that of a server that has died, from
            its last snapshot; they need `snapshot`.
        snapshot: a folder, where each server writes its shard at the start and after each `every` updates.
        resume: begin from the snapshots in that folder.
        optimizer_kwargs: for `optimizer_class`, which has to treat each element alone.

    Raises TypeError or ValueError before the first message, if the arguments make no sense, the snapshot cannot be
    written or is of another layout, or this rank's model differs from that of most.
    """
    files = Files(snapshots.prepare(snapshot) if snapshot is not None else None, every, resume)
    return Server(model, Maker(optimizer_class, optimizer_kwargs), rule, servers, spares, files, group).run()


@dataclass(frozen=True)
class Files:
    """Where snapshots go (None: nowhere), after how many updates each, and whether to begin from them."""

    folder: Path | None
    every: int
    resume: bool

    def check(self, spares: int) -> None:
        """ValueError if a folder is missing or `every` is not a whole number above 0."""
        whole("every", self.every)
        if (spares or self.resume) and self.folder is None:
            raise ValueError("spares and resume need snapshot=<a folder>: there is nothing else to begin from")


@dataclass(frozen=True)
class Maker:
    """Makes optimizers of one kind."""

    optimizer_class: Callable[..., torch.optim.Optimizer]
    settings: Mapping[str, Any]

    def __call__(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """An optimizer of these parameters; errors are those of the class."""
        return self.optimizer_class(parameters, **self.settings)

    def check(self) -> None:
        """TypeError or ValueError if no optimizer can be made: found out before the first message."""
        check_rate(dict(self.settings))
        self([nn.Parameter(torch.zeros(1))])


class Server:
    """One server rank: the shards that it holds, and a thread for each worker. The arguments are those of `serve`."""

    def __init__(
        self, model: nn.Module, make: Maker, rule: Rule, servers: int, spares: int, files: Files, group
    ) -> None:
        self.group = handshake.members(group, servers, spares)
        self.place, self.servers = self.group.rank(), servers
        self.workers = range(self.group.size() - servers)
        for check in (
            lambda: handshake.check_rule(rule, len(self.workers), servers - spares),
            lambda: files.check(spares),
            make.check,
        ):
            check()
        self.layout, self.values = vector.layout_of(model, servers - spares), vector.parameters_of(model)
        self.make, self.rule, self.files = make, rule, files
        self.gone: set[int] = set()
        self.shards: dict[int, Shard] = {}
        self.taken: list[int] = []
        self._opening = threading.Lock()
        self._ended: SimpleQueue[tuple[Desk, Exception | None]] = SimpleQueue()
        if self.place < self.layout.servers:
            shard = self._open(self.place)
            shard.restore() if files.resume else shard.save()
        check_same_model(model, self.group, servers=self.layout.servers)

    def run(self) -> Record:
        """Serves until every worker is gone; raises what went wrong in a thread."""
        began_s, sent_bytes = time.monotonic(), 0
        for worker in self.workers:
            threading.Thread(target=self._handle, args=(worker,), daemon=True, name=f"worker {worker}").start()
        for _ in self.workers:
            desk, error = self._ended.get()
            sent_bytes += desk.sent_bytes
            if error is not None:
                raise error
        return self._record(time.monotonic() - began_s, sent_bytes)

    def shard(self, index: int) -> Shard:
        """A shard that this server holds, or that of a dead server, which it then takes over from its snapshot."""
        with self._opening:
            if index not in self.shards:
                self._open(index).restore()
                self.taken.append(index)
            return self.shards[index]

    def told(self, worker: int, step: int) -> None:
        """A worker has made `step` steps: every shard here may know, also one for which it has not asked yet."""
        with self._opening:
            for shard in self.shards.values():
                shard.told(worker, step)

    def _open(self, index: int) -> Shard:
        values = self.values[self.layout.bounds[index]]
        workers, files = set(self.workers) - self.gone, self.files
        shard = Shard(self.layout, index, values, self.make, self.rule, workers, files.folder, files.every)
        self.shards[index] = shard
        return shard

    def _handle(self, worker: int) -> None:
        """The thread of one worker: serves it until it leaves or dies, and tells `run` how that came."""
        desk, error = Desk(self.group, self.servers + worker, worker, self), None
        try:
            with contextlib.suppress(wire.Lost):  # it died: the others go on without it
                desk.serve()
            self.leave(worker)
        except Exception as wrong:
            error = wrong
        self._ended.put((desk, error))

    def leave(self, worker: int) -> None:
        """A worker has made its last push, or has died: the rule counts it no more, on any shard."""
        with self._opening:
            self.gone.add(worker)
            for shard in self.shards.values():
                shard.leave(worker)

    def _record(self, seconds: float, sent_bytes: int) -> Record:
        role = "server" if self.place < self.layout.servers else "spare"
        record = Record(role, seconds=seconds, sent_bytes=sent_bytes, taken=self.taken)
        for index, shard in self.shards.items():
            record.pushes += shard.pushes
            record.versions += shard.versions
            record.lost += shard.lost
            record.weights |= vector.named_pieces(self.layout, index, shard.parameter.detach())
        return record
