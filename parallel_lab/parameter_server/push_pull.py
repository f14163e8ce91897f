"""A sum through servers in pieces, so that the pull of one piece overlaps the push of the next.

Jiang et al., "A unified architecture for accelerating distributed DNN training in heterogeneous GPU/CPU clusters",
OSDI 2020 (BytePS), sections 3 and 4.

Idea: a worker's link is full-duplex. If it first pushes everything and then pulls everything, one direction always
stands idle. Here each server's shard is cut in pieces. As soon as all workers have pushed a piece, its sum goes out,
while the workers push the next piece.

With n workers, k servers, and S bytes:

| rank   | bytes sent | messages sent | slots, of S / (k pieces) bytes each |
|--------|------------|---------------|-------------------------------------|
| worker | S          | k pieces      | pieces max(n, k) + ceil(n / k) k    |
| server | n S / k    | n pieces      | the same                            |

In a slot each server takes a piece from another worker, and sends one to another worker; slots that the last group of
workers leaves empty go to the next piece. Without latency that is (max(1, n / k) + ceil(n / k) / pieces) S / W seconds,
for two workers or more. With n servers and many pieces it comes near S / W, half of what a ring needs: the servers
bring links of their own. What the servers hold is a sum only; `server` has the optimizer and the rules.
"""

from collections.abc import Iterator
from functools import lru_cache

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.agree.arguments import whole
from parallel_lab.collectives.chunks import ChunkPlan, Message, assemble, leaves
from parallel_lab.collectives.execute import execute
from parallel_lab.parameter_server.wire import members


@lru_cache(maxsize=64)
def push_pull_plan(workers: int, servers: int, pieces: int = 1) -> ChunkPlan:
    """All workers end with the sum; the first ranks serve, and put in zeros. Part `server * pieces + i` is a piece."""
    for name, value in (("workers", workers), ("servers", servers), ("pieces", pieces)):
        whole(name, value)
    return assemble(servers + workers, _messages(workers, servers, pieces), leaves(servers * pieces), ahead=1)


def _messages(workers: int, servers: int, pieces: int) -> Iterator[Message]:
    turns = list(_turns(workers, servers))
    slots = 1 + max(slot for slot, _, _ in turns)
    for piece in range(pieces):
        for slot, worker, server in turns:
            part, first = server * pieces + piece, piece * slots + slot
            yield Message(first, servers + worker, server, part, reduce=True)
            yield Message(first + slots, server, servers + worker, part)


def _turns(workers: int, servers: int) -> Iterator[tuple[int, int, int]]:
    """Slot, worker and server of each message of a piece: in a slot nobody has two."""
    for worker in range(workers):
        group, place = divmod(worker, servers)
        for server in range(servers):
            yield group * servers + (place - server) % servers, worker, server


@torch.no_grad()
def push_pull(tensor: Tensor, *, servers: int = 1, pieces: int = 1, group: dist.ProcessGroup | None = None) -> None:
    """On each worker `tensor` becomes the sum over the workers; on a server it is scratch, of the same shape."""
    group = members(group, servers)
    if group.rank() < servers:
        tensor.zero_()
    execute(push_pull_plan(group.size() - servers, servers, pieces), tensor, group)
