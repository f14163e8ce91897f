"""A worker: pulls the parameters w, computes the gradient g on its own data, pushes g.

Li et al. 2014, section 2.2 and algorithm 1; Dean et al. 2012, section 4.1. What it sends and holds stands in `server`.
"""

import contextlib
import math
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab.agree.finite import require_finite
from parallel_lab.agree.same_model import check_same_model
from parallel_lab.parameter_server import wire
from parallel_lab.parameter_server.shards import Homes, bounds, trainable
from parallel_lab.parameter_server.wire import BYE, DONE, PULL, Header, Line, Lost, Message


class Worker:
    """This rank as a worker; the ranks of `group` before it call `serve`.

    On the CPU, parameters and gradients become views of the messages in which they travel. A gradient that is zeroed
    (`zero_grad(set_to_none=False)`) and not replaced stays one, and need not be copied. The seams of spares are `read`,
    which asks all servers, and `lost`, which is called when one has died.

    Attributes:
        index: which worker this is, from 0.
        workers: how many workers there are.
        step: the number of pushes made.

    Raises:
        TypeError, ValueError: before the first message, if the number makes no sense or this rank's model differs.
    """

    def __init__(self, model: nn.Module, *, servers: int = 1, group: dist.ProcessGroup | None = None) -> None:
        self.group = wire.members(group, servers)
        self.model, self.step = model, 0
        self.index, self.workers = self.group.rank() - servers, self.group.size() - servers
        self.order = wire.asked(self.index, servers)
        self.lines = [Line(self.group, server, server) for server in range(servers)]
        self.versions = [-1] * servers  # of each shard, the version read last
        self._may = "pull"  # what this worker may do next
        self._parameters = list(trainable(model).values())
        sizes = [cut.stop - cut.start for cut in bounds(sum(p.numel() for p in self._parameters), servers)]
        self._answers = [Message(size, self._parameters[0].dtype) for size in sizes]
        self._pushes = [Message(size, self._parameters[0].dtype) for size in sizes]
        check_same_model(model, self.group, servers=servers)
        self._w = Homes(self._parameters, [answer.vector for answer in self._answers])
        self._g = Homes(self._parameters, [push.vector for push in self._pushes])
        for p, w, g in zip(self._parameters, self._w.tensors, self._g.tensors, strict=True):
            p.data = w.copy_(p.data)
            p.grad = g.zero_() if p.grad is None else g.copy_(p.grad)

    @property
    def sent_bytes(self) -> int:
        """What left this rank, in bytes."""
        return sum(line.sent_bytes for line in self.lines)

    def pull(self) -> int:
        """Waits until every server lets this worker pull, and writes the parameters into the model.

        It returns the version that was read; of several servers, which count for themselves, the oldest one.
        """
        self._require("pull")
        # With as many servers as workers, ask one at a time: no two servers answer a worker while another waits. With
        # fewer, ask all: each server answers in an order of its own, for which it has to know who waits.
        self.read(PULL, together=self.workers > len(self.lines))
        self._may = "push"
        return min(self.versions)

    @torch.no_grad()
    def push(self, count: float = 1) -> None:
        """Sends the gradients in `.grad`; returns when they have left this rank. A missing gradient counts as zeros.

        Args:
            count: how many samples (or tokens) the gradients are the mean over, their weight in a mean over workers.

        Raises:
            ValueError: a gradient is not finite, or it is not the time to push; nothing is sent.
        """
        self._require("push")
        if not (math.isfinite(count) and count >= 0):
            raise ValueError(f"worker {self.index}: push(count={count}): expected a finite number of at least 0")
        require_finite(self.model, f"worker {self.index}, step {self.step}")
        for p, g in zip(self._parameters, self._g.tensors, strict=True):
            if p.grad is None:
                g.zero_()
            elif p.grad.data_ptr() != g.data_ptr() or p.grad.stride() != g.stride():
                g.copy_(p.grad)
        self._may = "nothing"  # should it fail
        for shard in self.order:  # one after another: they share this rank's way out, and each arrives the sooner
            self.send(shard, Header(PULL, self.step, self.versions[shard], count))
        self.step, self._may = self.step + 1, "pull"

    def finish(self) -> int:
        """Takes the final parameters once all workers have finished, left or died; returns their version."""
        self._require("pull")
        self.read(DONE, together=True)
        self._may = "nothing"
        return min(self.versions)

    def leave(self) -> None:
        """Leaves the servers, which go on without this worker; returns once they have heard of it."""
        for shard in self.order:
            with contextlib.suppress(Lost, RuntimeError):
                if self._may == "push":
                    self.send(shard, Header(BYE, self.step))
                elif self._may == "pull":
                    for work in self.ask(shard, BYE):
                        wire.wait_for(work)
        self._may = "nothing"

    def read(self, what: int, together: bool) -> None:
        """Asks every server for its shard and waits for the answers; `together` asks all before it waits."""
        self._may = "nothing"  # should it fail
        under_way = {}
        for shard in self.order:
            with self._reaching(shard):
                under_way[shard] = self.ask(shard, what)
                if not together:
                    self.receive(shard, under_way.pop(shard))
        for shard, works in under_way.items():
            with self._reaching(shard):
                self.receive(shard, works)

    def ask(self, shard: int, what: int) -> list[dist.Work]:
        """Starts an ask, and the receive of its answer if it has one."""
        ask = Message()
        ask.header = Header(what, self.step, self.versions[shard])
        works = [self.lines[shard].send(ask, self.step, **wire.ASK)]
        if what != BYE:
            works.append(self.lines[shard].receive(self._answers[shard], self.step, **wire.ANSWER))
        return works

    def receive(self, shard: int, works: list[dist.Work]) -> None:
        """Waits for an answer, and copies what cannot be received to where it belongs."""
        for work in reversed(works):  # the answer, and then what asked for it
            wire.wait_for(work)
        self.versions[shard] = int(self._answers[shard].header.version)
        self._w.arrived(shard)

    def send(self, shard: int, header: Header) -> None:
        """Sends a push to one server."""
        self._pushes[shard].header = header
        self._g.leaving(shard)
        with self._reaching(shard):
            wire.wait_for(self.lines[shard].send(self._pushes[shard], self.step, **wire.PUSH))

    @contextlib.contextmanager
    def _reaching(self, shard: int) -> Iterator[None]:
        line = self.lines[shard]
        try:
            yield
        except Lost as error:
            self.lost(shard, error, line)

    def lost(self, shard: int, error: Lost, line: Line) -> None:
        """A seam: what to do when the server at the other end of `line` has died; here, RuntimeError."""
        why = str(error).split("] ", 1)[-1].split(". ")[0]  # without gloo's source line and advice
        server = f"server rank {line.peer} of the group"
        raise RuntimeError(f"worker {self.index}: {server} is gone, and with it shard {shard} ({why})") from None

    def _require(self, what: str) -> None:
        if self._may == what:
            return
        advice = {
            "nothing": "it has finished or left: make another Worker.",
            "pull": "push() without a pull() before it: pull at the start of each step.",
            "push": "nothing was pushed since the last pull(): push a gradient, or leave().",
        }
        raise ValueError(f"worker {self.index}: {advice[self._may]}")
