"""What workers and servers send to each other, in which order, and how a rank waits for it.

Each message goes between one worker and one server, and begins with a `Header` of four numbers (32 bytes):

| message | from -> to       | after the header         | phase      |
|---------|------------------|--------------------------|------------|
| ask     | worker -> server | nothing                  | `forward`  |
| answer  | server -> worker | the parameters           | `forward`  |
| push    | worker -> server | the gradient             | `backward` |

The messages of a worker and a server take turns, so both sides always know which one comes next and how long it is. In
a trace the part of a message is the shard, and its `mb` is the worker's step; an ask has a kind of its own, `ask`.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.distributed as dist

from parallel_lab.agree.arguments import whole
from parallel_lab.parameter_server.rules import Update
from parallel_lab.plan import RECV, SEND, Op, Plan
from parallel_lab.runtime import tags
from parallel_lab.runtime.group import member
from parallel_lab.trace import tag

# What a worker says: send me the parameters; I push no more, send me the final ones when all are done; I leave.
PULL, DONE, BYE = range(3)
ASK = {"kind": "ask", "phase": "forward"}
ANSWER = {"phase": "forward"}
PUSH = {"phase": "backward"}


class Lost(Exception):
    """The connection to the other side is broken: that rank has died."""


class Header(NamedTuple):
    """The first four numbers of a message, float64."""

    what: float = PULL  # of an ask; BYE also of a push
    step: float = 0  # the number of pushes that the worker made before
    version: float = 0  # of an answer, the one sent; of a push, the one it was computed from; of an ask, the last read
    weight: float = 0  # of a push: the number of samples or tokens that the gradient is a mean over


HEADER_BYTES = 8 * len(Header._fields)


class Message:
    """`memory`, uint8, for a header and, behind it, the `vector` of a shard, (elements,): both travel together."""

    def __init__(self, elements: int = 0, dtype: torch.dtype = torch.float64) -> None:
        self.memory = torch.zeros(HEADER_BYTES + elements * dtype.itemsize, dtype=torch.uint8)
        self.vector = self.memory[HEADER_BYTES:].view(dtype)

    @property
    def header(self) -> Header:
        """The header that stands in the memory now."""
        return Header(*self.memory[:HEADER_BYTES].view(torch.float64).tolist())

    @header.setter
    def header(self, header: Header) -> None:
        self.memory[:HEADER_BYTES].view(torch.float64).copy_(torch.tensor(header, dtype=torch.float64))


class Line(NamedTuple):
    """The connection between a worker and the server of one shard, seen from one of its ends; `peer` is the other."""

    group: dist.ProcessGroup
    peer: int
    shard: int

    def send(self, message: Message, mb: int, **names: str) -> dist.Work:
        """Starts to send `message`, which must stay as it is until `wait_for` returns."""
        with _broken_is_lost(), tag(part=self.shard, mb=mb, **names):
            return self.group.send([message.memory], self.peer, tags.parameter_server(self.shard))

    def receive(self, message: Message, mb: int, **names: str) -> dist.Work:
        """Starts to receive into `message`."""
        with _broken_is_lost(), tag(part=self.shard, mb=mb, **names):
            return self.group.recv([message.memory], self.peer, tags.parameter_server(self.shard))


def wait_for(work: dist.Work) -> None:
    """Waits until a message has arrived."""
    with _broken_is_lost():
        work.wait()


@contextmanager
def _broken_is_lost() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise Lost(str(error)) from error


def members(group: dist.ProcessGroup | None, servers: int) -> dist.ProcessGroup:
    """The group, if `servers` of its ranks can serve and one at least is left to work."""
    whole("servers", servers)
    group = member(group)
    if servers >= group.size():
        raise ValueError(f"servers={servers} of {group.size()} ranks leaves no worker: use fewer servers or more ranks")
    return group


def answered(shard: int, workers: int, servers: int) -> list[int]:
    """The workers in the order in which the server of `shard` answers them, if they all wait.

    They are served in groups of as many as there are servers, and each server begins a group with another worker.
    """
    return sorted(range(workers), key=lambda worker: (worker // servers, (worker - shard) % servers))


def asked(worker: int, servers: int) -> list[int]:
    """The shards in the order in which `worker` asks for them: the workers of a group begin with different ones."""
    return [(worker - k) % servers for k in range(servers)]


def plan(workers: int, servers: int, steps: int = 1, *, finish: bool = False, axis: str = "") -> Plan:
    """`steps` steps under a rule that keeps all workers in step; with `finish` all pull the final parameters."""
    for name, value in (("workers", workers), ("servers", servers), ("steps", steps)):
        whole(name, value)
    turns = [Update(worker, 0, 0, step, step + 1, 0, step=step) for step in range(steps) for worker in range(workers)]
    return plan_of(turns, workers, servers, finish=finish, axis=axis)


def plan_of(updates: Sequence[Update], workers: int, servers: int, *, finish: bool, axis: str) -> Plan:
    """What all ranks do where gradients become `updates` in this order; the first ranks serve, the others work.

    Asks hold nobody up here: they are short, and travel while the worker would wait anyway.
    """

    def at_worker(one: Update) -> list[tuple[Op, Op, Op]]:
        return [_end(servers + one.worker, server, server, one.step, axis) for server in asked(one.worker, servers)]

    def at_server(server: int, some: list[Update]) -> list[tuple[Op, Op, Op]]:
        order = (some[i] for i in answered(server, len(some), servers))
        return [_end(server, servers + one.worker, server, one.step, axis) for one in order]

    ops: list[Op] = []
    needs: dict[Op, list[Op]] = {}
    for version in range(1 + max(update.version for update in updates)):
        reading = [update for update in updates if update.read_version == version]
        used = [update for update in updates if update.version == version + 1 and not update.dropped]
        for server in range(servers):
            ops += [op for messages in at_server(server, reading) for op in messages]
            step = Op(server, "update", server, version, phase="step")
            needs |= {answer: [step._replace(mb=version - 1)] for _, answer, _ in at_server(server, reading) if version}
            if used:
                ops.append(step)
                needs[step] = [push for _, _, push in at_server(server, used)]
        for one in reading:
            forward, backward = (Op(servers + one.worker, kind, 0, one.step) for kind in "FB")
            _, answers, pushes = zip(*at_worker(one), strict=True)
            ops += [op for ask, answer, _ in at_worker(one) for op in (ask, answer)] + [forward, backward, *pushes]
            needs |= {forward: [*answers], backward: [forward]} | {push: [backward] for push in pushes}
    steps = Counter(update.worker for update in updates)
    last = [Update(worker, 0, 0, 0, 0, 0, step=steps[worker]) for worker in range(workers)] if finish else []
    for server in range(servers):
        over = [op for op in ops if op.rank == server and op.kind in ("recv", "update")]
        ops += [ask for ask, _, _ in at_server(server, last)] + [answer for _, answer, _ in at_server(server, last)]
        needs |= {answer: over for _, answer, _ in at_server(server, last)}
    ops += [op for one in last for ask, answer, _ in at_worker(one) for op in (ask, answer)]
    needs |= {op: [op.sender()._replace(kind="ask")] for op in ops if (op.kind, op.lane) == ("ask", RECV)}
    return Plan.of(ops, needs, ranks=servers + workers)


def _end(rank: int, peer: int, server: int, mb: int, axis: str) -> tuple[Op, Op, Op]:
    """The ask, the answer and the push of a worker's gradient number `mb`, at the end that is `rank`."""
    to_worker, to_server = (SEND, RECV) if rank == server else (RECV, SEND)  # a lane is named as its ops are
    return (
        Op(rank, "ask", server, mb, peer, to_server, axis, "forward"),
        Op(rank, to_worker, server, mb, peer, to_worker, axis, "forward"),
        Op(rank, to_server, server, mb, peer, to_server, axis, "backward"),
    )
