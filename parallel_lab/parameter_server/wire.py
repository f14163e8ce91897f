"""What workers and servers send to each other, in which order, and how a rank waits for it.

Each message goes between one worker and one server, and begins with a `Header` of four numbers (32 bytes):

| message | from -> to       | after the header         | phase      |
|---------|------------------|--------------------------|------------|
| ask     | worker -> server | nothing                  | `forward`  |
| answer  | server -> worker | the parameters           | `forward`  |
| push    | worker -> server | the gradient             | `backward` |

The messages of a worker and a server take turns: an ask, its answer, a push, an ask, its answer, a push. So both sides
always know which message comes next and how long it is. In a trace the part of a message is the shard, and its `mb` is
the worker's step; an ask has a kind of its own, `ask`.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist

from parallel_lab.agree.arguments import whole
from parallel_lab.plan import RECV, SEND, Op, Plan
from parallel_lab.runtime import tags
from parallel_lab.runtime.group import member
from parallel_lab.trace import tag

PULL, DONE, BYE = range(3)  # what a worker says in an ask or a push


class Lost(Exception):
    """The connection to the other side is broken: that rank has died."""


class Header(NamedTuple):
    """The first four numbers of a message, float64.

    Attributes:
        what: of an ask, PULL (send me the parameters) or DONE (I push no more: send me the final parameters when all
            workers are done). BYE in an ask or a push: I leave, and want no answer.
        step: the number of pushes that the worker made before.
        version: of an answer, the version of the parameters; of a push, the version that the gradient was computed
            from; of an ask, the last version that the worker read.
        weight: of a push, the weight of the gradient: the number of samples or tokens that it is a mean over.
    """

    what: float = PULL
    step: float = 0
    version: float = 0
    weight: float = 0


HEADER_BYTES = 8 * len(Header._fields)


class Message:
    """Memory for a header and, behind it, the vector of a shard: both leave and arrive together.

    Attributes:
        memory: all of it, uint8.
        vector: a view of what is behind the header, (elements,).
    """

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

    def copy(self) -> "Message":
        """The same header and vector in memory of their own."""
        twin = Message(len(self.vector), self.vector.dtype)
        twin.memory.copy_(self.memory)
        return twin


class Line:
    """The connection between a worker and the server of one shard, seen from one of its ends; `peer` is the other."""

    def __init__(self, group: dist.ProcessGroup, peer: int, shard: int) -> None:
        self.group, self.peer, self.shard = group, peer, shard
        self.sent_bytes = 0

    def send(self, message: Message, mb: int, **names: str) -> dist.Work:
        """Starts to send `message`, which must stay as it is until `wait_for` returns; Lost if the peer is dead."""
        self.sent_bytes += message.memory.nbytes
        return self._issue(self.group.send, message, mb, names)

    def receive(self, message: Message, mb: int, **names: str) -> dist.Work:
        """Starts to receive into `message`, which is whole when `wait_for` returns; Lost if the peer is dead."""
        return self._issue(self.group.recv, message, mb, names)

    def _issue(self, call, message: Message, mb: int, names: dict[str, str]) -> dist.Work:
        try:
            with tag(part=self.shard, mb=mb, **names):
                return call([message.memory], self.peer, tags.parameter_server(self.shard))
        except RuntimeError as error:
            raise Lost(str(error)) from error


ASK = {"kind": "ask", "phase": "forward"}
ANSWER = {"phase": "forward"}
PUSH = {"phase": "backward"}


def wait_for(work: dist.Work) -> None:
    """Waits until a message has arrived; Lost if the other side died before."""
    try:
        work.wait()
    except RuntimeError as error:
        raise Lost(str(error)) from error


def answered(shard: int, workers: int, servers: int) -> list[int]:
    """The workers in the order in which the server of `shard` answers them, if they all wait.

    They are served in groups of as many as there are servers, and each server begins a group with another worker.
    """
    return sorted(range(workers), key=lambda worker: (worker // servers, (worker - shard) % servers))


def asked(worker: int, servers: int) -> list[int]:
    """The shards in the order in which `worker` asks for them: the workers of a group begin with different ones."""
    return [(worker - k) % servers for k in range(servers)]


def plan(workers: int, servers: int, steps: int = 1, *, finish: bool = False, axis: str = "") -> Plan:
    """`steps` steps under a rule that keeps all workers in step; ranks 0 to `servers` - 1 serve, the others work.

    The part of an op is its shard. Asks hold nobody up here: they are short, and travel while the worker would wait
    anyway. With `finish` all workers pull the final parameters at the end.
    """
    for name, value in (("workers", workers), ("servers", servers), ("steps", steps)):
        whole(name, value)
    ops: list[Op] = []
    needs: dict[Op, list[Op]] = {}
    for mb in range(steps + finish):
        for server in range(servers):
            turns = [Exchange.of(servers + worker, server, mb, axis) for worker in answered(server, workers, servers)]
            ops += _server_step(server, turns, mb, mb == steps, needs)
        for worker in range(workers):
            turns = [Exchange.of(servers + worker, shard, mb, axis) for shard in asked(worker, servers)]
            ops += _worker_step(servers + worker, turns, mb, mb == steps, needs)
    return Plan.of(ops, needs, ranks=workers + servers)


class Exchange(NamedTuple):
    """The messages of one gradient between a worker and a server; each is the sender's op and the receiver's."""

    ask: tuple[Op, Op]
    answer: tuple[Op, Op]
    push: tuple[Op, Op]

    @classmethod
    def of(cls, rank: int, server: int, mb: int, axis: str) -> "Exchange":
        """Those of gradient number `mb` of the worker that is rank `rank`."""

        def message(sender: int, receiver: int, phase: str, kinds: tuple[str, str] = ("send", "recv")) -> tuple[Op, Op]:
            sent = Op(sender, kinds[0], server, mb, receiver, SEND, axis, phase)
            return sent, Op(receiver, kinds[1], server, mb, sender, RECV, axis, phase)

        ask = message(rank, server, "forward", ("ask", "ask"))
        return cls(ask, message(server, rank, "forward"), message(rank, server, "backward"))


def _server_step(server: int, turns: list[Exchange], mb: int, last: bool, needs: dict) -> list[Op]:
    """Answer each worker in its turn and listen for its push; when all have pushed, update. At last, only answer."""
    update = Op(server, "update", server, mb, phase="step")
    needs |= {turn.ask[1]: [turn.ask[0]] for turn in turns}
    needs |= {turn.answer[0]: [update._replace(mb=mb - 1)] for turn in turns if mb}
    if last:
        return [turn.ask[1] for turn in turns] + [turn.answer[0] for turn in turns]
    needs[update] = [turn.push[1] for turn in turns]
    return [op for turn in turns for op in (turn.ask[1], turn.answer[0], turn.push[1])] + [update]


def _worker_step(rank: int, turns: list[Exchange], mb: int, last: bool, needs: dict) -> list[Op]:
    """Pull every shard, forward, backward, push every shard. At last, only pull."""
    pulls = [op for turn in turns for op in (turn.ask[0], turn.answer[1])]
    if last:
        return pulls
    forward, backward, pushes = Op(rank, "F", 0, mb), Op(rank, "B", 0, mb), [turn.push[0] for turn in turns]
    needs |= {forward: [turn.answer[1] for turn in turns], backward: [forward]} | {push: [backward] for push in pushes}
    return [*pulls, forward, backward, *pushes]


def members(group: dist.ProcessGroup | None, servers: int) -> dist.ProcessGroup:
    """The group, if `servers` of its ranks can serve.

    Raises:
        TypeError, ValueError: `servers` is no whole number from 1, or no rank is left to work.
    """
    whole("servers", servers)
    group = member(group)
    if servers >= group.size():
        raise ValueError(f"servers={servers} of {group.size()} ranks leaves no worker: use fewer servers or more ranks")
    return group
