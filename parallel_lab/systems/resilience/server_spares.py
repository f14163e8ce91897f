"""What outlives a server: snapshots of its shard on disk, and spare ranks that go on from the last one.

Li et al. 2014 copy each range to neighbors (section 4.4), so that no update is lost. A snapshot is cheaper, since
nothing crosses the network, and loses the updates made after it: gradient descent makes up for them.

A worker whose connection to a server breaks turns to the first spare. A push that was under way is lost, and so are the
updates since the snapshot: the worker pulls what the spare has, and goes on from there. A spare can take over any
shard, and several. Of the ranks, the first serve, then come the spares, and the others work. Workers and servers are a
group of their own, in which all goes on as without spares.
"""

import contextlib
import os
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab.agree.arguments import whole
from parallel_lab.parameter_server import server, wire
from parallel_lab.parameter_server.rules import Rule
from parallel_lab.parameter_server.server import Served, Server, Shard, side_by_side
from parallel_lab.parameter_server.shards import bounds, flat, trainable
from parallel_lab.parameter_server.wire import BYE, Header, Line, Lost, Message
from parallel_lab.parameter_server.worker import Worker
from parallel_lab.trace import recorder


class Snapshots:
    """Writes a shard at the start and after each `every` updates: `serve(..., on_update=Snapshots(...))`.

    A shard is a file in `folder`, which is made if it is missing. With `resume`, the run begins from what stands there.
    """

    def __init__(
        self, folder: str | os.PathLike, model: nn.Module, *, servers: int = 1, every: int = 10, resume: bool = False
    ) -> None:
        self.folder, self.every, self._resume = Path(folder), whole("every", every), resume
        kept = trainable(model)
        self._layout = {"servers": servers, "dtype": str(next(iter(kept.values())).dtype)}
        self._layout |= {name: list(p.shape) for name, p in kept.items()}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.folder).close()
        except OSError as error:
            raise ValueError(f"the folder {str(folder)!r} of snapshots cannot be written: {error}") from None

    def __call__(self, shard: Shard) -> None:
        """Writes the shard if it is time, or goes back to its snapshot at the start of a run that resumes."""
        if self._resume:
            self._resume = False
            self.restore(shard)
        elif shard.state.version % self.every == 0:
            self.save(shard)

    def file(self, shard: int) -> Path:
        """Where the snapshot of a shard stands."""
        return self.folder / f"shard{shard}.pt"

    def save(self, shard: Shard) -> None:
        """Writes the version, the parameters and the state of the optimizer: all or nothing."""
        path = self.file(shard.index)
        waiting = path.with_suffix(f".{os.getpid()}.part")
        content = {"version": shard.state.version, "w": shard.w.detach(), "optimizer": shard.optimizer.state_dict()}
        try:
            torch.save({"layout": self._layout, **content}, waiting)
            waiting.replace(path)  # a server that dies while it writes leaves the snapshot before
        finally:
            waiting.unlink(missing_ok=True)

    @torch.no_grad()
    def restore(self, shard: Shard) -> None:
        """Goes back to the last snapshot of the shard, if it is whole, and of this model and number of servers."""
        path = self.file(shard.index)
        try:
            content = torch.load(path, weights_only=True)
            layout, version, w, optimizer = (content[name] for name in ("layout", "version", "w", "optimizer"))
        except FileNotFoundError:
            raise ValueError(f"{path}: there is no snapshot of shard {shard.index}") from None
        except Exception as error:  # torch raises many kinds
            raise ValueError(f"{path} is no snapshot, or a damaged one: {error}") from None
        for name in self._layout | layout:
            if (found := layout.get(name)) != (mine := self._layout.get(name)):
                text = f"its {name} is {found}, and that of this model is {mine}"
                raise ValueError(f"{path} is of another layout: {text}. Delete it, or serve what it was made for.")
        shard.w.copy_(w)
        shard.optimizer.load_state_dict(optimizer)
        shard.state.version = version
        shard.answer.header = Header(version=version)


@dataclass
class Spared(Served):
    """What one spare did."""

    taken: list[int]  # the shards that it took over
    lost: int  # updates that died with the servers: those after the last snapshot that a worker had read


class Spare(Server):
    """A server of one shard that begins when the first worker asks it."""

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

        When two servers have died, two spares may hold a push of one worker each, and would wait forever.
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
        """Asks every server in a thread of its own: standing still at one, it would not notice that another has died.

        Then that one's spare, and with it the other workers, would wait to hear from this one.
        """
        side_by_side([partial(self._insist, shard, what) for shard in self.order])

    def _insist(self, shard: int, what: int) -> None:
        while True:
            with self._reaching(shard):
                return self.receive(shard, self.ask(shard, what))

    def lost(self, shard: int, error: Lost) -> None:
        """Turns to the first spare that lives; without one, as of `Worker`."""
        with self._turning:
            line = self.lines[shard]
            self._spares = [spare for spare in self._spares if line != Line(self.everyone, spare, shard)]
            if not self._spares:
                super().lost(shard, error)
            self.lines[shard] = Line(self.everyone, self._spares[0], shard)

    def leave(self) -> None:
        """Leaves the servers, and tells the spares that this worker will not come."""
        super().leave()
        bye = Message()
        bye.header = Header(BYE, self.step)
        for line in [Line(self.everyone, spare, shard) for spare in self._spares for shard in self.order]:
            if line not in self.lines:
                with contextlib.suppress(Lost):
                    wire.wait_for(line.send(bye, self.step, **wire.ASK))
        self._spares = []

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
    """As `parameter_server.serve`, on each server, and on each spare, where a `Spared` is returned."""
    everyone, core = groups(servers, spares)
    if everyone.rank() < servers:
        options: dict[str, Any] = {"servers": servers, "on_update": snapshots, "group": core, **optimizer_kwargs}
        return server.serve(model, optimizer_class, rule, **options)
    w, first, before = flat(model), servers + spares, recorder().sent_bytes
    workers, make = everyone.size() - first, partial(optimizer_class, **optimizer_kwargs)
    shards = [Shard(index, w[cut], make, rule, workers) for index, cut in enumerate(bounds(len(w), servers))]
    stand_ins = [Spare(shard, everyone, first, list(range(workers)), snapshots) for shard in shards]
    side_by_side([spare.run for spare in stand_ins])
    taken = [spare for spare in stand_ins if spare.taken]
    return Spared(
        updates=[update for spare in taken for update in spare.shard.updates],
        version=max((spare.shard.state.version for spare in taken), default=0),
        parameters=torch.cat([w[:0], *(spare.shard.w.detach() for spare in taken)]),
        sent_bytes=recorder().sent_bytes - before,
        taken=[spare.shard.index for spare in taken],
        lost=max((spare.lost for spare in taken), default=0),
    )
