"""A worker: pulls the parameters w, computes the gradient g on its own data, pushes g.

Li et al. 2014, section 2.2 and algorithm 1; Dean et al. 2012, section 4.1. What it sends and holds stands in `server`.
"""

import contextlib
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab.agree.arguments import number
from parallel_lab.agree.finite import require_finite
from parallel_lab.agree.same_model import check_same_model
from parallel_lab.parameter_server import wire
from parallel_lab.parameter_server.shards import Homes, bounds, trainable
from parallel_lab.parameter_server.wire import BYE, DONE, PULL, Header, Line, Lost, Message
from parallel_lab.trace import recorder


class Worker:
    """This rank as a worker; the ranks of `group` before it call `serve`.

    It is number `index` of `workers` and has made `step` pushes. On the CPU, parameters and gradients become views of
    the messages in which they travel. A gradient that is zeroed (`zero_grad(set_to_none=False)`) and not replaced stays
    one, and need not be copied.

    Raises:
        TypeError, ValueError: before the first message, if the number makes no sense or this rank's model differs.
    """

    def __init__(self, model: nn.Module, *, servers: int = 1, group: dist.ProcessGroup | None = None) -> None:
        group = wire.members(group, servers)
        self.model, self.step = model, 0
        self.index, self.workers = group.rank() - servers, group.size() - servers
        self.order = wire.asked(self.index, servers)
        self.lines = [Line(group, server, server) for server in range(servers)]
        self.versions = [-1] * servers  # of each shard, the version read last
        self._may = "pull"  # what this worker may do next
        self._parameters = list(trainable(model).values())
        cuts, dtype = bounds(sum(p.numel() for p in self._parameters), servers), self._parameters[0].dtype
        self._answers, self._pushes = ([Message(cut.stop - cut.start, dtype) for cut in cuts] for _ in range(2))
        check_same_model(model, group, servers=servers)
        self._sent_before = recorder().sent_bytes
        self._w = Homes(self._parameters, [answer.vector for answer in self._answers])
        self._g = Homes(self._parameters, [push.vector for push in self._pushes])
        for p, w, g in zip(self._parameters, self._w.tensors, self._g.tensors, strict=True):
            p.data = w.copy_(p.data)
            p.grad = g.zero_() if p.grad is None else g.copy_(p.grad)

    @property
    def sent_bytes(self) -> int:
        """What has left this rank since it became a worker."""
        return recorder().sent_bytes - self._sent_before

    def pull(self) -> int:
        """Writes the parameters into the model once every server lets this worker; returns their (oldest) version."""
        self._begin("pull")
        # With as many servers as workers, ask one at a time: no two servers answer a worker while another waits. With
        # fewer, ask all: each server answers in an order of its own, for which it has to know who waits.
        self.read(PULL, together=self.workers > len(self.lines))
        self._may = "push"
        return min(self.versions)

    @torch.no_grad()
    def push(self, count: float = 1) -> None:
        """Sends the gradients in `.grad`, the mean over `count` samples (or tokens); a missing one counts as zeros.

        Raises:
            ValueError: a gradient is not finite, or it is not the time to push; nothing is sent.
        """
        number("count", count)
        require_finite(self.model, f"worker {self.index}, step {self.step}")
        self._begin("push")
        for p, g in zip(self._parameters, self._g.tensors, strict=True):
            if p.grad is None:
                g.zero_()
            elif p.grad.data_ptr() != g.data_ptr() or p.grad.stride() != g.stride():
                g.copy_(p.grad)
        for shard in self.order:  # one after another: they share this rank's way out, and each arrives the sooner
            self.send(shard, Header(PULL, self.step, self.versions[shard], count))
        self.step, self._may = self.step + 1, "pull"

    def finish(self) -> int:
        """Takes the final parameters once all workers have finished, left or died; returns their version."""
        self._begin("pull")
        self.read(DONE, together=True)
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
        """Waits for an answer, and copies to where it belongs what could not be received there."""
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
        try:
            yield
        except Lost as error:
            self.lost(shard, error)

    def lost(self, shard: int, error: Lost) -> None:
        """A seam: what to do when the server of `shard` has died; here, RuntimeError."""
        why = str(error).split("] ", 1)[-1].split(". ")[0]  # without gloo's source line and advice
        gone = f"server rank {self.lines[shard].peer} of the group is gone, and with it shard {shard} ({why})"
        raise RuntimeError(f"worker {self.index}: {gone}") from None

    def _begin(self, what: str) -> None:
        """Looks whether it is time to pull or push; should that fail, nothing may follow."""
        if self._may != what:
            advice = {
                "nothing": "it has finished or left: make another Worker.",
                "pull": "push() without a pull() before it: pull at the start of each step.",
                "push": "nothing was pushed since the last pull(): push a gradient, or leave().",
            }
            raise ValueError(f"worker {self.index}: {advice[self._may]}")
        self._may = "nothing"
