"""Where one worker is served: its thread on a server, and the buffer that this thread uses."""

from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.parameter_server import wire
from parallel_lab.parameter_server.shard import Shard
from parallel_lab.parameter_server.wire import Header


class House(Protocol):
    """What a desk asks of its server."""

    def shard(self, index: int) -> Shard:
        """The shard of an index; it may have to be fetched from a snapshot first."""
        ...

    def told(self, worker: int, step: int) -> None:
        """A worker has made `step` steps."""
        ...

    def leave(self, worker: int) -> None:
        """A worker pushes no more."""
        ...


class Desk:
    """Serves one worker, one request after another.

    A server that holds several shards, because others died, answers a worker's requests for them in their order. So
    what a request says of the worker is passed on to all shards at once: the next may have to wait behind this one.

    Args:
        peer: the worker's rank in `group`. worker: its index among the workers. house: the server.
    """

    def __init__(self, group: dist.ProcessGroup, peer: int, worker: int, house: House) -> None:
        self.group, self.peer, self.worker, self.house = group, peer, worker, house
        self.sent_bytes = 0
        self._gradients: dict[int, Tensor] = {}  # shard -> the worker's gradient

    def serve(self) -> None:
        """Answers requests until the worker says BYE; `wire.Lost` if its connection breaks."""
        while (header := wire.receive_header(self.group, self.peer)).what != wire.BYE:
            shard = self.house.shard(header.shard)
            if header.shard not in self._gradients:
                self._gradients[header.shard] = torch.empty_like(shard.parameter, requires_grad=False)
                shard.seen(header.version)
            if header.what == wire.PUSH:
                self._take(shard, header)
            else:
                self._answer(shard, header)

    def _take(self, shard: Shard, header: Header) -> None:
        gradient = self._gradients[header.shard]
        if gradient.numel():
            wire.wait_for(wire.receive(self.group, gradient, self.peer, header.shard, header.step))
        shard.push(self.worker, header, gradient)

    def _answer(self, shard: Shard, header: Header) -> None:
        if header.what == wire.PULL:
            self.house.told(self.worker, header.step)
        else:
            self.house.leave(self.worker)
        with (shard.pull if header.what == wire.PULL else shard.final)(self.worker) as reply:
            wire.wait_for(wire.send(self.group, reply, self.peer, header.shard, header.step))
        self.sent_bytes += reply.nbytes
