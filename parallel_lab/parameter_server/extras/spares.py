"""Spares: ranks that wait for a server to die, and go on from the last snapshot of its shard.

A worker whose connection to a server breaks turns to the first spare. A push that was under way is lost, and so are the
updates since the snapshot: the worker pulls what the spare has, and goes on from there. A spare can take over any
shard, and several. It plugs into `Server` and `Worker` by their seams `hear`, `may_answer`, `read` and `lost`.

Of the ranks, the first serve, then come the spares, and the others work. The workers and servers among them are a group
of their own, in which all goes on as without spares.
"""

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab.agree.arguments import whole
from parallel_lab.parameter_server import server, wire
from parallel_lab.parameter_server.extras.snapshots import Snapshots
from parallel_lab.parameter_server.rules import Rule
from parallel_lab.parameter_server.server import Served, Server, Shard, side_by_side
from parallel_lab.parameter_server.shards import bounds, flat
from parallel_lab.parameter_server.wire import BYE, Header, Line, Lost, Message
from parallel_lab.parameter_server.worker import Worker


@dataclass
class Spared(Served):
    """What one spare did."""

    taken: list[int] = field(default_factory=list)  # the shards that it took over
    lost: int = 0  # updates that died with the servers: those after the last snapshot that a worker had read


class Spare(Server):
    """A server of one shard that begins when the first worker asks it; the arguments are those of `Server`."""

    def __init__(self, shard: Shard, group: dist.ProcessGroup, first: int, turns: list[int], snaps: Snapshots) -> None:
        super().__init__(shard, group, first, turns)
        self.snapshots, self.taken, self.lost = snaps, False, 0
        self.in_step = False  # answer in any order: a worker may not know yet that the server has died
        self._heard: set[int] = set()

    def hear(self, worker: int, ask: Header) -> None:
        """Learns from an ask how far the worker is; the first one makes this spare go back to the snapshot."""
        with self._changed:
            state = self.shard.state
            state.clocks[worker] = int(ask.step)
            if ask.what == BYE:
                return
            if not self.taken:
                self.snapshots.restore(self.shard)
                self.shard.on_update, self.taken, self._restored = self.snapshots, True, state.version
            if worker not in self._heard:  # what it read last, it read from the dead server
                self._heard.add(worker)
                self.lost = max(self.lost, int(ask.version) - self._restored)
            self._give_up_lost_pushes()
            self._changed.notify_all()

    def may_answer(self, worker: int) -> bool:
        """At once to who has not been heard; then as of `Server`."""
        return worker not in self._heard or super().may_answer(worker)

    def _give_up_lost_pushes(self) -> None:
        """Updates with the pushes held, if every live worker has made one as late, which may be lost.

        When two servers have died, one spare may hold worker 0's push and the other one worker 1's: if each waited for
        one more, they would wait for ever.
        """
        state = self.shard.state
        if self.shard.rule.in_step and state.held:
            first = min(state.clocks[worker] for worker in state.held)
            if all(state.clocks[worker] >= first for worker in state.live):
                self.shard.update(list(state.held))


class SparedWorker(Worker):
    """A worker that turns to a spare when a server has died; `servers` and `spares` are numbers of ranks."""

    def __init__(self, model: nn.Module, *, servers: int = 1, spares: int = 1) -> None:
        self.everyone, core = groups(servers, spares)
        self._spares = list(range(servers, servers + spares))
        self._turning = threading.Lock()
        super().__init__(model, servers=servers, group=core)

    def read(self, what: int, together: bool) -> None:
        """Asks every server at the same time, each in a thread of its own.

        A worker that stood still at one server would not notice that another one has died. Then that one's spare, and
        with it the other workers, would wait to hear from this one.
        """
        self._may = "nothing"
        side_by_side([partial(self._insist, shard, what) for shard in self.order])

    def _insist(self, shard: int, what: int) -> None:
        read = False
        while not read:
            with self._reaching(shard):
                self.receive(shard, self.ask(shard, what))
                read = True

    def lost(self, shard: int, error: Lost, line: Line) -> None:
        """Turns to the first spare that lives; without one, as of `Worker`."""
        with self._turning:
            dead = line.peer if line.group is self.everyone else -1
            self._spares = [spare for spare in self._spares if spare != dead]
            if not self._spares:
                super().lost(shard, error, line)
            fresh = self.lines[shard] = Line(self.everyone, self._spares[0], shard)
            fresh.sent_bytes = line.sent_bytes

    def leave(self) -> None:
        """Leaves the servers, and tells the spares that this worker will not come."""
        super().leave()
        spares, self._spares = self._spares, []
        for spare in spares:
            for shard in self.order:
                if (self.lines[shard].group, self.lines[shard].peer) != (self.everyone, spare):
                    ask = Message()
                    ask.header = Header(BYE, self.step)
                    with contextlib.suppress(Lost):
                        wire.wait_for(Line(self.everyone, spare, shard).send(ask, self.step, **wire.ASK))

    def finish(self) -> int:
        """As of `Worker`; then the spares are told as well."""
        version = super().finish()
        self.leave()
        return version


def groups(servers: int, spares: int) -> tuple[dist.ProcessGroup, dist.ProcessGroup]:
    """All ranks, and those that are no spares; every rank calls this."""
    whole("servers", servers)
    whole("spares", spares)
    everyone = wire.members(None, servers + spares)
    ranks = [rank for rank in range(everyone.size()) if not servers <= rank < servers + spares]
    return everyone, dist.new_group(ranks)  # type: ignore[return-value]


def serve(
    model: nn.Module,
    optimizer_class: Callable[..., torch.optim.Optimizer],
    rule: Rule,
    *,
    snapshots: Snapshots,
    servers: int = 1,
    spares: int = 1,
    **optimizer_kwargs: Any,
) -> Served:
    """As `parameter_server.serve`, on each server and each spare; the other ranks make a `SparedWorker`.

    Servers write to `snapshots`, and spares read from there. On a spare, a `Spared` is returned.
    """
    everyone, core = groups(servers, spares)
    if everyone.rank() < servers:
        options: dict[str, Any] = {"servers": servers, "on_update": snapshots, "group": core, **optimizer_kwargs}
        return server.serve(model, optimizer_class, rule, **options)
    w, workers, first = flat(model), everyone.size() - servers - spares, servers + spares
    stand_ins = []
    for index, cut in enumerate(bounds(len(w), servers)):
        shard = Shard(index, w[cut], lambda one: optimizer_class(one, **optimizer_kwargs), rule, workers)
        stand_ins.append(Spare(shard, everyone, first, list(range(workers)), snapshots))
    served = side_by_side([spare.run for spare in stand_ins])
    taken = [(spare, one) for spare, one in zip(stand_ins, served, strict=True) if spare.taken]
    return Spared(
        updates=[update for _, one in taken for update in one.updates],
        version=max((one.version for _, one in taken), default=0),
        parameters=torch.cat([w[:0], *(one.parameters for _, one in taken)]),
        sent_bytes=sum(one.sent_bytes for one in served),
        taken=[spare.shard.index for spare, _ in taken],
        lost=max((spare.lost for spare, _ in taken), default=0),
    )
