"""What workers and servers send to each other, and how a rank waits for it.

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
from parallel_lab.runtime.group import member
from parallel_lab.trace import tag

PULL, DONE, BYE = range(3)  # what a worker says in an ask or a push
_TAG = 1 << 22  # clear of the tags of collectives and of the headers of emulated links


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
    """The connection between a worker and the server of one shard, seen from one of its ends.

    Args:
        group: the group of servers and workers.
        peer: the rank of the other end in `group`.
        shard: which shard the messages are about.
    """

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
                return call([message.memory], self.peer, _TAG + self.shard)
        except RuntimeError as error:
            raise Lost(str(error)) from error


ASK = {"kind": "ask", "phase": "forward"}
ANSWER = {"phase": "forward"}
PUSH = {"phase": "backward"}


def wait_for(work: dist.Work) -> None:
    """Waits until a message has arrived.

    Raises:
        Lost: the other side died before.
    """
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


def members(group: dist.ProcessGroup | None, servers: int) -> dist.ProcessGroup:
    """The group, if `servers` of its ranks can serve.

    Raises:
        TypeError: `servers` is no whole number.
        ValueError: it is below 1, or no rank is left to work.
    """
    whole("servers", servers)
    group = member(group)
    if servers >= group.size():
        raise ValueError(f"servers={servers} of {group.size()} ranks leaves no worker: use fewer servers or more ranks")
    return group
